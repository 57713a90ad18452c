"""Structures that differ in everything a neighbour list or a sign can get wrong."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule


def parity_structures() -> dict[str, list[Atoms]]:
    """By kind; rattled where symmetry would make forces vanish, so that there is something to compare."""
    slab = fcc111("Pt", size=(2, 2, 3), vacuum=8.0)
    add_adsorbate(slab, molecule("CO"), 1.9, "ontop", mol_index=1)  # carbon down
    sheared = bulk("Si", cubic=True)
    sheared.set_cell(sheared.cell.array @ np.array([[1.0, 0.12, 0.0], [0.0, 1.0, -0.08], [0.05, 0.0, 1.03]]), scale_atoms=True)
    perovskite = Atoms(
        "SrTiO3", scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)], cell=[3.905] * 3, pbc=True
    )
    wire = Atoms("Au4", positions=[(0.0, 0.3 * (-1) ** i, 2.6 * i) for i in range(4)], cell=[0, 0, 10.4], pbc=(False, False, True))
    alloy = bulk("Cu", a=3.75, cubic=True).repeat(2)
    alloy.symbols[::4] = "Au"
    structures = {
        "molecule, isolated atom": [molecule("CH3CH2OH"), Atoms("Cu")],
        "crystals, one sheared, one of one atom": [bulk("NaCl", "rocksalt", a=5.64, cubic=True), bulk("Cu"), sheared, perovskite, alloy],
        "slab with CO, wire": [slab, wire],
    }
    for seed, atoms in enumerate(atoms for kind in structures.values() for atoms in kind):
        if len(atoms) > 1:
            atoms.rattle(0.08, seed=seed)
    return structures
