"""Graphs to the batches of a run: which batch step 137 is depends on the seed and the graphs' sizes alone.

Every pass over the graphs is shuffled by (seed, pass) and cut, in that order, into batches that are as large as the limits allow. Without
limits but a count, all passes have as many batches; else a pass ends where its graphs do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.data.processes import context
from zoo.data.splits import seeded_permutation
from zoo.errors import ZooError
from zoo.graph import AtomGraph, collate

if TYPE_CHECKING:
    from zoo.data.loader import Graphs


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch may be; what is None does not limit it.

    Attributes:
        graphs: structures.
        atoms: of all structures together.
        edges: of all structures together.
    """

    graphs: int | None
    atoms: int | None = None
    edges: int | None = None

    @property
    def by_size(self) -> bool:
        """Whether batches hold different numbers of structures."""
        return self.atoms is not None or self.edges is not None

    def sizes(self, graphs: Graphs) -> list[tuple[NDArray[np.int64], int]]:
        """What each graph adds to a batch, with its limit, for every limit that there is."""
        sizes = [] if self.graphs is None else [(np.ones(len(graphs), dtype=np.int64), self.graphs)]
        if self.atoms is not None:
            sizes.append((graphs.atom_counts, self.atoms))
        if self.edges is not None:
            sizes.append((graphs.edge_counts, self.edges))
        return sizes


class BatchPlan:
    """Which graphs are in which batch, pass after pass.

    Args:
        graphs: their number and sizes.
        limits: of a batch.
        seed: of the order.

    Raises:
        ZooError: for a graph that alone is larger than a limit.
    """

    def __init__(self, graphs: Graphs, limits: BatchLimits, seed: int) -> None:
        self._count = len(graphs)
        self._limits = limits
        self._seed = seed
        self._sizes = limits.sizes(graphs)
        for (sizes, limit), name in zip(self._sizes[limits.graphs is not None :], _names(limits), strict=True):
            if self._count and sizes.max() > limit:
                raise ZooError(
                    f"{graphs[int(sizes.argmax())].name} has {sizes.max()} {name}, more than "
                    f"training.max_{name}_per_batch={limit}; raise that to {sizes.max()} or leave the frame out"
                )
        self._begins = [0]  # the step at which each pass begins, as far as they are known
        self._latest: tuple[int, list[NDArray[np.int64]]] | None = None

    @property
    def varies(self) -> bool:
        """Whether passes may have different numbers of batches."""
        return self._limits.by_size

    def batch(self, step: int) -> NDArray[np.int64]:
        """The graphs of one step, counted from 0."""
        if not self._limits.by_size:
            pass_index, position = divmod(step, self.batches_in_pass(0))
            return self.batches_of_pass(pass_index)[position]
        while self._begins[-1] <= step:
            self._begins.append(self._begins[-1] + self.batches_in_pass(len(self._begins) - 1))
        pass_index = int(np.searchsorted(self._begins, step, side="right")) - 1
        return self.batches_of_pass(pass_index)[step - self._begins[pass_index]]

    def batches_in_pass(self, pass_index: int) -> int:
        """How many steps a pass takes."""
        if not self._limits.by_size:
            assert self._limits.graphs is not None
            return -(-self._count // self._limits.graphs)
        return len(self.batches_of_pass(pass_index))

    def batches_of_pass(self, pass_index: int) -> list[NDArray[np.int64]]:
        """Every graph once, in batches."""
        if self._latest is None or self._latest[0] != pass_index:
            order = seeded_permutation(self._count, self._seed, pass_index)
            self._latest = pass_index, [order[start:stop] for start, stop in cut([(sizes[order], limit) for sizes, limit in self._sizes])]
        return self._latest[1]


def _names(limits: BatchLimits) -> list[str]:
    return [name for name in ("atoms", "edges") if getattr(limits, name) is not None]


def cut(sizes: Sequence[tuple[NDArray[np.int64], int]]) -> list[tuple[int, int]]:
    """Ranges that follow each other, each as long as it can be with every sum of sizes within its limit, and at least one long."""
    totals = [(np.cumsum(values), limit) for values, limit in sizes]
    count, ranges, start = len(totals[0][0]), [], 0
    while start < count:
        stop = count
        for total, limit in totals:
            done = int(total[start - 1]) if start else 0
            stop = min(stop, int(np.searchsorted(total, done + limit, side="right")))
        stop = max(stop, start + 1)
        ranges.append((start, stop))
        start = stop
    return ranges


class BatchSource(Protocol):
    """Batches by the number of their step."""

    def batch(self, step: int) -> AtomGraph:
        """The batch of one step."""
        ...


class BatchStream:
    """The batches of steps ``first_step`` to ``steps``; every pass over the graphs is shuffled by (seed, pass).

    To Lightning the whole run is one epoch: its progress bar then counts the steps of the run, and a resumed run needs no loader state and
    no rule for the seam between epochs, only the step it stands at.

    Args:
        graphs: the training graphs.
        batch_size: structures in a batch, or all the limits of one; the last one of a pass may be smaller.
        steps: how many batches the whole run takes.
        seed: of the order.
        first_step: steps done before, by the run that is resumed.
        readers: processes that make the batches ahead of time; 0 for none. They change no number.
    """

    def __init__(self, graphs: Graphs, batch_size: int | BatchLimits, steps: int, seed: int, first_step: int = 0, readers: int = 0) -> None:
        self._graphs = graphs
        self.plan = BatchPlan(graphs, BatchLimits(batch_size) if isinstance(batch_size, int) else batch_size, seed)
        self._steps = steps
        self._first_step = first_step
        self._readers = readers

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[AtomGraph]:
        steps = range(self._first_step, self._steps)
        return read_ahead(self, steps, self._readers) if self._readers else (self.batch(step) for step in steps)

    def batch(self, step: int) -> AtomGraph:
        """The batch of one step, counted from 0."""
        return collate([self._graphs[int(index)] for index in self.plan.batch(step)])


def read_ahead(source: BatchSource, steps: range, readers: int) -> Iterator[AtomGraph]:
    """The batches of ``steps``, made by ``readers`` processes and handed out in order.

    Raises:
        ZooError: what making a batch raised, or where one of the processes was killed.
    """
    import torch
    from torch.utils.data import DataLoader

    # of its own, lest reading ahead draws from the generator that dropout draws from
    generator = torch.Generator()
    loader: Any = DataLoader(
        _Steps(source),  # type: ignore[arg-type]
        batch_size=None,
        sampler=steps,
        num_workers=readers,
        generator=generator,
        multiprocessing_context=context(),
    )
    with readers_watched():
        for batch in loader:
            if isinstance(batch, ZooError):
                raise batch
            yield batch


@contextmanager
def readers_watched() -> Iterator[None]:
    """Say in one line that a process of `read_ahead` was killed: torch raises that wherever this process happens to be.

    Raises:
        ZooError: with torch's reason, such as too little shared memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise ZooError(
            f"one of the processes that read batches ahead ended ({' '.join(str(error).split())}); pass data.workers=0, or free memory"
        ) from error


@dataclass(frozen=True)
class _Steps:
    """A data set of torch's kind whose items are whole batches."""

    source: BatchSource

    def __getitem__(self, step: int) -> AtomGraph | ZooError:
        try:
            return self.source.batch(step)
        except ZooError as error:
            return error  # raised, it would arrive with its traceback for a message
