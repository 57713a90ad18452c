"""README's AcAc table from finished runs, made where they are missing: ``python -m benchmarks.acac``.

Each run is the README's own command in a process of its own. A folder with a record of the same configuration is not run again, an
unfinished one is resumed. Words after ``--`` go to every run, which is how to try the script out::

    python -m benchmarks.acac --seeds 0 --folder /tmp/try --page /tmp/try/page.md -- training.steps=2 data.n_valid=2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runs import command_of, commits_of, finished_record, hardware_of, mean_and_range, own_and_extra_words
from benchmarks.tables import ROOT, markdown_table, write_between_markers
from zoo.evaluation.record import Record

METHODS = ("elora", "full", "readout", "sparse")
COLUMNS = {
    ("test_300K", "force_rmse_mev_per_angstrom"): "300 K forces, meV/Å",
    ("test_600K", "force_rmse_mev_per_angstrom"): "600 K forces, meV/Å",
    ("test_300K", "energy_rmse_mev"): "300 K energy, meV",
    ("test_600K", "energy_rmse_mev"): "600 K energy, meV",
}


def record_of(folder: Path, method: str, seed: int, extra: Sequence[str]) -> Record:
    """Of one run of the table."""
    return finished_record(folder, f"acac-{method}-s{seed}", ["experiment=acac", f"adapter={method}", f"training.seed={seed}", *extra])


def table(records: dict[str, list[Record]]) -> str:
    """The zero-shot model and every method: means over seeds, with the range where there are several."""
    first = next(iter(records.values()))[0]
    before = {(metric.test_set, metric.name): metric.value for metric in first.zero_shot_metrics}
    rows = [["zero-shot", "0", *[f"{before[column]:.1f}" for column in COLUMNS]]]
    for method, runs in records.items():
        assert runs[0].adapter is not None
        metrics = [{(metric.test_set, metric.name): metric.value for metric in run.metrics} for run in runs]
        cells = [mean_and_range([values[column] for values in metrics]) for column in COLUMNS]
        rows.append([f"`{method}`", f"{runs[0].adapter.trainable_count:,}", *cells])
    return markdown_table(["method", "trained", *COLUMNS.values()], rows)


def note(records: dict[str, list[Record]], seeds: Sequence[int], extra: Sequence[str]) -> str:
    """Everything a reader needs to repeat the table, from the records themselves."""
    runs = [run for several in records.values() for run in several]
    first = runs[0]
    return (
        f"RMSE over force components and over total energies of a frame, with reference energies fitted on the training split "
        f"(zero-shot: before training; the others: after it). Protocol `{first.data.protocol}`, training seeds {', '.join(map(str, seeds))}"
        f"{': mean, and range over seeds' if len(seeds) > 1 else ''}.\n\n"
        f"Made by `{command_of('acac', seeds, extra)}` between {min(run.created for run in runs):%Y-%m-%d} and "
        f"{max(run.created for run in runs):%Y-%m-%d} on {hardware_of(runs)}; torch {first.versions['torch']}, "
        f"sevenn {first.versions['sevenn']}{commits_of(runs)}."
    )


def main() -> None:
    words, extra = own_and_extra_words()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--folder", type=Path, default=ROOT, help="holds runs/")
    parser.add_argument("--page", type=Path, default=ROOT / "README.md")
    options = parser.parse_args(words)
    records = {method: [record_of(options.folder, method, seed, extra) for seed in options.seeds] for method in options.methods}
    write_between_markers(options.page, "acac", f"{table(records)}\n\n{note(records, options.seeds, extra)}")


if __name__ == "__main__":
    main()
