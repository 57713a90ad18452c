"""Whether an extended XYZ file holds what its headers claim: a parser that believes them may work for days or take all memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from zoo.data.unpacking import LONGEST_LINE, is_compressed, open_binary
from zoo.errors import ZooError

_COLUMNS = re.compile(rb"""properties\s*=\s*["']?([^\s"']+)""", flags=re.IGNORECASE)
_MOST_DIGITS = 12
_CUT_NOTE = "the file ends without a line end, so that its last number may be cut short"


def frame_ends(path: Path) -> Iterator[int]:
    """Where each frame ends, in bytes from the beginning of the unpacked file, once what its header claims was found there.

    Raises:
        ZooError: a frame of more atoms than lines follow, or of more columns than its atoms' lines can hold, one that begins with
            something else than a number, or frames behind an empty line, where parsers stop; frames are named by number, from 0.
    """
    with open_binary(path) as stream:
        lines = _Lines(stream, path)
        while lines.take_frame():
            yield lines.position
        lines.refuse_more()


def cut_notes(path: Path) -> tuple[str, ...]:
    """What the log should say of a file that may be cut off within its last number; one that is compressed says so itself."""
    if is_compressed(path):
        return ()
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 1))
        return () if stream.read(1) in (b"", b"\n", b"\r") else (_CUT_NOTE,)


class _Lines:
    """The lines of a file, with the number of the frame that they belong to."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._ahead = b""
        self._frame = 0
        self.position = 0

    def take_frame(self) -> bool:
        """Read one frame; False at the end, or at an empty line."""
        head = self._taken().strip()
        if not head:
            return False
        if not head.isdigit():
            shown = head[:40].decode(errors="replace")
            raise self._refusal(f"starts with {shown!r}, not a number of atoms; repair or remove the frame")
        if len(head) > _MOST_DIGITS:
            raise self._refusal(f"claims {head[:_MOST_DIGITS].decode()}... atoms; is the file complete, and extended XYZ?")
        self._take_atoms(int(head), columns_of(self._taken()))
        # cell vectors behind the atoms, as the program ADF writes them
        while (vector := self._next()).lstrip().startswith(b"VEC"):
            self.position += len(vector)
        self._ahead = vector
        self._frame += 1
        return True

    def refuse_more(self) -> None:
        """Only empty lines may follow."""
        while line := self._taken():
            if line.strip():
                raise self._refusal(f"comes after an empty line, at which reading stops; remove empty lines (bytes {self.position:,})")

    def _take_atoms(self, claimed: int, columns: int) -> None:
        size, shortest = 0, 2 * columns - 1
        for number in range(claimed):
            line = self._stream.readline(LONGEST_LINE)
            if not line:
                raise self._refusal(f"claims {claimed} atoms, and the file ends after {number}; is it complete?")
            if len(line) < shortest and not line.endswith(b"\n"):
                raise self._refusal(f"claims {claimed} atoms, and the file ends within the line of atom {number}; is it complete?")
            if not shortest <= len(line) < LONGEST_LINE:
                raise self._refusal(
                    f"has a line of {len(line):,} characters for atom {number}, and claims {columns} columns; repair its Properties"
                )
            size += len(line)
        self.position += size

    def _taken(self) -> bytes:
        line = self._next()
        self.position += len(line)
        return line

    def _next(self) -> bytes:
        line, self._ahead = self._ahead or self._stream.readline(LONGEST_LINE), b""
        if len(line) >= LONGEST_LINE:
            raise self._refusal(f"has a line of more than {LONGEST_LINE:,} characters; is the file extended XYZ?")
        return line

    def _refusal(self, what: str) -> ZooError:
        return ZooError(f"{self._path}: frame {self._frame} {what}")


def columns_of(comment: bytes) -> int:
    """The columns that ``Properties=species:S:1:pos:R:3`` claims; 0 where it claims none that can be counted."""
    found = _COLUMNS.search(comment)
    counts = found.group(1).split(b":")[2::3] if found else []
    return sum(int(count) for count in counts if count.isdigit() and len(count) <= _MOST_DIGITS)
