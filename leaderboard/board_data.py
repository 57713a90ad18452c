"""The board as one script that a page loads from a disk: texts as dictionaries with codes, numbers in columns, metrics named once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from leaderboard.board import (
    FORGETTING,
    MEANING,
    PROVENANCES,
    Entry,
    Value,
    aggregates,
    benchmark_of,
    forgetting_ratio,
    headline,
    values_of,
)
from leaderboard.evidence import VERIFICATIONS, verification_of
from zoo.evaluation.record import Record
from zoo.evaluation.record_parts import ReferenceTreatment
from zoo.submission.verdict import Verdict

_LAZY = "values"


def board_script(board: Sequence[Entry], verdicts: Mapping[str, Verdict]) -> str:
    """``window.BOARD = JSON.parse("...")``: a string, because browsers read that faster than an object, and nothing in it can be code.

    The numbers of all records, most of the bytes, are a string of their own that is parsed when a benchmark is first looked at.
    """
    content = board_content(board, verdicts)
    numbers = content.pop(_LAZY)
    return f"window.BOARD = JSON.parse({_as_literal(_json(content))}); window.BOARD_VALUES = {_as_literal(_json(numbers))};\n"


def board_content(board: Sequence[Entry], verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """Everything the page shows without opening a record; the layout is that of ``site/static/board.js``."""
    records = [entry.record for entry in board]
    metrics: dict[tuple[str, str, str], int] = {}
    listed: list[dict[str, Any]] = []
    values, heads, head_values = [], [], []
    for record in records:
        row: list[float | int | None] = []
        shown = values_of(record)
        for value in shown:
            key = (value.test_set, value.name, value.unit)
            if key not in metrics:
                metrics[key] = len(listed)
                listed.append(_about(value))
            row += [metrics[key], value.value, value.deviation]
        values.append(row)
        head = headline(shown)
        heads.append(-1 if head is None else metrics[head.test_set, head.name, head.unit])
        head_values.append(None if head is None else head.value)
    return {
        "ids": [record.id for record in records],
        "texts": {key: _coded(texts) for key, texts in _texts(board, verdicts).items()},
        "numbers": _numbers(records),
        "metrics": listed,
        "values": values,
        "heads": heads,
        "head_values": head_values,
        "ranking": [{key: value for key, value in asdict(row).items() if value is not None} for row in aggregates(board)],
        "provenances": [{"name": name, "meaning": MEANING[name]} for name in PROVENANCES],
        "forgetting_of": f"{FORGETTING.frames} frames of {FORGETTING.data}",
        "verifications": [asdict(verification) for verification in VERIFICATIONS],
    }


_E0S: dict[ReferenceTreatment, str] = {
    "base": "of the base",
    "model": "fitted to the model's errors",
    "isolated_atoms": "isolated atoms",
    "least_squares": "least squares",
    "linear": "linear, of the data",
    "unstated": "",
}


def _about(value: Value) -> dict[str, Any]:
    return {"test": value.test_set, "name": value.name, "label": value.label, "unit": value.unit, "better": value.better}


def _texts(board: Sequence[Entry], verdicts: Mapping[str, Verdict]) -> dict[str, list[str]]:
    records = [entry.record for entry in board]
    return {
        "base": [record.base.card for record in records],
        "family": [record.base.family for record in records],
        "method": [entry.method for entry in board],
        "benchmark": [benchmark_of(record) for record in records],
        "data": [record.data.name for record in records],
        "protocol": [record.data.protocol for record in records],
        "e0s": [_E0S[record.reference_energies.after] for record in records],
        "theory": [record.data.level_of_theory or "" for record in records],
        "provenance": [record.provenance for record in records],
        "verified": [verification_of(verdicts.get(record.id)).name for record in records],
        "source": [f"{r.reported.paper}, {r.citation.table}" if r.citation and r.reported else r.author or "" for r in records],
        "hardware": [record.cost.hardware if record.cost else "" for record in records],
        "licence": [record.licence or record.base.licence or "" for record in records],
    }


def _numbers(records: Sequence[Record]) -> dict[str, list[float | int | None]]:
    def hours(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds / 3600, 6)

    return {
        "parameters": [record.base.parameter_count for record in records],
        "trainable": [record.adapter.trainable_count if record.adapter else 0 for record in records],
        "bytes": [record.adapter.file_bytes if record.adapter else None for record in records],
        "seed": [record.seed for record in records],
        "cpu_hours": [hours(record.cost.cpu_seconds if record.cost else None) for record in records],
        "gpu_hours": [hours(record.cost.gpu_seconds if record.cost else None) for record in records],
        "memory_mib": [record.cost.peak_memory_mib if record.cost else None for record in records],
        "forgetting": [forgetting_ratio(record) for record in records],
        "runs": [record.reported.runs if record.reported else None for record in records],
    }


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _coded(texts: Iterable[str]) -> dict[str, Any]:
    codes: dict[str, int] = {}
    return {"codes": [codes.setdefault(text, len(codes)) for text in texts], "words": list(codes)}


def _as_literal(text: str) -> str:
    """A JavaScript string literal; line separators, and the less-than sign, are escaped although the file is a script of its own."""
    literal = json.dumps(text, ensure_ascii=False)
    return literal.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
