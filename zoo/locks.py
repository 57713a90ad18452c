"""One process at a time: whoever comes second says so and waits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def one_at_a_time(lock_file: Path, waiting: str) -> Iterator[None]:
    """Hold the lock of ``lock_file``, an empty file that stays; a killed process holds none.

    Args:
        lock_file: in a folder that exists.
        waiting: said on standard error, once, where another process has it.

    Raises:
        OSError: where it cannot be made.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(waiting, file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
