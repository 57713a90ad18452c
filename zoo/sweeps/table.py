"""From the folders of finished runs to ``sweep.csv``, one row a run, and back."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zoo.errors import ZooError
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record import read_record
from zoo.files import write_text_atomically
from zoo.sweeps.jobs import Job
from zoo.sweeps.kinds import Value

Cell = str | int | float | None
Row = dict[str, Cell]

ZERO_SHOT = "zero_shot"
_TEXT_COLUMNS = ("kind", "run", "method", "record_id", "cut", "curve")  # names, though they may look like numbers
_NOT_OF_THE_KEPT = ("step", "train/loss", "learning_rate")


def row_of(kind: str, job: Job) -> Row:
    """Everything that the table says of a finished run.

    ``valid_...`` and the method's own report (sparsity, thresholds) are of the validation whose weights the run kept (``kept_step``: that
    with the lowest loss, ``best_step``, or the last one); ``TEST/METRIC`` and ``zero_shot/TEST/METRIC`` are the record's.

    Raises:
        ZooError: where the record or the history cannot be read.
    """
    record = read_record(job.folder / "record.json")
    history = read_rows(job.folder / "history.csv")
    best = min(history, key=lambda row: number(row, "valid/loss"))  # the first of equals, as the run keeps it
    kept = history[-1] if job.config.training.keep == "last" else best
    assert record.adapter is not None
    assert record.cost is not None
    row: Row = {"kind": kind, "run": job.name, "method": job.method, "value": job.value, "seed": job.seed}
    row |= {"steps": int(number(history[-1], "step")), "best_step": int(number(best, "step")), "kept_step": int(number(kept, "step"))}
    row |= {name.replace("/", "_"): cell for name, cell in kept.items() if name not in _NOT_OF_THE_KEPT}
    row |= {
        "trainable_count": record.adapter.trainable_count,
        "base_parameter_count": record.base.parameter_count,
        "coverage_share": record.adapter.coverage_share,
        "adapter_file_bytes": record.adapter.file_bytes,
        "wall_seconds": record.cost.wall_seconds,
        "cpu_seconds": record.cost.cpu_seconds,
        "gpu_seconds": record.cost.gpu_seconds,
        "peak_memory_mib": record.cost.peak_memory_mib,
        "peak_gpu_memory_mib": record.cost.peak_gpu_memory_mib,
        "record_id": record.id,
    }
    row |= {f"{metric.test_set}/{metric.name}": metric.value for metric in record.metrics}
    return row | {f"{ZERO_SHOT}/{metric.test_set}/{metric.name}": metric.value for metric in record.zero_shot_metrics}


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Write a table with the union of the rows' columns; numbers as Python reads them back to the bit."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomically(path, text.getvalue())
    return path


def read_rows(path: Path) -> list[Row]:
    """The rows of a table, numbers as numbers and empty cells as None; raises `ZooError` where it cannot be read or holds nothing."""
    try:
        text = path.read_text(encoding="utf-8")
        read = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ZooError(f"{path}: cannot be read ({reason}); give the folder of a sweep that has finished runs") from None
    if not read:
        raise ZooError(f"{path}: holds no rows; run the sweep again")
    uneven = next((number for number, row in enumerate(read, 1) if None in row or None in row.values()), None)
    if uneven is not None or not text.endswith(("\n", "\r")):
        raise ZooError(f"{path}: row {uneven or len(read)} is not complete; copy the file again, or run the sweep again")
    return [_cells(row) for row in read]


def _cells(row: Mapping[str, str]) -> Row:
    return {name: text if name in _TEXT_COLUMNS else _cell(text) for name, text in row.items()}


def _cell(text: str) -> Cell:
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def test_sets_of(rows: Iterable[Row]) -> list[str]:
    """The test sets that the rows have errors of, in order of first appearance."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return list(dict.fromkeys(test_set for test_set, _, metric in (name.rpartition("/") for name in columns) if _is_test(test_set, metric)))


def _is_test(test_set: str, metric: str) -> bool:
    return bool(test_set) and not test_set.startswith(f"{ZERO_SHOT}/") and metric in METRICS


def number(row: Row, column: str) -> float:
    """A cell as a number, NaN where there is none."""
    cell = row.get(column)
    return float(cell) if isinstance(cell, int | float) else math.nan


def value_of(row: Row) -> Value | None:
    """The swept value of a row."""
    cell = row.get("value")
    return cell if isinstance(cell, int | float) else None
