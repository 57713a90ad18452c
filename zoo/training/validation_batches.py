"""The validation frames in batches: held where their graphs are held, made anew for each validation where they are on disk."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from zoo.data.batches import BatchLimits, cut, read_ahead
from zoo.data.loader import GraphDataset, Graphs
from zoo.graph import AtomGraph, collate


class ValidationBatches:
    """Batches in the order of the frames.

    Args:
        graphs: of the validation frames.
        limits: of a batch; a graph that is larger than they allow is one by itself.
        device: where the batches are used.
        readers: processes that make batches ahead of time; 0 for none.
    """

    def __init__(self, graphs: Graphs, limits: BatchLimits, device: torch.device, readers: int = 0) -> None:
        self._graphs = graphs
        self._ranges = cut(limits.sizes(graphs))
        self._device = device
        self._readers = readers
        self._held = [self.batch(number).to(str(device)) for number in range(len(self))] if isinstance(graphs, GraphDataset) else None

    def __len__(self) -> int:
        return len(self._ranges)

    def __iter__(self) -> Iterator[AtomGraph]:
        if self._held is not None:
            return iter(self._held)
        numbers = range(len(self))
        made = read_ahead(self, numbers, self._readers) if self._readers else map(self.batch, numbers)
        return (batch.to(str(self._device)) for batch in made)

    def batch(self, number: int) -> AtomGraph:
        """One batch, on the CPU."""
        return collate([self._graphs[index] for index in range(*self._ranges[number])])
