"""Slopes between two lists of numbers, and the units, signs and mix-ups that a slope can mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.units import ENERGY_IN_EV, LENGTH_IN_ANGSTROM

Values = Sequence[float] | NDArray[np.float64]

# what a number that should be in eV is multiplied by, where it is in another unit
ENERGY_FACTORS: dict[str, float] = {unit: 1 / in_ev for unit, in_ev in ENERGY_IN_EV.items() if unit != "eV"}
_BOHR = LENGTH_IN_ANGSTROM["Bohr"]
SAME_UNIT = 0.25
"""How far, in the logarithm, a slope may be from a unit's factor to be taken for it; the factors are farther apart."""


@dataclass(frozen=True)
class Slope:
    """How ``y`` goes with ``x``.

    Attributes:
        value: the slope through the origin that minimises the sum of |y - slope x|: outliers do not move it.
        agreement: rank correlation, from -1 to 1.
        count: how many numbers.
    """

    value: float
    agreement: float
    count: int


def slope_of(x: Values, y: Values) -> Slope:
    """The slope of ``y`` on ``x`` through the origin: the median of y/x, weighted by |x|."""
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    used = np.isfinite(across) & np.isfinite(up) & (across != 0)
    across, up = across[used], up[used]
    if not across.size:
        return Slope(float("nan"), 0.0, 0)
    order = np.argsort(up / across)
    weight = np.cumsum(np.abs(across)[order])
    middle = order[int(np.searchsorted(weight, weight[-1] / 2))]
    return Slope(float(up[middle] / across[middle]), _rank_correlation(across, up), int(across.size))


def _rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Spearman's, of numbers without ties to speak of."""
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (x, y)]).astype(np.float64)
    ranks -= ranks.mean(axis=1, keepdims=True)
    size = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return float(ranks[0] @ ranks[1]) / size if size > 0 else 0.0


def energy_meanings(slope: float, atoms: float, window: float = SAME_UNIT, given_in_ev: float = 1.0) -> list[str]:
    """What a slope of energies says: ``["Hartree"]``, ``["an energy per atom"]``; empty for none that is known.

    Args:
        slope: labels over what they should be.
        atoms: of a usual frame.
        window: how far off, in the logarithm, a factor may be.
        given_in_ev: eV of the unit that the labels were converted from, which may be the mistake: eV that were taken for kcal/mol.
    """
    factors = {unit: factor for unit, factor in {"eV": 1.0, **ENERGY_FACTORS}.items() if abs(factor * given_in_ev - 1) > 1e-6}
    return _matching(slope / given_in_ev, {**factors, **({"an energy per atom": 1 / atoms / given_in_ev} if atoms >= 3 else {})}, window)


def energy_over_work_meanings(slope: float, atoms: float) -> list[str]:
    """What a slope of energy changes on the work of forces says: one of the two is in another unit."""
    factors: dict[str, float] = {f"energies in {unit}": factor for unit, factor in ENERGY_FACTORS.items()}
    factors |= {f"forces in {unit}/Å": 1 / factor for unit, factor in ENERGY_FACTORS.items()}
    factors["forces in Hartree/Bohr"] = 1 / (ENERGY_FACTORS["Hartree"] * _BOHR)
    factors["forces per Bohr instead of Å"] = 1 / _BOHR
    factors["positions in Bohr"] = _BOHR
    if atoms >= 3:
        factors["energies per atom"] = 1 / atoms
    return _matching(slope, factors)


def _matching(slope: float, factors: Mapping[str, float], window: float = SAME_UNIT) -> list[str]:
    """The names whose factor is near, the nearest first."""
    if not slope > 0:
        return []
    off = {name: abs(float(np.log(slope / factor))) for name, factor in factors.items()}
    return sorted((name for name, size in off.items() if size < window), key=off.__getitem__)
