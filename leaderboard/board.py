"""Records as the rows of the board: names, numbers and metrics of each, and the aggregates of each benchmark.

A benchmark is a family of data sets (``rmd17`` of ``rmd17/aspirin``). Only results of one benchmark, one protocol and one provenance are
compared with one another: a number from a paper never shares a rank with one that was recomputed here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboard.contestants import FULL, ZERO_SHOT, contestant_names
from leaderboard.ranking import Improvement, improvement_over_full, mean_ranks, over_seeds
from zoo.errors import ZooError
from zoo.evaluation.forgetting_settings import ForgettingSettings
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record import Record, parse_record, read_record_text, record_text

PROVENANCES = ("reproduced", "submitted", "reported", "local")
"""In the order in which the board shows them."""
MEANING = {
    "reproduced": "run and evaluated by us",
    "submitted": "sent in, recomputed on arrival",
    "reported": "printed in a paper, not recomputed",
    "local": "a run's own record, verified by nobody",
}
OVERALL = "all benchmarks"
FORGETTING = ForgettingSettings(data="mptrj-1k", frames=50)
"""The frames of the column of forgetting: errors on others do not compare, and stand on the pages of their records alone."""
Contestant = tuple[str, str]
"""Base and method."""
Tasks = dict[tuple[str, ...], list[float]]
"""The errors of each seed by data set, test set and metric."""


@dataclass(frozen=True)
class Entry:
    """A record on the board: its contestant's method by name (`leaderboard.contestants`), and the text of its file."""

    record: Record
    method: str
    text: str


@dataclass(frozen=True)
class Value:
    """One number of a record: a metric or another printed quantity; ``deviation`` over seeds or runs, if known."""

    test_set: str
    name: str
    label: str
    unit: str
    better: str | None
    value: float
    deviation: float | None


@dataclass(frozen=True)
class Aggregate:
    """One contestant of a benchmark: its tasks and seeds, its mean rank, and its gain over full fine-tuning."""

    benchmark: str
    protocol: str
    provenance: str
    base: str
    method: str
    tasks: int
    tasks_of_all: int
    fewest_seeds: int
    most_seeds: int
    mean_rank: float
    improvement: Improvement | None


def read_board(folder: Path) -> list[Entry]:
    """Every ``*.json`` below ``folder`` as an entry, in the board's order: by provenance, data and id.

    Raises:
        ZooError: one line for a folder without records, a file that is no valid record, or an id that two files carry.
    """
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise ZooError(f"{folder}: no record (*.json); name the folder that holds the board's records")
    of_id: dict[str, Path] = {}
    records: list[tuple[Record, str]] = []
    for path in paths:
        text = read_record_text(path)
        record = parse_record(text, str(path))
        if record.id in of_id:
            raise ZooError(f"{path}: id {record.id!r} is that of {of_id[record.id]}; a result is entered once")
        of_id[record.id] = path
        records.append((record, text))
    records.sort(key=lambda pair: (PROVENANCES.index(pair[0].provenance), pair[0].data.name, pair[0].id))
    return entries([record for record, _ in records], [text for _, text in records])


def entries(records: Sequence[Record], texts: Sequence[str] | None = None) -> list[Entry]:
    """Records with the names of their contestants, and what their files hold (by default what they would)."""
    written = map(record_text, records) if texts is None else texts
    return [Entry(*entry) for entry in zip(records, contestant_names(records), written, strict=True)]


def benchmark_of(record: Record) -> str:
    """The family of data sets: ``rmd17`` of ``rmd17/aspirin``."""
    return record.data.name.split("/")[0]


def values_of(record: Record) -> list[Value]:
    """All numbers of a record: its metrics, then what else a paper printed."""
    reported = record.reported
    deviations = {(d.test_set, d.metric): d.value for d in reported.deviations} if reported else {}
    values = []
    for metric in record.metrics:
        known = METRICS[metric.name]
        deviation = deviations.get((metric.test_set, metric.name))
        values.append(Value(metric.test_set, metric.name, known.label, known.unit, known.better, metric.value, deviation))
    for q in reported.quantities if reported else ():
        values.append(Value(q.test_set or "", q.name, q.label, q.unit, q.better, q.value, q.deviation))
    return values


def forgetting_ratio(record: Record) -> float | None:
    """Force error on the frames of `FORGETTING` after over before fine-tuning, 1 nothing forgotten; None where it was not measured."""
    if record.forgetting is None or (record.forgetting.data_name, record.forgetting.split.frames) != (FORGETTING.data, FORGETTING.frames):
        return None
    before = {metric.name: metric.value for metric in record.forgetting.before}
    for metric in record.forgetting.after:
        if metric.name.startswith("force_") and METRICS[metric.name].better == "lower" and before.get(metric.name):
            return metric.value / before[metric.name]
    return None


def headline(values: Sequence[Value]) -> Value | None:
    """The number of the overall table: the first force error of a record, else its first energy error, else its first error."""
    errors = [value for value in values if value.better == "lower" and value.test_set]
    for prefix in ("force_", "energy_", "relaxed_energy_", ""):
        for value in errors:
            if value.name.startswith(prefix):
                return value
    return None


