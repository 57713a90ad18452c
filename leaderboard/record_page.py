"""One page a record: what was run, its numbers beside the base's own, how to make it again, and the files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leaderboard.board import MEANING, ZERO_SHOT, Value, benchmark_of, method_name, values_of
from zoo.evaluation.record import Record

TEMPLATES = Path(__file__).with_name("site") / "templates"


@dataclass(frozen=True)
class Bar:
    """One row of the table of numbers; shares are of the widest bar of the same test set and unit, in percent."""

    value: Value
    share: float
    zero_shot: float | None
    zero_shot_share: float | None


def environment() -> Environment:
    """Jinja with everything escaped, and an unknown name an error."""
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["number"] = shown_number
    return made


def record_pages(records: Sequence[Record], adapters: Mapping[str, str]) -> Iterator[tuple[Record, str]]:
    """Each record with its page; ``adapters`` are addresses of files by SHA-256."""
    template = environment().get_template("record.html.j2")
    for record in records:
        adapter = record.adapter
        yield (
            record,
            template.render(
                record=record,
                method=method_name(record),
                meaning=MEANING[record.provenance],
                bars=bars_of(record),
                command=command_of(record),
                download=adapters.get(adapter.file_sha256 or "") if adapter else None,
                config=_pretty(adapter.config) if adapter else "",
                training=_pretty(record.training) if record.training is not None else "",
                back=f"../index.html#/benchmark/{quote(benchmark_of(record), safe='')}",
                plots=f"../index.html#/plots/{quote(benchmark_of(record), safe='')}?protocol={quote(record.data.protocol, safe='')}",
            ),
        )


def bars_of(record: Record) -> list[Bar]:
    """The record's numbers with the base's own beside them, and widths for bars that compare errors of one unit."""
    before = {(metric.test_set, metric.name): metric.value for metric in record.zero_shot_metrics}
    values = values_of(record)
    widest: dict[tuple[str, str], float] = {}
    for value in values:
        if value.better == "lower":
            key = (value.name, value.unit)
            widest[key] = max(widest.get(key, 0.0), value.value, before.get((value.test_set, value.name), 0.0))
    bars = []
    for value in values:
        scale = widest.get((value.name, value.unit), 0.0)
        zero_shot = before.get((value.test_set, value.name))
        share = 100 * value.value / scale if scale else 0.0
        bars.append(Bar(value, share, zero_shot, 100 * zero_shot / scale if scale and zero_shot is not None else None))
    return bars


def command_of(record: Record) -> str | None:
    """The command that makes the result again from the record's own configuration; None for what a paper reports."""
    if record.provenance == "reported":
        return None
    if method_name(record) == ZERO_SHOT or record.training is None:
        return shlex.join(["zoo", "evaluate", f"backbone={record.base.card}", f"data={record.data.name}", "record=record.json"])
    words = [f"{key}={value}" for key, value in _settings(record.training)]
    return shlex.join(["zoo", "train", *words])


_SECTIONS = ("backbone", "adapter", "data", "training", "strategy", "evaluation")


def _settings(training: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Sections as Hydra takes them: the group by name, then every scalar that is set."""
    for section in _SECTIONS:
        content = training.get(section)
        if not isinstance(content, Mapping):
            continue
        for key, value in _leaves(content):
            if key == "name" and section in ("backbone", "adapter", "data"):
                yield section, str(value)
            elif not (section == "training" and key.startswith(("loggers", "progress_bar"))):
                yield f"{section}.{key}", value


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if value is None or value == "":
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
            yield f"{prefix}{key}", str(value) if plain else json.dumps(value, ensure_ascii=False).replace('"', "")


def shown_number(value: float | int | None) -> str:
    """Four significant digits, whole numbers with spaces between thousands, nothing for None."""
    if value is None:
        return ""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}".replace(",", "\u202f")


def _pretty(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
