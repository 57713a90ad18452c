"""The parts of a training run, looked at while it runs: what is evaluated, what is restored, what is refused."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest
import torch

from adapters.method import create_method
from zoo import load
from zoo.backbones import load_family
from zoo.choices import ModelChoice, choose_model
from zoo.compose import compose
from zoo.data.config import DataConfig
from zoo.data.loader import GraphDataset
from zoo.data.source import load_splits
from zoo.errors import ZooError
from zoo.evaluation.record import read_record
from zoo.potential import Potential
from zoo.training.artefacts import TestResults, summary_table
from zoo.training.config import LossConfig, RunConfig, TrainingConfig, parse_config
from zoo.training.module import FineTuning
from zoo.training.plan import Plan
from zoo.training.run import fine_tune
from zoo.training.sanity import check_labels, check_start, needed_labels
from zoo.training.validation import Validation


def _config(words: list[str], folder: Path) -> RunConfig:
    return parse_config(compose("train", [*words, f"run.folder={folder}", "run.name=run"]))


@pytest.fixture
def observe(monkeypatch):
    """``observe(look)``: ``look(module)`` is called at the start of every validation, with the evaluation weights in place."""

    def install(look):
        original = Validation._validate

        def validate(self, module):
            look(module)
            return original(self, module)

        monkeypatch.setattr(Validation, "_validate", validate)

    return install


SCHEDULE_FREE = ["training.optimizer.name=schedule_free_adamw", "training.ema_decay=null", "training.schedule.name=constant"]


@pytest.mark.parametrize("averages", [["training.ema_decay=0.9"], SCHEDULE_FREE], ids=["moving average", "schedule-free"])
def test_validation_sees_the_average_and_training_goes_on_from_the_live_weights_to_the_bit(averages, small_run, tmp_path, monkeypatch):
    seen: list[bool] = []
    original = FineTuning.evaluation_weights

    def watched(self):
        from contextlib import contextmanager

        @contextmanager
        def context():
            live = {name: value.detach().clone() for name, value in self.trainable.items()}
            with original(self):
                seen.append(any(not torch.equal(live[name], value) for name, value in self.trainable.items()))
                yield
            assert all(torch.equal(live[name], value) for name, value in self.trainable.items())

        return context()

    monkeypatch.setattr(FineTuning, "evaluation_weights", watched)
    fine_tune(_config([*small_run, *averages], tmp_path / "run"), say=lambda _: None)
    assert seen == [True] * 4


def test_validating_more_often_changes_no_training_step(small_run, tmp_path):
    # the last weights, before the best are chosen: schedule-free switches its weights for every validation
    states = []
    for every in (2, 12):
        folder = tmp_path / str(every)
        fine_tune(_config([*small_run, *SCHEDULE_FREE, f"training.validate_every={every}"], folder), say=lambda _: None)
        states.append(torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_checkpoint_holds_the_trained_tensors_and_not_the_base(small_run, tmp_path):
    result = fine_tune(_config([*small_run, "adapter.rank=2"], tmp_path / "run"), say=lambda _: None)
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == set(dict(result.potential.adapters.named_parameters()))
    assert sum(value.numel() for value in checkpoint["state_dict"].values()) == result.potential.adapters.trainable_count == 516


def test_base_is_untouched_and_result_holds_the_best_weights(small_run, tmp_path, toy_checkpoint):
    from safetensors.torch import load_file

    from adapters.state import base_fingerprint
    from zoo import load

    result = fine_tune(_config(small_run, tmp_path / "run"), say=lambda _: None)
    assert base_fingerprint(result.potential.backbone) == base_fingerprint(load(toy_checkpoint).backbone)
    (best,) = (tmp_path / "run/checkpoints").glob("kept-*")
    trained = dict(result.potential.adapters.named_parameters())
    assert all(torch.equal(value, trained[name]) for name, value in load_file(best).items())
    assert not result.potential.training


def test_training_lowers_the_validation_error(small_run, tmp_path):
    result = fine_tune(_config([*small_run, "training.optimizer.learning_rate=2e-2"], tmp_path / "run"), say=lambda _: None)
    before, after = result.results.zero_shot["valid"], result.results.fine_tuned["valid"]
    assert after["energy_mae_mev_per_atom"] < 0.8 * before["energy_mae_mev_per_atom"]


def test_early_stopping_ends_before_the_last_step_with_the_best_weights(small_run, tmp_path):
    words = [*small_run, "training.steps=60", "training.early_stopping_patience=2", "training.optimizer.learning_rate=0.3"]
    lines: list[str] = []
    fine_tune(_config(words, tmp_path / "run"), say=lines.append)
    (line,) = [line for line in lines if line.startswith("trained to step")]
    last, best = (int(word.rstrip(";")) for word in line.split() if word.rstrip(";").isdigit())
    assert last < 60
    assert last == best + 2 * 3


def test_the_last_weights_are_kept_where_a_run_asks_for_them(small_run, tmp_path, monkeypatch):
    """Of a run whose best validation is its first."""
    honest = Validation._validate
    rising = itertools.count(1.0)
    monkeypatch.setattr(Validation, "_validate", lambda self, module: {**honest(self, module), "valid/loss": next(rising)})
    words = [*small_run, "adapter=sparse_high"]
    assert _config(words, tmp_path / "run").training.keep == "last"
    lines: list[str] = []
    result = fine_tune(_config(words, tmp_path / "run"), say=lines.append)
    (line,) = [line for line in lines if line.startswith("trained to step")]
    assert line.endswith("best validation loss at step 3; the weights of step 12 are kept")
    last = list(csv.DictReader((tmp_path / "run/history.csv").open()))[-1]
    record = read_record(tmp_path / "run/record.json")
    assert record.adapter is not None
    assert record.adapter.report["sparsity_layerwise"] == pytest.approx(float(last["sparsity_layerwise"]), abs=1e-12)
    assert record.adapter.report == pytest.approx(result.potential.adapters.report())


def test_validation_that_is_not_a_number_is_refused_at_once(small_run, tmp_path, observe):
    def spoil(module):
        with torch.no_grad():
            next(iter(module.trainable.values())).fill_(float("nan"))

    observe(spoil)
    with pytest.raises(ZooError, match="step 3: the validation loss is not a number"):
        fine_tune(_config(small_run, tmp_path / "run"), say=lambda _: None)
    assert not list((tmp_path / "run/checkpoints").glob("kept-*"))


@pytest.fixture(scope="module")
def splits():
    return load_splits(DataConfig(n_train=7, n_valid=3, test=[]))


def test_start_that_should_be_the_base_and_is_not_is_refused(splits):
    potential = Potential(load_family("sevennet").toy(0))
    potential.adapters.add("elora", create_method("elora"), seed=0)
    batch = GraphDataset(splits.train, potential.backbone.graph_recipe)[0]
    lines: list[str] = []
    check_start(potential, batch, lines.append)
    assert lines == ["step 0 equals the zero-shot model bit for bit"]
    potential.adapters.randomise("elora", 0, 0.1)
    with pytest.raises(ZooError, match="step 0 differs from the base"):
        check_start(potential, batch, lines.append)


def test_stress_alone_must_be_there_for_every_frame(splits):
    alone = LossConfig(energy={"weight": 0}, forces={"weight": 0}, stress={"weight": 1})
    assert needed_labels(alone) == ["stress"]
    assert any(not frame.has_stress for frame in splits.train)
    with pytest.raises(ZooError, match=r"has no stress, which the loss weighs"):
        check_labels(splits, alone)
    check_labels(splits, LossConfig(stress={"weight": 1}))


def test_checkpoint_of_another_adapter_is_refused():
    def module(rank: int) -> FineTuning:
        potential = Potential(load_family("sevennet").toy(0))
        potential.adapters.add("a", create_method({"name": "elora", "rank": rank} if rank else "full"), seed=0)
        return FineTuning(potential, TrainingConfig(), Plan.of(TrainingConfig(), 5), {})

    state = module(2).state_dict()
    module(2).load_state_dict(state)
    with pytest.raises(ZooError, match="resume with the same config"):
        module(0).load_state_dict(state)


def test_zero_shot_errors_do_not_depend_on_the_adapter_that_was_trained(small_run, tmp_path):
    """A sparse adapter starts off the base; the base's reference energies must not be fitted through it."""
    words = [*small_run, "training.steps=1"]
    by_method = {}
    for method in ("elora", "sparse"):
        by_method[method] = fine_tune(_config([*words, f"adapter={method}"], tmp_path / method), say=lambda line: None)
    assert by_method["sparse"].results.zero_shot == by_method["elora"].results.zero_shot
    assert by_method["sparse"].results.fine_tuned != by_method["elora"].results.fine_tuned


