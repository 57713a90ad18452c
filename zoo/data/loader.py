"""Frames to batches of graphs, in an order that a resumed run continues exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from zoo.data.frame import Frame
from zoo.data.splits import seeded_permutation
from zoo.errors import ZooError
from zoo.graph import AtomGraph, collate, multi_atom_without_edges


class GraphDataset(Sequence[AtomGraph]):
    """The graphs of some frames, built once and kept in memory.

    Raises:
        ZooError: for a frame of several atoms in which no pair is within the cutoff.
    """

    def __init__(self, frames: Sequence[Frame], cutoff_angstrom: float) -> None:
        self.cutoff_angstrom = cutoff_angstrom
        self._graphs = [AtomGraph.from_frame(frame, cutoff_angstrom) for frame in frames]
        check_edges(frames, self._graphs, cutoff_angstrom)

    def __len__(self) -> int:
        return len(self._graphs)

    def __getitem__(self, index: Any) -> Any:
        return self._graphs[index]


def check_edges(frames: Sequence[Frame], graphs: Sequence[AtomGraph], cutoff_angstrom: float) -> None:
    """Refuse a frame of several atoms without any edge; a single isolated atom is legitimate.

    Raises:
        ZooError: naming the first such frame.
    """
    for frame, graph in zip(frames, graphs, strict=True):
        if multi_atom_without_edges(graph):
            raise ZooError(
                f"{frame.name} has {len(frame)} atoms but no pair within the cutoff of {cutoff_angstrom:g} Å; "
                "check its length unit (data.length_unit=...) and cell, or remove the frame"
            )


class ResumableLoader:
    """Batches of a `GraphDataset`, shuffled by (seed, epoch) alone, with a state that continues in the middle of an epoch.

    Lightning 2.6 stores the state of a loader that has `state_dict`, and calls ``sampler.set_epoch``. Both are here, because neither is
    enough: bounded by epochs, it does not restore the state of a checkpoint saved when an epoch had ended; bounded by steps, it
    restores that state but counts an epoch without any batch. So a restored state decides, and `set_epoch` only in its absence.

    Args:
        graphs: the graphs to batch.
        batch_size: structures in a batch; the last one of an epoch may be smaller.
        seed: of the order; without it the order is that of ``graphs``.
    """

    def __init__(self, graphs: Sequence[AtomGraph], batch_size: int, seed: int | None = None) -> None:
        if batch_size < 1:
            raise ZooError(f"batch_size is {batch_size}; give at least 1")
        self.graphs = graphs
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = 0
        self._given = 0
        # True while (epoch, given) is a place to start from and not one that an iterator has reached
        self._at_start = True
        # True until a batch was given or a state restored
        self._pristine = True

    @property
    def sampler(self) -> ResumableLoader:
        """Where Lightning looks for `set_epoch`."""
        return self

    @property
    def batch_sampler(self) -> None:
        """Asked for by Lightning of everything that has a sampler."""
        return

    def __len__(self) -> int:
        return math.ceil(len(self.graphs) / self.batch_size)

    def order(self, epoch: int) -> list[int]:
        """Indices into the graphs in the order in which ``epoch`` gives them."""
        if self.seed is None:
            return list(range(len(self.graphs)))
        return [int(index) for index in seeded_permutation(len(self.graphs), self.seed, epoch)]

    def __iter__(self) -> Iterator[AtomGraph]:
        # a generator: nothing moves before the first batch is asked for, so creating an iterator twice is harmless
        if not self._at_start:
            self._epoch, self._given = self._epoch + 1, 0
        self._at_start = self._pristine = False
        order = self.order(self._epoch)
        while self._given < len(self):
            start = self._given * self.batch_size
            self._given += 1
            yield collate([self.graphs[index] for index in order[start : start + self.batch_size]])

    def set_epoch(self, epoch: int) -> None:
        """Begin with ``epoch``; without effect once a batch was given or a state restored, for then this loader counts itself."""
        if self._pristine:
            self._epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many of its batches have been given."""
        return {"epoch": self._epoch, "batches_given": self._given, "batches": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            ZooError: where the state belongs to another number of batches, so that the order cannot be the same.
        """
        if state["batches"] != len(self):
            raise ZooError(
                f"the checkpoint was made with {state['batches']} batches an epoch, this run has {len(self)}; "
                "resume with the same data and batch size, or start a new run"
            )
        self._epoch, self._given = state["epoch"], state["batches_given"]
        if self._given >= len(self):
            self._epoch, self._given = self._epoch + 1, 0
        self._at_start, self._pristine = True, False
