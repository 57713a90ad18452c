"""Tables as CSV: one dataclass a row, its fields the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from zoo.files import write_text_atomically


def write_table(path: Path, row_type: type[Any], rows: Sequence[Any]) -> Path:
    """Write a header and one line a row, comma-separated, UTF-8, a line feed each; floats by their shortest exact form, None as nothing.

    Args:
        path: of the file, written whole or not at all.
        row_type: the dataclass, whose fields are the columns also where there are no rows.
        rows: of that type.

    Returns:
        The path.

    Raises:
        ZooError: where the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(row_type)])
    writer.writerows(["" if value is None else value for value in astuple(row)] for row in rows)
    write_text_atomically(path, text.getvalue())
    return path
