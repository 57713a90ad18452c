"""Whether a file is the published one: by its SHA-256, else its MD5, each computed once per process and unchanged file."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Algorithm = Literal["SHA-256", "MD5"]

# A file may change twice within one tick of the file system's clock: what was hashed while it was this young is hashed again.
_SETTLED_NANOSECONDS = 1_000_000_000
_known: dict[tuple[str, Algorithm], tuple[tuple[int, ...], str]] = {}


@dataclass(frozen=True)
class Expected:
    """What is known of a published file.

    Attributes:
        sha256: in hexadecimal, None where nobody has verified one.
        md5: likewise; it counts only where there is no SHA-256.
        size: bytes, where known.
    """

    sha256: str | None = None
    md5: str | None = None
    size: int | None = None

    @property
    def has_checksum(self) -> bool:
        """Whether the content can be told from another of the same size."""
        return self.sha256 is not None or self.md5 is not None

    def difference(self, path: Path) -> str | None:
        """How the file at ``path`` differs, ``"5 bytes where 7 are expected"``; None where it does not.

        Raises:
            OSError: where it cannot be read.
        """
        found_size = path.stat().st_size
        if self.size is not None and found_size != self.size:
            return f"{found_size} bytes where {self.size} are expected"
        algorithm: Algorithm = "SHA-256" if self.sha256 is not None else "MD5"
        wanted = self.sha256 or self.md5
        if wanted is None or (found := _digest(path, algorithm)) == wanted.lower():
            return None
        return f"{algorithm} {found} where {wanted} is expected"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return _digest(path, "SHA-256")


def _digest(path: Path, algorithm: Algorithm) -> str:
    key = (os.path.abspath(path), algorithm)
    state = _state(path)
    if key in _known and _known[key][0] == state:
        return _known[key][1]
    began = time.time_ns()
    with path.open("rb") as stream:
        # MD5 tells a damaged file, not a forged one: for data sets whose publisher gives nothing better
        digest = hashlib.file_digest(stream, "sha256" if algorithm == "SHA-256" else lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if max(state[-2:]) < began - _SETTLED_NANOSECONDS and _state(path) == state:
        _known[key] = (state, digest)
    return digest


def _state(path: Path) -> tuple[int, ...]:
    """What changes with the content; the last two are times in ns."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
