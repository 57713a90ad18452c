"""The board's own rows: ``make rows``, or ``python -m benchmarks.rows``.

Runs what has no row yet, resumes what was stopped, verifies each result as a submission is verified, and writes its record and verdict
into ``leaderboard/``. ``--tune`` finds learning rates first and writes them into ``benchmarks/row_rates.csv``. A row that is on the board
already is not run again, on whatever machine it was made. Archives stay in the runs' folders::

    python -m benchmarks.rows --tasks acac-50 --methods zero-shot elora-4 --workers 2
    python -m benchmarks.rows --tune
    python -m benchmarks.rows --missing
    python -m benchmarks.rows --table
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from subprocess import CalledProcessError

from benchmarks.entering import STATEMENT, enter
from benchmarks.row_plan import METHODS, RATES_FILE, TASKS, TRIED, ZERO_SHOT, Row, Trial, read_trials, rows
from benchmarks.row_table import write_tables
from benchmarks.runs import finished_record
from benchmarks.tables import ROOT
from benchmarks.zero_shot import base_row
from leaderboard.entries import ARTEFACTS, BOARD, REPRODUCED, read_records
from leaderboard.zero_shot import config_of
from zoo.compose import compose
from zoo.errors import ZooError
from zoo.evaluation.record import Record
from zoo.files import write_atomically, write_text_atomically
from zoo.submission.submit import DEFAULT_NAME, submit
from zoo.submission.submit_zero_shot import submit_zero_shot
from zoo.training.artefacts import training_settings
from zoo.training.config import RunConfig, parse_config

CARDS = ("sevennet-0", "nequix-mp-1")
KEPT_ARCHIVE_BYTES = 2**20
"""Of an archive that is kept beside its row, one a method and task: small adapters can be downloaded, others are made again."""


def on_the_board(row: Row, board: Sequence[Record]) -> Record | None:
    """The board's record of the very run that ``row`` would be; None where there is none."""
    if row.method == ZERO_SHOT:
        return base_row(config_of(row.words), board)
    config: RunConfig = parse_config(compose("train", [*row.words, "run.name=row", "run.folder=row"]))
    settings = json.loads(json.dumps(training_settings(config)))
    return next((record for record in board if record.provenance == REPRODUCED and record.training == settings), None)


def make(row: Row, folder: Path) -> Record:
    """Run a row, or go on with it, and enter it."""
    run = folder / "runs" / row.name
    if row.method == ZERO_SHOT:
        run.mkdir(parents=True, exist_ok=True)
        done = submit_zero_shot(config_of(row.words), STATEMENT, run / DEFAULT_NAME)
    else:
        finished_record(folder, row.name, row.words)
        done = submit(run, STATEMENT)
    record = enter(done)
    if row.method != ZERO_SHOT and row.seed == row.task.seeds[0] and done.archive.stat().st_size <= KEPT_ARCHIVE_BYTES:
        content = done.archive.read_bytes()
        write_atomically(BOARD / ARTEFACTS / f"{record.id}.zip", lambda partial: partial.write_bytes(content))
    return record


def tune(cards: Sequence[str], methods: Sequence[str], folder: Path, workers: int) -> None:
    """Run the trials that are not written down, and write each down as it ends."""
    trials = [Trial(card, method, rate) for card in cards for method in methods for rate in TRIED.get(method, ())]
    missing = [trial for trial in trials if trial not in read_trials()]
    with _pool(workers) as pool:
        for trial, loss in zip(missing, pool.map(partial(_validation_loss, folder=folder), missing), strict=True):
            _write_trials(read_trials() | {trial: loss})


def _write_trials(trials: Mapping[Trial, float]) -> None:
    everything = sorted(trials.items(), key=lambda item: (item[0].card, list(METHODS).index(item[0].method), item[0].rate))
    lines = [f"{trial.card},{trial.method},{trial.rate:g},{loss:.4f}" for trial, loss in everything]
    write_text_atomically(RATES_FILE, "\n".join(["card,method,rate,validation loss", *lines]) + "\n")


def _validation_loss(trial: Trial, folder: Path) -> float:
    finished_record(folder, trial.name, trial.words)
    with (folder / "runs" / trial.name / "history.csv").open(encoding="utf-8") as lines:
        return float(list(csv.DictReader(lines))[-1]["valid/loss"])


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))  # Hydra and torch keep state that threads would share


def _entered(row: Row, folder: Path) -> tuple[str, bool]:
    """(a line that says what came of a row, whether it was entered)."""
    try:
        return f"{row.name}: {make(row, folder).id}", True
    except (ZooError, SystemExit, CalledProcessError) as error:  # of one run: the others go on
        return f"{row.name}: not entered: {error}", False


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing of the rows that the words choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", nargs="+", default=list(CARDS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: all of each task")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, of one thread each")
    parser.add_argument("--folder", type=Path, default=ROOT, help="holds runs/")
    parser.add_argument("--tune", action="store_true", help="find learning rates, and make no row")
    parser.add_argument("--missing", action="store_true", help="only say which rows are missing")
    parser.add_argument("--table", action="store_true", help="only rewrite the tables of the page, from the rows on the board")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args(arguments)
    if options.tune:
        tune(options.cards, options.methods, options.folder, options.workers)
        return
    board = read_records()
    wanted = list(rows(options.cards, options.tasks, options.methods, options.seeds))
    missing = [row for row in wanted if on_the_board(row, board) is None]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} rows are on the board", flush=True)
    if options.missing:
        print("\n".join(row.name for row in missing))
        return
    if options.table:
        found = {row: record for row in rows(options.cards, list(TASKS), list(METHODS)) if (record := on_the_board(row, board)) is not None}
        write_tables(options.page, found)
        return

    with _pool(options.workers) as pool:
        failed = 0
        for line, entered in pool.map(partial(_entered, folder=options.folder), missing):
            print(line, flush=True)
            failed += not entered
    if failed:
        raise SystemExit(f"{failed} of {len(missing)} rows were not entered, for the reasons above")


if __name__ == "__main__":
    main()
