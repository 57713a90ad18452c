"""Files that are either whole or not there.

A file is written under a temporary name beside its own and renamed. Its writer holds a lock on it (``flock``) as long as it lives, by which
the next writer tells what a kill has left behind from what another process is writing just now.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

if sys.platform != "win32":  # there nothing is locked, and nothing that was left behind is removed
    import fcntl

_SUFFIX = ".partial"


def write_atomically(path: Path, write: Callable[[Path], object], error_type: type[Exception]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk and rename it; a kill leaves the old file or the new one.

    Temporary files of ``path`` that killed processes have left are removed first.

    Args:
        path: its folder is created.
        write: takes the temporary file's path.
        error_type: raised where the folder cannot be written or the disk is full; the temporary file is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partials(path.parent, path.name)
        held, partial = _new_partial(path)
    except OSError as error:
        raise error_type(f"{path}: cannot be written ({error.strerror or error}); choose a folder you may write to") from None
    try:
        write(partial)
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.chmod(0o644)
        os.replace(partial, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save and safetensors report a full disk by errors of their own
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise error_type(f"{path}: cannot be written ({reason}); free disk space and run again") from error
    finally:
        partial.unlink(missing_ok=True)
        os.close(held)


def is_partial(name: str) -> bool:
    """Whether a file's name is that of a temporary file of `write_atomically`, which a kill can leave."""
    return name.startswith(".") and name.endswith(_SUFFIX)


def remove_partials(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes have left of `write_atomically` in ``folder``; what a living one is writing stays.

    Args:
        folder: looked at without those below it.
        name: of the file that was being written; any by default.
    """
    wanted = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.[^.]+{re.escape(_SUFFIX)}")
    with os.scandir(folder) as entries:
        left = [entry.path for entry in entries if wanted.fullmatch(entry.name)]
    for partial in left:
        # gone since, another user's, or on a file system without locks: then it is not for this process to remove
        with suppress(OSError):
            _remove_unless_held(partial)


def _remove_unless_held(partial: str) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(partial, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(partial)
    finally:
        os.close(descriptor)


def _new_partial(path: Path) -> tuple[int, Path]:
    """An empty temporary file and the descriptor that holds its lock."""
    while True:
        held, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
        if sys.platform == "win32":
            return held, Path(name)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(held, fcntl.LOCK_EX)
        if os.fstat(held).st_nlink:
            return held, Path(name)
        os.close(held)  # another process took it for left behind before it was locked
