"""Checksum lists beside the cards of data sets: one line a file, ``<SHA-256 or -> <bytes or -> <name>``."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.data.paths import safe_parts
from zoo.errors import ZooError

_LINE = re.compile(r"(?P<sha256>-|[0-9a-fA-F]{64})\s+(?P<size>-|[0-9]+)\s+(?P<name>\S.*)")


def read_checksums(path: Path) -> dict[str, tuple[str | None, int | None]]:
    """Name to (SHA-256, bytes) in the order of the list, None for what nobody has verified; lines that start with ``#`` are comments.

    Raises:
        ZooError: where the list is absent, names no file, or has a line that is malformed, repeated or leads out of the set's folder.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ZooError(f"{path}: cannot be read ({reason}); add the checksum list or correct the card that names it") from None
    found: dict[str, tuple[str | None, int | None]] = {}
    for number, line in enumerate((line.strip() for line in lines), 1):
        if not line or line.startswith("#"):
            continue
        entry = _LINE.fullmatch(line)
        if entry is None or safe_parts(entry["name"]) is None:
            raise ZooError(f"{path}, line {number}: {line!r} is not '<SHA-256 or -> <bytes or -> <relative name>'; repair the line")
        if entry["name"] in found:
            raise ZooError(f"{path}, line {number}: {entry['name']!r} is listed twice; remove one of the lines")
        found[entry["name"]] = (
            None if entry["sha256"] == "-" else entry["sha256"].lower(),
            None if entry["size"] == "-" else int(entry["size"]),
        )
    if not found:
        raise ZooError(f"{path}: names no file; fill the checksum list or remove it from the card")
    return found
