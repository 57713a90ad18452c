"""A headless Chromium for tests of pages: playwright's own, or the one that ``ZOO_CHROMIUM`` names; the test skips where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NO_BROWSER = "needs a browser: pip install playwright, then playwright install chromium or ZOO_CHROMIUM=/path/of/chromium"
NO_AXE = "needs axe-core: ZOO_AXE names axe.min.js of the npm package axe-core"


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser of playwright's synchronous interface."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        pytest.skip(NO_BROWSER)
    with sync_playwright() as playwright:
        executable = os.environ.get("ZOO_CHROMIUM")
        arguments = ["--no-sandbox", "--headless", "--disable-gpu"] if executable else []
        try:
            browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        except Error as error:
            pytest.skip(f"{NO_BROWSER} ({str(error).splitlines()[0]})")
        yield browser
        browser.close()


def axe_script() -> str:
    """The text of axe-core, which checks a page for accessibility."""
    path = os.environ.get("ZOO_AXE")
    if not path or not Path(path).is_file():
        pytest.skip(NO_AXE)
    return Path(path).read_text(encoding="utf-8")
