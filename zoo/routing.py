"""Predictions in batches, also of structures with different adapters: each structure's numbers are those of its own adapter alone.

The structures are grouped by adapter. Where the network allows it (`Backbone.vectorises`) all groups are one pass, ``torch.vmap`` over the
groups' weights and structures: every product with a weight becomes one batched product, and what a pass costs beside arithmetic is paid
once. For that the groups are filled up to one size with ghosts, atoms and edges of a structure of their own at the end of each group, so
that no real atom has a ghost for a neighbour. Elsewhere, and where arithmetic outweighs all else, each group is a pass of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapters.errors import AdapterError
from zoo.graph import AtomGraph, collate, fully_periodic
from zoo.prediction import Prediction, predictions_of, refuse_what_is_no_number
from zoo.vectorised import AlikeGraph, vectorised

if TYPE_CHECKING:
    from ase import Atoms

    from zoo.data.frame import Frame
    from zoo.potential import Potential

_GHOST_DISTANCE = 0.4  # of the cutoff
_MOST_EDGES_ON_CPU = 1000  # of a group; above, one pass was no faster than several (python -m benchmarks.lifecycle)
_MOST_FILLING = 2.0  # edges with ghosts, over edges without
_Names = tuple[str, ...]


def predict_in_batches(
    potential: Potential, structures: Sequence[Frame | Atoms], batch_size: int, adapters: Sequence[str | None] | None
) -> list[Prediction]:
    """`zoo.potential.Potential.predict`."""
    found: dict[int, Prediction] = {}
    with potential.adapters.exclusive(), _evaluating(potential), torch.inference_mode(False):
        names = None if adapters is None else checked_names(potential, adapters, len(structures))
        order = range(len(structures)) if names is None else grouped(names)
        for start in range(0, len(structures), batch_size):
            chosen = order[start : start + batch_size]
            graphs = [potential.graph(structures[position]) for position in chosen]
            if names is None:
                batch = collate(graphs).to(str(potential.device))
                predictions = predictions_of(potential(batch, stress=potential.has_stress), batch)
            else:
                predictions = predict_routed(potential, graphs, [names[position] for position in chosen])
            found.update(zip(chosen, predictions, strict=True))
    in_order = [found[position] for position in range(len(structures))]
    refuse_what_is_no_number(structures, in_order)
    return in_order


@contextmanager
def _evaluating(potential: Potential) -> Iterator[None]:
    was_training = potential.training
    potential.eval()
    try:
        yield
    finally:
        potential.train(was_training)


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


def grouped(names: Sequence[_Names]) -> list[int]:
    """The structures' positions, those of one adapter together: a batch then holds as few adapters as may be."""
    first = {chosen: names.index(chosen) for chosen in dict.fromkeys(names)}
    return sorted(range(len(names)), key=lambda position: first[names[position]])


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
    batches = {names: collate([graphs[one] for one in positions]).to(str(potential.device)) for names, positions in groups.items()}
    possible = potential.backbone.vectorises and all(stack.get(name).method.mergeable for chosen in groups for name in chosen)
    several = possible and len(groups) > 1 and _is_worth_one_pass([batch.edge_index for batch in batches.values()])
    found = _in_one_pass(potential, batches) if several else _one_by_one(potential, batches)
    by_position = {position: one for chosen, positions in groups.items() for position, one in zip(positions, found[chosen], strict=True)}
    return [by_position[position] for position in range(len(graphs))]


def _is_worth_one_pass(edges: Sequence[Tensor]) -> bool:
    """Whether groups with these edges, (2, E) each, are faster in one pass: few edges, and about as many in each."""
    counts = [one.shape[1] for one in edges]
    few = edges[0].device.type != "cpu" or max(counts) <= _MOST_EDGES_ON_CPU
    return few and len(counts) * max(counts) <= _MOST_FILLING * sum(counts)


def _one_by_one(potential: Potential, batches: Mapping[_Names, AtomGraph]) -> dict[_Names, list[Prediction]]:
    found = {}
    active = potential.adapters.active
    try:
        for names, batch in batches.items():
            potential.adapters.activate(names)
            found[names] = predictions_of(potential(batch, stress=potential.has_stress), batch)
    finally:
        potential.adapters.activate(active)
    return found


