"""Batches limited by count, atoms and edges: every graph once a pass, in an order that can be entered anywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.refusals import refusal_of
from zoo.data.batches import BatchLimits, BatchPlan, BatchStream, cut
from zoo.data.emt import emt_frames
from zoo.data.label_counts import LabelCounts
from zoo.data.loader import GraphDataset, StoredGraphs
from zoo.edges import GraphRecipe
from zoo.errors import ZooError
from zoo.graph import AtomGraph, collate
from zoo.training.config import LossConfig, TrainingConfig
from zoo.training.losses import loss_terms, weighted_sum
from zoo.training.plan import Plan
from zoo.training.validation_batches import ValidationBatches

FRAMES = emt_frames(29, 4, "some")
LIMITS = [
    BatchLimits(None, atoms=20),
    BatchLimits(None, edges=700),
    BatchLimits(3, atoms=30),
    BatchLimits(4, atoms=40, edges=900),
    BatchLimits(4),
]


@pytest.fixture(scope="module")
def graphs() -> GraphDataset:
    return GraphDataset(FRAMES, GraphRecipe(4.0))


def ids(batches: Any) -> list[tuple[int, ...]]:
    return [tuple(batch.frame_id.tolist()) for batch in batches]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_every_graph_comes_once_a_pass_within_the_limits(graphs, limits):
    plan = BatchPlan(graphs, limits, seed=1)
    seen = []
    for number in range(3):
        batches = plan.batches_of_pass(number)
        assert plan.batches_in_pass(number) == len(batches)
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(graphs)))
        for one, after in zip(batches, [*batches[1:], None], strict=True):
            sizes = {"graphs": len(one), "atoms": graphs.atom_counts[one].sum(), "edges": graphs.edge_counts[one].sum()}
            assert all(sizes[name] <= limit for name in sizes if (limit := getattr(limits, name)) is not None)
            if after is not None:  # as large as they can be
                more = np.append(one, after[0])
                sizes = {"graphs": len(more), "atoms": graphs.atom_counts[more].sum(), "edges": graphs.edge_counts[more].sum()}
                assert any(sizes[name] > limit for name in sizes if (limit := getattr(limits, name)) is not None)
        seen.append(np.concatenate(batches).tolist())
    assert seen[0] != seen[1] != seen[2]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("first_step", [0, 1, 6, 11, 23])
def test_a_resumed_stream_gives_the_batches_that_are_left(graphs, limits, first_step):
    whole = ids(BatchStream(graphs, limits, steps=25, seed=1))
    assert len(whole) == 25
    assert ids(BatchStream(graphs, limits, steps=25, seed=1, first_step=first_step)) == whole[first_step:]
    backwards = BatchStream(graphs, limits, steps=25, seed=1)
    assert ids(backwards.batch(step) for step in reversed(range(25))) == whole[::-1]


def test_a_count_cuts_as_it_always_did(graphs):
    plan = BatchPlan(graphs, BatchLimits(4), seed=7)
    assert [len(batch) for batch in plan.batches_of_pass(0)] == [4] * 7 + [1]


@pytest.mark.parametrize("readers", [1, 2])
def test_processes_that_read_ahead_change_no_batch_and_draw_no_random_number(graphs, tmp_path, monkeypatch, readers):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    stored = StoredGraphs(FRAMES, GraphRecipe(4.0), 1)
    expected = list(BatchStream(graphs, BatchLimits(None, atoms=30), steps=14, seed=1, first_step=3))
    state = torch.random.get_rng_state()
    for found, one in zip(
        BatchStream(stored, BatchLimits(None, atoms=30), steps=14, seed=1, first_step=3, readers=readers), expected, strict=True
    ):
        assert found.keys() == one.keys()
        assert (found.graph_count, found.source) == (one.graph_count, one.source)
        for name in ("positions", "edge_index", "edge_shift", "forces", "energy", "batch"):
            assert torch.equal(found[name], one[name]), name
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_error_of_a_reader_is_that_of_the_run(graphs):
    class Broken:
        def batch(self, step: int) -> AtomGraph:
            raise ZooError(f"step {step} cannot be read")

    from zoo.data.batches import read_ahead

    assert refusal_of(next, read_ahead(Broken(), range(2, 4), 1)) == "step 2 cannot be read"


def test_a_graph_beyond_a_limit_is_refused_with_its_frame_and_validated_alone(graphs):
    largest = int(graphs.atom_counts.argmax())
    atoms = int(graphs.atom_counts[largest])
    refusal = refusal_of(BatchPlan, graphs, BatchLimits(None, atoms=atoms - 1), 0)
    assert f"some: frame {largest} has {atoms} atoms, more than training.max_atoms_per_batch={atoms - 1}" in refusal
    assert "training.max_edges_per_batch=1" in refusal_of(BatchPlan, graphs, BatchLimits(4, edges=1), 0)
    batches = ValidationBatches(graphs, BatchLimits(None, atoms=atoms - 1), torch.device("cpu"))
    assert [frame for one in ids(batches) for frame in one] == list(range(len(graphs)))


def test_ranges_are_cut_greedily():
    sizes = np.array([3, 4, 5, 9, 1, 1])
    assert cut([(sizes, 8)]) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert cut([(sizes, 100), (np.ones(6, dtype=np.int64), 4)]) == [(0, 4), (4, 6)]


def test_epochs_are_counted_in_the_batches_that_there_are(graphs):
    plan = BatchPlan(graphs, BatchLimits(None, atoms=20), 0)
    counts = [plan.batches_in_pass(number) for number in range(3)]
    settings: dict[str, Any] = {"batch_size": None, "max_atoms_per_batch": 20}
    assert Plan.of(TrainingConfig(epochs=2, **settings), plan).steps == sum(counts[:2])
    assert Plan.of(TrainingConfig(epochs=2.5, **settings), plan).steps == sum(counts[:2]) + counts[2] // 2
    warm = TrainingConfig(epochs=3, schedule={"warmup_epochs": 1}, **settings)  # type: ignore[arg-type]
    assert Plan.of(warm, plan) == Plan(sum(counts), counts[0], counts[0])


def test_a_batch_without_any_limit_is_refused():
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="max_atoms_per_batch"):
        TrainingConfig(batch_size=None)
    assert TrainingConfig(batch_size=None, max_edges_per_batch=5).batch_limits == BatchLimits(None, edges=5)


def _gradient(weight: torch.Tensor, batch: AtomGraph, config: LossConfig, per_batch: LabelCounts | None) -> torch.Tensor:
    """Of a model whose energy and forces are linear in one weight a direction."""
    per_atom = torch.zeros(batch.graph_count, dtype=torch.float64).index_add(
        0, batch.graph_of_atom, (batch.positions @ weight[:, :1]).flatten()
    )
    results = {"energy": per_atom, "forces": batch.positions @ weight[:, 1:4], "stress": batch.cell @ weight[:, 4:7]}
    loss = weighted_sum(loss_terms(results, batch, config, per_batch), config)
    (gradient,) = torch.autograd.grad(loss, weight)
    return gradient


@pytest.mark.parametrize("kind", ["mse", "mae", "huber"])
def test_over_a_pass_every_label_weighs_the_same_whatever_batch_it_came_in(graphs, kind):
    weight = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    config = LossConfig(energy={"weight": 2.0, "kind": kind}, forces={"weight": 3.0, "kind": kind}, stress={"weight": 50.0, "kind": kind})  # type: ignore[arg-type]
    whole = _gradient(weight, collate(list(graphs)), config, None)
    plan = BatchPlan(graphs, BatchLimits(None, atoms=26), 3)
    batches = [collate([graphs[index] for index in one.tolist()]) for one in plan.batches_of_pass(0)]
    assert len({batch.graph_count for batch in batches}) > 2
    per_batch = LabelCounts.of(FRAMES).per_batch(len(batches))
    weighted = torch.stack([_gradient(weight, batch, config, per_batch) for batch in batches]).mean(dim=0)
    plain = torch.stack([_gradient(weight, batch, config, None) for batch in batches]).mean(dim=0)
    torch.testing.assert_close(weighted, whole, rtol=1e-12, atol=1e-12)
    assert float((plain - whole).abs().max() / whole.abs().max()) > 1e-3  # the fault that the weights repair


def test_the_mean_batch_has_the_labels_of_the_frames_over_their_number():
    counts = LabelCounts.of(FRAMES)
    assert counts.energy == len(FRAMES)
    assert counts.forces == sum(map(len, FRAMES))
    assert 0 < counts.stress < len(FRAMES)
    assert math.isclose(counts.per_batch(4).forces, counts.forces / 4)
