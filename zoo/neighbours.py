"""Positions, cell and cutoff to the edges of a graph: the one neighbour list of the project."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from vesin import NeighborList


def neighbour_list(
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    pbc: NDArray[np.bool_],
    cutoff_angstrom: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All directed pairs closer than the cutoff, periodic images included, in a fixed order.

    Args:
        positions: (N, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors; rows of non-periodic directions are not used.
        pbc: (3,) bool.
        cutoff_angstrom: pairs at this distance or beyond are left out.

    Returns:
        ``edge_index`` (2, E) int64, row 0 the neighbour (sender), row 1 the centre (receiver), and ``edge_shift`` (E, 3) int64, so that
        ``positions[sender] + edge_shift @ cell - positions[receiver]`` is the vector from the centre to its neighbour.
    """
    finder = NeighborList(cutoff=cutoff_angstrom, full_list=True)
    box = np.where(pbc[:, None], cell, 0.0) if not pbc.all() else cell
    centre, neighbour, shift = finder.compute(points=positions, box=box, periodic=[bool(p) for p in pbc], quantities="ijS")
    shift = shift.astype(np.int64).reshape(-1, 3)
    centre, neighbour = centre.astype(np.int64), neighbour.astype(np.int64)
    # a fixed order makes sums over edges, and so whole training runs, reproducible to the bit
    order = np.lexsort((shift[:, 2], shift[:, 1], shift[:, 0], neighbour, centre))
    edge_index = np.stack([neighbour[order], centre[order]])  # (2, E)
    return edge_index, shift[order]


SHELL_TOLERANCE = np.float32(0.01)
"""Å^2: how much farther than the first pair left out a pair may be and still be kept, where whole shells are."""


def nearest(centre: NDArray[np.int64], squared_distances: NDArray[np.float64], max_neighbours: int, strict: bool) -> NDArray[np.bool_]:
    """Which pairs stay when every centre keeps its nearest neighbours only; the graph is directed then: i may keep j and j not i.

    The rule of fairchem-core 1.10's graphs, on which EquiformerV2 was trained. Distances are compared in float32, as there: the rounding of
    float64 is far below, so that what is equally far stays so in any orientation, and the order of the pairs alone decides.

    Args:
        centre: (E,) the pairs' centres, in the order that decides between pairs of the same length.
        squared_distances: (E,) Å^2.
        max_neighbours: of a centre.
        strict: exactly so many; else everything within `SHELL_TOLERANCE` of the first pair left out stays too, and with it that pair.

    Returns:
        (E,) True for the pairs that stay.
    """
    lengths = squared_distances.astype(np.float32)
    order = np.lexsort((np.arange(len(centre)), lengths, centre))
    sorted_centre = centre[order]
    first = np.searchsorted(sorted_centre, sorted_centre)  # (E,) where the centre's pairs begin
    keeps = np.arange(len(centre)) - first < max_neighbours
    if not strict:
        left_out = first + max_neighbours  # the first pair left out, where the centre has that many
        exists = left_out < len(centre)
        exists[exists] = sorted_centre[left_out[exists]] == sorted_centre[exists]
        sorted_lengths = lengths[order]
        keeps[exists] |= sorted_lengths[exists] <= sorted_lengths[left_out[exists]] + SHELL_TOLERANCE
    stays = np.empty(len(centre), dtype=bool)
    stays[order] = keeps
    return stays
