"""Small labelled structures that several test files use."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

ATOMS_OF_SLAB = 4


def dimers(count: int) -> list[Atoms]:
    """Copper and gold about 2.5 Å apart with random energies and forces, which no model can learn."""
    random = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        atoms = Atoms("CuAu", positions=np.array([[0, 0, 0], [2.5, 0, 0]]) + random.normal(0, 0.1, (2, 3)))
        atoms.calc = SinglePointCalculator(atoms, energy=float(random.normal()), forces=random.normal(0, 1, (2, 3)))
        frames.append(atoms)
    return frames


def slab(number: int = 0) -> Atoms:
    """A copper slab with an adsorbed oxygen, its lowest layer held in place."""
    atoms = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    add_adsorbate(atoms, "O", 1.2 + 0.01 * number, "fcc")
    atoms.pbc = True
    atoms.info.clear()
    atoms.set_tags([0, 1, 1, 2])
    atoms.set_constraint(FixAtoms(mask=[True, False, False, False]))
    rng = np.random.default_rng(number)
    forces = rng.normal(size=(ATOMS_OF_SLAB, 3))
    forces[0] = 0
    atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()) - 11.0, forces=forces)
    return atoms
