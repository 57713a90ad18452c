"""NumPy archives (``.npz``) of many frames: the layouts of rMD17, of MD17 and sGDML, and of NequIP, told apart by their keys.

========== ======================= ============== =================== ===================== ==================================
layout     atomic numbers          positions      energy              forces                units
========== ======================= ============== =================== ===================== ==================================
rMD17      ``nuclear_charges``     ``coords``     ``energies``        ``forces``            kcal/mol, Å
MD17/sGDML ``z``                   ``R``          ``E``               ``F``                 kcal/mol, Å
NequIP     ``atomic_numbers``, z   ``pos``, ``R`` ``energy``, ``E``   ``forces``, ``F``     eV, Å
========== ======================= ============== =================== ===================== ==================================

Units that the archive states itself (sGDML's ``e_unit`` and ``r_unit``) go before those of its layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.npy_files import read_npz
from zoo.data.raw import Format, RawFrame, ReadOptions, Units
from zoo.errors import ZooError

Arrays = Mapping[str, NDArray[Any]]

_ENERGY_SPELLINGS = {
    **{"kcal/mol": "kcal/mol", "kj/mol": "kJ/mol", "ev": "eV", "mev": "meV", "ry": "Ry"},
    **dict.fromkeys(("hartree", "ha", "eh", "au", "a.u."), "Hartree"),
}
_LENGTH_SPELLINGS = {
    **dict.fromkeys(("ang", "angstrom", "å", "a"), "Angstrom"),
    **dict.fromkeys(("bohr", "au", "a.u."), "Bohr"),
    "nm": "nm",
}


@dataclass(frozen=True)
class _Layout:
    """The keys of a layout: the first of each that an archive has is used."""

    numbers: tuple[str, ...]
    positions: tuple[str, ...]
    energy: tuple[str, ...]
    forces: tuple[str, ...]
    units: Units

    def fits(self, names: frozenset[str]) -> bool:
        return all(names.intersection(keys) for keys in (self.numbers, self.positions, self.energy + self.forces))


_LAYOUTS = (
    _Layout(("nuclear_charges",), ("coords",), ("energies",), ("forces",), Units(energy="kcal/mol")),
    _Layout(("z",), ("R",), ("E",), ("F",), Units(energy="kcal/mol")),
    _Layout(("atomic_numbers", "z"), ("pos", "R"), ("energy", "E"), ("forces", "F"), Units()),
)


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    arrays = read_npz(path)
    layout = _layout(path, arrays)
    units = _units(path, arrays, layout.units)
    key = next(name for name in layout.positions if name in arrays)
    positions = arrays[key]
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise ZooError(f"{path}: {key!r} has shape {positions.shape}, wanted (frames, atoms, 3); store every frame's positions")
    count, atoms = positions.shape[:2]
    numbers = _numbers(path, arrays, layout, (count, atoms))
    cell, pbc, notes = _periodicity(path, arrays, count)
    labels = _labels(path, arrays, layout, count)
    old_indices = labels.get("old_indices")
    for index in range(count):
        yield RawFrame(
            numbers=numbers[index],
            positions=positions[index],
            cell=cell[index],
            pbc=pbc[index],
            found={name: values[index] for name, values in labels.items()},
            units=units,
            identifier="" if old_indices is None else str(old_indices[index]),
            notes=notes,
        )


def _layout(path: Path, arrays: Arrays) -> _Layout:
    for layout in _LAYOUTS:
        if layout.fits(frozenset(arrays)):
            return layout
    raise ZooError(
        f"{path}: its arrays are of no known layout (found: {', '.join(sorted(arrays)) or 'none'}); wanted are nuclear_charges, coords, "
        "energies, forces (rMD17), z, R, E, F (MD17, sGDML) or atomic_numbers, pos, energy, forces (NequIP)"
    )


def _units(path: Path, arrays: Arrays, documented: Units) -> Units:
    energy, length = _stated(path, arrays, "e_unit", _ENERGY_SPELLINGS), _stated(path, arrays, "r_unit", _LENGTH_SPELLINGS)
    return Units(energy=energy or documented.energy, length=length or documented.length, stated=bool(energy or length))


def _stated(path: Path, arrays: Arrays, key: str, spellings: Mapping[str, str]) -> str | None:
    if key not in arrays:
        return None
    value = arrays[key].reshape(-1).tolist()
    text = value[0].decode(errors="replace") if len(value) == 1 and isinstance(value[0], bytes) else " ".join(map(str, value))
    unit = spellings.get(text.strip().lower())
    if unit is None:
        raise ZooError(
            f"{path}: states {key}={text!r}, which is not a unit known here; write one of {', '.join(spellings)} into the archive"
        )
    return unit


def _numbers(path: Path, arrays: Arrays, layout: _Layout, shape: tuple[int, int]) -> NDArray[np.int64]:
    """(frames, N) from one row for all frames or one for each."""
    key = next(name for name in layout.numbers if name in arrays)
    given = arrays[key]
    if given.shape not in (shape[1:], shape):
        raise ZooError(f"{path}: {key!r} has shape {given.shape}, wanted {shape[1:]} or {shape} as the positions have; repair the archive")
    if given.dtype.kind not in "iuf" or not np.isin(given, np.arange(1, 119)).all():
        raise ZooError(f"{path}: {key!r} holds values that are no atomic numbers 1 to 118 (padding?); give every frame its own atoms only")
    return np.broadcast_to(given.astype(np.int64), shape)


def _periodicity(path: Path, arrays: Arrays, count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[str, ...]]:
    """(frames, 3, 3) and (frames, 3): zeros and False where the archive has no cell, and what should be said about it."""
    cell = _of_every_frame(path, "cell", arrays.get("cell", _sgdml_lattice(path, arrays)), (3, 3), count).astype(np.float64)
    if "pbc" in arrays:
        return cell, _of_every_frame(path, "pbc", arrays["pbc"], (3,), count).astype(bool), ()
    periodic: NDArray[np.bool_] = np.asarray(cell.any(axis=-1))  # (frames, 3): along every lattice vector that is there
    return cell, periodic, ("taken as periodic, for it has a cell and does not state pbc",) if periodic.any() else ()


def _sgdml_lattice(path: Path, arrays: Arrays) -> NDArray[Any]:
    """``lattice``, whose vectors sGDML's scripts have written as rows and as columns, so that only a symmetric one can be read."""
    lattice = arrays.get("lattice", np.zeros((3, 3)))
    if lattice.shape != (3, 3) or not np.array_equal(lattice, lattice.T):
        raise ZooError(
            f"{path}: 'lattice' does not say whether rows or columns are its vectors; store them as rows under 'cell', with 'pbc'"
        )
    return lattice


