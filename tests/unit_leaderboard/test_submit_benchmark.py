"""The two commands of docs/submit.md as a stranger runs them, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.leaderboard_submit import Timed, entered, table
from tests.refusals import lacks


@pytest.mark.slow
def test_two_commands_lead_from_a_run_to_a_verified_record_and_a_rebuilt_site(tiny_run: Path, tmp_path: Path) -> None:
    found = entered(tiny_run, tmp_path)
    print(table(found))
    (record,) = (tmp_path / "board" / "artefacts").iterdir()
    assert (tmp_path / "site" / "index.html").is_file()
    assert record.stem in (tmp_path / "site" / "data.js").read_text()
    assert all("predictions recomputed from base + adapter" in one.said for _, one in found)
    assert not lacks(found[1][1].said, "records, open", str(tmp_path / "site" / "index.html"))


def test_the_table_adds_up_the_two_commands_and_not_the_third() -> None:
    rows = [(name, Timed(wall, processor, "")) for name, wall, processor in (("a", 1.0, 0.5), ("b", 2.0, 1.5), ("c", 100.0, 50.0))]
    both = next(line for line in table(rows).splitlines() if "both" in line)
    assert both.endswith("| 3.0 | 2.0 |")
