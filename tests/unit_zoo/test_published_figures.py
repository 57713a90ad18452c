"""The figures the README promises, run from its own commands (``make slow``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zoo.evaluation.record import Record, read_record

pytestmark = pytest.mark.slow


def trained(folder: Path, *words: str) -> Record:
    """The record of ``zoo train WORDS``."""
    quiet = ("training.progress_bar=false", "evaluation.plots=false", "training.loggers.tensorboard=false", f"hydra.run.dir={folder}")
    subprocess.run([sys.executable, "-m", "zoo", "train", *words, *quiet], check=True, capture_output=True, text=True)
    return read_record(folder / "record.json")


def value(record: Record, test_set: str, name: str, zero_shot: bool = False) -> float:
    """One metric of a record."""
    metrics = record.zero_shot_metrics if zero_shot else record.metrics
    (found,) = [metric.value for metric in metrics if (metric.test_set, metric.name) == (test_set, name)]
    return found


def test_the_quickstart_lowers_the_force_error_at_least_eightfold(tmp_path: Path) -> None:
    record = trained(tmp_path / "run", "experiment=quickstart")
    before = value(record, "test", "force_mae_mev_per_angstrom", zero_shot=True)
    assert before > 8 * value(record, "test", "force_mae_mev_per_angstrom")


@pytest.mark.parametrize("method", ["elora", "full"])
def test_fifty_frames_of_acetylacetone_reach_the_stated_errors(method: str, tmp_path: Path, data_folder) -> None:
    data_folder("acac")
    record = trained(tmp_path / "run", "experiment=acac", f"adapter={method}", "data.test=[test_300K]")
    assert value(record, "test_300K", "force_rmse_mev_per_angstrom") < 45
    assert value(record, "test_300K", "energy_rmse_mev") < 25
