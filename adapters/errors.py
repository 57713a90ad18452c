"""Errors a user can act on, and the words that their one line is made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class AdapterError(ValueError):
    """A mistake in an adapter's configuration, file or use; the message names what was found, wanted and how to mend it."""


_MOST_NAMES_SHOWN = 20
_LONGEST_NAME = 100
"""Longer ones are nobody's misspelling, and to compare some of them takes minutes."""


def nearest_name_hint(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'elora'? known: elora, full"``: the end of every unknown-name message.

    Args:
        name: what the user wrote.
        known: the names that exist; of a long list only the nearest few are shown.
    """
    names = sorted(known)
    if len(name) > _LONGEST_NAME or any(len(one) > _LONGEST_NAME for one in names):
        return f"{len(names)} names are known"
    begins = [known_name for known_name in names if name and known_name.startswith(name)][:6]
    close = [*begins, *(one for one in difflib.get_close_matches(name, names, n=6, cutoff=0.5) if one not in begins)][:6]
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(names) > _MOST_NAMES_SHOWN:
        shown = ", ".join(close[1:])
        return f"{hint}{f'also near: {shown}; ' if shown else ''}{len(names)} names are known"
    return f"{hint}known: {', '.join(names) if names else 'none'}"


def first_line(error: Exception) -> str:
    """The first line of an error's text that says something, or its type's name: what a one-line message quotes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@dataclass(frozen=True)
class Problem:
    """One of the complaints of a `pydantic.ValidationError`.

    Attributes:
        location: keys on the way to the value, the outermost first; none where a whole group is wrong.
        message: what is wrong, without pydantic's "Value error, ".
        kind: pydantic's name of the complaint, such as ``"missing"`` or ``"extra_forbidden"``.
        found: the value.
    """

    location: tuple[str, ...]
    message: str
    kind: str
    found: Any

    @property
    def key(self) -> str:
        """``"loss.forces.weight"``."""
        return ".".join(self.location)


def first_problem(error: ValidationError) -> Problem:
    """The first of pydantic's complaints: what a one-line message names."""
    first = error.errors(include_url=False)[0]
    return Problem(tuple(map(str, first["loc"])), first["msg"].removeprefix("Value error, "), first["type"], first["input"])
