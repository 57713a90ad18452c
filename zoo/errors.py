"""The one exception of the project that the command line turns into a single line."""

from __future__ import annotations

import errno

from adapters.errors import AdapterError, first_line, first_problem, nearest_name_hint

__all__ = ["USER_ERRORS", "ZooError", "first_line", "first_problem", "is_full_disk", "nearest_name_hint"]


class ZooError(ValueError):
    """A mistake in a model, data set, file or configuration; the message says what was found, wanted and how to mend it."""


USER_ERRORS = (ZooError, AdapterError)
"""What the command line prints as one line; anything else is a bug and keeps its traceback behind ``--debug``."""


def is_full_disk(error: OSError) -> bool:
    """Whether the disk, the user's share of it or the largest file it takes is at its end."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