SPARSE = ["adapter=sparse", "adapter.threshold_start=0.008", "adapter.tau_learning_rate=0.1", "training.optimizer.learning_rate=5e-3"]
PRINTED = [*SPARSE, "adapter.form=printed"]


@pytest.mark.parametrize(
    "words",
    [[*SPARSE, "training.ema_decay=0.9"], [*SPARSE, *SCHEDULE_FREE], [*PRINTED, "training.ema_decay=null"], [*PRINTED, *SCHEDULE_FREE]],
    ids=["str, moving average", "str, schedule-free", "printed, live", "printed, schedule-free"],
)
def test_reported_sparsity_is_that_of_the_saved_adapter(words, small_run, tmp_path):
    import csv

    result = fine_tune(_config([*small_run, *words], tmp_path / "run"), say=lambda _: None)
    saved = load(result.potential.source, adapter=tmp_path / "run/adapter.safetensors")
    (adapter,) = saved.adapters.active_adapters
    deltas = adapter.block_deltas()
    zeros = sum(int((delta == 0).sum()) for delta in deltas) / sum(delta.numel() for delta in deltas)
    (best,) = (tmp_path / "run/checkpoints").glob("kept-*")
    rows = {int(float(row["step"])): row for row in csv.DictReader((tmp_path / "run/history.csv").open())}
    assert 0.1 < zeros < 1
    assert float(rows[int(best.stem.split("-")[1])]["sparsity_layerwise"]) == pytest.approx(zeros, abs=1e-12)


