"""What the contract files ask in the same words, of toys, of networks at real size and of SevenNet-0."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

from adapters.state import AdapterManifest, load_into, read_adapter, write_adapter
from zoo.backbones.base import Backbone
from zoo.data.frame import Frame
from zoo.evaluation.transformations import transform_frame
from zoo.potential import Potential, Prediction


def small_frames(salt: Atoms, *others: Atoms) -> list[Frame]:
    """A molecule of three elements, ``others`` and the crystal ``salt``, which is sheared; all rattled."""
    generator = np.random.default_rng(1)
    salt.set_cell(salt.cell.array @ (np.eye(3) + 0.06 * generator.standard_normal((3, 3))), scale_atoms=True)
    structures = [molecule("CH3OH"), *others, salt]
    for atoms in structures:
        atoms.positions += 0.08 * generator.standard_normal(atoms.positions.shape)
    return [Frame.unlabelled(atoms, source=atoms.get_chemical_formula()) for atoms in structures]


def bits(predictions: list[Prediction]) -> list[object]:
    """What two lists of predictions share only where they agree in every bit."""
    return [(p.energy, p.forces.tobytes(), None if p.stress is None else p.stress.tobytes()) for p in predictions]


def forces_of(predictions: list[Prediction]) -> np.ndarray[Any, Any]:
    return np.concatenate([prediction.forces for prediction in predictions])


def relative_difference(found: list[Prediction], expected: list[Prediction]) -> float:
    """Largest of energy per atom, forces and stress, each over the set's largest force or stress."""
    force_scale = np.abs(forces_of(expected)).max()
    stress_scale = max((np.abs(p.stress).max() for p in expected if p.stress is not None), default=1.0)
    parts = []
    for one, other in zip(found, expected, strict=True):
        parts.append(abs(one.energy - other.energy) / len(other.forces) / force_scale)
        parts.append(np.abs(one.forces - other.forces).max() / force_scale)
        if one.stress is not None and other.stress is not None:
            parts.append(np.abs(one.stress - other.stress).max() / stress_scale)
    return float(np.max(parts))


def rotation_residual(potential: Potential, frames: list[Frame]) -> float:
    """How far the predictions of rotated frames are from rotated predictions, without the project's own check."""
    rotation = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()
    rotated = potential.predict([transform_frame(frame, rotation) for frame in frames])
    expected = [
        Prediction(p.energy, p.forces @ rotation.T, None if p.stress is None else rotation @ p.stress @ rotation.T)
        for p in potential.predict(frames)
    ]
    return relative_difference(rotated, expected)


def relative_sizes(potential: Potential, name: str) -> dict[str, float]:
    """|dW|/|W| of every block of an adapter, by the block's key; none where it changes activations."""
    deltas, parameters = potential.adapters.get(name).deltas(), dict(potential.backbone.named_parameters())
    return {
        block.key: float(block.view(deltas[block.parameter].detach()).norm() / block.view(parameters[block.parameter].detach()).norm())
        for block in potential.adapters.get(name).blocks
        if block.parameter in deltas
    }


def force_change(potential: Potential, name: str, frames: list[Frame]) -> float:
    """How much of the adapted predictions is the adapter's doing (`relative_difference`)."""
    adapted = potential.predict(frames)
    potential.adapters.activate([])
    base = potential.predict(frames)
    potential.adapters.activate([name])
    return relative_difference(base, adapted)


def save_and_attach_again(potential: Potential, name: str, file: Path) -> None:
    """The adapter through its file; meanwhile the potential is without it."""
    adapter = potential.adapters.get(name)
    manifest = AdapterManifest(
        method=adapter.method.name,
        config=adapter.method.config_dict,
        base_card=potential.source,
        base_family=potential.backbone.family,
        base_sha256=potential.base_sha256,
        base_convention=potential.backbone.convention,
    )
    write_adapter(file, adapter, manifest)
    potential.adapters.delete(name)
    load_into(potential.adapters, name, *read_adapter(file))


def is_idle(backbone: Backbone, key: str) -> bool:
    """Whether the backbone says that no output depends on the block with this key."""
    return any(fnmatch(key, pattern) for pattern in backbone.idle_weights)


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
