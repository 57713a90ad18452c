"""Whether symmetry alone makes the forces of a structure zero, as in perfect crystals, however they are strained."""

from __future__ import annotations

import numpy as np

from zoo.data.frame import Frame
from zoo.neighbours import neighbour_list

_REACH_ANGSTROM = 6.0
_DECAYS_ANGSTROM = (1.0, 2.0)
_BALANCED = 1e-3
"""Of the sum of the lengths: positions of published crystals are rounded to 1e-4 Å or so."""


def forces_vanish_by_symmetry(frame: Frame) -> bool:
    """Whether around each atom the neighbours of each element pull evenly to all sides, at every distance.

    The sum of unit vectors, weighted by functions of the distance that end smoothly at 6 Å, is a vector that turns with the structure:
    where symmetry forbids an atom a vector, it is zero as the force is. Two functions an element leave no room for zero by accident.
    """
    edges, shifts = neighbour_list(frame.positions, frame.cell, frame.pbc, _REACH_ANGSTROM)
    vectors = frame.positions[edges[0]] + shifts @ frame.cell - frame.positions[edges[1]]  # (E, 3)
    lengths = np.linalg.norm(vectors, axis=1)
    apart = lengths > 0
    edges, vectors, lengths = edges[:, apart], vectors[apart], lengths[apart]
    smooth = (1 - (lengths / _REACH_ANGSTROM) ** 2) ** 3
    for number in np.unique(frame.atomic_numbers):
        ours = frame.atomic_numbers[edges[0]] == number
        for decay in _DECAYS_ANGSTROM:
            weights = (smooth * np.exp(-lengths / decay))[ours]  # (E',)
            sums = np.zeros((len(frame), 3))
            np.add.at(sums, edges[1][ours], weights[:, None] * vectors[ours] / lengths[ours, None])
            totals = np.bincount(edges[1][ours], weights, minlength=len(frame))
            if np.any(np.linalg.norm(sums, axis=1) > _BALANCED * totals):
                return False
    return True
