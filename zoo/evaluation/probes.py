"""Small structures to test a potential's symmetries on, made of elements it knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from zoo.data.frame import Frame
from zoo.errors import ZooError


def probe_frames(elements: Sequence[int], seed: int = 0) -> list[Frame]:
    """A molecule, a wire, a slab and a sheared crystal of four of the elements, rattled; distances follow the covalent radii.

    Args:
        elements: atomic numbers the model knows.
        seed: of the choice of elements and the rattling.

    Raises:
        ZooError: for a model without elements.
    """
    if not elements:
        raise ZooError("the model knows no elements; nothing can be tested")
    generator = np.random.default_rng(seed)
    numbers = generator.choice(np.array(elements), size=4, replace=len(elements) < 4)
    spacing = 2.1 * float(np.mean([covalent_radii[number] for number in numbers]))
    grid = spacing * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float64)  # (4, 3)
    sheared = spacing * np.array([[2.0, 0.0, 0.0], [0.3, 2.0, 0.0], [0.2, -0.25, 2.0]])
    structures = {
        "molecule": Atoms(numbers, grid),
        "wire": Atoms(numbers, grid, cell=np.diag([0.0, 0.0, 2 * spacing]), pbc=(False, False, True)),
        "slab": Atoms(numbers, grid, cell=np.diag([2 * spacing, 2 * spacing, 0.0]), pbc=(True, True, False)),
        "crystal": Atoms(numbers, grid, cell=sheared, pbc=True),
    }
    for atoms in structures.values():
        atoms.positions += 0.1 * generator.standard_normal(atoms.positions.shape)
    return [Frame.unlabelled(atoms, source=name) for name, atoms in structures.items()]
