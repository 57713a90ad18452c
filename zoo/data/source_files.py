"""What a data source is made of, by content: the key under which its frames are kept, and computed anew only for files that changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from zoo.cache import cache_root
from zoo.digests import file_sha256
from zoo.errors import ZooError
from zoo.files import write_text_atomically

_SETTLED_NANOSECONDS = 2_000_000_000
_WORTH_REMEMBERING_BYTES = 1 << 24


def total_bytes(files: Sequence[Path]) -> int:
    """Of all files together."""
    return sum(file.stat().st_size for file in files)


def content_of(files: Sequence[Path], root: Path) -> list[tuple[str, str]]:
    """(name as seen from the folder of ``root``, SHA-256) of each file, in order of names.

    The hash of a large file is remembered in the cache for as long as its size, place on disk and times of change stay the same.
    """
    base = root if root.is_dir() else root.parent
    return sorted((os.path.relpath(file, base), _remembered_sha256(file)) for file in files)


def _remembered_sha256(file: Path) -> str:
    found = file.stat()
    if found.st_size < _WORTH_REMEMBERING_BYTES:
        return file_sha256(file)
    state = [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    name = hashlib.sha256(os.path.abspath(file).encode()).hexdigest()
    note = cache_root() / "hashes" / f"{name}.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["state"] == state and len(known["sha256"]) == 64:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or not readable: worth no more than the time to compute it
    began = time.time_ns()
    digest = file_sha256(file)
    # a file may change twice within one tick of the file system's clock
    if max(found.st_mtime_ns, found.st_ctime_ns) < began - _SETTLED_NANOSECONDS:
        try:
            write_text_atomically(note, json.dumps({"state": state, "sha256": digest}))
        except ZooError:
            return digest  # the cache may be another's, and not writable
    return digest
