"""One page a record: what was run, its numbers beside the base's own, how to make it again, and the files."""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic_core import to_json

from leaderboard.board import MEANING, Entry, benchmark_of, values_of
from leaderboard.downloads import Downloads
from leaderboard.entries import REPORTED, REPRODUCED
from leaderboard.evidence import verdict_facts, verification_of
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record import Record
from zoo.evaluation.record_parts import MetricRecord
from zoo.submission.verdict import Verdict

_CHOICE_OF_FRAMES = ("protocol", "subset", "n_train", "n_valid", "n_test", "valid_fraction", "test_fraction", "split_seed", "test")
TEMPLATES = Path(__file__).with_name("site") / "templates"


class Bar(NamedTuple):
    """One row of the table of numbers, as it is shown; widths are percentages of the widest bar of the same quantity, empty for no bar."""

    test_set: str
    label: str
    value: str
    deviation: str
    zero_shot: str
    unit: str
    width: str
    zero_shot_width: str


def environment() -> Environment:
    """Jinja with everything escaped, and an unknown name an error."""
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["number"] = shown_number
    return made


def record_pages(board: Sequence[Entry], verdicts: Mapping[str, Verdict], downloads: Downloads) -> Iterator[tuple[Record, str]]:
    """Each record with its page."""
    template = environment().get_template("record.html.j2")
    bases = {_task(entry.record): entry.record for entry in board if entry.record.adapter is None and entry.record.provenance == REPRODUCED}
    for entry in board:
        record = entry.record
        before = before_of(record, bases.get(_task(record)))
        adapter, verdict = record.adapter, verdicts.get(record.id)
        yield (
            record,
            template.render(
                record=record,
                # as an address of its own, so that a record is one file on the site
                file=f"data:application/json;base64,{b64encode(entry.text.encode()).decode()}",
                method=entry.method,
                meaning=MEANING[record.provenance],
                verification=verification_of(verdict),
                verdict=verdict_facts(verdict) if verdict else [],
                bars=bars_of(record, before),
                before=to_json([(metric.test_set, metric.name, metric.value) for metric in before]).decode(),
                facts=facts_of(record),
                forgotten=forgotten_of(record),
                command=command_of(record),
                evaluation=evaluation_of(record),
                adapter_file=downloads.adapters.get(adapter.file_sha256 or "") if adapter else None,
                archive_file=downloads.archives.get(record.id),
                config=_pretty(adapter.config) if adapter else "",
                training=_pretty(record.training) if record.training is not None else "",
                back=f"../index.html#/benchmark/{quote(benchmark_of(record), safe='')}",
                plots=f"../index.html#/plots/{quote(benchmark_of(record), safe='')}?protocol={quote(record.data.protocol, safe='')}",
            ),
        )


def before_of(record: Record, base: Record | None) -> Sequence[MetricRecord]:
    """The base's own numbers: those that the record has, or those of ``base``, the board's record of the base as it is on the same task."""
    if record.zero_shot_metrics or base is None or record.adapter is None or record.provenance == REPORTED:
        return record.zero_shot_metrics
    return base.metrics


def _task(record: Record) -> tuple[str, ...]:
    return record.base.card, record.data.name, record.data.protocol, record.reference_energies.after


def forgotten_of(record: Record) -> list[tuple[str, str, str, str]]:
    """(quantity, before, after, unit) of the errors on frames of the base's own kind; none where they were not measured."""
    if record.forgetting is None:
        return []
    after = {(metric.test_set, metric.name): metric.value for metric in record.forgetting.after}
    return [
        (METRICS[metric.name].label, shown_number(metric.value), shown_number(after[key]), METRICS[metric.name].unit)
        for metric in record.forgetting.before
        if (key := (metric.test_set, metric.name)) in after
    ]


