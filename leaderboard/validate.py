"""Check result records, one line a file: ``python -m leaderboard.validate FILE...``; the exit status is 1 if any is refused."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.errors import ZooError
from zoo.evaluation.record import read_record


def validation_lines(paths: Sequence[Path]) -> list[tuple[bool, str]]:
    """For every file whether it is a valid record whose id no earlier file carries, and the line to print."""
    lines: list[tuple[bool, str]] = []
    file_of_id: dict[str, Path] = {}
    for path in paths:
        try:
            record = read_record(path)
        except ZooError as error:
            lines.append((False, f"refused  {error}"))
            continue
        if record.id in file_of_id:
            lines.append((False, f"refused  {path}: id {record.id!r} is that of {file_of_id[record.id]}; a result is entered once"))
            continue
        file_of_id[record.id] = path
        lines.append((True, f"valid    {path}: {record.id}"))
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Validate the files named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.validate", description="Check result records against the schema.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE", help="a record.json")
    lines = validation_lines(parser.parse_args(arguments).paths)
    for _, line in lines:
        print(line)
    return 0 if all(valid for valid, _ in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
