"""Frames to graphs, and graphs to the batches of a run: which batch step 137 is depends on the seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from zoo.data.frame import Frame
from zoo.data.splits import seeded_permutation
from zoo.errors import ZooError
from zoo.graph import AtomGraph, GraphRecipe, collate, multi_atom_without_edges


class GraphDataset(Sequence[AtomGraph]):
    """The graphs of some frames, built once and kept in memory.

    Args:
        frames: the structures.
        recipe: which pairs are edges: the backbone's, so that training and prediction see the same.

    Raises:
        ZooError: for a frame of several atoms in which no pair is within the cutoff.
    """

    def __init__(self, frames: Sequence[Frame], recipe: GraphRecipe) -> None:
        self.recipe = recipe
        self._graphs = [AtomGraph.from_frame(frame, recipe) for frame in frames]
        _refuse_without_edges(frames, self._graphs, recipe.cutoff_angstrom)

    def __len__(self) -> int:
        return len(self._graphs)

    def __getitem__(self, index: Any) -> Any:
        return self._graphs[index]


def check_edges(frames: Sequence[Frame], recipe: GraphRecipe) -> None:
    """Refuse a frame of several atoms without any edge; a single isolated atom is legitimate.

    Raises:
        ZooError: naming the first such frame.
    """
    _refuse_without_edges(frames, (AtomGraph.from_frame(frame, recipe) for frame in frames), recipe.cutoff_angstrom)


def _refuse_without_edges(frames: Sequence[Frame], graphs: Iterable[AtomGraph], cutoff_angstrom: float) -> None:
    for frame, graph in zip(frames, graphs, strict=True):
        if multi_atom_without_edges(graph):
            raise ZooError(
                f"{frame.name} has {len(frame)} atoms but no pair within the cutoff of {cutoff_angstrom:g} Å; "
                "check its length unit (of data: data.length_unit=...) and cell, or remove the frame"
            )


class BatchStream:
    """The batches of steps ``first_step`` to ``steps``; every pass over the graphs is shuffled by (seed, pass).

    To Lightning the whole run is one epoch: its progress bar then counts the steps of the run, and a resumed run needs no loader state and
    no rule for the seam between epochs, only the step it stands at.

    Args:
        graphs: the training graphs.
        batch_size: structures in a batch; the last one of a pass may be smaller.
        steps: how many batches the whole run takes.
        seed: of the order.
        first_step: steps done before, by the run that is resumed.
    """

    def __init__(self, graphs: Sequence[AtomGraph], batch_size: int, steps: int, seed: int, first_step: int = 0) -> None:
        self._graphs = graphs
        self._batch_size = batch_size
        self._steps = steps
        self._seed = seed
        self._first_step = first_step

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[AtomGraph]:
        return (self.batch(step) for step in range(self._first_step, self._steps))

    def batch(self, step: int) -> AtomGraph:
        """The batch of one step, counted from 0."""
        batches_per_pass = -(-len(self._graphs) // self._batch_size)
        pass_index, position = divmod(step, batches_per_pass)
        order = seeded_permutation(len(self._graphs), self._seed, pass_index)
        chosen = order[position * self._batch_size : (position + 1) * self._batch_size]
        return collate([self._graphs[int(index)] for index in chosen])