def test_tensorboard_holds_each_validation_once_at_its_step(small_run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [word for word in small_run if "tensorboard" not in word]
    fine_tune(_config(words, tmp_path / "run"), say=lambda _: None)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("valid/loss")] == [3, 6, 9, 12]


def test_log_says_what_trains_how_it_starts_and_whose_the_rate_is(small_run, tmp_path):
    lines: list[str] = []
    words = [*small_run, "training.steps=1", "adapter.initialisation=scaled", "adapter.dense_substitution=when_smaller"]
    fine_tune(_config(words, tmp_path / "run"), say=lines.append)
    (line,) = [line for line in lines if line.startswith("adapter elora: trains")]
    assert "dense_substitution" in line
    assert "starts at the base" in line
    assert "rate 0.005" in line
    assert "initialisation" in line


def test_run_from_random_weights_leaves_a_model_that_predicts_the_same(small_run, tmp_path):
    config = _config([*small_run, "strategy=scratch", "adapter=full", "data.level_of_theory="], tmp_path / "run")
    result = fine_tune(config, say=lambda _: None)
    frames = load_splits(config.data).valid
    chosen = choose_model(ModelChoice(backbone={"name": "unused", "device": "cpu"}, run=str(tmp_path / "run")))
    for found, expected in zip(chosen.predict(frames), result.potential.predict(frames), strict=True):
        assert found.energy == pytest.approx(expected.energy, abs=1e-4)
        assert abs(found.forces - expected.forces).max() < 1e-4
    assert chosen.level_of_theory == result.potential.level_of_theory


def test_resuming_a_finished_run_keeps_its_record_and_environment(small_run, tmp_path):
    first = fine_tune(_config(small_run, tmp_path / "run"), say=lambda _: None)
    kept = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    lines: list[str] = []
    again = fine_tune(_config([*small_run, "run.resume=true"], tmp_path / "run"), say=lines.append)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == kept
    assert "finished" in lines[0]
    assert again.summary == first.summary
    frames = load_splits(_config(small_run, tmp_path / "run").data).valid
    assert again.potential.predict(frames)[0].energy == pytest.approx(first.potential.predict(frames)[0].energy, abs=1e-6)


def test_files_for_others_hold_no_path_of_this_machine(small_run, emt_atoms, tmp_path):
    from ase.io import write

    path = tmp_path / "private/here.xyz"
    path.parent.mkdir()
    write(path, emt_atoms(8))
    words = [word for word in small_run if not word.startswith("data.")]
    fine_tune(_config([*words, f"data={path}", "data.n_valid=2", f"data.test=[{path}]"], tmp_path / "run"), say=lambda _: None)
    again = [*words, f"data={path}", "data.n_valid=2", f"data.test={{a: {path}}}", f"adapter={tmp_path}/run/adapter.safetensors"]
    fine_tune(_config(again, tmp_path / "again"), say=lambda _: None)
    for name in ("run/record.json", "run/adapter.safetensors", "again/record.json", "again/adapter.safetensors"):
        content = (tmp_path / name).read_bytes()
        assert b"toy.pth" in content
        assert b"here.xyz" in content or name.endswith("safetensors")
        assert str(tmp_path.parent).encode() not in content


def test_run_says_that_nobody_has_verified_it(small_run, tmp_path):
    fine_tune(_config([*small_run, "training.steps=1"], tmp_path / "run"), say=lambda _: None)
    assert read_record(tmp_path / "run/record.json").provenance == "local"


def test_the_summary_says_where_fine_tuning_made_forces_worse():
    better, worse = {"force_mae_mev_per_angstrom": 50.0}, {"force_mae_mev_per_angstrom": 2000.0}
    zero_shot = {"300K": {"force_mae_mev_per_angstrom": 100.0}, "600K": {"force_mae_mev_per_angstrom": 100.0}}
    good = summary_table(TestResults(zero_shot, {"300K": better, "600K": better}))
    assert "2.0x" in good
    assert "warning" not in good
    bad = summary_table(TestResults(zero_shot, {"300K": better, "600K": worse}))
    assert "0.05x" in bad
    assert "worse than the base's on 600K;" in bad
