"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object], error_type: type[Exception]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk and rename it; a kill leaves the old file or the new one.

    Args:
        path: its folder is created.
        write: takes the temporary file's path.
        error_type: raised where the folder cannot be written or the disk is full; the temporary file is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
    except OSError as error:
        raise error_type(f"{path}: cannot be written ({error.strerror or error}); choose a folder you may write to") from None
    partial = Path(name)
    try:
        write(partial)
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.chmod(0o644)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        reason = getattr(error, "strerror", None) or error
        raise error_type(f"{path}: cannot be written ({reason}); free disk space and run again") from error
    finally:
        partial.unlink(missing_ok=True)
