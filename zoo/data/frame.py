"""One labelled structure as plain arrays: what readers make and graphs are built from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

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
        forces: (N, 3) eV/Å, NaN where the frame has none.
        stress: (3, 3) eV/Å^3, NaN where the frame has none.
        source: where the frame comes from, e.g. ``"train_300K.xyz"``.
        frame_id: index of the frame within its source, from 0.
        level_of_theory: e.g. ``"PBE/def2-SVP"``; empty where unknown.
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

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def name(self) -> str:
        """How errors name the frame: ``"train_300K.xyz: frame 12"``."""
        return f"{self.source}: frame {self.frame_id}"

    @property
    def has_energy(self) -> bool:
        """Whether the energy is known."""
        return bool(np.isfinite(self.energy))

    @property
    def has_forces(self) -> bool:
        """Whether every force is known."""
        return bool(np.isfinite(self.forces).all())

    @property
    def has_stress(self) -> bool:
        """Whether the whole stress is known."""
        return bool(np.isfinite(self.stress).all())

    @classmethod
    def unlabelled(cls, atoms: Atoms, source: str = "atoms", frame_id: int = 0) -> Frame:
        """The structure of ``atoms`` with every label NaN; raises `ZooError` for NaN positions, no atoms or an impossible cell."""
        if len(atoms) == 0:
            raise ZooError(f"{source}: frame {frame_id} has no atoms; remove the frame")
        positions = np.array(atoms.get_positions(), dtype=np.float64)
        cell = np.array(atoms.cell.array, dtype=np.float64)
        pbc = np.array(atoms.pbc, dtype=bool)
        if not np.isfinite(positions).all() or not np.isfinite(cell).all():
            raise ZooError(f"{source}: frame {frame_id} has a position or cell entry that is not a number; remove or repair the frame")
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
        return cls(
            atomic_numbers=np.array(atoms.get_atomic_numbers(), dtype=np.int64),
            positions=positions,
            cell=cell,
            pbc=pbc,
            energy=float("nan"),
            forces=np.full((len(atoms), 3), np.nan),
            stress=np.full((3, 3), np.nan),
            source=source,
            frame_id=frame_id,
        )

    def to_atoms(self) -> Atoms:
        """The bare structure as ASE `Atoms`, without labels."""
        return Atoms(numbers=self.atomic_numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