def _of_every_frame(path: Path, name: str, given: NDArray[Any], shape: tuple[int, ...], count: int) -> NDArray[Any]:
    if given.shape not in ((), shape, (count, *shape)):
        raise ZooError(f"{path}: {name!r} has shape {given.shape}, wanted {shape} or {(count, *shape)}; repair the archive")
    return np.broadcast_to(given, (count, *shape))


def _labels(path: Path, arrays: Arrays, layout: _Layout, count: int) -> dict[str, NDArray[Any]]:
    """Everything with one entry a frame, under the archive's names, and energy and forces under the house names too."""
    structure: Sequence[str] = (*layout.numbers, *layout.positions, "cell", "pbc", "lattice")
    labels = {name: values for name, values in arrays.items() if name not in structure and values.shape[:1] == (count,)}
    for house_name, keys in (("energy", layout.energy), ("forces", layout.forces)):
        key = next((name for name in keys if name in arrays), None)
        if key is None:
            continue
        if key not in labels:
            raise ZooError(f"{path}: {key!r} has shape {arrays[key].shape} where there are {count} frames; repair the archive")
        labels[house_name] = arrays[key]
    return labels


FORMAT = Format(
    name="npz",
    description="NumPy archives (.npz) as rMD17, MD17 and sGDML, and NequIP lay them out",
    recognises=lambda path: path.is_file() and path.suffix == ".npz",
    read=_read,
)
