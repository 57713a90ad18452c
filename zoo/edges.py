"""A frame and a recipe to the edges of its graph: what training, prediction and the cache on disk share, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.neighbours import nearest, neighbour_list

_SAME_PLACE_ANGSTROM = 1e-6


@dataclass(frozen=True)
class GraphRecipe:
    """Which pairs of atoms are edges: what a network was trained on, and so a part of the model.

    Attributes:
        cutoff_angstrom: edges reach this far.
        max_neighbours: nearest neighbours kept per atom, None for all (`zoo.neighbours.nearest`).
        strict: whether no atom has more, also where several neighbours are equally far.
    """

    cutoff_angstrom: float
    max_neighbours: int | None = None
    strict: bool = True


def edges_of(frame: Frame, recipe: GraphRecipe) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``edge_index`` (2, E) and ``edge_shift`` (E, 3), by centre in ascending order; raises `ZooError` for two atoms at one place."""
    edge_index, edge_shift = neighbour_list(frame.positions, frame.cell, frame.pbc, recipe.cutoff_angstrom)
    vectors = frame.positions[edge_index[0]] - frame.positions[edge_index[1]] + edge_shift @ frame.cell  # (E, 3)
    distances = np.linalg.norm(vectors, axis=1)
    _refuse_atoms_at_one_place(frame, edge_index, distances)
    if recipe.max_neighbours is None:
        return edge_index, edge_shift
    stays = nearest(edge_index[1], np.square(vectors).sum(axis=1), recipe.max_neighbours, recipe.strict)
    return edge_index[:, stays], edge_shift[stays]


def _refuse_atoms_at_one_place(frame: Frame, edge_index: NDArray[np.int64], distances: NDArray[np.float64]) -> None:
    if len(distances) and distances.min() < _SAME_PLACE_ANGSTROM:
        pair = sorted(edge_index[:, int(distances.argmin())].tolist())
        first, second = (f"{number} ({chemical_symbols[frame.atomic_numbers[number]]})" for number in pair)
        raise ZooError(f"{frame.name} has atoms {first} and {second} at one place (counted from 0); remove one, or check the cell")


def refuse_without_edges(frame: Frame, edge_count: int, cutoff_angstrom: float) -> None:
    """Refuse a frame of several atoms without any edge: a wrong unit or cell, not physics. A single atom is legitimate.

    Raises:
        ZooError: naming the frame.
    """
    if len(frame) > 1 and edge_count == 0:
        raise ZooError(
            f"{frame.name} has {len(frame)} atoms but no pair within the cutoff of {cutoff_angstrom:g} Å; "
            "check its length unit (of data: data.length_unit=...) and cell, or remove the frame"
        )
