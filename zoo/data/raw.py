"""What a file says about one structure, before any name is chosen or any unit converted: the seam between formats and labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray


@dataclass(frozen=True)
class Units:
    """The units of a file's labels, as `zoo.units` names them.

    Attributes:
        stated: whether the file itself says so, which no setting contradicts; else its format documents them, and a user's setting goes
            before.
    """

    energy: str = "eV"
    length: str = "Angstrom"
    stress: str = "eV/Angstrom^3"
    stated: bool = False


@dataclass(frozen=True)
class RawFrame:
    """One structure as its file gives it, in the file's units.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (N, 3), Cartesian.
        cell: (3, 3), rows are lattice vectors; zeros for a molecule.
        pbc: (3,) bool.
        found: everything the structure may keep a label in, by the file's own names; a format with documented names adds its labels
            under the house names too: ``energy``, ``forces``, ``stress`` (ASE's sign), ``magnetic_moments``, ``magnetic_forces``,
            ``relaxed_energy``, ``relaxed_positions``.
        units: what the format documents.
        fixed: (N,) bool, atoms that the calculation held in place; None where the file does not say.
        tags: (N,) int, e.g. OC20's 0 subsurface, 1 surface, 2 adsorbate; None where the file does not say.
        charge: total charge in units of e, 0 where the file does not say; unchecked, as all that a file says.
        spin: multiplicity 2S + 1, 0 where the file does not say; unchecked too.
        identifier: the name the data set itself gives the frame, e.g. ``"random1447590_12"``; empty where it has none.
        source: the frame's origin within a folder or archive, e.g. the DeePMD system; empty for the file itself.
        notes: what a reader of the log should know, the same for many frames, e.g. ``"labels stored in float32"``.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    found: Mapping[str, Any]
    units: Units = field(default_factory=Units)
    fixed: NDArray[np.bool_] | None = None
    tags: NDArray[np.int64] | None = None
    charge: Any = 0
    spin: Any = 0
    identifier: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of_atoms(cls, atoms: Atoms, found: Mapping[str, Any], **fields: Any) -> RawFrame:
        """From ASE `Atoms`, with its fixed atoms (``FixAtoms``, ``FixCartesian`` in all directions), non-zero tags, charge and spin."""
        from ase.constraints import FixAtoms, FixCartesian

        fixed = np.zeros(len(atoms), dtype=bool)
        for constraint in atoms.constraints:
            if isinstance(constraint, FixAtoms) or (isinstance(constraint, FixCartesian) and np.all(constraint.mask)):
                fixed[constraint.index] = True
        tags = np.asarray(atoms.get_tags(), dtype=np.int64)
        given: dict[str, Any] = {"fixed": fixed if fixed.any() else None, "tags": tags if tags.any() else None, **fields}
        for name in ("charge", "spin"):  # fairchem's names
            given.setdefault(name, atoms.info.get(name, 0))
        return cls(
            numbers=np.asarray(atoms.get_atomic_numbers(), dtype=np.int64),
            positions=np.asarray(atoms.get_positions(), dtype=np.float64),
            cell=np.asarray(atoms.cell.array, dtype=np.float64),
            pbc=np.asarray(atoms.pbc, dtype=bool),
            found=found,
            **given,
        )


@dataclass(frozen=True)
class ReadOptions:
    """What a user says about a file that the file does not say itself.

    Attributes:
        type_map: element symbols of the integer types (DeePMD folders without ``type_map.raw``).
    """

    type_map: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Chunk:
    """Some frames that lie together in a source, which a process can read without those before them.

    Attributes:
        source: `RawFrame.source` of them all.
        first: the number of the first among the frames of that source.
        place: where they are, as the format says it.
    """

    source: str
    first: int
    place: Any


def files_below(path: Path) -> Sequence[Path] | None:
    """The file itself, or every file of a folder, by whatever links they are reached: what most sources are made of."""
    if path.is_file():
        return [path]
    found, seen = [], set()
    for folder, below, names in os.walk(path, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            below.clear()  # a link to a folder above, which would go round forever
            continue
        seen.add(real)
        below.sort()
        found += [one for name in names if (one := Path(folder, name)).is_file()]
    return sorted(found)


@dataclass(frozen=True)
class Format:
    """One kind of file or folder, and how it is read.

    Attributes:
        name: what ``data.format`` takes.
        description: one line for the documentation.
        recognises: whether a path is of this kind, from names and first bytes alone.
        read: the structures of a path, in order; raises `ZooError` with the path where the format is broken, and may raise anything else,
            which the caller turns into one line.
        files: every file that is read for a path, so that a copy on disk can be told to be of these very files; None where that is not
            known.
        chunks: the source in pieces of about so many frames, from a look at it and not by reading it; None where it has to be read from the
            beginning (the function itself may also return None).
        read_chunk: the structures of one piece; together the pieces are what ``read`` gives.
    """

    name: str
    description: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions], Iterator[RawFrame]]
    files: Callable[[Path], Sequence[Path] | None] = files_below
    chunks: Callable[[Path, ReadOptions, int], Iterator[Chunk] | None] | None = None
    read_chunk: Callable[[Path, ReadOptions, Chunk], Iterator[RawFrame]] | None = None
