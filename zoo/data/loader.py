"""Frames to graphs, in memory or with their edges on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.data.batches import BatchLimits as BatchLimits
from zoo.data.batches import BatchStream as BatchStream
from zoo.data.cache_choice import CacheChoice
from zoo.data.edge_store import obtain_edges
from zoo.data.frame import Frame
from zoo.data.stored_frames import atom_counts
from zoo.edges import GraphRecipe, edges_of, refuse_without_edges
from zoo.graph import AtomGraph


class Graphs(Protocol):
    """Graphs by index, and how large each is."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> AtomGraph: ...

    @property
    def atom_counts(self) -> NDArray[np.int64]:
        """(G,) atoms of each."""
        ...

    @property
    def edge_counts(self) -> NDArray[np.int64]:
        """(G,) edges of each."""
        ...


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
        self._graphs = list(_graphs(frames, recipe))

    def __len__(self) -> int:
        return len(self._graphs)

    def __getitem__(self, index: Any) -> Any:
        return self._graphs[index]

    @property
    def atom_counts(self) -> NDArray[np.int64]:
        """(G,) atoms of each."""
        return np.array([graph.num_nodes for graph in self._graphs], dtype=np.int64)

    @property
    def edge_counts(self) -> NDArray[np.int64]:
        """(G,) edges of each."""
        return np.array([graph.edge_index.shape[1] for graph in self._graphs], dtype=np.int64)


class StoredGraphs:
    """The graphs of some frames, made when they are asked for from edges that are in the cache.

    Args:
        frames: the structures, in memory or on disk.
        recipe: as of `GraphDataset`.
        processes: that look for edges which are not in the cache yet.

    Raises:
        ZooError: as `GraphDataset`, and where the cache cannot be written.
    """

    def __init__(self, frames: Sequence[Frame], recipe: GraphRecipe, processes: int) -> None:
        self.recipe = recipe
        self._frames = frames
        self._edges = obtain_edges(frames, recipe, processes)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int, /) -> AtomGraph:
        return AtomGraph.of_edges(self._frames[index], *self._edges.edges(index))

    @property
    def atom_counts(self) -> NDArray[np.int64]:
        """(G,) atoms of each."""
        return self._edges.atom_counts

    @property
    def edge_counts(self) -> NDArray[np.int64]:
        """(G,) edges of each."""
        return self._edges.edge_counts


def make_graphs(frames: Sequence[Frame], recipe: GraphRecipe, choice: CacheChoice) -> GraphDataset | StoredGraphs:
    """The graphs of ``frames`` in memory or on disk, as ``choice`` says; raises as they do."""
    if choice.graphs_on_disk(int(atom_counts(frames).sum())):
        return StoredGraphs(frames, recipe, choice.builders)
    return GraphDataset(frames, recipe)


def stored_graphs(frames: Sequence[Frame], recipe: GraphRecipe, choice: CacheChoice) -> StoredGraphs | None:
    """The graphs of ``frames`` where ``choice`` keeps them on disk; None where they are as well made from the frames."""
    graphs = make_graphs(frames, recipe, choice) if choice.graphs_on_disk(int(atom_counts(frames).sum())) else None
    return graphs if isinstance(graphs, StoredGraphs) else None


def check_edges(frames: Sequence[Frame], recipe: GraphRecipe, choice: CacheChoice | None = None) -> None:
    """Refuse a frame of several atoms without any edge; a single isolated atom is legitimate.

    Args:
        frames: the structures.
        recipe: which pairs are edges.
        choice: whether what was found is kept in the cache, so that a later run need not look again; not without one.

    Raises:
        ZooError: naming the first such frame.
    """
    if choice is not None and choice.graphs_on_disk(int(atom_counts(frames).sum())):
        obtain_edges(frames, recipe, choice.builders)
        return
    for frame in frames:
        refuse_without_edges(frame, edges_of(frame, recipe)[0].shape[1], recipe.cutoff_angstrom)


def _graphs(frames: Sequence[Frame], recipe: GraphRecipe) -> Iterator[AtomGraph]:
    for frame in frames:
        edge_index, edge_shift = edges_of(frame, recipe)
        refuse_without_edges(frame, edge_index.shape[1], recipe.cutoff_angstrom)
        yield AtomGraph.of_edges(frame, edge_index, edge_shift)
