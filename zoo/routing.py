"""Structures of one batch with different adapters: each structure's numbers are those of its own adapter alone.

The structures are grouped by adapter. Where the network allows it (`Backbone.vectorises`) all groups are one pass, ``torch.vmap`` over the
groups' weights and structures: every product with a weight becomes one batched product, and what a pass costs beside arithmetic is paid
once. For that the groups are filled up to one size with ghosts, atoms and edges of a structure of their own at the end of each group, so
that no real atom has a ghost for a neighbour. Elsewhere each group is a pass of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapters.errors import AdapterError
from zoo.graph import AtomGraph, collate, fully_periodic
from zoo.prediction import Prediction, predictions_of
from zoo.vectorised import AlikeGraph, vectorised

if TYPE_CHECKING:
    from zoo.potential import Potential

_GHOST_DISTANCE = 0.4  # of the cutoff
_Names = tuple[str, ...]


def checked_names(potential: Potential, adapters: Sequence[str | None], count: int) -> list[_Names]:
    """The adapters of each structure; raises `AdapterError` where one is not there or their number is not the structures'."""
    if isinstance(adapters, str) or len(adapters) != count:
        found = repr(adapters) if isinstance(adapters, str) else f"{len(adapters)} names"
        raise AdapterError(f"adapters: found {found} for {count} structures; pass a list with one name (or None, the base) for each")
    if potential.adapters.is_merged:
        raise AdapterError("adapters cannot be chosen for each structure while some are merged into the model; call unmerge() first")
    for name in adapters:
        if name is not None:
            potential.adapters.get(name)
    return [() if name is None else (name,) for name in adapters]


def predict_routed(potential: Potential, graphs: Sequence[AtomGraph], names: Sequence[_Names]) -> list[Prediction]:
    """One batch, each structure with its own adapters.

    Args:
        potential: in ``eval()`` mode, with nothing merged.
        graphs: single structures.
        names: of the adapters of each.

    Returns:
        In the order of the structures.
    """
    groups: dict[_Names, list[int]] = {}
    for position, chosen in enumerate(names):
        groups.setdefault(chosen, []).append(position)
    stack = potential.adapters
    mergeable = all(stack.get(name).method.mergeable for chosen in groups for name in chosen)
    if len(groups) > 1 and potential.backbone.vectorises and mergeable:
        found = _in_one_pass(potential, graphs, groups)
    else:
        found = _one_by_one(potential, graphs, groups)
    return [found[position] for position in range(len(graphs))]


def _one_by_one(potential: Potential, graphs: Sequence[AtomGraph], groups: Mapping[_Names, list[int]]) -> dict[int, Prediction]:
    found: dict[int, Prediction] = {}
    active = potential.adapters.active
    try:
        for names, positions in groups.items():
            potential.adapters.activate(names)
            batch = collate([graphs[position] for position in positions]).to(str(potential.device))
            found.update(zip(positions, predictions_of(potential(batch, stress=potential.has_stress), batch), strict=True))
    finally:
        potential.adapters.activate(active)
    return found


@dataclass(frozen=True)
class _Size:
    """Of a group filled up: real structures, atoms and edges, the ghosts' included."""

    graphs: int
    atoms: int
    edges: int


def _in_one_pass(potential: Potential, graphs: Sequence[AtomGraph], groups: Mapping[_Names, list[int]]) -> dict[int, Prediction]:
    device = str(potential.device)
    batches = [collate([graphs[position] for position in positions]).to(device) for positions in groups.values()]
    size = _Size(
        max(batch.graph_count for batch in batches),
        max(int(batch.num_nodes) for batch in batches) + 2,  # at least two ghosts, so that edges between them can fill up
        max(batch.edge_index.shape[1] for batch in batches) + 2,  # an energy that depends on no position has no gradient
    )
    filled = [_filled_up(batch, size, potential) for batch in batches]
    joined = AlikeGraph({key: torch.stack([one[key] for one in filled]) for key in filled[0]}, size.graphs + 1)
    with torch.no_grad():
        weights = _stacked([potential.adapters.weights_with(names) for names in groups], potential)
    results = vectorised(potential, weights, joined)
    found: dict[int, Prediction] = {}
    for index, (names, positions) in enumerate(groups.items()):
        batch = batches[index]
        atoms, count = int(batch.num_nodes), batch.graph_count
        own = {key: value[index, : atoms if key == "forces" else count] for key, value in results.items()}
        shift = potential.shifts_with(names)[batch.atomic_numbers]  # (N,)
        own["energy"] = own["energy"] + torch.zeros_like(own["energy"]).index_add(0, batch.graph_of_atom, shift)
        if "stress" in own:
            own["stress"] = torch.where(fully_periodic(batch)[:, None, None], own["stress"], torch.nan)
        found.update(zip(positions, predictions_of(own, batch), strict=True))
    return found


def _stacked(weights: Sequence[Mapping[str, Tensor]], potential: Potential) -> dict[str, Tensor]:
    """Parameter name -> (K, ...) for each parameter that an adapter changes; the base's own for the others of the K groups."""
    changed = dict.fromkeys(name for one in weights for name in one)
    base = dict(potential.backbone.named_parameters())
    return {name: torch.stack([one.get(name, base[name]).detach() for one in weights]) for name in changed}


def _filled_up(batch: AtomGraph, size: _Size, potential: Potential) -> dict[str, Tensor]:
    """The batch's tensors with ghosts: one structure after the real ones, in pairs of atoms with edges between the two."""
    atoms, edges, device = int(batch.num_nodes), batch.edge_index.shape[1], batch.positions.device
    ghosts, ghost_edges, count = size.atoms - atoms, size.edges - edges, size.graphs + 1 - batch.graph_count
    positions = torch.zeros((ghosts, 3), dtype=torch.float64, device=device)
    positions[1::2, 0] = _GHOST_DISTANCE * potential.backbone.cutoff
    edge = torch.arange(ghost_edges, device=device)
    pair = edge // 2 % (ghosts // 2)
    ends = torch.stack([atoms + 2 * pair + edge % 2, atoms + 2 * pair + 1 - edge % 2])  # (2, ghost edges)
    ends = ends[:, torch.argsort(ends[1], stable=True)]  # in the order of their centres, as in every graph
    cell = torch.eye(3, dtype=torch.float64, device=device).expand(count, 3, 3)
    shift = batch.edge_shift.new_zeros((ghost_edges, 3))
    return {
        "positions": torch.cat([batch.positions.to(torch.float64), positions]),
        "atomic_numbers": torch.cat([batch.atomic_numbers, batch.atomic_numbers.new_full((ghosts,), potential.backbone.elements[0])]),
        "cell": torch.cat([batch.cell.to(torch.float64), cell]),
        "edge_index": torch.cat([batch.edge_index, ends], dim=1),
        "edge_shift": torch.cat([batch.edge_shift, shift]),
        "graph_of_atom": torch.cat([batch.graph_of_atom, batch.graph_of_atom.new_full((ghosts,), size.graphs)]),
        "atom_counts": torch.cat([batch.atom_counts, batch.atom_counts.new_zeros(count - 1), batch.atom_counts.new_tensor([ghosts])]),
    }
