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
