"""The edges of many frames in the cache: found in parallel once, and read by index from then on.

Named by what they follow from: the content of the frames in their order, the recipe, and the code that finds edges. Two runs on the same
frames share them, whatever file these came from.

An edge is 10 bytes: its sender as int32 and its cell offset as three int16; its centre follows from how many edges each atom has, for edges
are sorted by centre.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import zoo.edges
import zoo.neighbours
from zoo.data.array_store import Array, ArrayStore, StoreWriter
from zoo.data.frame import Frame
from zoo.data.processes import in_order, with_progress
from zoo.data.splits import sequence_sha256
from zoo.data.store_builder import obtain_store
from zoo.data.store_check import require_rows
from zoo.data.stored_frames import atom_counts
from zoo.edges import GraphRecipe, edges_of, refuse_without_edges
from zoo.errors import ZooError

_ATOMS_OF_A_PIECE = 20_000
_FRAMES_OF_A_PIECE = 4_000
_READS_BEFORE_RELEASE = 100


class EdgeStore:
    """Edges by the number of their frame.

    Args:
        store: of `obtain_edges`.
    """

    def __init__(self, store: ArrayStore) -> None:
        require_rows(store, {name: int(store.meta.get("frames", -1)) for name in ("atom_counts", "edge_counts")}, ("frames",))
        self._store = store
        self.atom_counts: NDArray[np.int64] = np.array(store["atom_counts"], dtype=np.int64)
        self.edge_counts: NDArray[np.int64] = np.array(store["edge_counts"], dtype=np.int64)
        self._first_atom = _starts(self.atom_counts)
        self._first_edge = _starts(self.edge_counts)
        rows = {"neighbour_counts": self._first_atom[-1], "sender": self._first_edge[-1], "shift": self._first_edge[-1]}
        require_rows(store, {name: int(count) for name, count in rows.items()}, ())
        self._reads = 0

    def __len__(self) -> int:
        return len(self.atom_counts)

    def edges(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``edge_index`` (2, E) and ``edge_shift`` (E, 3) as `zoo.edges.edges_of` gives them."""
        self._reads += 1
        if self._reads % _READS_BEFORE_RELEASE == 0:
            self._store.release()
        atoms = slice(self._first_atom[number], self._first_atom[number + 1])
        edges = slice(self._first_edge[number], self._first_edge[number + 1])
        of_atom = self._store["neighbour_counts"][atoms]
        centre = np.repeat(np.arange(len(of_atom)), of_atom)
        return np.stack([self._store["sender"][edges].astype(np.int64), centre]), self._store["shift"][edges].astype(np.int64)


def _starts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])


def obtain_edges(frames: Sequence[Frame], recipe: GraphRecipe, processes: int) -> EdgeStore:
    """The edges of ``frames``, from the cache or into it.

    Args:
        frames: the structures; read by several processes.
        recipe: which pairs are edges.
        processes: that look for edges.

    Raises:
        ZooError: two atoms at one place, a frame of several atoms without an edge, or a cache that cannot be written.
    """

    def build(writer: StoreWriter) -> Mapping[str, Any]:
        pieces = list(_pieces(frames))
        answers = in_order(_Finder(frames, recipe), pieces, processes if len(pieces) > 1 else 1)
        counted = ((stop - start, arrays) for (start, stop), arrays in zip(pieces, answers, strict=True))
        for arrays in with_progress(counted, "neighbour lists", len(frames)):
            writer.append(arrays)
        return {"frames": len(frames), **asdict(recipe)}

    return EdgeStore(obtain_store("edges", _key(frames, recipe), build))


def _key(frames: Sequence[Frame], recipe: GraphRecipe) -> str:
    parts = [sequence_sha256(frames), asdict(recipe), version("vesin"), _source_sha256(zoo.edges), _source_sha256(zoo.neighbours)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _source_sha256(module: ModuleType) -> str:
    return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()


def _pieces(frames: Sequence[Frame]) -> Iterator[tuple[int, int]]:
    """Ranges of frames of some `_ATOMS_OF_A_PIECE` atoms: small enough for several to be held in memory."""
    start, atoms = 0, 0
    for number, count in enumerate(atom_counts(frames).tolist()):
        atoms += count
        if atoms >= _ATOMS_OF_A_PIECE or number + 1 - start >= _FRAMES_OF_A_PIECE:
            yield start, number + 1
            start, atoms = number + 1, 0
    if start < len(frames):
        yield start, len(frames)


@dataclass(frozen=True)
class _Finder:
    """The work of one process."""

    frames: Sequence[Frame]
    recipe: GraphRecipe

    def __call__(self, piece: tuple[int, int]) -> dict[str, Array]:
        atoms, edges, neighbours, senders, shifts = [], [], [], [], []
        for frame in self.frames[slice(*piece)]:
            edge_index, edge_shift = edges_of(frame, self.recipe)
            refuse_without_edges(frame, edge_index.shape[1], self.recipe.cutoff_angstrom)
            atoms.append(len(frame))
            edges.append(edge_index.shape[1])
            neighbours.append(np.bincount(edge_index[1], minlength=len(frame)).astype(np.int32))
            senders.append(edge_index[0].astype(np.int32))
            shifts.append(_as_int16(frame, edge_shift))
        return {
            "atom_counts": np.array(atoms, dtype=np.int32),
            "edge_counts": np.array(edges, dtype=np.int64),
            "neighbour_counts": np.concatenate(neighbours),
            "sender": np.concatenate(senders),
            "shift": np.concatenate(shifts),
        }


def _as_int16(frame: Frame, edge_shift: NDArray[np.int64]) -> NDArray[np.int16]:
    narrow = edge_shift.astype(np.int16)
    if not np.array_equal(narrow, edge_shift):
        raise ZooError(
            f"{frame.name} has atoms {np.abs(edge_shift).max()} cells away from others, more than the cache on disk holds; wrap its "
            "positions into the cell, or pass data.cache=memory"
        )
    return narrow
