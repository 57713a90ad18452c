"""What the contract files ask of networks at real size and of SevenNet-0, with the measures of `zoo.testing`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule

from adapters.state import load_into, read_adapter
from zoo.data.frame import Frame
from zoo.potential import Potential
from zoo.testing.measures import relative_difference


def small_frames(salt: Atoms, *others: Atoms) -> list[Frame]:
    """A molecule of three elements, ``others`` and the crystal ``salt``, which is sheared; all rattled."""
    generator = np.random.default_rng(1)
    salt.set_cell(salt.cell.array @ (np.eye(3) + 0.06 * generator.standard_normal((3, 3))), scale_atoms=True)
    structures = [molecule("CH3OH"), *others, salt]
    for atoms in structures:
        atoms.positions += 0.08 * generator.standard_normal(atoms.positions.shape)
    return [Frame.unlabelled(atoms, source=atoms.get_chemical_formula()) for atoms in structures]


def force_change(potential: Potential, name: str, frames: list[Frame]) -> float:
    """How much of the adapted predictions is the adapter's doing (`relative_difference`)."""
    adapted = potential.predict(frames)
    potential.adapters.activate([])
    base = potential.predict(frames)
    potential.adapters.activate([name])
    return relative_difference(base, adapted)


def save_and_attach_again(potential: Potential, name: str, file: Path) -> None:
    """The adapter through its file; meanwhile the potential is without it."""
    potential.save_adapter(name, file)
    potential.adapters.delete(name)
    load_into(potential.adapters, name, *read_adapter(file))


def weights_without_gradient(potential: Potential) -> set[str]:
    """Weights that the forces of one pair of carbon and oxygen do not reach, under full fine-tuning."""
    frame = Frame.unlabelled(Atoms("CO", [[0, 0, 0], [0.1, 0.2, 1.2]]))
    potential.adapters.add("full", "full")
    try:
        potential.train()
        potential(potential.graph(frame))["forces"].square().sum().backward()
        tensors = potential.adapters.get("full").tensors
        return {key for key, tensor in tensors.items() if tensor.grad is None or not tensor.grad.abs().max() > 0}
    finally:
        potential.eval()
        potential.adapters.delete("full")