def aggregates(board: Sequence[Entry]) -> list[Aggregate]:
    """Mean ranks and improvements of every group of comparable records, best first; groups with one contestant have no ranking.

    Our own kinds of evidence are ranked over all their benchmarks too, as `OVERALL`: every task counts once. Papers are not, since no two
    of them share bases, data and protocols, and ranks over all would tell who printed the most tables.
    """
    groups: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in board:
        groups[entry.record.provenance, benchmark_of(entry.record), _comparable_protocol(entry.record)].append(entry)
    found = []
    everything: dict[str, dict[Contestant, Tasks]] = defaultdict(lambda: defaultdict(dict))
    benchmarks: dict[str, set[str]] = defaultdict(set)
    for (provenance, benchmark, protocol), members in groups.items():
        scores = _scores(members)
        found += _ranked(benchmark, protocol, provenance, scores)
        if provenance != "reported" and len(scores) > 1:
            benchmarks[provenance].add(benchmark)
            for contestant, tasks in scores.items():
                everything[provenance][contestant].update({(benchmark, protocol, *task): values for task, values in tasks.items()})
    for provenance, scores in everything.items():
        if len(benchmarks[provenance]) > 1:
            found += _ranked(OVERALL, "each by its own protocol", provenance, scores)
    return found


def _scores(members: Sequence[Entry]) -> dict[Contestant, Tasks]:
    """The errors of every contestant, one a seed, by data set, test set and metric."""
    metrics = _primary_metrics(entry.record for entry in members)
    scores: dict[Contestant, Tasks] = defaultdict(lambda: defaultdict(list))
    for entry in members:
        record = entry.record
        for metric in record.metrics:
            if metric.name in metrics:
                scores[record.base.card, entry.method][record.data.name, metric.test_set, metric.name].append(metric.value)
    return scores


def _ranked(benchmark: str, protocol: str, provenance: str, scores: Mapping[Contestant, Tasks]) -> list[Aggregate]:
    if len(scores) < 2:
        return []
    tasks: dict[Any, dict[Contestant, float]] = defaultdict(dict)
    for contestant, by_task in scores.items():
        for task, values in by_task.items():
            tasks[task][contestant] = over_seeds(values).mean
    tasks = {task: values for task, values in tasks.items() if _compares(values, scores)}
    if not tasks:
        return []
    scores = {one: own for one, by_task in scores.items() if (own := {task: by_task[task] for task in by_task if task in tasks})}
    places = mean_ranks(tasks)
    full = _full_of_each_base(places)
    rows = []
    for contestant in sorted(scores, key=lambda one: (places[one], one)):
        base, method = contestant
        reference = full.get(base)
        compared = reference if reference != contestant else None
        gain = improvement_over_full(_positive(scores[contestant]), _positive(scores[compared])) if compared else None
        seeds = [len(values) for values in scores[contestant].values()]
        counts = (len(seeds), len(tasks), min(seeds), max(seeds))
        rows.append(Aggregate(benchmark, protocol, provenance, base, method, *counts, places[contestant], gain))
    return rows


def _compares(task: Iterable[Contestant], everyone: Iterable[Contestant]) -> bool:
    """Whether more than one has results on a task, and methods among them where there are any: nobody wins a test set of his own.

    A base is evaluated on all test sets of a protocol at once; those that no method was tested on say nothing of the methods.
    """
    there = list(task)
    trained = [one for one in everyone if one[1] != ZERO_SHOT]
    return len(there) > 1 and (not trained or any(one[1] != ZERO_SHOT for one in there))


def _positive(tasks: Tasks) -> Tasks:
    """An error of zero has a place, and no ratio."""
    return {task: values for task, values in tasks.items() if min(values) > 0}


def _full_of_each_base(places: Mapping[Contestant, float]) -> dict[str, Contestant]:
    """What gains refer to: full fine-tuning of the base, the best placed of several kinds of it, so that no gain is one over a bad rate."""
    found: dict[str, Contestant] = {}
    for contestant in sorted(places, key=lambda one: (places[one], one)):
        base, method = contestant
        if method == FULL or method.startswith(f"{FULL} ("):
            found.setdefault(base, contestant)
    return found


def _primary_metrics(members: Iterable[Record]) -> set[str]:
    """One energy and one force error of a group, those that most of its records have: MAE and RMSE of one result are not two results."""
    counts = Counter(name for record in members for name in {metric.name for metric in record.metrics} if METRICS[name].better == "lower")
    chosen = set()
    for prefix in ("energy_", "force_", "relaxed_energy_"):
        names = [name for name in METRICS if name.startswith(prefix) and counts[name]]
        if names:
            chosen.add(max(names, key=lambda name: counts[name]))
    return chosen


def _comparable_protocol(record: Record) -> str:
    """The protocol without the data set's own name, so that the molecules of a benchmark are in one group."""
    return record.data.protocol.removeprefix(f"{record.data.name} ").removeprefix(f"{record.data.name}/").removeprefix(record.data.name)
