"""Locks on open files (``flock``): held as long as a process lives, and told apart from what a killed one has left."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    import fcntl


def try_lock(descriptor: int, shared: bool = False) -> bool | None:
    """Lock an open file without waiting; closing its descriptor, or the end of the process, unlocks it.

    Args:
        descriptor: of the file.
        shared: with others that share it; else alone.

    Returns:
        True where it is locked now, False where another process has it, None where the system or the file system knows no such locks.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
