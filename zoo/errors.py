"""The one exception of the project that the command line turns into a single line."""

from __future__ import annotations

from adapters.errors import AdapterError, first_line, first_problem, nearest_name_hint

__all__ = ["USER_ERRORS", "ZooError", "first_line", "first_problem", "nearest_name_hint"]


class ZooError(ValueError):
    """A mistake in a model, data set, file or configuration; the message says what was found, wanted and how to mend it."""


USER_ERRORS = (ZooError, AdapterError)
"""What the command line prints as one line; anything else is a bug and keeps its traceback behind ``--debug``."""
