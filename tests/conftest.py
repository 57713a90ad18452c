"""What every test gets: one thread, fixed seeds, the real data sets of ZOO_DATA, and a count of what was skipped without them."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

# Before torch is first imported: two test processes with two threads each slow one another down five-fold on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from tests.real_data import NO_DATA, skip_without

# What tests load is converted into a cache; not into the user's own.
if "ZOO_CACHE" not in os.environ:
    os.environ["ZOO_CACHE"] = tempfile.mkdtemp(prefix="zoo-tests-cache-")
    atexit.register(shutil.rmtree, os.environ["ZOO_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    import torch

    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)  # ASE's rattle and others still draw from the global state
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def zoo_data() -> Path:
    """The first folder of ``$ZOO_DATA``; the test skips where there is none."""
    roots = [Path(entry) for entry in os.environ.get("ZOO_DATA", "").split(os.pathsep) if entry]
    if not roots or not roots[0].is_dir():
        pytest.skip(f"{NO_DATA} names no folder")
    return roots[0].resolve()


@pytest.fixture(scope="session")
def data_folder(zoo_data: Path) -> Callable[[str], Path]:
    """``data_folder("acac")`` is that set's folder; the test skips where it is absent."""

    def find(name: str) -> Path:
        folder = zoo_data / name
        if not folder.is_dir():
            skip_without(f"folder {name!r}")
        return folder

    return find


@pytest.fixture(scope="session")
def on_disk(zoo_data: Path) -> Callable[..., Path]:
    """``on_disk("acac", "train_300K")`` is that verified file of a published set; the test skips where it is absent, or in another form."""
    from zoo.data.card_files import local_path, on_this_disk
    from zoo.data.catalogue import data_card

    def find(name: str, key: str, suffix: str = "") -> Path:
        card = data_card(name)
        path = local_path(card, key)[0] if on_this_disk(card, key) else None
        if path is None or not path.name.endswith(suffix):
            skip_without(f"{name} {key}{f' as {suffix}' if suffix else ''}")
        return path

    return find


@pytest.fixture(scope="session")
def golden_folder() -> Callable[[str], Path]:
    """``golden_folder("mace_e3nn04")`` is that folder of reference numbers below ``$ZOO_GOLDEN``; the test skips where it is absent."""

    def find(name: str) -> Path:
        folder = Path(os.environ.get("ZOO_GOLDEN", "")) / name
        if not os.environ.get("ZOO_GOLDEN") or not folder.is_dir():
            pytest.skip(f"needs reference numbers: ZOO_GOLDEN names no folder with {name!r}")
        return folder.resolve()

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", []):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
    skipped = terminalreporter.stats.get("skipped", [])
    without_data = [report for report in skipped if isinstance(report.longrepr, tuple) and NO_DATA in str(report.longrepr[2])]
    if without_data:
        count = f"{len(without_data)} test{'s' if len(without_data) > 1 else ''} on real data skipped"
        terminalreporter.write_line(f"{count}: set ZOO_DATA to a folder with the data sets to run them", yellow=True)
    else:
        terminalreporter.write_line("no test was skipped for missing data")
