"""EquiformerV2 trained from random weights by the paper's recipe, two small cases: ``python -m benchmarks.equiformer_v2_training``.

Each run is ``zoo train experiment=...`` in a process of its own, below ``--folder``; one with a record of the same configuration is not run
again. Words after ``--`` go to every run, which is how to try the script out::

    python -m benchmarks.equiformer_v2_training --seeds 0 --folder /tmp/try --page /tmp/try/page.md -- training.epochs=1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.runs import command_of, commits_of, finished_record, hardware_of, own_and_extra_words
from benchmarks.tables import ROOT, markdown_table, write_between_markers
from zoo.compose import compose
from zoo.data.source import load_splits
from zoo.evaluation.record import MetricRecord, Record
from zoo.training.config import RunConfig, parse_config

EXPERIMENTS = {
    "equiformer_v2_overfit": "47 frames of O on Rb, measured on the same",
    "equiformer_v2_ethanol": "950 frames of ethanol (rMD17), measured on 1,000 others",
}
_FORCES, _ENERGY = "force_mae_mev_per_angstrom", "energy_mae_mev_per_atom"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        record: its result.
        steps: it took.
        mean_forces: meV/Å; the error of always predicting the mean force of the training frames, which is nearly none.
    """

    record: Record
    steps: int
    mean_forces: float


def finished_run(folder: Path, experiment: str, seed: int, extra: Sequence[str]) -> Run:
    """The run's result, after running it if there is none."""
    name = f"{experiment}-s{seed}"
    words = [f"experiment={experiment}", f"training.seed={seed}", "training.threads=1", "training.progress_bar=false", *extra]
    record = finished_record(folder, name, words)
    config: RunConfig = parse_config(compose("train", [*words, f"run.name={name}", f"run.folder={folder / 'runs' / name}"]))
    steps = int(float((folder / "runs" / name / "history.csv").read_text().splitlines()[-1].split(",")[0]))
    return Run(record, steps, _error_of_mean_forces(config))


def _error_of_mean_forces(config: RunConfig) -> float:
    splits = load_splits(config.data)
    (tested,) = splits.tested.values()
    known = [np.concatenate([frame.forces for frame in frames]) for frames in (splits.train, tested)]
    train, test = (forces[np.isfinite(forces).all(axis=1)] for forces in known)
    return 1000 * float(np.abs(test - train.mean(axis=0)).mean())


def table(runs: dict[str, list[Run]]) -> str:
    """An experiment a row: errors before and after, beside those of the mean predictor."""
    rows = []
    for experiment, of_seeds in runs.items():
        first = of_seeds[0]
        assert first.record.adapter is not None
        before, after = (
            {name: _values(metrics, name) for name in (_FORCES, _ENERGY)}
            for metrics in ([run.record.zero_shot_metrics for run in of_seeds], [run.record.metrics for run in of_seeds])
        )
        shares = [100 * value / run.mean_forces for value, run in zip(after[_FORCES], of_seeds, strict=True)]
        seconds = [run.record.cost.wall_seconds for run in of_seeds if run.record.cost is not None]
        rows.append([
            f"`{experiment}`: {EXPERIMENTS[experiment]}", f"{first.record.adapter.trainable_count:,}", f"{first.steps:,}",
            _range([run.mean_forces for run in of_seeds], 1), _range(before[_FORCES], 1), _range(after[_FORCES], 1),
            f"{_range(shares, 1)} %",
            _range(before[_ENERGY], 1), _range(after[_ENERGY], 1), _range(seconds, 0),
        ])  # fmt: skip
    header = [
        "experiment", "weights", "steps", "forces: mean predictor", "forces: start", "forces: trained", "share of the mean predictor's",
        "energy: start", "energy: trained", "seconds",
    ]  # fmt: skip
    return markdown_table(header, rows)


def _values(metrics_of_seeds: Sequence[Sequence[MetricRecord]], name: str) -> list[float]:
    return [metric.value for metrics in metrics_of_seeds for metric in metrics if metric.name == name]


def _range(values: Sequence[float], digits: int) -> str:
    """One number, or the smallest and the largest."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def note(runs: dict[str, list[Run]], seeds: Sequence[int], extra: Sequence[str]) -> str:
    """What a reader needs to repeat the table, from the records themselves."""
    records = [run.record for several in runs.values() for run in several]
    days = sorted({f"{record.created:%Y-%m-%d}" for record in records})
    command = command_of("equiformer_v2_training", seeds, extra)
    return (
        "Mean absolute errors: forces in meV/Å, energies in meV/atom, reference energies fitted on the training frames before and after; "
        f"{'smallest and largest of seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}. Seconds are of the training alone, "
        f"on a machine that did other work as well. Made by `{command}` on {' and '.join(days)}, {hardware_of(records)}; torch "
        f"{records[0].versions['torch']}{commits_of(records)}."
    )


def main() -> None:
    words, extra = own_and_extra_words()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=ROOT, help="holds runs/")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args(words)
    runs = {name: [finished_run(options.folder, name, seed, extra) for seed in options.seeds] for name in EXPERIMENTS}
    write_between_markers(options.page, "equiformer-v2-training", f"{table(runs)}\n\n{note(runs, options.seeds, extra)}")


if __name__ == "__main__":
    main()
