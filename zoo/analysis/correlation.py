"""1 - R^2 of path weights before and after: how far fine-tuning moved the weights of a channel, by element and by role.

R^2 is the squared Pearson correlation between the weights of one cell of a table before, w, and after, w + d, all of a cell's weights
taken as one list:

    R^2 = cov(w, w + d)^2 / (var(w) var(w + d)).

It is 1 where nothing changed, and blind to a common factor and a common shift. "Sparsity-promoting fine-tuning for equivariant materials
foundation models" shows 1 - R^2 in Fig. 2 and calls R^2 a coefficient of determination; the other quantity of this name has
1 - R^2 = sum d^2 / (n var(w)), which sees factors and shifts, and stands beside it as ``change_over_variance``.

With S the sums of squares and products about the means, 1 - R^2 = (S_dd - S_wd^2 / S_ww) / S_{w+d,w+d}: the part of d that is no multiple
of w. This form loses no digits for small d, where 1 - R^2 itself would be a difference of two numbers close to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ase.data import chemical_symbols
from torch import Tensor

from zoo.analysis.changes import BlockChange, Changes
from zoo.analysis.channels import Channel, parts_of
from zoo.analysis.species import rows_by_species


@dataclass(frozen=True)
class Moments:
    """Sums over a list of weights w and their changes d, of which lists of any length can be added.

    Attributes:
        count: how many weights.
        means: of w and d.
        squares: S_ww, S_wd, S_dd, sums of products of deviations from the means.
        change: sum of d^2.
    """

    count: int = 0
    means: tuple[float, float] = (0.0, 0.0)
    squares: tuple[float, float, float] = (0.0, 0.0, 0.0)
    change: float = 0.0

    @classmethod
    def of(cls, weights: Tensor, changes: Tensor | None) -> Moments:
        """Of tensors of one shape, float64; None for no change."""
        if weights.numel() == 0:
            return cls()
        w = weights.reshape(-1)
        d = torch.zeros_like(w) if changes is None else changes.reshape(-1)
        means = float(w.mean()), float(d.mean())
        a, b = w - means[0], d - means[1]
        return cls(w.numel(), means, (float(a @ a), float(a @ b), float(b @ b)), float(d @ d))

    def __add__(self, other: Moments) -> Moments:
        """Of both lists together (T. F. Chan, G. H. Golub and R. J. LeVeque, Am. Stat. 1983, 37, 242)."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        u, v = (theirs - own for own, theirs in zip(self.means, other.means, strict=True))
        weight = self.count * other.count / count
        between = (weight * u * u, weight * u * v, weight * v * v)
        squares = tuple(one + two + three for one, two, three in zip(self.squares, other.squares, between, strict=True))
        means = (self.means[0] + u * other.count / count, self.means[1] + v * other.count / count)
        return Moments(count, means, (squares[0], squares[1], squares[2]), self.change + other.change)

    @property
    def one_minus_r2(self) -> float | None:
        """0 where nothing changed; None where all weights are equal before or after, so that there is no correlation."""
        ww, wd, dd = self.squares
        if self.change == 0:
            return 0.0
        after = ww + 2 * wd + dd
        if ww <= 0 or after <= 0:
            return None
        return min(max((dd - wd * wd / ww) / after, 0.0), 1.0)

    @property
    def change_over_variance(self) -> float | None:
        """Sum of d^2 over S_ww; None where all weights are equal before."""
        if self.change == 0:
            return 0.0
        return self.change / self.squares[0] if self.squares[0] > 0 else None


@dataclass(frozen=True)
class SpeciesRow:
    """One channel of one layer and role, for one element; in the order of the columns of ``r2_species.csv``.

    Attributes:
        layer: 0 before the first interaction layer, 1 to L in them, L + 1 in the readout.
        role: of the blocks.
        channel: ``s``, ``p``, ``d``, ...: the degree of what the weights make; an embedding of elements makes scalars, ``s``.
        species: symbol of the element.
        has_reference: whether the adapter brought a reference energy of the element: of its training data, where energies were fitted.
        blocks: how many blocks have weights in this cell.
        weights: how many weights the cell has.
        one_minus_r2: as the module says; None where it is undefined.
        change_over_variance: as the module says; None where it is undefined.
    """

    layer: int
    role: str
    channel: str
    species: str
    has_reference: bool
    blocks: int
    weights: int
    one_minus_r2: float | None
    change_over_variance: float | None


@dataclass(frozen=True)
class PathRow:
    """One channel of one layer and role, for all elements; in the order of the columns of ``r2_paths.csv``.

    Attributes:
        layer: as in `SpeciesRow`.
        role: of the blocks.
        channel: ``s``, ``p``, ``d``, ...; ``-`` for weights that make no one degree.
        blocks: how many blocks have weights in this cell.
        weights: how many weights the cell has, adapted or not.
        one_minus_r2: as the module says; None where it is undefined.
        change_over_variance: as the module says; None where it is undefined.
    """

    layer: int
    role: str
    channel: str
    blocks: int
    weights: int
    one_minus_r2: float | None
    change_over_variance: float | None


_Key = tuple[int, str, int, int]  # layer, role, degree, atomic number
_NO_DEGREE = 1000  # in the place of a degree: sorts behind all of them
_ALL = 0  # in the place of an atomic number


class _Cells:
    """Sums of cells by key, and which blocks each cell is of."""

    def __init__(self) -> None:
        self.moments: dict[_Key, Moments] = {}
        self.blocks: dict[_Key, set[str]] = {}

    def add(self, key: _Key, change: BlockChange, weights: Tensor, changes: Tensor | None) -> None:
        self.moments[key] = self.moments.get(key, Moments()) + Moments.of(weights, changes)
        self.blocks.setdefault(key, set()).add(change.block.key)

    def numbers(self, key: _Key) -> tuple[int, int, float | None, float | None]:
        sums = self.moments[key]
        return len(self.blocks[key]), sums.count, sums.one_minus_r2, sums.change_over_variance


def correlations(changes: Changes) -> tuple[list[SpeciesRow], list[PathRow]]:
    """Both tables, sorted by layer, role, degree and atomic number; the first is empty where no block has weights of single elements."""
    backbone = changes.potential.backbone
    of_species, of_paths = _Cells(), _Cells()
    for change in changes:
        block, parts, of_elements = change.block, parts_of(change.block, backbone), rows_by_species(change.block, backbone)
        # one-hot elements are scalars, and so is what a linear map makes of them
        default = 0 if of_elements else _NO_DEGREE
        for part in parts:
            key = (block.layer, block.role, default if part.channel.degree is None else part.channel.degree, _ALL)
            for weights, moved in zip(part.of(change.base), part.of_change(change.delta), strict=True):
                of_paths.add(key, change, weights, moved)
        for number, rows in of_elements.items():
            key = (block.layer, block.role, parts[0].channel.degree or 0, number)
            of_species.add(key, change, change.base[:, rows], None if change.delta is None else change.delta[:, rows])
    provenance = changes.adapter.provenance
    referenced = set() if provenance is None else set(provenance.reference_energies)
    species = []
    for key in sorted(of_species.moments):
        symbol = chemical_symbols[key[3]]
        species.append(SpeciesRow(key[0], key[1], Channel(key[2]).letter, symbol, symbol in referenced, *of_species.numbers(key)))
    paths = [
        PathRow(key[0], key[1], Channel(None if key[2] == _NO_DEGREE else key[2]).letter, *of_paths.numbers(key))
        for key in sorted(of_paths.moments)
    ]
    return species, paths
