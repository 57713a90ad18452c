"""Metrics that are no mean error: the cosine between forces, and shares of structures that are right to within a threshold.

The definitions are those of the Open Catalyst 2020 tasks (Chanussot et al., ACS Catal. 2021, 11, 6059, arXiv:2010.09990): EwT and EFwT of
S2EF and IS2RE, ADwT and AFbT of relaxations. Every comparison is strict, and shares are percentages, 0 to 100.
"""

from __future__ import annotations

import numpy as np
from ase.geometry import complete_cell
from numpy.typing import NDArray

from zoo.data.frame import FloatArray

ENERGY_THRESHOLD_EV = 0.02
FORCE_THRESHOLD_EV_PER_ANGSTROM = 0.03

# multiples of a whole number of thousandths, for np.arange over fractions may or may not contain its end
DISTANCE_THRESHOLDS_ANGSTROM: FloatArray = np.arange(10, 500) / 1000
"""(490,) Å: 0.010, 0.011, ... 0.499."""
RESIDUAL_FORCE_THRESHOLDS_EV_PER_ANGSTROM: FloatArray = np.arange(10, 400) / 1000
"""(390,) eV/Å: 0.010, 0.011, ... 0.399."""

_SMALLEST_NORM_EV_PER_ANGSTROM = 1e-8


def force_cosine(predicted_forces: FloatArray, label_forces: FloatArray) -> float:
    """Mean over atoms of the cosine of the angle between predicted and labelled force, -1 to 1; both (A, 3) eV/Å.

    A mean over all atoms of all structures, so large structures weigh more. Norms below 1e-8 eV/Å are taken as 1e-8, as in
    ``torch.cosine_similarity``, which fairchem's evaluator calls: an atom without any force counts as 0.
    """
    dots = np.einsum("ad,ad->a", predicted_forces, label_forces)  # (A,)
    norms = [np.maximum(np.linalg.norm(forces, axis=1), _SMALLEST_NORM_EV_PER_ANGSTROM) for forces in (predicted_forces, label_forces)]
    # rounding can put a perfect prediction above 1, which no cosine is
    return float(np.mean(np.clip(dots / (norms[0] * norms[1]), -1, 1)))


def energy_within_threshold_percent(energy_errors_ev: FloatArray) -> float:
    """EwT: percentage of structures with ``|dE| < 0.02`` eV; ``energy_errors_ev`` (F,) total eV."""
    return _percent(np.abs(energy_errors_ev) < ENERGY_THRESHOLD_EV)


def energy_force_within_threshold_percent(energy_errors_ev: FloatArray, largest_force_errors: FloatArray) -> float:
    """EFwT: percentage of structures with ``|dE| < 0.02`` eV and every ``|dF|`` component below 0.03 eV/Å.

    Args:
        energy_errors_ev: (F,) total eV.
        largest_force_errors: (F,) eV/Å, the largest absolute error of a Cartesian component in each structure, free atoms only.
    """
    return _percent((np.abs(energy_errors_ev) < ENERGY_THRESHOLD_EV) & (np.abs(largest_force_errors) < FORCE_THRESHOLD_EV_PER_ANGSTROM))


def average_distance_within_threshold_percent(mean_distances_angstrom: FloatArray) -> float:
    """ADwT: percentage of structures with a mean distance below a threshold, averaged over 490 thresholds from 0.01 to 0.499 Å.

    Args:
        mean_distances_angstrom: (S,) Å, of each relaxed structure to the reference, the mean over its free atoms
            (`minimum_image_distances`).
    """
    return _percent(mean_distances_angstrom[:, None] < DISTANCE_THRESHOLDS_ANGSTROM)


def average_force_below_threshold_percent(largest_forces: FloatArray) -> float:
    """AFbT: percentage of structures whose largest force is below a threshold, averaged over 390 thresholds from 0.01 to 0.399 eV/Å.

    Args:
        largest_forces: (S,) eV/Å, of each relaxed structure the largest norm of the reference method's force on a free atom: the paper
            counts per-atom force magnitudes, not components.
    """
    return _percent(largest_forces[:, None] < RESIDUAL_FORCE_THRESHOLDS_EV_PER_ANGSTROM)


def minimum_image_distances(positions: FloatArray, reference: FloatArray, cell: FloatArray, pbc: NDArray[np.bool_]) -> FloatArray:
    """(N,) Å, how far each atom is from its place in ``reference``, periodic images of an atom being the same place.

    Fractional displacements are wrapped into half a cell along every periodic lattice vector, as fairchem's evaluator does, so that numbers
    compare. In a very skewed cell that is not the nearest image of all, for displacements of about half a cell.

    Args:
        positions: (N, 3) Å.
        reference: (N, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors; those of directions that are not periodic do not matter.
        pbc: (3,).
    """
    displacements = positions - reference  # (N, 3)
    lattice = complete_cell(np.where(pbc[:, None], cell, 0.0))
    whole_cells = np.round(np.linalg.solve(lattice.T, displacements.T).T) * pbc
    distances: FloatArray = np.linalg.norm(displacements - whole_cells @ lattice, axis=1)
    return distances


def _percent(passed: NDArray[np.bool_]) -> float:
    return 100.0 * float(np.mean(passed))
