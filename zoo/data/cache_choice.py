"""Whether frames and graphs are kept in memory or on disk, and how many processes work on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.data.processes import usable_cores

CacheMode = Literal["auto", "memory", "disk"]

LARGE_SOURCE_BYTES = 64 * 10**6
LARGE_PART_ATOMS = 100_000


@dataclass(frozen=True)
class CacheChoice:
    """Where frames and graphs are kept while they are used.

    Attributes:
        mode: ``memory``; ``disk``; or ``auto``: on disk where a source has more than `LARGE_SOURCE_BYTES`, and the graphs of a part where
            it has more than `LARGE_PART_ATOMS`.
        workers: processes that convert frames and look for edges, and that read batches ahead; for the former as many as there are cores,
            and for the latter none, where None.
    """

    mode: CacheMode = "memory"
    workers: int | None = None

    def frames_on_disk(self, source_bytes: int) -> bool:
        """Whether the frames of a source of that size are converted into the cache."""
        return self.mode == "disk" or (self.mode == "auto" and source_bytes > LARGE_SOURCE_BYTES)

    def graphs_on_disk(self, atoms: int) -> bool:
        """Whether the edges of a part with so many atoms are kept in the cache."""
        return self.mode == "disk" or (self.mode == "auto" and atoms > LARGE_PART_ATOMS)

    @property
    def builders(self) -> int:
        """How many processes build the cache."""
        return usable_cores() if self.workers is None else max(1, self.workers)

    @property
    def readers(self) -> int:
        """How many processes read batches ahead of the training; 0 for none but its own."""
        return self.workers or 0
