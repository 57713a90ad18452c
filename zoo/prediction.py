"""What a potential says of one structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.graph import AtomGraph, as_float_array


@dataclass(frozen=True)
class Prediction:
    """One structure's energy (eV), forces (N, 3) in eV/Å and stress (3, 3) in eV/Å^3.

    The stress is None unless the structure is periodic in 3D and the model has one (`Potential.has_stress`).
    """

    energy: float
    forces: np.ndarray[Any, np.dtype[np.float64]]
    stress: np.ndarray[Any, np.dtype[np.float64]] | None


def predictions_of(results: dict[str, Tensor], graph: AtomGraph) -> list[Prediction]:
    """The results of a batch (`zoo.potential.Potential.forward`), structure by structure."""
    forces = torch.split(results["forces"], graph.atom_counts.tolist())
    return [
        Prediction(
            energy=float(results["energy"][index]),
            forces=as_float_array(forces[index]),
            stress=as_float_array(results["stress"][index]) if "stress" in results and bool(graph.pbc[index].all()) else None,
        )
        for index in range(graph.graph_count)
    ]


def refuse_what_is_no_number(structures: Sequence[Frame | Atoms | AtomGraph], predictions: Sequence[Prediction]) -> None:
    """Raise `ZooError` for the first structure with an energy or force that is not a number."""
    for index, (structure, prediction) in enumerate(zip(structures, predictions, strict=True)):
        for quantity in ("energy", "forces"):
            if not np.isfinite(getattr(prediction, quantity)).all():
                name = structure.name if isinstance(structure, (Frame, AtomGraph)) else f"structure {index}"
                raise ZooError(f"{name}: the predicted {quantity} is not a number; check the structure, or the adapter has diverged")
