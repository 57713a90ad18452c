"""The tables of docs/benchmarks.md that the board's own rows make: errors by task, and the learning rates that were tried."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.row_plan import METHODS, TASKS, TRIED, TUNED_ON, TUNING_STEPS, Row, chosen_rates, read_trials
from benchmarks.runs import commits_of, hardware_of, mean_and_range
from benchmarks.tables import markdown_table, write_between_markers
from leaderboard.board import FORGETTING, forgetting_ratio
from zoo.data.catalogue import data_card
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record import Record


def write_tables(page: Path, made: Mapping[Row, Record]) -> None:
    """Rewrite the tables between their markers."""
    trained = {row.task.name for row, record in made.items() if record.training is not None}
    write_between_markers(page, "rows", "\n\n".join(_task_table(task, made) for task in TASKS if task in trained))
    write_between_markers(page, "row rates", _rates_table(made))


def _task_table(task: str, made: Mapping[Row, Record]) -> str:
    """One row a method: means over seeds, with the range."""
    own = {row: record for row, record in made.items() if row.task.name == task}
    first = next(iter(own.values()))
    protocols = data_card(first.data.name).protocols
    asked = protocols[TASKS[task].protocol].metrics
    # a base may have been tested on more sets than the methods
    common = set.intersection(*({(metric.test_set, metric.name) for metric in record.metrics} for record in own.values()))
    tests = dict.fromkeys(metric.test_set for metric in first.metrics)
    columns = [(test, name) for name in reversed(asked) for test in tests if (test, name) in common]
    header = ["base", "method", "rate", "trained", "seeds"]
    header += [f"{test} {METRICS[name].label}, {METRICS[name].unit}" for test, name in columns] + ["forgetting", "CPU / h"]
    rows = []
    for card, method in dict.fromkeys((row.card, row.method) for row in sorted(own, key=lambda row: list(METHODS).index(row.method))):
        rows.append([card, method, *_cells([record for row, record in own.items() if (row.card, row.method) == (card, method)], columns)])
    return f"`{first.data.protocol}`, {TASKS[task].steps} steps of {TASKS[task].batch_size} frames:\n\n{markdown_table(header, rows)}"


def _cells(several: Sequence[Record], columns: Sequence[tuple[str, str]]) -> list[str]:
    first = several[0]
    errors = [{(metric.test_set, metric.name): metric.value for metric in record.metrics} for record in several]
    shown = [mean_and_range([values[column] for values in errors]) for column in columns]
    if first.adapter is None or first.training is None:
        return ["", "0", "", *shown, "", ""]
    rate = first.training["training"]["optimizer"]["learning_rate"]  # type: ignore[index,call-overload]
    ratios = [ratio for ratio in map(forgetting_ratio, several) if ratio is not None]
    hours = [record.cost.cpu_seconds / 3600 for record in several if record.cost]
    forgotten = f"{statistics.mean(ratios):.2f}" if ratios else ""
    cost = f"{statistics.mean(hours):.3f}" if hours else ""
    return [f"{rate:g}", f"{first.adapter.trainable_count:,}", str(len(several)), *shown, forgotten, cost]


def _rates_table(made: Mapping[Row, Record]) -> str:
    trials, best = read_trials(), chosen_rates()
    rows = []
    for (card, method), rate in best.items():
        losses = {trial.rate: loss for trial, loss in trials.items() if (trial.card, trial.method) == (card, method)}
        cells = [f"{tried:g}: {f'**{loss:.3f}**' if tried == rate else f'{loss:.3f}'}" for tried, loss in sorted(losses.items())]
        rows.append([card, method, ", ".join(cells)])
    records = list(made.values())
    trained = max(len(rates) for rates in TRIED.values())
    times = [record.created for record in records]
    note = (
        f"Validation loss by learning rate: {TUNING_STEPS} steps on `{TUNED_ON.name}` with seed 0, at most {trained} rates a method; the "
        f"best is used for all tasks, and no test frame was looked at. Forgetting is the force MAE on {FORGETTING.frames} frames of "
        f"`{FORGETTING.data}` after over before training. Rows made by `make rows` between {min(times):%Y-%m-%d} and "
        f"{max(times):%Y-%m-%d} on {hardware_of(records)}; torch {records[0].versions['torch']}{commits_of(records)}."
    )
    return f"{markdown_table(['base', 'method', 'rate: validation loss'], rows)}\n\n{note}"
