"""A folder for files that nobody needs afterwards, which does not outlive a killed process for long."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "equizoo-"
_LOCK = ".lock"
_YOUNG_SECONDS = 60.0
"""A lock that is younger may be one that its process is just taking."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder among the system's temporary ones, gone at the end; those of processes that were killed are removed first.

    Raises:
        OSError: where it cannot be made.
    """
    _remove_left_over(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with FileLock(folder / _LOCK):
            yield folder


def _remove_left_over(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError, Timeout):  # gone since, or in use
            if _mine(lock.parent) and time.time() - lock.stat().st_mtime > _YOUNG_SECONDS:
                with FileLock(lock).acquire(timeout=0):
                    shutil.rmtree(lock.parent, ignore_errors=True)


def _mine(folder: Path) -> bool:
    """Whether it is a folder of this user's: in a shared place, names prove nothing."""
    return not folder.is_symlink() and (sys.platform == "win32" or folder.stat().st_uid == os.getuid())
