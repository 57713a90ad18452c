"""What tests say that are skipped for want of real data, by which they are counted."""

from __future__ import annotations

from typing import NoReturn

import pytest

NO_DATA = "needs real data: ZOO_DATA"


def skip_without(what: str) -> NoReturn:
    """Skip the test that runs: ``ZOO_DATA`` has no ``what``."""
    pytest.skip(f"{NO_DATA} has no {what}")
