"""Extended XYZ and every other file that ASE reads."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from zoo.data.raw import Chunk, Format, RawFrame, ReadOptions
from zoo.data.xyz_check import check_xyz, check_xyz_frames
from zoo.errors import ZooError

_STRUCTURE = frozenset({"numbers", "positions", "masses", "tags", "momenta", "initial_magmoms", "initial_charges"})
_XYZ_FORMATS = frozenset({"extxyz", "xyz"})
# both are read through pickle, which runs code from the file
_PICKLED_FORMATS = frozenset({"bundletrajectory", "trj"})
_OF_ONE_FILE = frozenset({"extxyz", "xyz", "traj", "json"})
_COMPRESSED = frozenset({".gz", ".bz2", ".xz"})


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
    if file_format in _XYZ_FORMATS:
        check_xyz(path)
    for atoms in iread(str(path), index=":", format=file_format, do_not_split_by_at_sign=True):
        yield RawFrame.of_atoms(atoms, labels_of_atoms(atoms, {}))


def _files(path: Path) -> Sequence[Path] | None:
    """Other formats of ASE may read files beside the one that is named."""
    from ase.io.formats import filetype

    return [path] if filetype(str(path)) in _OF_ONE_FILE else None


def _chunks(path: Path, options: ReadOptions, size: int) -> Iterator[Chunk] | None:
    from ase.io.formats import filetype

    return _chunks_of_extxyz(path, size) if filetype(str(path)) == "extxyz" and path.suffix not in _COMPRESSED else None


def _chunks_of_extxyz(path: Path, size: int) -> Iterator[Chunk]:
    """Where every ``size``-th frame begins, by the number of atoms that each frame states; an empty line ends the file, as for ASE."""
    with path.open("rb") as stream:
        begin, held, first = 0, 0, 0
        while (line := stream.readline()).strip():
            for _ in range(int(line) + 1):
                if not stream.readline():
                    break  # cut off, or not the number it says: ASE tells when it reads the frame
            held += 1
            while (vector := stream.readline()).lstrip().startswith(b"VEC"):
                pass
            stream.seek(-len(vector), 1)
            if held == size:
                yield Chunk("", first, (begin, stream.tell()))
                begin, first, held = stream.tell(), first + held, 0
        if held:
            yield Chunk("", first, (begin, stream.tell() - len(line)))


def _read_chunk(path: Path, options: ReadOptions, chunk: Chunk) -> Iterator[RawFrame]:
    from ase.io import iread

    begin, end = chunk.place
    with path.open("rb") as stream:
        stream.seek(begin)
        text = io.StringIO(stream.read(end - begin).decode("utf-8"))
    check_xyz_frames(text, path, chunk.first)
    text.seek(0)
    for atoms in iread(text, index=":", format="extxyz"):
        yield RawFrame.of_atoms(atoms, labels_of_atoms(atoms, {}))


FORMAT = Format(
    name="ase",
    description="extended XYZ and every other file that ASE reads without running code from it",
    recognises=Path.is_file,
    read=_read,
    files=_files,
    chunks=_chunks,
    read_chunk=_read_chunk,
)
