"""One labelled structure as plain arrays: what readers make and graphs are built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from zoo.data.raw import RawFrame
from zoo.errors import ZooError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """A structure with its labels, in eV, Å, eV/Å and eV/Å^3 (ASE's sign).

    Attributes:
        atomic_numbers: (N,) int64.
        positions: (N, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors; zeros for a molecule.
        pbc: (3,) bool.
        energy: total energy in eV, NaN where the frame has none.
        forces: (N, 3) eV/Å, NaN where the frame has none, and on fixed atoms whose forces are no labels.
        stress: (3, 3) eV/Å^3, NaN where the frame has none.
        source: where the frame comes from, e.g. ``"train_300K.xyz"``.
        frame_id: index of the frame within its source, from 0.
        level_of_theory: e.g. ``"PBE/def2-SVP"``; empty where unknown.
        fixed: (N,) bool, atoms that the calculation held in place; None where there are none.
        tags: (N,) int64, OC20's 0 subsurface, 1 surface, 2 adsorbate; None where the data set has none.
        magnetic_moments: (N, 3) μ_B, collinear ones along z; None where the frame has none.
        magnetic_forces: (N, 3) eV/μ_B; None where the frame has none.
        charge: total charge in units of e.
        spin: multiplicity 2S + 1; 0 where it is not stated.
        relaxed_energy: eV, of the structure this one relaxed to (OC20 IS2RE), NaN where unknown.
        relaxed_positions: (N, 3) Å of that structure; None where unknown.
        identifier: the data set's own name of the frame; empty where it has none.
    """

    atomic_numbers: NDArray[np.int64]
    positions: FloatArray
    cell: FloatArray
    pbc: NDArray[np.bool_]
    energy: float
    forces: FloatArray
    stress: FloatArray
    source: str
    frame_id: int
    level_of_theory: str = ""
    fixed: NDArray[np.bool_] | None = None
    tags: NDArray[np.int64] | None = None
    magnetic_moments: FloatArray | None = None
    magnetic_forces: FloatArray | None = None
    relaxed_energy: float = float("nan")
    relaxed_positions: FloatArray | None = None
    identifier: str = ""
    charge: int = 0
    spin: int = 0

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def name(self) -> str:
        """How errors name the frame: ``"train_300K.xyz: frame 12"``."""
        return f"{self.source}: frame {self.frame_id}"

    @property
    def free(self) -> NDArray[np.bool_]:
        """(N,) atoms that the calculation did not hold in place."""
        return np.ones(len(self), dtype=bool) if self.fixed is None else ~self.fixed

    @property
    def has_energy(self) -> bool:
        """Whether the energy is known."""
        return bool(np.isfinite(self.energy))

    @property
    def has_forces(self) -> bool:
        """Whether the force on every free atom is known (and there is one)."""
        free = self.forces[self.free]
        return bool(len(free) and np.isfinite(free).all())

    @property
    def has_stress(self) -> bool:
        """Whether the whole stress is known."""
        return bool(np.isfinite(self.stress).all())

    @property
    def has_magnetic_moments(self) -> bool:
        """Whether magnetic moments are known."""
        return self.magnetic_moments is not None

    @classmethod
    def unlabelled(cls, atoms: Atoms, source: str = "atoms", frame_id: int = 0) -> Self:
        """The structure of ``atoms`` with every label NaN; raises `ZooError` for NaN positions, no atoms or an impossible cell."""
        return cls.of_structure(RawFrame.of_atoms(atoms, {}), source, frame_id)

    @classmethod
    def of_structure(cls, raw: RawFrame, source: str, frame_id: int) -> Self:
        """The structure of ``raw``, its lengths taken as Å, with every label NaN; raises `ZooError` as `unlabelled`."""
        count = len(raw.numbers)
        if count == 0:
            raise ZooError(f"{source}: frame {frame_id} has no atoms; remove the frame")
        positions = np.array(raw.positions, dtype=np.float64)
        cell = np.array(raw.cell, dtype=np.float64)
        pbc = np.array(raw.pbc, dtype=bool)
        if positions.shape != (count, 3):
            raise ZooError(f"{source}: frame {frame_id} has {count} atoms but positions of shape {positions.shape}; repair the frame")
        if not np.isfinite(positions).all() or not np.isfinite(cell).all():
            raise ZooError(f"{source}: frame {frame_id} has a position or cell entry that is not a number; remove or repair the frame")
        if not pbc.any():
            return cls._unchecked(raw, positions, cell, pbc, source, frame_id)
        if np.any(pbc & (np.linalg.norm(cell, axis=1) == 0)):
            raise ZooError(
                f"{source}: frame {frame_id} is periodic along a lattice vector of length zero (pbc={pbc.tolist()}); "
                "give the cell or set pbc to False"
            )
        if np.linalg.matrix_rank(cell[pbc]) < pbc.sum():
            raise ZooError(
                f"{source}: frame {frame_id} is periodic along linearly dependent lattice vectors (pbc={pbc.tolist()}), a cell without "
                "extent; repair the cell or set pbc to False"
            )
        return cls._unchecked(raw, positions, cell, pbc, source, frame_id)

    @classmethod
    def _unchecked(cls, raw: RawFrame, positions: FloatArray, cell: FloatArray, pbc: NDArray[np.bool_], source: str, frame_id: int) -> Self:
        count = len(raw.numbers)
        return cls(
            atomic_numbers=np.array(raw.numbers, dtype=np.int64),
            positions=positions,
            cell=cell,
            pbc=pbc,
            energy=float("nan"),
            forces=np.full((count, 3), np.nan),
            stress=np.full((3, 3), np.nan),
            source=source,
            frame_id=frame_id,
            fixed=raw.fixed,
            tags=raw.tags,
            identifier=raw.identifier,
            charge=_whole(raw.charge, "charge", source, frame_id),
            spin=_whole(raw.spin, "spin", source, frame_id),
        )

    def to_atoms(self) -> Atoms:
        """The bare structure as ASE `Atoms`, without labels; fixed atoms, tags, charge and spin are carried over."""
        atoms = Atoms(numbers=self.atomic_numbers, positions=self.positions, cell=self.cell, pbc=self.pbc, tags=self.tags)
        atoms.info.update({name: value for name, value in (("charge", self.charge), ("spin", self.spin)) if value})
        if self.fixed is not None:
            from ase.constraints import FixAtoms

            atoms.set_constraint(FixAtoms(mask=self.fixed))
        return atoms


def _whole(value: object, name: str, source: str, frame_id: int) -> int:
    """A charge or a multiplicity as the integer that it is."""
    number = np.asarray(value).reshape(-1)
    if number.size != 1 or number.dtype.kind not in "biuf" or not np.isfinite(number[0]) or number[0] != round(number[0]):
        raise ZooError(f"{source}: frame {frame_id} has {name}={value!r}, not a whole number; repair info[{name!r}] or remove it")
    return int(number[0])
