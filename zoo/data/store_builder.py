"""Stores of the cache: opened where they are whole, else built by one process at a time.

A store is written under another name, flushed to disk and renamed, under a lock, so that a kill, a full disk or a second process never
leave one that a later run trusts.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.cache import cache_root
from zoo.data.array_store import ArrayStore, BrokenStoreError, StoreWriter, open_store
from zoo.data.store_names import aside, is_aside, lock_file
from zoo.errors import ZooError
from zoo.locks import one_at_a_time


def obtain_store(kind: str, key: str, build: Callable[[StoreWriter], Mapping[str, Any]]) -> ArrayStore:
    """The store ``key`` of the cache: opened where it is whole, built where it is not there, built anew where it is broken.

    Standard error says where a store is damaged, or another process is building it.

    Args:
        kind: names the folder of the cache, ``"frames"`` or ``"edges"``.
        key: names what is in it: a hash of everything that the content follows from.
        build: appends the arrays and returns what is to be remembered with them.

    Raises:
        ZooError: where the cache cannot be written or the disk is full; nothing is left behind then. Whatever ``build`` raises.
    """
    folder = cache_root() / kind / key
    try:
        return open_store(folder)
    except BrokenStoreError:
        pass  # not there, or broken: decided under the lock
    with _locked(folder):
        if os.path.lexists(folder):
            try:
                return open_store(folder)  # of the process that had the lock
            except BrokenStoreError as broken:
                print(f"cache: {folder} is damaged ({broken}) and is built anew", file=sys.stderr)
        _build(folder, build)
        try:
            return open_store(folder)
        except BrokenStoreError as broken:
            raise ZooError(
                f"{folder}: what was written to the cache does not read back ({broken}); check that disk, or set ZOO_CACHE"
            ) from broken


def _build(folder: Path, build: Callable[[StoreWriter], Mapping[str, Any]]) -> None:
    for left in folder.parent.glob(f".{folder.name}.*"):
        _remove(left)  # of a process that was killed: under the lock nobody works there
    _remove_left_over(folder.parent)
    partial, old = aside(folder, "partial"), aside(folder, "old")
    writer = StoreWriter(partial)
    try:
        partial.mkdir()
        writer.finish(build(writer))
        if os.path.lexists(folder):
            folder.rename(old)
        partial.rename(folder)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        writer.close()
        _remove(partial)
        _remove(old)


def _remove(path: Path) -> None:
    """Whatever it is; of a link, the link."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with ExitStack() as held:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(one_at_a_time(lock_file(folder), f"cache: another process is building {folder}; waiting for it"))
        except OSError as error:
            raise _cannot_write(folder, error) from error
        yield


def _remove_left_over(kind: Path) -> None:
    """Remove what killed processes have left of any store, since its source may have changed and nobody would build it again."""
    with suppress(OSError):  # of another user, say: then it is not for this process to remove
        for left in [path for path in kind.iterdir() if is_aside(path)]:
            with suppress(Timeout), FileLock(lock_file(left)).acquire(timeout=0):  # whoever builds it has its lock
                shutil.rmtree(left, ignore_errors=True)


def _cannot_write(folder: Path, error: OSError) -> ZooError:
    return ZooError(
        f"{folder}: the cache cannot be written ({error.strerror or error}); free disk space, set ZOO_CACHE to a folder with room, or pass "
        "data.cache=memory"
    )
