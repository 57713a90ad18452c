"""Which neighbours an atom hears: the nearest ones of an `AtomGraph`, chosen as upstream chooses them.

The choice is made in float32 on squared distances, as upstream's is, since it decides ties; edge vectors keep the graph's precision. There
is no cutoff function: an energy jumps where an edge comes or goes, and i may hear j that does not hear i.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.backbones.equiformer_v2.config import EquiformerV2Config
from zoo.backbones.equiformer_v2.network import Structures
from zoo.graph import AtomGraph

_SAME_ATOM_SQUARED = 1e-4
# Å^2 by which a neighbour may be farther than another and still count as near as it
_AS_NEAR_SQUARED = 0.01
# Å: upstream keeps a pair at the cutoff itself, our neighbour list leaves it out
_LIST_MARGIN_ANGSTROM = 1e-3


def list_cutoff_angstrom(config: EquiformerV2Config) -> float:
    """How far the neighbour list of an `AtomGraph` must reach for `structures_of`."""
    return config.max_radius + _LIST_MARGIN_ANGSTROM


def structures_of(graph: AtomGraph, config: EquiformerV2Config, dtype: torch.dtype) -> Structures:
    """The network's input, its edge vectors differentiable in the graph's positions and cell.

    Args:
        graph: structures with all neighbours within `list_cutoff_angstrom`, sorted by centre.
        config: says how many neighbours are kept.
        dtype: of the network.
    """
    chosen = chosen_edges(graph, config)
    sender, receiver = edge_index = graph.edge_index[:, chosen]
    cells = graph.cell[graph.graph_of_atom[receiver]]  # (E, 3, 3)
    offsets = torch.einsum("ei,eij->ej", graph.edge_shift[chosen].to(graph.cell.dtype), cells)
    vectors = graph.positions[sender] - graph.positions[receiver] + offsets
    return Structures(graph.atomic_numbers, edge_index, vectors.to(dtype), graph.graph_of_atom, graph.graph_count)


@torch.no_grad()
def chosen_edges(graph: AtomGraph, config: EquiformerV2Config) -> Tensor:
    """(E',) indices, ascending, of the edges that the network has."""
    sender, receiver = graph.edge_index
    positions, cells = graph.positions.to(torch.float32), graph.cell.to(torch.float32)
    offsets = torch.einsum("ei,eij->ej", graph.edge_shift.to(torch.float32), cells[graph.graph_of_atom[receiver]])
    squared = (positions[receiver] - (positions[sender] + offsets)).pow(2).sum(dim=1)  # (E,) Å^2
    candidates = ((squared <= config.max_radius**2) & (squared > _SAME_ATOM_SQUARED)).nonzero()[:, 0]
    select = _nearest_strictly if config.enforce_max_neighbors_strictly else _nearest_and_as_near
    chosen: Tensor = candidates[select(squared[candidates], receiver[candidates], config.max_neighbors)]
    return chosen


def _nearest_strictly(squared: Tensor, centres: Tensor, count: int) -> Tensor:
    """Indices, ascending, of the ``count`` nearest edges of each centre; of equally near ones, those that come first."""
    order, rank = _ranked(squared, centres)
    return order[rank < count].sort().values


def _nearest_and_as_near(squared: Tensor, centres: Tensor, count: int) -> Tensor:
    """Indices, ascending, of the ``count + 1`` nearest edges of each centre and of all that are as near as the last of them."""
    order, rank = _ranked(squared, centres)
    last = order[rank == count]
    limits = squared.new_full((int(centres.max()) + 1 if len(centres) else 0,), torch.inf)
    limits[centres[last]] = squared[last] + _AS_NEAR_SQUARED
    return (squared <= limits[centres]).nonzero()[:, 0]


def _ranked(squared: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """(E,) edges sorted by centre and then by distance, and (E,) the place of each of these among the edges of its centre, from 0."""
    order = squared.sort(stable=True).indices
    order = order[centres[order].sort(stable=True).indices]
    counts = torch.bincount(centres)
    starts = counts.cumsum(0) - counts
    return order, torch.arange(len(order), device=order.device) - starts[centres[order]]
