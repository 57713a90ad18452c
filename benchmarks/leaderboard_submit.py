"""From a finished run to a verified record and a rebuilt site, for ``docs/benchmarks.md``: ``python -m benchmarks.leaderboard_submit``.

Runs the two commands of ``docs/submit.md`` on a short run on acetylacetone (which takes as long to enter as a long one: the test frames are
the same), with a copy of the board's own records beside it, and then verifies the archive with every frame. Makes the run where there is
none in ``--folder``. Each command is a process of its own, Python's start included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runs import finished_record
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from leaderboard.entries import BOARD, RECORDS, read_records, read_verdicts
from zoo.submission.verdict import RECOMPUTED_PREDICTIONS

RUN = "acac-to-submit"
WORDS = ("experiment=acac", "adapter=elora", "training.steps=20", "evaluation.plots=false", "training.progress_bar=false")
MARK = "leaderboard submit"


@dataclass(frozen=True)
class Timed:
    """What one command took."""

    wall_seconds: float
    processor_seconds: float
    said: str


def timed(*words: str) -> Timed:
    """Run ``python -m`` with these words; raises `subprocess.CalledProcessError` where it fails, after showing what it said."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    wall, after = time.perf_counter() - started, os.times()
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
        done.check_returncode()
    processor = after.children_user - before.children_user + after.children_system - before.children_system
    return Timed(wall, processor, done.stdout)


def entered(run: Path, folder: Path) -> list[tuple[str, Timed]]:
    """The two commands, and one more verification, with what each took; the board and the site are below ``folder``."""
    shutil.copytree(BOARD / RECORDS, folder / "board" / RECORDS)
    archive, site = folder / "submission.zip", folder / "site"
    submit = ("zoo", "submit", str(run), "author=A. Person", "licence=MIT", f"output={archive}")
    add = ("leaderboard.add", str(archive), "--board", str(folder / "board"), "--site", str(site))
    found = [("`zoo submit RUN ...`", timed(*submit)), ("`python -m leaderboard.add ARCHIVE`", timed(*add))]
    found.append(("`zoo verify ARCHIVE frames=all`", timed("zoo", "verify", str(archive), "frames=all")))
    (verdict,) = read_verdicts(folder / "board").values()
    if verdict.badge != RECOMPUTED_PREDICTIONS or not (site / "records" / f"{verdict.record}.html").is_file():
        raise SystemExit(f"entered, but with the badge {verdict.badge!r}, or without a page")
    print(found[-1][1].said)
    return found


def table(found: Sequence[tuple[str, Timed]]) -> str:
    """One row a command, and the sum of the first two."""
    rows = [[name, f"{one.wall_seconds:.1f}", f"{one.processor_seconds:.1f}"] for name, one in found]
    both = [sum(getattr(one, name) for _, one in found[:2]) for name in ("wall_seconds", "processor_seconds")]
    rows.insert(2, ["both: from a finished run to a verified record and a rebuilt site", *(f"{value:.1f}" for value in both)])
    return markdown_table(["command", "seconds", "seconds of processor time"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the run if there is none, time the commands, and rewrite the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard_submit", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT, help="where runs/ is; default: the repository")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args(arguments)
    record = finished_record(options.folder, RUN, WORDS)
    with tempfile.TemporaryDirectory() as name:
        found = entered(options.folder / "runs" / RUN, Path(name))
        count = len(read_records(Path(name) / "board"))
    tested = ", ".join(f"{split.frames} of `{name}`" for name, split in record.data.splits.items() if name not in ("train", "valid"))
    note = (
        f"SevenNet-0 with ELoRA on acetylacetone, test frames: {tested}; the site is of {count} records. Predictions of 16 frames a test "
        f"set are computed again by each of the two commands, of all by the last. {stamp('python -m benchmarks.leaderboard_submit')}"
    )
    write_between_markers(options.page, MARK, f"{table(found)}\n\n{note}")


if __name__ == "__main__":
    main()
