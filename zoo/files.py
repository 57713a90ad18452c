"""Files that are either whole or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import adapters.files
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


def is_partial(name: str) -> bool:
    """Whether a file's name is that of a temporary file of `write_atomically`, which a kill can leave."""
    return name.startswith(".") and name.endswith(".partial")
