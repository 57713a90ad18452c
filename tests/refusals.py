"""What was said where something was refused: one line, for the test to look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pytest

from zoo.errors import USER_ERRORS


class Finished(Protocol):
    """A command that ended; `tests/unit_zoo/conftest.py` makes them."""

    code: int
    out: str
    err: str


def refusal_of(call: Callable[..., object], *args: object, **options: object) -> str:
    """The message with which ``call(*args, **options)`` tells the user of a mistake; it must be one line."""
    with pytest.raises(USER_ERRORS) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def cli_refusal(finished: Finished) -> str:
    """What a command that failed says after ``zoo: error: ``; it must be the only line on standard error, and no traceback on the other."""
    assert finished.code == 1, (finished.code, finished.out, finished.err)
    assert "Traceback" not in finished.out
    lines = finished.err.splitlines()
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("zoo: error: ")
    return lines[0].removeprefix("zoo: error: ")


def lacks(message: str, *parts: str) -> list[str]:
    """The parts that a message does not hold: ``assert not lacks(refusal_of(...), "found", "wanted")`` shows what is missing."""
    return [part for part in parts if part not in message]
