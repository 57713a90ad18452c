"""Who uses a store of the cache, and when it was used last: what decides whether it may be removed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":  # where a file that is mapped cannot be deleted anyway
    import fcntl


class Hold:
    """A store is in use as long as this is there, in this process or in one that it forked.

    Args:
        descriptor: of the store's manifest, closed in the end.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)


def hold(manifest: Path) -> Hold:
    """Mark a store as in use, and as used now.

    Raises:
        OSError: where the manifest is not there. A file system without locks is no error: nothing is marked then.
    """
    descriptor = os.open(manifest, os.O_RDONLY)
    with suppress(OSError):  # the cache may be another's, and not writable
        os.utime(manifest)
    with suppress(OSError):
        if sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return Hold(descriptor)


def in_use(manifest: Path) -> bool:
    """Whether any process holds the store of that manifest (`hold`), as far as the file system tells."""
    if sys.platform == "win32":
        return False
    try:
        with manifest.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no manifest, so nothing that anybody could have opened; or no locks
    return False
