"""Extended XYZ and every other file that ASE reads."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from zoo.data.raw import Chunk, Format, RawFrame, ReadOptions
from zoo.data.unpacking import DAMAGED, check_compressed, is_compressed
from zoo.data.xyz_check import cut_notes, frame_ends
from zoo.errors import ZooError

_STRUCTURE = frozenset({"numbers", "positions", "masses", "tags", "momenta", "initial_magmoms", "initial_charges"})
_XYZ_FORMATS = frozenset({"extxyz", "xyz"})
# both are read through pickle, which runs code from the file
_PICKLED_FORMATS = frozenset({"bundletrajectory", "trj"})
_OF_ONE_FILE = frozenset({"extxyz", "xyz", "traj", "json"})


def labels_of_atoms(atoms: Atoms, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the frame may keep a label in: ASE moves well-known names from info and arrays into a calculator."""
    arrays = {name: value for name, value in atoms.arrays.items() if name not in _STRUCTURE}
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    found = {**extra, **atoms.info, **arrays, **{name: value for name, value in results.items() if value is not None}}
    if "magnetic_moments" not in found and "magmoms" in found:
        found["magnetic_moments"] = found["magmoms"]
    return found


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    from ase.io import iread
    from ase.io.formats import filetype

    file_format = filetype(str(path))
    if file_format in _PICKLED_FORMATS:
        raise ZooError(f"{path}: the format {file_format!r} can run code when read; convert it to extxyz where you trust it")
    is_xyz = file_format in _XYZ_FORMATS
    if is_xyz:
        deque(frame_ends(path), maxlen=0)  # the whole file is checked before ASE believes it
    else:
        check_compressed(path)
    notes = cut_notes(path) if is_xyz else ()
    for atoms in iread(str(path), index=":", format=file_format, do_not_split_by_at_sign=True):
        yield RawFrame.of_atoms(atoms, labels_of_atoms(atoms, {}), notes=notes)


def _files(path: Path) -> Sequence[Path] | None:
    """Other formats of ASE may read files beside the one that is named."""
    from ase.io.formats import UnknownFileTypeError, filetype

    try:
        return [path] if filetype(str(path)) in _OF_ONE_FILE else None
    except (UnknownFileTypeError, OSError, *DAMAGED):
        return None  # `_read` says why it cannot be read


def _chunks(path: Path, options: ReadOptions, size: int) -> Iterator[Chunk] | None:
    from ase.io.formats import filetype

    return _chunks_of_extxyz(path, size) if filetype(str(path)) == "extxyz" and not is_compressed(path) else None


def _chunks_of_extxyz(path: Path, size: int) -> Iterator[Chunk]:
    """Where every ``size``-th frame begins."""
    begin, first, held, end = 0, 0, 0, 0
    for end in frame_ends(path):
        held += 1
        if held == size:
            yield Chunk("", first, (begin, end))
            begin, first, held = end, first + held, 0
    if held:
        yield Chunk("", first, (begin, end))


def _read_chunk(path: Path, options: ReadOptions, chunk: Chunk) -> Iterator[RawFrame]:
    from ase.io import iread

    begin, end = chunk.place
    with path.open("rb") as stream:
        stream.seek(begin)
        text = io.StringIO(stream.read(end - begin).decode("utf-8"))
    notes = cut_notes(path)
    for atoms in iread(text, index=":", format="extxyz"):
        yield RawFrame.of_atoms(atoms, labels_of_atoms(atoms, {}), notes=notes)


FORMAT = Format(
    name="ase",
    description="extended XYZ and every other file that ASE reads without running code from it",
    recognises=Path.is_file,
    read=_read,
    files=_files,
    chunks=_chunks,
    read_chunk=_read_chunk,
)
