"""Batches in an order that depends on seed and epoch alone, continued in the middle by Lightning."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from zoo.data.emt import emt_frames
from zoo.data.frame import Frame
from zoo.data.loader import GraphDataset, ResumableLoader
from zoo.errors import ZooError
from zoo.graph import AtomGraph


@pytest.fixture(scope="module")
def graphs() -> GraphDataset:
    return GraphDataset(emt_frames(11, 4, "some"), cutoff_angstrom=4.0)


def ids(batches: Any) -> list[tuple[int, ...]]:
    return [tuple(batch.frame_id.tolist()) for batch in batches]


def test_every_graph_comes_once_an_epoch_and_the_last_batch_is_kept(graphs: GraphDataset) -> None:
    loader = ResumableLoader(graphs, batch_size=4, seed=1)
    given = ids(loader)
    assert [len(batch) for batch in given] == [4, 4, 3]
    assert len(loader) == 3
    assert sorted(sum(given, ())) == list(range(11))


def test_the_order_depends_on_seed_and_epoch_alone(graphs: GraphDataset) -> None:
    loader = ResumableLoader(graphs, batch_size=4, seed=1)
    first, second = ids(loader), ids(loader)
    assert first != second
    torch.manual_seed(99)
    np.random.seed(99)  # the global state must not matter
    again = ResumableLoader(graphs, batch_size=4, seed=1)
    assert [ids(again), ids(again)] == [first, second]
    assert ids(ResumableLoader(graphs, batch_size=4, seed=2)) != first


def test_without_a_seed_the_order_is_that_of_the_graphs(graphs: GraphDataset) -> None:
    loader = ResumableLoader(graphs, batch_size=4)
    assert ids(loader) == ids(loader) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10)]


@pytest.mark.parametrize("given", range(7))
def test_a_state_continues_with_the_batches_that_were_not_given(graphs: GraphDataset, given: int) -> None:
    whole = ResumableLoader(graphs, batch_size=4, seed=1)
    expected = ids(whole) + ids(whole) + ids(whole)
    stopped = ResumableLoader(graphs, batch_size=4, seed=1)
    iterator = iter(stopped)
    for index in range(given):
        if index and index % 3 == 0:
            iterator = iter(stopped)
        next(iterator)
    resumed = ResumableLoader(graphs, batch_size=4, seed=1)
    resumed.load_state_dict(stopped.state_dict())
    iter(resumed)  # Lightning creates an iterator it may not use
    rest = []
    while len(rest) + given < 9:
        rest += ids(resumed)
    assert rest == expected[given:]


def test_a_state_of_another_run_is_refused(graphs: GraphDataset) -> None:
    with pytest.raises(ZooError, match=r"3 batches an epoch, this run has 6"):
        ResumableLoader(graphs, 2, seed=1).load_state_dict(ResumableLoader(graphs, 4, seed=1).state_dict())
    with pytest.raises(ZooError, match="batch_size is 0"):
        ResumableLoader(graphs, 0)


def test_frames_of_several_atoms_without_a_pair_are_refused_and_single_atoms_are_not() -> None:
    apart = Frame.unlabelled(Atoms("H2", positions=[[0, 0, 0], [9, 0, 0]]), "far.xyz", 3)
    alone = Frame.unlabelled(Atoms("H"), "one.xyz")
    assert len(GraphDataset([alone], 5.0)) == 1
    assert GraphDataset([apart], 9.5)[0].edge_index.shape == (2, 2)
    with pytest.raises(ZooError, match=r"far.xyz: frame 3 has 2 atoms but no pair within the cutoff of 5 Å; check its length unit"):
        GraphDataset([alone, apart], 5.0)


def _train(graphs: GraphDataset, folder: Path, stop_after: int | None, resume: Path | None, **limits: int) -> list[tuple[int, ...]]:
    """The batches a Lightning run sees; with ``stop_after`` it dies there, leaving a checkpoint of every step."""
    import lightning.pytorch as pl

    class Killed(RuntimeError):
        pass

    class Toy(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen: list[tuple[int, ...]] = []

        def training_step(self, batch: AtomGraph, batch_index: int) -> torch.Tensor:
            if stop_after is not None and len(self.seen) == stop_after:
                raise Killed
            self.seen.append(tuple(batch.frame_id.tolist()))
            return self.layer(batch.energy.float()[:, None]).mean()

        def validation_step(self, batch: AtomGraph, batch_index: int) -> None:
            self.log("loss", batch.energy.mean(), batch_size=1)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    saving = [
        pl.callbacks.ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
        pl.callbacks.ModelCheckpoint(folder, filename="end-{step}", every_n_epochs=1, save_on_train_epoch_end=True, save_top_k=-1),
    ]
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=saving, **limits)
    module = Toy()
    loaders = ResumableLoader(graphs, 4, seed=1), ResumableLoader(graphs, 4)
    try:
        trainer.fit(module, *loaders, ckpt_path=resume, weights_only=True)
    except Killed:
        assert stop_after is not None
    return module.seen


@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_steps": 9, "max_epochs": -1}], ids=["epochs", "steps"])
def test_lightning_resumed_at_any_step_sees_the_batches_of_the_whole_run(
    graphs: GraphDataset, tmp_path: Path, limits: dict[str, int]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = _train(graphs, tmp_path / "whole", None, None, **limits)
        assert len(expected) == 9
        assert expected[:3] != expected[3:6]
        for stop in range(1, 9):
            before = _train(graphs, tmp_path / str(stop), stop, None, **limits)
            # what is saved when an epoch has ended is restored by another path in Lightning
            saved = [f"step={stop}.ckpt"] + ([f"end-step={stop}.ckpt"] if stop % 3 == 0 else [])
            for name in saved:
                after = _train(graphs, tmp_path / "after", None, tmp_path / str(stop) / name, **limits)
                assert before + after == expected, f"resumed from {name}"
