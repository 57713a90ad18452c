"""Forces and stress against derivatives of the energy alone, by a five-point central stencil.

f'(0) = (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h + O(h^4): with h = 1e-3 truncation and the rounding of a total energy of thousands of eV
both stay near 1e-9 eV/Å in float64, which the usual two-point formula cannot do at any h. Strains take half of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zoo.data.frame import FloatArray, Frame
from zoo.evaluation.predictions import Predictor, predict_frames

STEP_ANGSTROM = 1e-3
STEP_STRAIN = 5e-4  # a strain of 1e-3 moves atoms across a cell by several times STEP_ANGSTROM, too far for a stiff adapter
_POINTS = (-2.0, -1.0, 1.0, 2.0)
_WEIGHTS = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0


def force_residual(potential: Predictor, frame: Frame, forces: FloatArray, generator: np.random.Generator, components: int = 6) -> float:
    """Largest ``|F + dE/dx|`` in eV/Å over ``components`` randomly chosen of the 3N Cartesian components.

    Args:
        potential: must compute in float64.
        frame: where to differentiate.
        forces: (N, 3) eV/Å, the potential's own forces there.
        generator: chooses the components.
        components: how many; each costs four energies.
    """
    chosen = generator.choice(forces.size, size=min(components, forces.size), replace=False)
    displaced = []
    for flat in chosen:
        direction = np.zeros(forces.size)
        direction[flat] = STEP_ANGSTROM
        displaced += [replace(frame, positions=frame.positions + point * direction.reshape(-1, 3)) for point in _POINTS]
    derivatives = _stencil(potential, displaced, STEP_ANGSTROM)  # (components,)
    return float(np.abs(forces.ravel()[chosen] + derivatives).max())


def stress_residual(potential: Predictor, frame: Frame, stress: FloatArray) -> float:
    """Largest ``|S - dE/d(strain) / V|`` in eV/Å^3 over the six independent strains; the frame is periodic in 3D."""
    pairs = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    strained = []
    for row, column in pairs:
        strain = np.zeros((3, 3))
        # symmetric, and half in each corner, so that dE/dh is V x S[row, column] off the diagonal as well
        strain[row, column] += STEP_STRAIN / 2
        strain[column, row] += STEP_STRAIN / 2
        strained += [_strain(frame, np.eye(3) + point * strain) for point in _POINTS]
    derivatives = _stencil(potential, strained, STEP_STRAIN) / abs(np.linalg.det(frame.cell))  # (6,)
    return float(np.abs(np.array([stress[pair] for pair in pairs]) - derivatives).max())


def _strain(frame: Frame, deformation: FloatArray) -> Frame:
    return replace(frame, positions=frame.positions @ deformation, cell=frame.cell @ deformation)


def _stencil(potential: Predictor, frames: Sequence[Frame], step: float) -> FloatArray:
    """(K,) derivatives from 4K frames, four neighbouring ones a derivative."""
    energies = predict_frames(potential, frames).energies.reshape(-1, len(_POINTS))  # (K, 4)
    derivatives: FloatArray = energies @ _WEIGHTS / step
    return derivatives
