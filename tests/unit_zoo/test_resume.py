"""A run killed with SIGKILL at any point and resumed ends in the same bytes as the run that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.refusals import cli_refusal, lacks

SETTINGS = {
    "elora-adamw-cosine-ema": ["adapter=elora", "adapter.rank=2", "training.optimizer.learning_rate=2e-2"],
    "sparse-schedule-free": [
        "adapter=sparse",
        "training.optimizer.name=schedule_free_adamw",
        "training.ema_decay=null",
        "training.schedule.name=constant",
        "training.schedule.warmup_steps=2",
    ],
    "full-amsgrad-plateau": [
        "adapter=full",
        "training.optimizer.name=amsgrad",
        "training.schedule.name=plateau",
        "training.schedule.plateau_patience=0",
        "training.schedule.plateau_factor=0.5",
        "training.ema_decay=null",
        # so high a rate that the validation loss rises and the plateau acts
        "training.optimizer.learning_rate=0.3",
    ],
    "elora-early-stopping": [
        "adapter=elora",
        "training.steps=60",
        "training.early_stopping_patience=2",
        "training.optimizer.learning_rate=0.3",
        "training.ema_decay=null",
        "backbone.dtype=float64",
    ],
}


def _named(part: str) -> Callable[..., bool]:
    return lambda *args: part in str(args[-1])


# what the process was doing when it died: the call that was just beginning, and which one of them
KILLS = {
    "before anything was written": ("zoo.training.folder:RunFolder.prepare", 1, None),
    "between config and environment": ("adapters.files:os.replace", 1, _named("environment.json")),
    "before the first checkpoint": ("zoo.training.module:FineTuning.training_step", 3, None),
    "in the first validation": ("zoo.training.validation:Validation._validate", 1, None),
    "between two checkpoints": ("zoo.training.module:FineTuning.training_step", 5, None),
    "between an optimizer step and its validation": ("zoo.training.validation:Validation.on_train_batch_end", 6, None),
    "in a later validation": ("zoo.training.validation:Validation._validate", 3, None),
    "with best weights half written": ("adapters.files:os.replace", 2, _named("kept-")),
    "with the history half written": ("adapters.files:os.replace", 2, _named("history.csv")),
    "with a checkpoint half written": ("adapters.files:os.replace", 2, _named("last.ckpt")),
    "with old best weights not yet removed": ("zoo.training.validation:drop_older_weights", 2, None),
    "with old best weights not yet removed after the last checkpoint": ("zoo.training.validation:drop_older_weights", 4, None),
    "in the last step": ("zoo.training.module:FineTuning.training_step", 12, None),
    "in the final evaluation": ("zoo.training.artefacts:predict_tests", 2, None),
    "with the adapter half written": ("adapters.files:os.replace", 1, _named("adapter.safetensors")),
    "between adapter and record": ("zoo.training.artefacts:write_run_record", 1, None),
}
OFTEN = ("before the first checkpoint", "between two checkpoints", "in a later validation", "in the final evaluation")
CASES = [
    *(("elora-adamw-cosine-ema", kill) for kill in KILLS),
    *((setting, kill) for setting in ("sparse-schedule-free", "full-amsgrad-plateau") for kill in OFTEN[1:]),
    ("elora-early-stopping", "in the final evaluation"),
]


@pytest.fixture(scope="module")
def left_alone(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the uninterrupted run of one setting, made once."""
    from zoo.cli import main

    made: dict[str, Path] = {}

    def make(setting: str) -> Path:
        if setting not in made:
            folder = tmp_path_factory.mktemp("alone") / "run"
            main(["train", *small_run, *SETTINGS[setting], f"hydra.run.dir={folder}", "run.name=run"])
            made[setting] = folder
        return made[setting]

    return make


