"""Records as the rows of the board: names, numbers and metrics of each, and the aggregates of each benchmark.

A benchmark is a family of data sets (``rmd17`` of ``rmd17/aspirin``). Only results of one benchmark, one protocol and one provenance are
compared with one another: a number from a paper never shares a rank with one that was recomputed here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboard.ranking import Improvement, improvement_over_full, mean_ranks
from zoo.errors import ZooError
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record import Record, read_record

PROVENANCES = ("reproduced", "submitted", "reported", "local")
"""In the order in which the board shows them."""
MEANING = {
    "reproduced": "run and evaluated by us",
    "submitted": "sent in, recomputed on arrival",
    "reported": "printed in a paper, not recomputed",
    "local": "a run's own record, verified by nobody",
}
FROM_SCRATCH, ZERO_SHOT = "from scratch", "zero-shot"
_TELLING = ("rank", "setting", "threshold_end", "tau_weight_decay", "form", "magnitude", "layers_frozen", "select")
"""Settings of our own methods that belong into a row's name; of a reported record all do, since it has no others."""


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
    """One contestant of a benchmark: how many tasks and seeds it has, its mean rank, and what it gains over full fine-tuning."""

    benchmark: str
    protocol: str
    provenance: str
    base: str
    method: str
    tasks: int
    tasks_of_all: int
    seeds: int
    mean_rank: float
    improvement: Improvement | None


def read_board(folder: Path) -> list[Record]:
    """Every ``*.json`` below ``folder`` as a record, by path.

    Raises:
        ZooError: one line for a folder without records, a file that is no valid record, or an id that two files carry.
    """
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise ZooError(f"{folder}: no record (*.json); name the folder that holds the board's records")
    of_id: dict[str, Path] = {}
    records = []
    for path in paths:
        record = read_record(path)
        if record.id in of_id:
            raise ZooError(f"{path}: id {record.id!r} is that of {of_id[record.id]}; a result is entered once")
        of_id[record.id] = path
        records.append(record)
    return records


def method_name(record: Record) -> str:
    """The method as a row's name: ``zero-shot``, ``from scratch``, ``elora (rank=16)``; settings that do not tell anything are left out."""
    if record.adapter is None:
        return ZERO_SHOT
    reported = record.provenance == "reported"
    config = record.adapter.config
    told = {key: value for key, value in config.items() if (reported or key in _TELLING) and value not in (None, False, "", {}, [])}
    plain = record.adapter.method == "full" and record.base.initial_weights == "random"
    name = FROM_SCRATCH if plain else record.adapter.method
    if record.base.initial_weights == "random" and not plain:
        name += ", random start"
    settings = ", ".join(f"{key}={value}" for key, value in told.items())
    return f"{name} ({settings})" if settings else name


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
    """Force error on frames of the base's own kind after over before fine-tuning, 1 nothing forgotten; None where it was not measured."""
    if record.forgetting is None:
        return None
    before = {metric.name: metric.value for metric in record.forgetting.before}
    for metric in record.forgetting.after:
        if metric.name.startswith("force_") and METRICS[metric.name].better == "lower" and before.get(metric.name):
            return metric.value / before[metric.name]
    return None


def headline(record: Record) -> Value | None:
    """The number of the overall table: the first force error of the record, else its first energy error, else its first error."""
    errors = [value for value in values_of(record) if value.better == "lower" and value.test_set]
    for prefix in ("force_", "energy_", "relaxed_energy_", ""):
        for value in errors:
            if value.name.startswith(prefix):
                return value
    return None


def aggregates(records: Sequence[Record]) -> list[Aggregate]:
    """Mean ranks and improvements of every group of comparable records, best first; groups with one contestant have no ranking."""
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[benchmark_of(record), _comparable_protocol(record), record.provenance].append(record)
    found = []
    for (benchmark, protocol, provenance), members in groups.items():
        found += list(_aggregates_of_group(benchmark, protocol, provenance, members))
    return found


def _aggregates_of_group(benchmark: str, protocol: str, provenance: str, members: list[Record]) -> Iterator[Aggregate]:
    metrics = _primary_metrics(members)
    scores: dict[tuple[str, str], dict[tuple[str, str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in members:
        for metric in record.metrics:
            if metric.name in metrics and metric.value > 0:
                scores[record.base.card, method_name(record)][record.data.name, metric.test_set, metric.name].append(metric.value)
    if len(scores) < 2:
        return
    tasks: dict[Any, dict[str, float]] = defaultdict(dict)
    for contestant, by_task in scores.items():
        for task, values in by_task.items():
            tasks[task]["\n".join(contestant)] = sum(values) / len(values)
    places = mean_ranks(tasks)
    for contestant in sorted(scores, key=lambda name: places["\n".join(name)]):
        base, method = contestant
        full = scores.get((base, "full"))
        gain = improvement_over_full(scores[contestant], full) if full and method != "full" else None
        seeds = max(len(values) for values in scores[contestant].values())
        rank = places["\n".join(contestant)]
        yield Aggregate(benchmark, protocol, provenance, base, method, len(scores[contestant]), len(tasks), seeds, rank, gain)


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
