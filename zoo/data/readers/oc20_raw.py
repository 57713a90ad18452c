"""OC20's raw S2EF form: pairs of ``N.extxyz[.xz]`` and ``N.txt[.xz]``, line k of the text about frame k.

A line is ``system_id,frame_number,reference_energy``, such as ``random1447590,frame12,-252.31``. The energies of the frames are total DFT
energies in eV; what OC20 trains on and tests is the adsorption energy, energy - reference_energy, found here as ``adsorption_energy``. An
atom with ``move_mask`` F was held in place.
"""

from __future__ import annotations

import io
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TextIO

from zoo.data.raw import Format, RawFrame, ReadOptions
from zoo.data.readers.ase_files import labels_of_atoms
from zoo.data.unpacking import DAMAGED, open_text, read_line
from zoo.data.xyz_check import columns_of
from zoo.errors import ZooError, first_line

_STRUCTURES = re.compile(r"\.extxyz(\.xz)?$")
_LINE = re.compile(r"[^,\s]+\s*,[^,]+,\s*[-+.\deE]+\s*$")

_MOST_DIGITS = 12


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    if path.is_file():
        yield from _frames_of_pair(path, "")
        return
    for file in sorted(one for one in path.rglob("*.extxyz*") if _STRUCTURES.search(one.name)):
        yield from _frames_of_pair(file, file.relative_to(path).as_posix())


def _frames_of_pair(file: Path, source: str) -> Iterator[RawFrame]:
    from ase.io import iread

    text = _text_beside(file)
    if text is None:
        raise ZooError(
            f"{file}: has no {_STRUCTURES.sub('.txt', file.name)}[.xz] beside it; OC20 keeps the frames' names and references there"
        )
    count = 0
    with closing(_lines(text)) as lines, closing(_blocks(file)) as blocks:
        for count, block in enumerate(blocks, 1):
            line = next(lines, None)
            if line is None:
                raise ZooError(f"{file}: has more frames than {text.name} has lines ({count - 1}); download the pair again")
            identifier, reference_energy = _parsed(line, f"{text}: line {count}")
            atoms = next(iread(io.StringIO(block), format="extxyz"))
            found = {**labels_of_atoms(atoms, {}), "reference_energy": reference_energy}
            if "energy" in found:
                found["adsorption_energy"] = found["energy"] - reference_energy
            yield RawFrame.of_atoms(atoms, found, identifier=identifier, source=source)
        total = count + sum(1 for _ in lines)
    if count < total:
        raise ZooError(f"{file}: has {count} frames but {text.name} has {total} lines; download the pair again")


def _parsed(line: str, where: str) -> tuple[str, float]:
    """``("random1447590_12", -252.31)`` of a line of the text file."""
    parts = line.split(",")
    try:
        system, frame, energy = (part.strip() for part in parts)
        return f"{system}_{re.sub(r'^frame(?=[0-9]+$)', '', frame)}", float(energy)
    except ValueError:
        raise ZooError(f"{where} is {line[:80]!r}; wanted system_id,frame_number,reference_energy") from None


def _lines(text: Path) -> Generator[str, None, None]:
    """The lines of the text file that are not empty."""
    with open_text(text) as stream:
        while line := _next_line(stream, text):
            if line.strip():
                yield line.rstrip("\r\n")


def _blocks(file: Path) -> Generator[str, None, None]:
    """The text of one frame after the other, because ASE would go through a compressed file twice."""
    with open_text(file) as lines:
        number = 0
        while head := _next_line(lines, file):
            if not head.strip():
                continue
            if not head.strip().isdecimal() or len(head.strip()) > _MOST_DIGITS:
                raise ZooError(
                    f"{file}: frame {number} starts with {head.strip()[:40]!r}, not a number of atoms; repair or remove the frame"
                )
            wanted = int(head) + 1
            body = list(islice(iter(lambda: _next_line(lines, file), ""), wanted))
            if len(body) < wanted:
                raise ZooError(f"{file}: frame {number} is cut off after {len(body)} of {wanted} lines; download or copy the file again")
            if 2 * columns_of(body[0].encode()) - 1 > len(body[-1]):
                raise ZooError(f"{file}: frame {number} claims more columns than its atoms' lines hold; download or copy the file again")
            yield "".join((head, *body))
            number += 1


def _next_line(lines: TextIO, file: Path) -> str:
    try:
        return read_line(lines, file)
    except (*DAMAGED, UnicodeDecodeError) as error:
        raise ZooError(f"{file}: is truncated or damaged ({first_line(error)}); download or copy it again") from error


def _text_beside(file: Path) -> Path | None:
    stem = _STRUCTURES.sub("", file.name)
    beside = (file.with_name(f"{stem}{suffix}") for suffix in (".txt.xz", ".txt"))
    return next((one for one in beside if one.is_file()), None)


def _recognises(path: Path) -> bool:
    """A folder with such pairs (or with structure files compressed as OC20 publishes them), or the structure file of one."""
    if path.is_dir():
        return any(one.suffix == ".xz" or _is_of_a_pair(one) for one in path.rglob("*.extxyz*"))
    return _is_of_a_pair(path)


def _is_of_a_pair(file: Path) -> bool:
    text = _text_beside(file) if _STRUCTURES.search(file.name) else None
    if text is None:
        return False
    try:
        with open_text(text) as lines:
            # a user's own train.extxyz may have any train.txt beside it
            return _LINE.match(lines.readline(500)) is not None
    except (*DAMAGED, UnicodeDecodeError):
        return True  # to be refused as damaged, not to be read without its reference energies


def _files(path: Path) -> Sequence[Path]:
    structures = [path] if path.is_file() else sorted(one for one in path.rglob("*.extxyz*") if _STRUCTURES.search(one.name))
    return [file for one in structures for file in (one, _text_beside(one)) if file is not None]


FORMAT = Format(
    name="oc20_raw",
    description="OC20's raw pairs of extxyz.xz and txt.xz, with names and reference energies (a file, or a folder searched for them)",
    recognises=_recognises,
    read=_read,
    files=_files,
)