def bars_of(record: Record, base: Sequence[MetricRecord]) -> list[Bar]:
    """The record's numbers with the base's own beside them, and widths for bars that compare errors of one unit."""
    before = {(metric.test_set, metric.name): metric.value for metric in base}
    values = values_of(record)
    widest: dict[tuple[str, str], float] = {}
    for value in values:
        if value.better == "lower":
            key = (value.name, value.unit)
            widest[key] = max(widest.get(key, 0.0), value.value, before.get((value.test_set, value.name), 0.0))
    bars = []
    for value in values:
        zero_shot = before.get((value.test_set, value.name))
        scale = widest.get((value.name, value.unit))
        widths = [f"{100 * number / scale:.2f}" if scale and number is not None else "" for number in (value.value, zero_shot)]
        shown, deviation, before_it = (shown_number(number) for number in (value.value, value.deviation, zero_shot))
        bars.append(Bar(value.test_set or "–", value.label, shown, deviation, before_it, value.unit, widths[0], widths[1]))
    return bars


def facts_of(record: Record) -> list[tuple[str, str]]:
    """What was run, as names and values; what is not known is left out."""
    base, adapter, data, cost = record.base, record.adapter, record.data, record.cost
    forces = {True: "gradient of the energy", False: "direct", None: None}[base.conservative]
    facts: list[tuple[str, object]] = [
        ("Base", base.card), ("Family", base.family), ("Base values, SHA-256", base.values_sha256), ("Licence of the base", base.licence),
        ("Forces", forces), ("Symmetry", base.symmetry), ("Parameters of the base", base.parameter_count),
    ]  # fmt: skip
    if adapter:
        facts += [
            ("Method", adapter.method), ("Trained parameters", adapter.trainable_count), ("Adapter file, bytes", adapter.file_bytes),
            ("Adapter file, SHA-256", adapter.file_sha256),
        ]  # fmt: skip
        facts += [(f"Adapter, {name}", value) for name, value in adapter.report.items()]
    facts += [
        ("Data", data.name), ("Protocol", data.protocol), ("Level of theory", data.level_of_theory), ("Licence of the data", data.licence),
        ("Seed", None if record.seed is None else str(record.seed)),
        ("Reference energies before training", record.reference_energies.before),
        ("Reference energies after training", record.reference_energies.after),
        ("Runs that the numbers are means of", record.reported.runs if record.reported else None),
    ]  # fmt: skip
    if cost:
        facts += [
            ("Wall time / s", cost.wall_seconds), ("CPU time / s", cost.cpu_seconds), ("GPU time / s", cost.gpu_seconds),
            ("Peak memory / MiB", cost.peak_memory_mib), ("Hardware", cost.hardware), ("Threads", cost.threads),
        ]  # fmt: skip
    commit = record.git_commit
    facts += [
        ("Author", record.author), ("Licence", record.licence), ("Made", record.created.isoformat()),
        ("Commit", f"{commit.sha}{' with changes' if commit.dirty else ''}" if commit else None),
    ]  # fmt: skip
    return [
        (name, value if isinstance(value, str) else shown_number(value)) for name, value in facts if isinstance(value, (str, int, float))
    ]


def command_of(record: Record) -> str | None:
    """What makes the result again from the record's file; None for what a paper reports, or where the record says too little."""
    if record.provenance == "reported" or (record.training is None and "asked" not in record.evaluation):
        return None
    return f"zoo reproduce {record.id}.json"


def evaluation_of(record: Record) -> str | None:
    """What computes the numbers again from the adapter's file; None where a run's settings are not known."""
    data = (record.training or {}).get("data")
    if record.adapter is None or not isinstance(data, dict):
        return None
    words = ["zoo", "evaluate", "adapter=FILE", f"data={data.get('name')}"]
    for key in _CHOICE_OF_FRAMES:
        value = data.get(key)
        if value is not None and not (key == "split_seed" and value == 0):
            words.append(f"data.{key}={'[' + ','.join(map(str, value)) + ']' if isinstance(value, list) else value}")
    return shlex.join(words)  # a stranger's record may say anything, and readers paste commands


def shown_number(value: float | int | None) -> str:
    """Four significant digits, from a thousand on whole, with narrow spaces between thousands; nothing for None."""
    if value is None:
        return ""
    if abs(value) < 1000 and not float(value).is_integer():
        return f"{value:.4g}"
    return f"{value:,.0f}".replace(",", "\u202f")


def _pretty(content: object) -> str:
    return to_json(content, indent=2).decode()  # json.dumps with an indent is ten times slower
