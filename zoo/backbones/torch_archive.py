"""Archives that ``torch.save`` wrote: checked whole, and loaded as plain values unless the user says that the file may run code."""

from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ZooError, first_line

DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError)
"""What reading a damaged archive raises."""
_COMPRESSED_BEGINNING = 2**20
_SCRIPT_CODE = re.compile(r"[^/]+/code/")


def check_archive(path: Path, kind: str) -> None:
    """Refuse a damaged file: torch does not look at the archive's CRC-32 sums, and would load a flipped bit as a weight.

    Args:
        path: of the file.
        kind: ``"a SevenNet checkpoint"``: what it should be, for the message.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            require_stored(archive)
            damaged = archive.testzip()
    except DAMAGED_ARCHIVE as error:
        raise ZooError(f"{path}: cannot be read as {kind} ({first_line(error)}); fetch the file again") from None
    if damaged is not None:
        raise ZooError(f"{path}: damaged file ({damaged} does not match its CRC-32); fetch the file again")


def require_stored(archive: zipfile.ZipFile) -> None:
    """Refuse entries that are larger than their place in the archive: torch compresses no numbers, and a compressed entry may be any size.

    TorchScript's code, which torch does compress and nothing here reads, is left out.

    Raises:
        zipfile.BadZipFile: for a compressed entry, or for entries that lie over one another.
    """
    entries = [entry for entry in archive.infolist() if not _SCRIPT_CODE.match(entry.filename)]
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise zipfile.BadZipFile(f"the compressed entry {entry.filename[:100]!r}, which torch does not write")
    stream = archive.fp
    assert stream is not None
    if sum(entry.file_size for entry in entries) > stream.seek(0, 2):
        raise zipfile.BadZipFile("entries larger than the archive")


def names_in_archive(path: Path) -> list[str]:
    """The names of a file's entries; none where it is no archive or a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except DAMAGED_ARCHIVE:
        return []


def searchable_pickle(path: Path) -> bytes:
    """The bytes of an archive's pickle, to tell a family by the names in it; empty where there is none or the archive is damaged.

    Of a compressed pickle it is only the beginning, whatever it would grow to: enough to say whose it is, and `check_archive` refuses it.
    """
    try:
        if not zipfile.is_zipfile(path):
            return b""
        with zipfile.ZipFile(path) as archive:
            pickles = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
            if not pickles:
                return b""
            limit = path.stat().st_size if pickles[0].compress_type == zipfile.ZIP_STORED else _COMPRESSED_BEGINNING
            with archive.open(pickles[0]) as stream:
                return stream.read(limit)
    except DAMAGED_ARCHIVE:
        return b""  # a damaged archive: no family reads it


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
        # opened here: by its name alone torch would take an archive called *.safetensors for another format
        with torch.serialization.safe_globals(list(allowed)), path.open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust_pickle:
            raise ZooError(
                f"{path}: the file would run code when loaded ({_first_forbidden_global(error)}); "
                "if you trust where it comes from, pass trust_pickle=True (backbone.trust_pickle=true)"
            ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ZooError(f"{path}: cannot be read as {kind} ({first_line(error)}); fetch the file again") from None
    try:
        with path.open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=False)
    except Exception as error:  # the file's own code runs here and may raise anything, most often for want of a package that it names
        raise ZooError(
            f"{path}: its own code failed while it was read as {kind} ({type(error).__name__}: {first_line(error)}); install what it needs"
        ) from None


def _first_forbidden_global(error: Exception) -> str:
    words = str(error).split("GLOBAL ")
    return f"it names {words[1].split()[0]}" if len(words) > 1 else "it is not a plain checkpoint"
