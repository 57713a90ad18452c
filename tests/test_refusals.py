"""The helpers that look at refusals find what is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.refusals import cli_refusal, lacks, refusal_of
from zoo.errors import ZooError


def refuse(text: str) -> None:
    raise ZooError(text)


def test_the_message_is_given_back_and_what_it_lacks_is_named() -> None:
    assert refusal_of(refuse, "a.xyz: no energy") == "a.xyz: no energy"
    assert lacks(refusal_of(refuse, text="a.xyz: no energy"), "a.xyz", "forces", "energy") == ["forces"]


def test_two_lines_nothing_or_silence_are_no_refusal() -> None:
    for text in ("one\ntwo", ""):
        with pytest.raises(AssertionError):
            refusal_of(refuse, text)
    with pytest.raises(pytest.fail.Exception):
        refusal_of(str, "no mistake")
    with pytest.raises(ZeroDivisionError):
        refusal_of(lambda: 1 // 0)


def ended(**changes: Any) -> Any:
    return SimpleNamespace(**{"code": 1, "out": "reading\n", "err": "zoo: error: no energy\n", **changes})


def test_a_command_refuses_in_one_line_on_standard_error() -> None:
    assert cli_refusal(ended()) == "no energy"


@pytest.mark.parametrize(
    "changes",
    [
        {"code": 2},
        {"err": ""},
        {"err": "no energy\n"},
        {"err": "zoo: error: no energy\nand no forces\n"},
        {"out": "Traceback (most recent call last)\n"},
    ],
)
def test_a_command_that_ends_in_another_way_refuses_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        cli_refusal(ended(**changes))