@dataclass(frozen=True)
class _Size:
    """Of a group filled up: real structures, atoms and edges, the ghosts' included."""

    graphs: int
    atoms: int
    edges: int


def _in_one_pass(potential: Potential, batches: Mapping[_Names, AtomGraph]) -> dict[_Names, list[Prediction]]:
    size = _Size(
        max(batch.graph_count for batch in batches.values()),
        max(int(batch.num_nodes) for batch in batches.values()) + 1,  # a ghost at least, for the edges that fill up
        max(batch.edge_index.shape[1] for batch in batches.values()) + 2,  # an energy that depends on no position has no gradient
    )
    filled = [_filled_up(batch, size, potential) for batch in batches.values()]
    joined = AlikeGraph({key: torch.stack([one[key] for one in filled]) for key in filled[0]}, size.graphs + 1)
    with torch.no_grad():
        weights = _stacked([potential.adapters.weights_with(names) for names in batches], potential)
    results = vectorised(potential, weights, joined)
    found = {}
    for index, (names, batch) in enumerate(batches.items()):
        atoms, count = int(batch.num_nodes), batch.graph_count
        own = {key: value[index, : atoms if key == "forces" else count] for key, value in results.items()}
        shift = potential.shifts_with(names)[batch.atomic_numbers]  # (N,)
        own["energy"] = own["energy"] + torch.zeros_like(own["energy"]).index_add(0, batch.graph_of_atom, shift)
        if "stress" in own:
            own["stress"] = torch.where(fully_periodic(batch)[:, None, None], own["stress"], torch.nan)
        found[names] = predictions_of(own, batch)
    return found


def _stacked(weights: Sequence[Mapping[str, Tensor]], potential: Potential) -> dict[str, Tensor]:
    """Parameter name -> (K, ...) for each parameter that an adapter changes; the base's own for the others of the K groups."""
    changed = dict.fromkeys(name for one in weights for name in one)
    base = dict(potential.backbone.named_parameters())
    return {name: torch.stack([one.get(name, base[name]).detach() for one in weights]) for name in changed}


def _filled_up(batch: AtomGraph, size: _Size, potential: Potential) -> dict[str, Tensor]:
    """The batch's tensors with ghosts: a structure after the real ones, of atoms whose neighbours are their own periodic images."""
    atoms, edges = int(batch.num_nodes), batch.edge_index.shape[1]
    ghosts, ghost_edges, count = size.atoms - atoms, size.edges - edges, size.graphs + 1 - batch.graph_count
    edge = torch.arange(ghost_edges, device=batch.positions.device)
    ghost = atoms + edge * ghosts // max(ghost_edges, 1)  # spread evenly, in the order of their centres, as in every graph
    shift = batch.edge_shift.new_zeros((ghost_edges, 3))
    shift[:, 0] = 1 - 2 * (edge % 2)
    cell = potential.backbone.cutoff * _GHOST_DISTANCE * torch.eye(3, dtype=torch.float64, device=edge.device)
    numbers, counts = batch.atomic_numbers, batch.atom_counts
    return {
        "positions": torch.cat([batch.positions.to(torch.float64), batch.positions.new_zeros((ghosts, 3), dtype=torch.float64)]),
        "atomic_numbers": torch.cat([numbers, numbers.new_full((ghosts,), potential.backbone.elements[0])]),
        "cell": torch.cat([batch.cell.to(torch.float64), cell.expand(count, 3, 3)]),
        "edge_index": torch.cat([batch.edge_index, ghost.expand(2, -1)], dim=1),
        "edge_shift": torch.cat([batch.edge_shift, shift]),
        "graph_of_atom": torch.cat([batch.graph_of_atom, batch.graph_of_atom.new_full((ghosts,), size.graphs)]),
        "atom_counts": torch.cat([counts, counts.new_zeros(count - 1), counts.new_tensor([ghosts])]),
    }
