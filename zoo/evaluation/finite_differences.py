"""Forces and stress against derivatives of the energy alone, by a five-point central stencil.

f'(0) = (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h + O(h^4): with h = 1e-3 truncation and the rounding of a total energy of thousands of eV
both stay near 1e-9 eV/Å in float64, which the usual two-point formula cannot do at any h.

This holds where f is smooth between the points. Networks are only piecewise so: the second derivative of a cutoff function may jump where
it sets in and at the cutoff (SevenNet's XPLOR function at 4.5 and 5 Å), and a pair that passes such a distance between -2h and 2h costs
O(h), up to 1e-5 of the stress. A derivative that disagrees is therefore asked again with smaller steps, which a kink escapes unless it lies
within them; a wrong force or stress disagrees at each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import FloatArray, Frame
from zoo.evaluation.predictions import Predictor, predict_frames

STEPS = (1e-3, 1e-4, 1e-5)
"""Å, or strain: the first keeps rounding smallest, the others are for what a kink spoils."""

_POINTS = (-2.0, -1.0, 1.0, 2.0)
_WEIGHTS = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0
_STRAINS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def force_residual(
    potential: Predictor, frame: Frame, forces: FloatArray, generator: np.random.Generator, *, accepted: float, components: int = 6
) -> float:
    """Largest ``|F + dE/dx|`` in eV/Å over ``components`` randomly chosen of the 3N Cartesian components.

    Args:
        potential: must compute in float64.
        frame: where to differentiate.
        forces: (N, 3) eV/Å, the potential's own forces there.
        generator: chooses the components.
        accepted: eV/Å, the residual above which a component is asked again with a smaller step.
        components: how many; each costs four energies a step.
    """
    chosen = generator.choice(forces.size, size=min(components, forces.size), replace=False)

    def displaced(component: int, distance: float) -> Frame:
        direction = np.zeros(forces.size)
        direction[chosen[component]] = distance
        return replace(frame, positions=frame.positions + direction.reshape(-1, 3))

    return _largest_residual(potential, displaced, -forces.ravel()[chosen], accepted)


def stress_residual(potential: Predictor, frame: Frame, stress: FloatArray, *, accepted: float) -> float:
    """Largest ``|S - dE/d(strain) / V|`` in eV/Å^3 over the six independent strains; the frame is periodic in 3D.

    Args:
        potential: must compute in float64.
        frame: where to differentiate.
        stress: (3, 3) eV/Å^3, the potential's own stress there.
        accepted: eV/Å^3, the residual above which a strain is asked again with a smaller step.
    """
    volume = abs(float(np.linalg.det(frame.cell)))

    def strained(component: int, strain: float) -> Frame:
        row, column = _STRAINS[component]
        deformation = np.eye(3)
        # symmetric, and half in each corner, so that dE/dh is V x S[row, column] off the diagonal as well
        deformation[row, column] += strain / 2
        deformation[column, row] += strain / 2
        return replace(frame, positions=frame.positions @ deformation, cell=frame.cell @ deformation)

    claimed = volume * np.array([stress[pair] for pair in _STRAINS])
    return _largest_residual(potential, strained, claimed, accepted * volume) / volume


def _largest_residual(potential: Predictor, moved: Callable[[int, float], Frame], claimed: FloatArray, accepted: float) -> float:
    """Largest over the K components of ``|claimed - dE/dx|``, each at the first step that is ``accepted``, else the smallest found."""
    residuals = np.full(len(claimed), np.inf)
    disagreeing = np.arange(len(claimed))  # at first all, also where everything will be accepted
    for step in STEPS:
        if len(disagreeing):
            derivatives = _derivatives(potential, moved, disagreeing, step)
            # np.minimum hands a NaN on, and no later step takes it back
            residuals[disagreeing] = np.minimum(residuals[disagreeing], np.abs(claimed[disagreeing] - derivatives))
        disagreeing = np.flatnonzero(~(residuals <= accepted))
    return float(residuals.max())


def _derivatives(potential: Predictor, moved: Callable[[int, float], Frame], components: NDArray[np.int64], step: float) -> FloatArray:
    """(C,) derivatives of the energy along the C components, from four energies each."""
    frames = [moved(int(component), point * step) for component in components for point in _POINTS]
    energies = predict_frames(potential, frames).energies.reshape(-1, len(_POINTS))  # (C, 4)
    derivatives: FloatArray = energies @ _WEIGHTS / step
    return derivatives
