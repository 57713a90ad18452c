"""How the claims measure: every bit, or relative to the scale of forces and stress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from zoo.backbones.base import Backbone
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import EquivarianceReport, check_equivariance
from zoo.evaluation.transformations import transform_frame
from zoo.graph import collate
from zoo.potential import Potential, Prediction
from zoo.testing.claims import hold


def bits(predictions: Sequence[Prediction]) -> list[object]:
    """What two lists of predictions share only where they agree in every bit."""
    return [(p.energy, p.forces.tobytes(), None if p.stress is None else p.stress.tobytes()) for p in predictions]


def forces_of(predictions: Sequence[Prediction]) -> NDArray[Any]:
    """(N, 3) eV/Å of all structures, one after the other."""
    return np.concatenate([prediction.forces for prediction in predictions])


def relative_difference(found: Sequence[Prediction], expected: Sequence[Prediction]) -> float:
    """Largest of energy per atom, forces and stress, each over the set's largest force or stress; NaN where a stress is there only once."""
    force_scale = np.abs(forces_of(expected)).max()
    stress_scale = max((np.abs(p.stress).max() for p in expected if p.stress is not None), default=1.0)
    parts = []
    for one, other in zip(found, expected, strict=True):
        parts.append(abs(one.energy - other.energy) / len(other.forces) / force_scale)
        parts.append(np.abs(one.forces - other.forces).max() / force_scale)
        if one.stress is not None and other.stress is not None:
            parts.append(np.abs(one.stress - other.stress).max() / stress_scale)
        elif one.stress is not other.stress:
            parts.append(np.nan)
    return float(np.max(parts))


def rotation_residual(potential: Potential, frames: Sequence[Frame]) -> float:
    """How far the predictions of rotated frames are from rotated predictions (`relative_difference`), apart from `check_equivariance`.

    A stress that is not claimed to turn is left out: it would hide everything else.
    """
    rotation = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()
    claims_stress = potential.backbone.equivariant_stress or potential.conservative

    def turned(prediction: Prediction, matrix: NDArray[Any]) -> Prediction:
        stress = prediction.stress if claims_stress else None
        return Prediction(prediction.energy, prediction.forces @ matrix.T, None if stress is None else matrix @ stress @ matrix.T)

    rotated = [turned(one, np.eye(3)) for one in potential.predict([transform_frame(frame, rotation) for frame in frames])]
    return relative_difference(rotated, [turned(one, rotation) for one in potential.predict(frames)])


def relative_sizes(potential: Potential, name: str) -> dict[str, float]:
    """|dW|/|W| of every block of an adapter, by the block's key; none where it changes activations."""
    deltas, parameters = potential.adapters.get(name).deltas(), dict(potential.backbone.named_parameters())
    return {
        block.key: float(block.view(deltas[block.parameter].detach()).norm() / block.view(parameters[block.parameter].detach()).norm())
        for block in potential.adapters.get(name).blocks
        if block.parameter in deltas
    }


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {name: tensor.detach().clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def changed_tensors(found: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors of two `state_of` that came, went or differ in a bit."""
    common = found.keys() & before.keys()
    # bytes, because NaN is not equal to itself
    differing = {name for name in common if found[name].shape != before[name].shape or not _same_bits(found[name], before[name])}
    return sorted(differing | (found.keys() ^ before.keys()))


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and (torch.equal(one, other) or one.cpu().numpy().tobytes() == other.cpu().numpy().tobytes())


def assert_same_state(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise `ContractError` where two `state_of` differ in a bit."""
    differing = changed_tensors(found, expected)
    others = f"{len(differing)} others ({', '.join(differing[:3])})"
    hold(not differing, "the base's tensors are what they were, bit for bit", others, "none")


@contextmanager
def unfrozen(potential: Potential) -> Iterator[Backbone]:
    """The backbone with the weights trainable that its authors left trainable, as it was before a potential froze it."""
    backbone = potential.backbone
    trains = {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
    adaptable = {block.parameter for block in potential.coverage.blocks}
    try:
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in adaptable)
        yield backbone
    finally:
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(trains[name]).grad = None


def is_idle(backbone: Backbone, key: str) -> bool:
    """Whether the backbone says that no output depends on the block with this key."""
    return any(fnmatch(key, pattern) for pattern in backbone.idle_weights)


def training_loss(potential: Potential, frames: Sequence[Frame]) -> Tensor:
    """A loss of energies, forces and stresses with a value that no symmetry makes zero; leaves the potential in ``train()`` mode."""
    potential.train()
    results = potential(collate([potential.graph(frame) for frame in frames]))
    weights = torch.linspace(0.5, 1.5, results["forces"].numel(), dtype=torch.float64).reshape(-1, 3)
    stress = results["stress"][~torch.isnan(results["stress"])]
    loss: Tensor = (results["energy"] ** 2).sum() + 1e3 * (weights * (results["forces"] - 0.1) ** 2).sum() + stress.square().sum()
    return loss


class Uncopied(Potential):
    """Its copy in its own precision is itself, which saves a network built anew; that real copies agree is a claim of its own."""

    def to_dtype(self, dtype: torch.dtype) -> Potential:
        """Itself, in the precision it has."""
        return self if dtype == self.dtype else super().to_dtype(dtype)


class _InPlace:
    """A potential as `check_equivariance` sees it, without the copy that would be made of it."""

    def __init__(self, potential: Potential) -> None:
        self._potential = potential
        self.backbone = potential.backbone
        self.adapters = potential.adapters
        self.conservative = potential.conservative

    def predict(self, frames: Sequence[Frame], /, batch_size: int = 8) -> list[Prediction]:
        """The potential's own."""
        return self._potential.predict(frames, batch_size)

    def to_dtype(self, dtype: torch.dtype, /) -> _InPlace:
        """Itself: the claims are in float64 already."""
        hold(dtype == self._potential.dtype, "claims are tested in float64", self._potential.dtype, dtype)
        return self

    def on_finer_grid(self) -> Potential:
        """The potential's own."""
        return self._potential.on_finer_grid()


def symmetries(potential: Potential, frames: Sequence[Frame]) -> EquivarianceReport:
    """`zoo.evaluation.equivariance.check_equivariance` of a float64 potential as it is, not of a copy."""
    return check_equivariance(_InPlace(potential), frames)
