"""Families whose packages a developer may not have; the environment of ``make test`` has them all (tests/test_packaging.py)."""

from __future__ import annotations

import pytest

from zoo.backbones import is_installed


def skip_without(family: str) -> pytest.MarkDecorator:
    """A mark that skips, visibly, where the family's package is not installed."""
    return pytest.mark.skipif(not is_installed(family), reason=_missing(family))


def installed(*families: str) -> list[object]:
    """Parameters of a test, each skipped where the family's package is not installed."""
    return [pytest.param(name, marks=skip_without(name)) for name in families]


def needs(family: str) -> None:
    """Skip the running test where the family's package is not installed."""
    if not is_installed(family):
        pytest.skip(_missing(family))


def _missing(family: str) -> str:
    return f"the package of the family {family!r} is not installed"
