"""The command line from help to exported checkpoint, on a toy model."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.io import read, write

from tests.refusals import cli_refusal
from zoo.cli import COMMANDS


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory) -> Path:
    """A finished run with a test set and plots."""
    from zoo.cli import main

    folder = tmp_path_factory.mktemp("cli") / "run"
    words = [word for word in small_run if not word.startswith(("data.test", "evaluation.plots"))]
    main(["train", *words, "adapter.rank=2", f"hydra.run.dir={folder}", "run.name=run"])
    return folder


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, flag, zoo):
    finished = zoo(name, flag)
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.startswith(f"usage: zoo {name}")


def test_overview_names_every_command(zoo):
    for words in ([], ["--help"], ["help"]):
        finished = zoo(*words)
        assert finished.code == 0
        assert all(f"  {name}" in finished.out for name in COMMANDS)
    assert zoo("--version").out.startswith("equizoo ")


def test_list_and_info_name_every_card(zoo):
    from zoo.registry import list_models

    assert [line.split()[0] for line in zoo("list").out.splitlines()] == list_models()
    assert [line.split()[0] for line in zoo("list", "*l3i5").out.splitlines()] == ["sevennet-l3i5"]
    page = zoo("info", "sevennet-0").out
    assert all(word in page for word in ("842,440", "MIT", "5.0 Å", "SO(3)"))


def test_composed_config_can_be_looked_at_without_running(zoo, tmp_path):
    finished = zoo("train", "--cfg", "job", "experiment=quickstart", "training.seed=7")
    assert finished.code == 0, finished.err
    assert yaml.safe_load(finished.out)["training"]["seed"] == 7
    assert not list(tmp_path.rglob("*.yaml"))


def test_run_folder_holds_everything_and_the_log_everything_told(run):
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names == {
        ".lock", "adapter.safetensors", "checkpoints/kept-00000012.safetensors", "checkpoints/last.ckpt", "config.yaml", "environment.json",
        "history.csv", "log.txt", "plots/energy_parity_test.png", "plots/force_parity_test.png", "plots/learning_curves.png",
        "predictions.npz", "record.json",
    }  # fmt: skip
    log = (run / "log.txt").read_text()
    for line in ("data: emt-cuau", "base: ", "adaptable", "trains 516 values", "step 0 equals", "trained to step 12", "zero-shot"):
        assert line in log, line
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [float(row["step"]) for row in rows] == [3, 6, 9, 12]


def test_record_is_valid_and_holds_the_true_counts(run, toy_checkpoint):
    from adapters.state import base_fingerprint, read_adapter
    from zoo import load

    validated = subprocess.run([sys.executable, "-m", "leaderboard.validate", str(run / "record.json")], capture_output=True, text=True)
    assert validated.returncode == 0, validated.stdout + validated.stderr
    record = json.loads((run / "record.json").read_text())
    manifest, tensors = read_adapter(run / "adapter.safetensors")
    potential = load(toy_checkpoint)
    assert record["adapter"]["trainable_count"] == sum(tensor.numel() for tensor in tensors.values()) == manifest.trainable_count == 516
    assert record["base"]["values_sha256"] == manifest.base_sha256 == base_fingerprint(potential.backbone)
    assert record["adapter"]["file_bytes"] == (run / "adapter.safetensors").stat().st_size
    assert {name: split["frames"] for name, split in record["data"]["splits"].items()} == {"train": 8, "valid": 4, "test": 40}
    assert record["seed"] == 0
    assert record["cost"]["wall_seconds"] > 0
    assert {metric["test_set"] for metric in record["metrics"]} == {"test"}
    assert len(record["metrics"]) == len(record["zero_shot_metrics"])


def _metric(text: str, label: str) -> float:
    (line,) = [line for line in text.splitlines() if label in line and not line.startswith("energies")]
    return float(line.split(label)[1].split()[0])


def test_evaluate_repeats_the_metrics_of_the_run(run, zoo):
    finished = zoo("evaluate", f"run={run}", "data=emt-cuau", "data.n_train=8", "data.n_valid=4", "split=test")
    assert finished.code == 0, finished.err
    record = json.loads((run / "record.json").read_text())
    stored = {metric["name"]: metric["value"] for metric in record["metrics"]}
    assert _metric(finished.out, "force MAE") == pytest.approx(stored["force_mae_mev_per_angstrom"], abs=2e-3)


def test_evaluate_fits_reference_energies_and_writes_a_zero_shot_record(run, toy_checkpoint, zoo, tmp_path):
    words = ["evaluate", f"backbone={toy_checkpoint}", "data.n_train=8", "data.n_valid=4", "split=test"]
    kept = zoo(*words)
    fitted = zoo(*words, "reference_energies=model", "record=zero.json")
    assert "pass reference_energies=model" in kept.out
    assert _metric(fitted.out, "energy MAE per atom") < _metric(kept.out, "energy MAE per atom")
    record = json.loads((tmp_path / "zero.json").read_text())
    assert record["adapter"] is None
    of_run = json.loads((run / "record.json").read_text())
    for zero_shot, again in zip(of_run["zero_shot_metrics"], record["metrics"], strict=True):
        assert (zero_shot["name"], zero_shot["value"]) == (again["name"], pytest.approx(again["value"], rel=1e-4))


def test_predict_writes_what_the_potential_predicts(run, toy_checkpoint, zoo, tmp_path):
    from ase.build import bulk, molecule

    from zoo import load

    structures = [bulk("Cu", cubic=True), molecule("CH3OH")]
    write(tmp_path / "in.xyz", structures)
    assert zoo("predict", f"run={run}", "input=in.xyz", "output=out/put.xyz").code == 0
    expected = load(toy_checkpoint, adapter=run / "adapter.safetensors", dtype="float32").predict(structures)
    found = read(tmp_path / "out/put.xyz", ":")
    for atoms, prediction in zip(found, expected, strict=True):
        assert atoms.get_potential_energy() == pytest.approx(prediction.energy, abs=1e-4)
        assert np.allclose(atoms.get_forces(), prediction.forces, atol=1e-4)
    assert found[0].get_stress().shape == (6,)
    assert "stress" not in found[1].calc.results


def test_exported_checkpoint_predicts_like_base_and_adapter(run, zoo, tmp_path):
    from ase.build import bulk

    write(tmp_path / "in.xyz", [bulk("Au", cubic=True)])
    assert zoo("export", str(run), "--format", "native", "--output=exported.pth").code == 0
    zoo("predict", f"run={run}", "input=in.xyz", "output=attached.xyz")
    zoo("predict", f"backbone={tmp_path}/exported.pth", "input=in.xyz", "output=exported.xyz")
    exported, attached = read(tmp_path / "exported.xyz"), read(tmp_path / "attached.xyz")
    assert exported.get_potential_energy() == pytest.approx(attached.get_potential_energy(), abs=1e-4)
    assert np.allclose(exported.get_forces(), attached.get_forces(), atol=1e-4)


def test_training_goes_on_from_an_adapter_file(run, small_run, zoo, tmp_path):
    finished = zoo("train", *small_run, f"adapter={run}/adapter.safetensors", "training.steps=1", "run.name=more")
    assert finished.code == 0, finished.err
    assert "trains 516 values" in finished.out
    assert "step 0 is where" in finished.out


def test_check_equivariance_passes_with_random_adapter_weights(toy_checkpoint, zoo):
    finished = zoo("check-equivariance", f"backbone={toy_checkpoint}", "adapter=elora")
    assert finished.code == 0, finished.err
    assert "random weights, |dW|/|W| >= 0.1" in finished.out


def test_check_equivariance_of_a_broken_model_is_one_line(toy_checkpoint, zoo, monkeypatch):
    from zoo.graph import AtomGraph

    whole = AtomGraph.edge_vectors
    # as if one axis were measured in another unit
    monkeypatch.setattr(AtomGraph, "edge_vectors", lambda graph: whole(graph) * whole(graph).new_tensor([1.0, 1.0, 1.01]))
    finished = zoo("check-equivariance", f"backbone={toy_checkpoint}")
    assert "fails rotation" in cli_refusal(finished)


def test_sweep_of_two_jobs_writes_two_whole_folders(small_run, zoo, tmp_path):
    finished = zoo("train", "-m", *small_run, "training.steps=2", "training.seed=0,1", "adapter=elora")
    assert finished.code == 0, finished.err
    folders = sorted(path.parent for path in tmp_path.rglob("record.json"))
    assert len(folders) == 2
    assert [json.loads((folder / "record.json").read_text())["seed"] for folder in folders] == [0, 1]
    contents = [(folder / "adapter.safetensors").read_bytes() for folder in folders]
    assert contents[0] != contents[1]


def test_failing_job_of_a_sweep_is_named_and_fails_the_command(small_run, zoo):
    finished = zoo("train", "-m", *small_run, "training.seed=0", "adapter.rnk=2,3")
    assert finished.code == 1
    assert finished.err.splitlines()[-1].startswith("zoo: error: adapter.rnk")
    assert "Traceback" not in finished.err


def test_threads_and_determinism_of_the_process_are_given_back(small_run, zoo):
    import torch

    torch.set_num_threads(2)
    assert zoo("train", *small_run, "training.steps=1", "run.name=run").code == 0
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()


def test_unexpected_error_asks_for_a_report(zoo, monkeypatch):
    monkeypatch.setattr("zoo.listing.list_models", lambda: 1 / 0)
    finished = zoo("list")
    assert finished.code == 2
    assert finished.err.count("\n") == 1
    assert "this is a bug" in finished.err


def test_interrupted_run_says_how_to_go_on(small_run, tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "zoo", "train", *small_run, "training.steps=100000", f"hydra.run.dir={tmp_path}/run", "run.name=run"]
    # a test run that a shell put into the background has SIGINT ignored, and its children would inherit that
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run/checkpoints/last.ckpt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "zoo: interrupted; zoo train continues with run.resume=true"
    assert "Traceback" not in errors


def test_run_folder_named_by_key_leaves_no_empty_one_beside_it(small_run, zoo, tmp_path):
    assert zoo("train", *small_run, "training.steps=1", "run.name=run", "run.folder=elsewhere").code == 0
    assert (tmp_path / "elsewhere/record.json").is_file()
    assert not (tmp_path / "runs/run").exists()
