"""Archives that ``torch.save`` wrote: checked whole, and loaded as plain values unless the user says that the file may run code."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ZooError, first_line

DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError)
"""What reading a damaged archive raises."""


def check_archive(path: Path, kind: str) -> None:
    """Refuse a damaged file: torch does not look at the archive's CRC-32 sums, and would load a flipped bit as a weight.

    Args:
        path: of the file.
        kind: ``"a SevenNet checkpoint"``: what it should be, for the message.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except DAMAGED_ARCHIVE as error:
        raise ZooError(f"{path}: cannot be read as {kind} ({first_line(error)}); fetch the file again") from None
    if damaged is not None:
        raise ZooError(f"{path}: damaged file ({damaged} does not match its CRC-32); fetch the file again")


def load_archive(path: Path, kind: str, trust_pickle: bool, allowed: Sequence[Any] = ()) -> Any:
    """What ``torch.save`` was given, on the CPU.

    Args:
        path: of the file, which `check_archive` has passed.
        kind: ``"a SevenNet checkpoint"``: what it should be, for the message.
        trust_pickle: load a file that would run code all the same.
        allowed: what the file may name besides torch's own plain types (see ``torch.serialization.safe_globals``).

    Raises:
        ZooError: a file that cannot be loaded, or one that would run code.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust_pickle:
            raise ZooError(
                f"{path}: the file would run code when loaded ({_first_forbidden_global(error)}); "
                "if you trust where it comes from, pass trust_pickle=True (backbone.trust_pickle=true)"
            ) from None
        return torch.load(path, map_location="cpu", weights_only=False)
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ZooError(f"{path}: cannot be read as {kind} ({first_line(error)}); fetch the file again") from None


def _first_forbidden_global(error: Exception) -> str:
    words = str(error).split("GLOBAL ")
    return f"it names {words[1].split()[0]}" if len(words) > 1 else "it is not a plain checkpoint"
