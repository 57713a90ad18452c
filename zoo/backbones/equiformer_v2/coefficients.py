"""The order of spherical-harmonic coefficients: by degree on atoms, by order |m| in the frames of the edges.

A feature on an atom holds ``(lmax + 1)^2`` coefficients, coefficient ``l^2 + l + m`` for degree l and order m. In an edge's frame only
orders up to ``mmax`` are kept, sorted by |m|: for m = 0 the degrees 0..lmax; then for each m = 1..mmax first all +m, then all -m, each for
degrees m..lmax. Rotations about the edge act on each |m| alone, so that this is the order of the SO(2) convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Coefficients:
    """Sizes and indices for degrees up to ``lmax`` with orders up to ``mmax``."""

    lmax: int
    mmax: int

    @property
    def full_count(self) -> int:
        """``(lmax + 1)^2``."""
        return (self.lmax + 1) ** 2

    @property
    def reduced_count(self) -> int:
        """R: how many coefficients an edge's frame keeps."""
        return len(self.degrees)

    @property
    def degree_counts(self) -> tuple[int, ...]:
        """For m = 0..mmax, how many degrees have that order."""
        return tuple(self.lmax - order + 1 for order in range(self.mmax + 1))

    @cached_property
    def _degrees_and_orders(self) -> list[tuple[int, int]]:
        pairs = [(degree, 0) for degree in range(self.lmax + 1)]
        for order in range(1, self.mmax + 1):
            pairs += [(degree, sign * order) for sign in (1, -1) for degree in range(order, self.lmax + 1)]
        return pairs

    @cached_property
    def degrees(self) -> NDArray[np.int64]:
        """(R,) degree of each coefficient in the order by |m|."""
        return np.array([degree for degree, _ in self._degrees_and_orders])

    @cached_property
    def index_in_full(self) -> NDArray[np.int64]:
        """(R,) where each coefficient in the order by |m| stands among all, ordered by degree."""
        return np.array([degree**2 + degree + order for degree, order in self._degrees_and_orders])

    @cached_property
    def cut_scale(self) -> NDArray[np.float64]:
        """(R,) sqrt((2l + 1)/(2 mmax + 1)) for degrees above mmax, else 1: makes up for the orders that were cut off."""
        scale: NDArray[np.float64] = np.sqrt((2 * self.degrees + 1) / (2 * self.mmax + 1))
        return np.where(self.degrees > self.mmax, scale, 1.0)


def degrees_of_all(lmax: int) -> NDArray[np.int64]:
    """((lmax + 1)^2,) degree of each coefficient of an atom's feature."""
    return np.repeat(np.arange(lmax + 1), 2 * np.arange(lmax + 1) + 1)
