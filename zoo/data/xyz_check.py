"""Whether an extended XYZ file holds what its headers claim: a parser that believes them may work for days or take all memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

from zoo.errors import ZooError

_COLUMNS = re.compile(r"""properties\s*=\s*["']?([^\s"']+)""", flags=re.IGNORECASE)
_MOST_DIGITS = 12


def check_xyz(path: Path) -> None:
    """Refuse a file with a frame of more atoms than lines follow, or more columns than its atoms' lines can hold.

    What is no number at all is left to the parser, which says so.

    Raises:
        ZooError: with the number of the frame, from 0.
    """
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "r") as stream:
        check_xyz_frames(stream, path, 0)


def check_xyz_frames(stream: IO[str], path: Path, first: int) -> None:
    """`check_xyz` of the frames that ``stream`` holds, of which the first is number ``first`` of the file; raises as it does."""
    frame = first
    while _frame_is_whole(stream, path, frame):
        frame += 1


def _frame_is_whole(stream: IO[str], path: Path, frame: int) -> bool:
    """Reads one frame; False at the end, or where the parser should go on."""
    head = stream.readline().strip()
    while head.startswith("VEC"):  # lattice vectors that may follow a frame
        head = stream.readline().strip()
    if not head.isdecimal():
        return False
    if len(head) > _MOST_DIGITS:
        raise ZooError(f"{path}: frame {frame} claims {head[:_MOST_DIGITS]}... atoms; is the file complete, and extended XYZ?")
    claimed, columns = int(head), _columns(stream.readline())
    for number in range(claimed):
        line = stream.readline()
        if not line:
            raise ZooError(f"{path}: frame {frame} claims {claimed} atoms, and the file ends after {number}; is it complete?")
        if 2 * columns - 1 > len(line):
            raise ZooError(
                f"{path}: frame {frame} claims {columns} columns, more than the line of atom {number} holds; repair its Properties"
            )
    return True


def _columns(comment: str) -> int:
    """The columns that ``Properties=species:S:1:pos:R:3`` claims; 0 where it claims none that can be counted."""
    found = _COLUMNS.search(comment)
    counts = found.group(1).split(":")[2::3] if found else []
    return sum(int(count) for count in counts if count.isdecimal() and len(count) <= _MOST_DIGITS)
