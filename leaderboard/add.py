"""Enter a submission: ``python -m leaderboard.add ARCHIVE`` verifies it, puts it on the board and builds the site."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from leaderboard.build import build_site
from leaderboard.entries import ARTEFACTS, BOARD, RECORDS, read_records, record_file, write_verdict
from leaderboard.verify import add_choice_arguments, choice_of, judge
from zoo.errors import ZooError
from zoo.evaluation.record import write_record
from zoo.files import write_atomically
from zoo.submission.recompute import Choice
from zoo.submission.verify import Judgement

SITE = Path("board")
"""Where the site is built unless another folder is named: in the folder that the command is called in."""


def add(archive: Path, choice: Choice, board: Path = BOARD) -> tuple[Judgement, list[Path]]:
    """(the judgement, the files written: none where it is refused).

    Raises:
        ZooError: where the board holds a record that is not valid, or cannot be written.
    """
    judgement = judge(archive, choice, read_records(board))
    if judgement.verdict is None or judgement.archive is None:
        return judgement, []
    record = judgement.archive.submission.record
    entered, artefact = record_file(record, board), board / ARTEFACTS / f"{record.id}.zip"
    content = judgement.archive.submission.archive()  # byte for byte what was read
    write_atomically(artefact, lambda partial: partial.write_bytes(content))
    write_record(entered, record)
    return judgement, [entered, artefact, write_verdict(judgement.verdict, board)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Enter one archive; returns the exit status, 1 where it is refused."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.add", description="Verify a submission, enter it, and build the site.")
    parser.add_argument("archive", type=Path, help="written by zoo submit")
    parser.add_argument("--board", type=Path, default=BOARD, help="folder with records/, artefacts/ and verdicts/; default: the package's")
    parser.add_argument("--site", type=Path, default=SITE, metavar="FOLDER", help="where the site is built; default: board")
    parser.add_argument("--no-site", action="store_true", help="enter the submission alone, as before another one")
    add_choice_arguments(parser)
    words = parser.parse_args(arguments)
    try:
        judgement, written = add(words.archive, choice_of(words), words.board)
    except ZooError as error:
        print(error, file=sys.stderr)
        return 1
    print(judgement.text())
    for path in written:
        print(f"wrote    {path}")
    if not judgement.accepted:
        return 1
    print(f"next     git add {shlex.join(map(str, written))}; commit these alone, and open a pull request")
    return 0 if words.no_site else _build(words.board, words.site, written[0].stem)


def _build(board: Path, site: Path, entered: str) -> int:
    try:
        records = build_site(board / RECORDS, site, board=board)
    except (ZooError, OSError) as error:
        print(error, file=sys.stderr)
        print(f"the result is entered; build its site with python -m leaderboard.build --board {board} --out FOLDER", file=sys.stderr)
        return 1
    print(f"site     {len(records)} records, open {(site / 'index.html').resolve()}")
    print(f"its page {(site / 'records' / f'{entered}.html').resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
