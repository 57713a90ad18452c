"""DeePMD systems: a folder with ``type.raw`` and its frames in ``set.*/*.npy`` or in text files, many such folders, or a list of them.

Energies are in eV, lengths in Å, ``virial`` in eV (DeePMD-kit's manual, "System"), ``spin`` in μ_B, ``force_mag`` in eV/μ_B. The virial is
minus the derivative of the energy by the strain, so stress = -virial / volume in ASE's sign; ``force_mag`` is minus the derivative of the
energy by the moments.

The files are read here and not by dpdata, with which the tests compare, because dpdata (1.1.0, tried) calls the elements ``Type_0``,
``Type_1`` where ``type_map.raw`` is missing, refuses a system of which one set has a virial and another has none, hands float32 on as
float32, takes 1.7 for type 1, drops npy files whose names it does not know, and does not name the file that is truncated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.raw import Format, RawFrame, ReadOptions, files_below
from zoo.data.readers.deepmd_arrays import SetArrays
from zoo.data.readers.deepmd_types import numbers_of_types, types_of_system, whole_numbers
from zoo.errors import ZooError

# per-atom vectors of DeePMD-kit, and the house names of the same
_VECTORS = {"force": "forces", "spin": "magnetic_moments", "force_mag": "magnetic_forces"}
_FIRST_CHARACTERS = 1 << 16


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    systems = _systems_below(path, "") if path.is_dir() else _systems_listed(path)
    empty = True
    for system, source in systems:
        empty = False
        yield from _frames_of_system(system, source, options.type_map)
    if empty:
        raise ZooError(f"{path}: holds no DeePMD system; wanted a folder with a type.raw in it or below it, or a list of such folders")


def _systems_below(folder: Path, source: str, seen: set[Path] | None = None) -> Iterator[tuple[Path, str]]:
    """Every system in ``folder`` or below once, sorted, with its path from the folder that was asked for."""
    seen = set() if seen is None else seen
    if folder.resolve() in seen:
        return  # a link to what was read already: its frames must not count twice
    seen.add(folder.resolve())
    if _is_system(folder):
        yield folder, source
    # links last, so that a system is named by its own folder
    for child in sorted(folder.iterdir(), key=lambda child: (child.is_symlink(), child.name)):
        if child.is_dir() and not child.name.startswith("set."):
            yield from _systems_below(child, f"{source}/{child.name}".lstrip("/"), seen)


def _systems_listed(file: Path) -> Iterator[tuple[Path, str]]:
    """The systems that a text file names, one a line, from its own folder or from the folder above."""
    seen: dict[Path, int] = {}
    for line, entry in _entries(file.read_text(encoding="utf-8", errors="replace")):
        system = _listed_system(file, entry)
        if system is None:
            raise ZooError(f"{file}: line {line} names {entry!r}, which is no folder with a type.raw, in {file.parent} or the folder above")
        first = seen.setdefault(system.resolve(), line)
        if first != line:
            raise ZooError(f"{file}: lines {first} and {line} name the same system {entry!r}; remove one, or its frames count twice")
        yield system, entry


def _entries(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers, from 1, and what the lines hold apart from comments and blanks."""
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.split("#")[0].strip()
        if entry:
            yield number, entry


def _listed_system(file: Path, entry: str) -> Path | None:
    folder = file.absolute().parent
    return next((root / entry for root in (folder, folder.parent) if _is_system(root / entry)), None)


def _is_system(folder: Path) -> bool:
    return os.path.isfile(folder / "type.raw")  # False, where Path.is_file raises, for a first line that is too long for a path


def _frames_of_system(system: Path, source: str, type_map: tuple[str, ...] | None) -> Iterator[RawFrame]:
    types = types_of_system(system)
    periodic = not (system / "nopbc").is_file()
    for arrays in _sets_of_system(system, len(types)):
        if periodic and "box" not in arrays:
            raise ZooError(
                f"{arrays.file('box')}: does not exist; a periodic system needs its cells, a molecule an empty file nopbc beside type.raw"
            )
        if "real_atom_types" in arrays:  # type.raw only counts the atoms then
            of_frames = whole_numbers(arrays.stored("real_atom_types"), arrays.file("real_atom_types"))
            numbers = numbers_of_types(of_frames, system, type_map)
        else:
            numbers = np.broadcast_to(numbers_of_types(types, system, type_map), (arrays.frames, len(types)))
        for frame in range(arrays.frames):
            yield _raw_frame(arrays, frame, numbers[frame], periodic, source)


def _sets_of_system(system: Path, atoms: int) -> Iterator[SetArrays]:
    """The sets in the order of their names; the text files where there are none, because they are what sets are made from."""
    folders = sorted(folder for folder in system.glob("set.*") if folder.is_dir())
    without = [folder.name for folder in folders if not (folder / "real_atom_types.npy").is_file()]
    if 0 < len(without) < len(folders):
        raise ZooError(f"{system}: {without[0]} has no real_atom_types.npy, but other sets have; the elements of its atoms are unknown")
    for folder in folders:
        yield SetArrays(folder, atoms, ".npy")
    if not folders:
        yield SetArrays(system, atoms, ".raw")


def _raw_frame(arrays: SetArrays, frame: int, numbers: NDArray[np.int64], periodic: bool, source: str) -> RawFrame:
    """One frame without its virtual atoms (``numbers`` 0); undocumented arrays stay as they are, because which axis is atoms is unknown."""
    real = numbers != 0
    cell = arrays.row("box", frame, (3, 3)) if periodic else np.zeros((3, 3))
    found: dict[str, Any] = {name: array[frame] for name, array in arrays.others.items()}
    notes: tuple[str, ...] = ()
    if "energy" in arrays:
        found["energy"] = float(arrays.row("energy", frame, ()))
        precision = arrays.stored("energy").dtype
        notes = (f"labels stored in {precision.name}",) if precision.kind == "f" and precision.itemsize < 8 else ()
    for name, house_name in _VECTORS.items():
        if name in arrays:
            found[name] = found[house_name] = arrays.row(name, frame, (-1, 3))[real]
    if "virial" in arrays:
        found["virial"] = arrays.row("virial", frame, (3, 3))
        volume = abs(float(np.linalg.det(cell)))
        if volume > 0:
            found["stress"] = -found["virial"] / volume
    return RawFrame(
        numbers=numbers[real],
        positions=arrays.row("coord", frame, (-1, 3))[real],
        cell=cell,
        pbc=np.full(3, periodic),
        found=found,
        source=source,
        notes=notes,
    )


def _recognises(path: Path) -> bool:
    if path.is_dir():
        return next(_systems_below(path, ""), None) is not None
    if path.suffix != ".txt":
        return False
    with path.open(encoding="utf-8", errors="replace") as handle:
        first = next(_entries(handle.read(_FIRST_CHARACTERS)), None)
    return first is not None and _listed_system(path, first[1]) is not None


def _files(path: Path) -> Sequence[Path]:
    systems = _systems_below(path, "") if path.is_dir() else _systems_listed(path)
    below = [file for system, _ in systems for file in files_below(system) or ()]
    return below if path.is_dir() else [path, *below]


FORMAT = Format(
    name="deepmd",
    description="DeePMD systems (type.raw with set.*/*.npy, also of mixed types, or *.raw): one, a folder of them, or a .txt list",
    recognises=_recognises,
    read=_read,
    files=_files,
)
