"""Extended XYZ and every other file that ASE reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ase import Atoms

from zoo.data.raw import Format, RawFrame, ReadOptions
from zoo.data.xyz_check import check_xyz
from zoo.errors import ZooError

_STRUCTURE = frozenset({"numbers", "positions", "masses", "tags", "momenta", "initial_magmoms", "initial_charges"})
_XYZ_FORMATS = frozenset({"extxyz", "xyz"})
# both are read through pickle, which runs code from the file
_PICKLED_FORMATS = frozenset({"bundletrajectory", "trj"})


def labels_of_atoms(atoms: Atoms, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the frame may keep a label in: ASE moves well-known names from info and arrays into a calculator."""
    arrays = {name: value for name, value in atoms.arrays.items() if name not in _STRUCTURE}
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    found = {**extra, **atoms.info, **arrays, **{name: value for name, value in results.items() if value is not None}}
    if "magnetic_moments" not in found and "magmoms" in found:
        found["magnetic_moments"] = found["magmoms"]
    return found


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    from ase.io import read
    from ase.io.formats import filetype

    file_format = filetype(str(path))
    if file_format in _PICKLED_FORMATS:
        raise ZooError(f"{path}: the format {file_format!r} can run code when read; convert it to extxyz where you trust it")
    if file_format in _XYZ_FORMATS:
        check_xyz(path)
    for atoms in read(str(path), index=":", format=file_format, do_not_split_by_at_sign=True):
        yield RawFrame.of_atoms(atoms, labels_of_atoms(atoms, {}))


FORMAT = Format(
    name="ase",
    description="extended XYZ and every other file that ASE reads without running code from it",
    recognises=Path.is_file,
    read=_read,
)
