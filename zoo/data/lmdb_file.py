"""LMDB files, opened to be read and nothing else: no lock file, no write access, and no truncated file mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import ZooError, first_line


@contextmanager
def open_lmdb(path: Path) -> Iterator[Any]:
    """A read-only transaction of one LMDB file: ``get(key)`` and ``stat()``.

    LMDB trusts the pages of a file, and a page that a truncated file lacks would end the process with a bus error, not an exception; so the
    size is compared with the number of pages before anything is read.

    Raises:
        ZooError: a file that is no LMDB, or shorter than it says.
    """
    import lmdb

    try:
        environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_readers=1)
    except lmdb.Error as error:
        raise ZooError(f"{path}: cannot be opened as an LMDB ({first_line(error)}); is it complete, and an LMDB?") from error
    try:
        wanted = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if path.stat().st_size < wanted:
            raise ZooError(f"{path}: is truncated ({path.stat().st_size} of {wanted} bytes); download or copy it again")
        with environment.begin() as transaction:
            yield transaction
    finally:
        environment.close()


def shards(path: Path, suffix: str) -> list[tuple[Path, str]]:
    """The files of a data set with their names within its folder, in that order; a file by itself has an empty name."""
    return [(file, file.name) for file in sorted(path.glob(f"*{suffix}"))] if path.is_dir() else [(path, "")]


def shard_files(path: Path, suffix: str) -> list[Path]:
    """What the frames follow from: not what lies beside, such as the lock file that every other reader of an LMDB changes."""
    return [file for file, _ in shards(path, suffix)]


def is_sharded(path: Path, suffix: str) -> bool:
    """Whether ``path`` is a file of that suffix, or a folder with one."""
    return any(path.glob(f"*{suffix}")) if path.is_dir() else path.suffix == suffix
