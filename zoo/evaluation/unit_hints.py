"""Labels that lie a known unit's factor, or a sign, away from what a model predicts: said before anybody trusts the numbers.

The slope of labels on predictions depends on no zero of energy; foundation models come within a third of 1 on anything they know, except
where structures are relaxed and forces are what the two leave open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.frame import FloatArray, Frame
from zoo.evaluation.predictions import Predictions
from zoo.units import ENERGY_IN_EV, LENGTH_IN_ANGSTROM, STRESS_IN_EV_PER_ANGSTROM3


@dataclass(frozen=True)
class _Quantity:
    """How a quantity goes wrong: its units as factors of ours, and what to say of another unit or sign."""

    name: str
    unit: str
    factors: dict[str, float]
    other_sign: str
    option: str


_FORCES = _Quantity(
    name="forces",
    unit="eV/Å",
    factors={
        **{f"{unit}/Å": 1 / ENERGY_IN_EV[unit] for unit in ("kcal/mol", "Hartree", "meV", "kJ/mol")},
        "Hartree/Bohr": LENGTH_IN_ANGSTROM["Bohr"] / ENERGY_IN_EV["Hartree"],
    },
    other_sign="are the labels gradients instead of forces?",
    option="data.energy_unit=... (and data.length_unit=...)",
)
_STRESSES = _Quantity(
    name="stresses",
    unit="eV/Å^3",
    factors={unit: 1 / STRESS_IN_EV_PER_ANGSTROM3[unit] for unit in ("GPa", "kbar")},
    other_sign="VASP's and DeePMD's sign is not ASE's: data.stress_unit=-kbar for VASP's numbers, data.virial_key=... for a virial, or "
    "negate stresses that are in eV/Å^3",
    option="data.stress_unit=...",
)
_SIMILAR = 0.5
"""Correlation from which on two lists of numbers are taken for the same quantity."""
_FEWEST_COMPONENTS = 6
_MOST_OF_USUAL = 2.0
"""A frame counts as if it were no larger than that many times the upper quartile: one broken frame must not decide."""
_SMALL = 0.4
"""Labels of relaxed structures are that small beside predictions too, and point anywhere: a unit or a sign is believed of several frames
only, each of which agrees. Of 200 draws of 8 small cells from alexandria-random-1k with SevenNet-0, 34 had another unit or sign without
this, and one with it."""
_FRAMES_OF_SMALL = 5
_SIMILAR_OF_SMALL = 0.7
_SCATTER_OF_SMALL = 3.0


@dataclass(frozen=True)
class _Sizes:
    """Of the frames (n,) with predictions and labels that are not zero: norms, scalar products and numbers of components."""

    mine: FloatArray
    theirs: FloatArray
    product: FloatArray
    components: FloatArray

    @property
    def cosines(self) -> FloatArray:
        return self.product / (self.mine * self.theirs)

    @property
    def slopes(self) -> FloatArray:
        return self.product / self.mine**2


def unit_hints(predictions: Predictions, frames: Sequence[Frame], given_force_unit: float = 1.0) -> tuple[str, ...]:
    """One line for forces and one for stresses that look like another unit or sign; none where they do not.

    Args:
        predictions: of a model with pretrained weights.
        frames: the labels, for the same frames.
        given_force_unit: eV/Å of the unit that the forces were converted from, which may be the mistake.
    """
    forces = _sizes(predictions.forces, [frame.forces for frame in frames])
    stresses = _sizes(
        [np.full((3, 3), np.nan) if stress is None else stress for stress in predictions.stresses], [frame.stress for frame in frames]
    )
    hints = (_hint(forces, _FORCES, given_force_unit), _hint(stresses, _STRESSES))
    return tuple(hint for hint in hints if hint is not None)


def _sizes(predicted: Sequence[FloatArray], labels: Sequence[FloatArray]) -> _Sizes:
    """Over the components of each frame that have both."""
    rows = []
    for mine, theirs in zip(predicted, labels, strict=True):
        known = np.isfinite(mine) & np.isfinite(theirs)
        a, b = mine[known], theirs[known]
        if np.any(a) and np.any(b):
            rows.append((np.linalg.norm(a), np.linalg.norm(b), a @ b, len(a)))
    return _Sizes(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)


def _hint(sizes: _Sizes, quantity: _Quantity, given: float = 1.0) -> str | None:
    if sizes.components.sum() < _FEWEST_COMPONENTS:
        return None
    weights = _weights(sizes)  # (n,)
    scale = np.sqrt((weights**2 @ sizes.mine**2) * (weights**2 @ sizes.theirs**2))
    similarity = float(weights**2 @ sizes.product / scale)
    slope = _weighted_median(sizes.slopes, weights * sizes.mine)
    if abs(similarity) < _SIMILAR or slope * similarity <= 0 or (abs(slope) < _SMALL and not _frames_agree(sizes, np.sign(similarity))):
        return None
    factors = {quantity.unit: 1.0, **quantity.factors}
    unit = min(factors, key=lambda name: abs(np.log(abs(slope) / given / factors[name])))
    if similarity < 0:
        size = f"{abs(slope):.3g} times as large, as {unit} are" if unit != quantity.unit else "as large"
        return f"{quantity.name} point against the model's (correlation {similarity:.2f}) and are {size}: {quantity.other_sign}"
    right, near = abs(factors[unit] * given - 1) < 0.01, 0.6 < slope / given / factors[unit] < 1.6
    if near and not right:
        return f"{quantity.name} are {slope:.3g} times the model's: they look like {unit}; pass {quantity.option}"
    return None


def _weights(sizes: _Sizes) -> FloatArray:
    """(n,) at most 1: what brings frames far larger than the others, in predictions or labels, down to `_MOST_OF_USUAL`."""
    largest = [_MOST_OF_USUAL * np.quantile(norms, 0.75) / norms for norms in (sizes.mine, sizes.theirs)]
    return np.asarray(np.minimum(1.0, np.minimum(*largest)), dtype=np.float64)


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulated, cumulated[-1] / 2)])


def _frames_agree(sizes: _Sizes, sign: float) -> bool:
    """Whether the frames with the larger predictions say one thing, each by itself."""
    usual = sizes.mine / np.sqrt(sizes.components)
    large = usual >= np.median(usual)
    low, high = np.quantile(np.abs(sizes.slopes[large]), (0.25, 0.75))
    similar = np.quantile(sign * sizes.cosines[large], 0.25) > _SIMILAR_OF_SMALL
    return bool(len(usual) >= _FRAMES_OF_SMALL and similar and high < _SCATTER_OF_SMALL * low)