def _assert_same_results(folder: Path, expected: Path) -> None:
    for name in ("adapter.safetensors", "history.csv"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    assert not [path for path in folder.rglob(".*") if path.name.endswith(".partial")]
    assert len(list((folder / "checkpoints").glob("kept-*"))) == 1


@pytest.mark.parametrize(("setting", "kill"), CASES, ids=[f"{setting}: {kill}" for setting, kill in CASES])
def test_killed_and_resumed_run_ends_in_the_same_bytes(setting, kill, small_run, left_alone, forked_zoo, killer, tmp_path):
    expected = left_alone(setting)
    words = ["train", *small_run, *SETTINGS[setting], "run.name=run"]
    target, count, where = KILLS[kill]
    sabotage = killer(target, count, where) if where is not None else killer(target, count)
    assert forked_zoo(words, sabotage) == -signal.SIGKILL
    assert not (tmp_path / "runs/run/record.json").exists()
    assert forked_zoo([*words, "run.resume=true"]) == 0, (tmp_path / "output.txt").read_text()
    _assert_same_results(tmp_path / "runs/run", expected)


def test_run_killed_three_times_ends_in_the_same_bytes(small_run, left_alone, forked_zoo, killer, tmp_path):
    words = ["train", *small_run, *SETTINGS["elora-adamw-cosine-ema"], "run.name=run", "run.resume=true"]
    for _ in range(3):
        assert forked_zoo(words, killer("zoo.training.module:FineTuning.training_step", 5)) == -signal.SIGKILL
    assert forked_zoo(words) == 0
    _assert_same_results(tmp_path / "runs/run", left_alone("elora-adamw-cosine-ema"))


@pytest.mark.parametrize("setting", ["elora-adamw-cosine-ema", "elora-early-stopping"])
def test_resuming_a_finished_run_repeats_its_result(setting, small_run, left_alone, forked_zoo, tmp_path):
    words = ["train", *small_run, *SETTINGS[setting], "run.name=run", "run.resume=true"]
    assert [forked_zoo(words), forked_zoo(words)] == [0, 0]
    _assert_same_results(tmp_path / "runs/run", left_alone(setting))


def test_settings_exercise_what_they_are_named_for(left_alone):
    import csv

    def rows(setting: str) -> list[dict[str, str]]:
        return list(csv.DictReader((left_alone(setting) / "history.csv").open()))

    plateau = rows("full-amsgrad-plateau")
    assert float(plateau[-1]["learning_rate"]) < 0.3, "the plateau never acted"
    assert float(rows("elora-early-stopping")[-1]["step"]) < 60, "early stopping never acted"
    losses = [float(row["valid/loss"]) for row in rows("elora-adamw-cosine-ema")]
    assert losses == sorted(losses, reverse=True), "the best weights never changed"
    assert len(losses) == 4


def test_a_different_seed_ends_in_other_bytes(small_run, left_alone, forked_zoo, tmp_path):
    # the control of this file: comparing bytes can fail
    words = ["train", *small_run, *SETTINGS["elora-adamw-cosine-ema"], "training.seed=1", "run.name=run"]
    assert forked_zoo(words) == 0
    assert (tmp_path / "runs/run/adapter.safetensors").read_bytes() != (
        left_alone("elora-adamw-cosine-ema") / "adapter.safetensors"
    ).read_bytes()


def _command(words: list[str], folder: Path) -> list[str]:
    return [sys.executable, "-m", "zoo", "train", *words, f"hydra.run.dir={folder}", "run.name=run"]


def test_command_line_killed_from_outside_and_resumed_ends_in_the_same_bytes(small_run, left_alone, tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    words = [*small_run, *SETTINGS["elora-adamw-cosine-ema"]]
    folder = tmp_path / "run"
    process = subprocess.Popen(_command(words, folder), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints/last.ckpt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run was over before the kill"
    subprocess.run([*_command(words, folder), "run.resume=true"], env=environment, check=True, capture_output=True)
    _assert_same_results(folder, left_alone("elora-adamw-cosine-ema"))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sevennet_killed_at_ten_random_moments_ends_in_the_same_bytes(dtype, tmp_path):
    import random

    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    words = [
        "backbone=sevennet-0", f"backbone.dtype={dtype}", "data.n_train=8", "data.n_valid=4", "data.test=[]", "training.steps=60",
        "training.validate_every=2", "training.threads=1", "training.loggers.tensorboard=false", "training.progress_bar=false",
        "evaluation.plots=false",
    ]  # fmt: skip
    alone = tmp_path / "alone"
    started = time.monotonic()
    subprocess.run(_command(words, alone), env=environment, check=True, capture_output=True)
    whole_seconds = time.monotonic() - started
    random.seed(0)
    folder, kills = tmp_path / "run", 0
    for _ in range(10):
        process = subprocess.Popen(
            [*_command(words, folder), "run.resume=true"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(random.uniform(0.3, 0.6) * whole_seconds)
            break  # finished before the kill: nothing is left to interrupt
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    subprocess.run([*_command(words, folder), "run.resume=true"], env=environment, check=True, capture_output=True)
    assert kills >= 2
    _assert_same_results(folder, alone)


@pytest.mark.parametrize("changed", ["data", "base", "adapter"])
def test_run_whose_data_base_or_adapter_file_changed_is_not_resumed(
    changed, zoo, killer, forked_zoo, small_run, toy_checkpoint, emt_atoms, tmp_path
):
    import shutil

    import torch
    from ase.io import read, write

    from zoo.backbones import load_family

    shutil.copy(small_run[0].removeprefix("backbone="), tmp_path / "toy.pth")
    write(tmp_path / "data.xyz", emt_atoms(8))
    words = ["train", "backbone=toy.pth", *(word for word in small_run[1:] if not word.startswith("data."))]
    words += ["data=data.xyz", "data.n_valid=2", "run.name=run"]
    if changed == "adapter":
        assert zoo(*words[:-1], "run.name=first", "training.steps=1").code == 0
        shutil.copy(tmp_path / "runs/first/adapter.safetensors", tmp_path / "a.safetensors")
        words.append("adapter=a.safetensors")
    stop = killer("zoo.training.module:FineTuning.training_step", 5)
    assert forked_zoo(words, stop) == -signal.SIGKILL
    if changed == "data":
        frames = read(tmp_path / "data.xyz", ":")
        frames[0].calc.results["energy"] += 0.1
        write(tmp_path / "data.xyz", frames)
    elif changed == "base":
        torch.save(load_family("sevennet").toy(1).upstream_checkpoint({}), tmp_path / "toy.pth")
    else:
        other = [word for word in words[:-2] if word != "adapter=a.safetensors"]
        assert zoo(*other, "run.name=second", "training.steps=1", "training.seed=1").code == 0
        shutil.copy(tmp_path / "runs/second/adapter.safetensors", tmp_path / "a.safetensors")
    before = {path: path.read_bytes() for path in (tmp_path / "runs/run").rglob("*") if path.is_file()}
    assert not lacks(cli_refusal(zoo(*words, "run.resume=true")), changed, "another run.name=")
    assert {path: path.read_bytes() for path in (tmp_path / "runs/run").rglob("*") if path.is_file()} == before


def test_a_run_whose_training_frames_come_in_another_order_is_not_resumed(zoo, killer, forked_zoo, small_run, emt_atoms, tmp_path):
    """The same frames, so the same hash of the set, but other batches: the run would end in other bytes."""
    from ase.io import read, write

    write(tmp_path / "train.xyz", emt_atoms(8))
    write(tmp_path / "valid.xyz", emt_atoms(2))
    words = ["train", *(word for word in small_run if not word.startswith("data.")), "run.name=run"]
    words += ["data=file", "data.train=train.xyz", "data.valid=valid.xyz"]
    assert forked_zoo(words, killer("zoo.training.module:FineTuning.training_step", 5)) == -signal.SIGKILL
    write(tmp_path / "train.xyz", read(tmp_path / "train.xyz", ":")[::-1])
    assert not lacks(cli_refusal(zoo(*words, "run.resume=true")), "order of the training frames", "put it back")
    write(tmp_path / "train.xyz", read(tmp_path / "train.xyz", ":")[::-1])
    assert zoo(*words, "run.resume=true").code == 0
