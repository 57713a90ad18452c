"""What ``zoo doctor`` says of every published set that is on this disk, which are all clean: ``python -m benchmarks.doctor``.

Each report is what ``zoo doctor data=SET only=[...] sample=8 json=FILE`` writes; time and memory of training are left out. A set whose
report is there already is not examined again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs import made_once
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from benchmarks.zero_shot import default_tests, is_here, tests_not_here
from zoo.data.catalogue import data_set_names
from zoo.doctor.command import doctor
from zoo.doctor.registry import checks

SAMPLE = 8


def words_of(name: str) -> list[str]:
    """What follows ``zoo doctor`` for one set; test sets whose files are not here are left out."""
    families = dict.fromkeys(check.name.partition(".")[0] for check in checks())
    words = [f"data={name}", f"only=[{','.join(family for family in families if family != 'training')}]", f"sample={SAMPLE}"]
    absent = tests_not_here(name)
    if absent:
        words.append(f"data.test=[{','.join(test for test in default_tests(name) if test not in absent)}]")
    return words


def report_of(name: str, folder: Path) -> dict[str, Any]:
    """The report on one set, after examining it if there is none."""
    path = folder / f"{name.replace('/', '-')}.json"
    made_once("zoo doctor", path, [*words_of(name), f"json={path}"], doctor)
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def table(reports: Mapping[str, dict[str, Any]]) -> str:
    """One row a set: how many errors, and what the warnings say; notes are counted."""
    rows = []
    for name, report in reports.items():
        warnings = [f"`{one['check']}`: {_short(one['found'])}" for one in report["findings"] if one["level"] == "warning"]
        counts = report["counts"]
        rows.append([f"`{name}`", str(counts["error"]), "; ".join(warnings) or "none", str(counts["note"])])
    return markdown_table(["set", "errors", "warnings", "notes"], rows)


def _short(found: str) -> str:
    """Levels of theory stand in the table of the sets already."""
    return "another level of theory than the base" if found.startswith("data: ") else found.replace("|", "/")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the reports that are missing and rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(data_set_names()))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "doctor")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "doctor.md")
    chosen = parser.parse_args(arguments)
    here = [name for name in chosen.sets if is_here(name)]
    reports = {name: report_of(name, chosen.folder) for name in here}
    if chosen.sets == list(data_set_names()):
        write_between_markers(chosen.page, "doctor", f"{table(reports)}\n\n{stamp('python -m benchmarks.doctor')}")


if __name__ == "__main__":
    main()
