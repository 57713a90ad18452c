"""Verify a submission as the board does: ``python -m leaderboard.verify ARCHIVE [--all] [--salt WORD] [--board FOLDER]``.

Besides what ``zoo verify`` checks: that the result is not on the board yet, and that the archive is small enough to lie there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from leaderboard.entries import BOARD, LARGEST_ARTEFACT_BYTES, clash, read_records
from zoo.errors import ZooError
from zoo.evaluation.record import Record
from zoo.submission.archive import archive_at
from zoo.submission.recompute import Choice, device_named
from zoo.submission.verify import Judgement, one_line, verify


def judge(archive: Path, choice: Choice, on_the_board: Iterable[Record], most_bytes: int = LARGEST_ARTEFACT_BYTES) -> Judgement:
    """The judgement of `zoo.submission.verify`, with the board's own reasons.

    Args:
        archive: to be entered.
        choice: which predictions are computed again.
        on_the_board: the records that are there.
        most_bytes: of the archive.

    Raises:
        ZooError: where there is no file.
    """
    size = archive_at(archive).stat().st_size
    if size > most_bytes:
        return Judgement((f"{archive}: {size} bytes, the board keeps at most {most_bytes}; publish it elsewhere and ask",), None, None)
    judgement = verify(archive, choice)
    if judgement.archive is None:
        return judgement
    reasons = list(judgement.reasons)
    found = clash(judgement.archive.submission.record, on_the_board)
    if found is not None:
        reasons.append(one_line(found))
    return Judgement(tuple(reasons), None if reasons else judgement.verdict, judgement.archive)


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """``--frames``, ``--all``, ``--salt`` and ``--device``."""
    parser.add_argument("--frames", type=int, default=16, help="test frames of each set to compute again; 0 leaves the base alone")
    parser.add_argument("--all", action="store_true", help="compute every test frame again")
    parser.add_argument("--salt", default="", help="joined to the archive's hash, from which the frames are drawn")
    parser.add_argument("--device", default="cpu")


def choice_of(words: argparse.Namespace) -> Choice:
    """Which predictions to compute again, from `add_choice_arguments`; raises `ZooError` for an unknown device or fewer than no frames."""
    if words.frames < 0:
        raise ZooError(f"--frames {words.frames}: wanted a number of frames, 0 to leave the base alone, or --all")
    return Choice(None if words.all else words.frames, words.salt, device_named(words.device))


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify one archive; returns the exit status, 1 where it is refused."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.verify", description="Verify a submission by recomputation.")
    parser.add_argument("archive", type=Path, help="written by zoo submit")
    parser.add_argument("--board", type=Path, default=BOARD, help="folder with records/; default: that of the package")
    add_choice_arguments(parser)
    words = parser.parse_args(arguments)
    try:
        judgement = judge(words.archive, choice_of(words), read_records(words.board))
    except ZooError as error:
        print(error, file=sys.stderr)
        return 1
    print(judgement.text())
    return 0 if judgement.accepted else 1


if __name__ == "__main__":
    sys.exit(main())
