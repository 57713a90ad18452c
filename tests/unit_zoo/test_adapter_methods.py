"""Every registered method from the command's words to a saved adapter, and what a user is told of those that are special."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.method import create_method, method_names
from adapters.sparse import threshold_after
from tests.refusals import refusal_of
from zoo.compose import compose
from zoo.config_groups import NO_METHODS, config_root, group_options
from zoo.data.source import load_splits
from zoo.loading import load
from zoo.training.config import RunConfig, parse_config
from zoo.training.run import fine_tune

SPECIAL: dict[str, list[str]] = {
    "bias": [],  # its toy has no biases
    "freeze": ["adapter.up_to=1", "adapter.layer_decay=0.5", "adapter.rate_factors={*convolution*:2.0,*reduce*:0.5}"],
    "elora": ["adapter.rank=4", "adapter.ranks={readout:1,*/1e:2}", "adapter.magnitude=true"],
}


def run(words: list[str], folder: Path, lines: list[str] | None = None) -> Any:
    return fine_tune(config_of(words, folder), say=(lines if lines is not None else []).append)


def config_of(words: list[str], folder: Path) -> RunConfig:
    return parse_config(compose("train", [*words, f"run.folder={folder}", "run.name=x"]))


def test_every_method_has_a_configuration_of_its_name_and_a_line_in_the_help(zoo):
    assert set(method_names()) <= set(group_options("adapter"))
    for name in method_names():
        assert f"name: {name}\n" in (config_root() / "adapter" / f"{name}.yaml").read_text(encoding="utf-8")
    page = zoo("train", "--help").out
    (listed,) = [line for line in page.splitlines() if line.strip().startswith("adapter (")]
    assert set(listed.strip().removeprefix("adapter (").removesuffix(")").split(", ")) == set(group_options("adapter")) - {*NO_METHODS}


@pytest.mark.parametrize("method", [name for name in method_names() if name != "bias"])
def test_a_run_of_the_method_leaves_an_adapter_that_predicts_what_the_run_predicted(method, small_run, tmp_path):
    words = [*small_run, f"adapter={method}", *SPECIAL.get(method, []), "training.steps=3"]
    lines: list[str] = []
    result = run(words, tmp_path / "run", lines)
    frames = load_splits(config_of(words, tmp_path / "run").data).valid
    saved = load(result.potential.source, adapter=tmp_path / "run/adapter.safetensors")
    base = load(result.potential.source).predict(frames)
    moved = 0.0
    for found, expected, zero in zip(saved.predict(frames), result.potential.predict(frames), base, strict=True):
        assert found.energy == pytest.approx(expected.energy, abs=1e-5)
        assert np.allclose(found.forces, expected.forces, atol=1e-5)
        moved = max(moved, float(np.abs(found.forces - zero.forces).max()))
    assert moved > 1e-4
    warned = [line for line in lines if "breaks the model's symmetry" in line]
    noted = [line for line in lines if "it cannot be merged" in line]
    assert (len(warned), len(noted)) == (int(method == "bottleneck"), int(method in ("bottleneck", "mmea")))


def test_a_network_without_biases_is_refused_before_anything_is_written(small_run, tmp_path):
    message = refusal_of(run, [*small_run, "adapter=bias"], tmp_path / "run")
    assert "adapter bias: its settings" in message
    assert "select none of the model's" in message
    assert not (tmp_path / "run").exists()


def test_gates_cannot_be_exported_or_stand_for_a_whole_model_and_say_so_in_one_line(small_run, tmp_path, zoo):
    run([*small_run, "adapter=mmea", "training.steps=1"], tmp_path / "run")
    finished = zoo("export", str(tmp_path / "run"))
    assert finished.code == 1
    assert finished.err.count("\n") == 1
    assert "adapter method mmea changes activations, which no change of weights can stand for" in finished.err
    assert not list((tmp_path / "run").glob("exported*"))
    message = refusal_of(run, [*small_run, "strategy=scratch", "adapter=mmea", "data.level_of_theory="], tmp_path / "scratch")
    assert "changes activations, and a run from random weights leaves its whole model as one file" in message


@pytest.mark.parametrize(("method", "passes"), [("mmea", True), ("lora-mace", True), ("bottleneck", False)])
def test_check_equivariance_passes_gates_and_flags_the_control(method, passes, toy_checkpoint, zoo):
    finished = zoo("check-equivariance", f"backbone={toy_checkpoint}", f"adapter={method}")
    assert finished.code == (0 if passes else 1)
    residual = float(next(line for line in finished.out.splitlines() if line.startswith("rotation") and " forces " in line).split()[2])
    assert residual < 1e-10 if passes else residual > 1e-2  # twelve orders of magnitude from what a float64 network keeps
    if not passes:
        assert "fails rotation" in finished.err
        assert "random weights, changes of about 0.1" in finished.out


@pytest.mark.parametrize("preset", ["sparse_low", "sparse_high"])
@pytest.mark.parametrize("steps", [200, 5000])
def test_a_sparse_preset_reaches_its_threshold_in_as_many_steps_as_the_run_has(preset, steps, small_run, tmp_path):
    config = config_of([*small_run, f"adapter={preset}", f"training.steps={steps}", "training=sparse_paper"], tmp_path)
    method = create_method(config.adapter)
    settings = method.config
    found = threshold_after(settings.threshold_start, settings.decay, steps, settings.tau_learning_rate)
    assert found == pytest.approx(settings.threshold_end, rel=1e-9)
    assert settings.threshold_end == {"sparse_low": 0.01, "sparse_high": 0.4}[preset]


def test_a_higher_end_prunes_more_and_both_senses_of_sparsity_are_logged_at_each_validation(small_run, tmp_path):
    last = []
    for end in (0.004, 0.02):  # of deltas of about 0.01, which 12 steps hardly move
        words = [
            *small_run,
            "adapter=sparse_low",
            f"adapter.threshold_end={end}",
            "training.schedule.name=constant",
            "training.ema_decay=null",
        ]
        run([*words, "training.schedule.warmup_steps=0"], tmp_path / str(end))
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader((tmp_path / str(end) / "history.csv").open())]
        assert [row["step"] for row in rows] == [3, 6, 9, 12]
        assert all(0 < row["sparsity_layerwise"] <= row["sparsity_total"] < 1 for row in rows)
        assert rows[0]["sparsity_layerwise"] < rows[-1]["sparsity_layerwise"]
        last.append(rows[-1])
    assert last[0]["sparsity_layerwise"] < last[1]["sparsity_layerwise"]
    for row, end in zip(last, (0.004, 0.02), strict=True):
        assert row["threshold_min"] == pytest.approx(end, rel=0.3)  # the decay, and what the gradient does to it
