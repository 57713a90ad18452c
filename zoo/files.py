"""Files that are either whole or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import adapters.files
from adapters.files import is_partial as is_partial
from adapters.files import remove_partials as remove_partials
from zoo.errors import ZooError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`adapters.files.write_atomically` with this package's error.

    Raises:
        ZooError: where the folder cannot be written or the disk is full; the temporary file is removed.
    """
    adapters.files.write_atomically(path, write, ZooError)


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` for UTF-8 text."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))
