"""Labels that lie a known unit's factor, or a sign, away from what a model predicts: said before anybody trusts the numbers.

The slope of labels on predictions depends on no zero of energy; foundation models come within a third of it on anything they know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import FloatArray, Frame
from zoo.evaluation.predictions import Predictions


@dataclass(frozen=True)
class _Quantity:
    """How a quantity goes wrong: its units as factors of ours, and what to say of another unit or sign."""

    name: str
    factors: dict[str, float]
    other_sign: str
    option: str


_FORCES = _Quantity(
    name="forces",
    factors={"kcal/mol/Å": 23.0605, "Hartree/Bohr": 51.4221**-1, "Hartree/Å": 27.2114**-1, "meV/Å": 1000.0, "kJ/mol/Å": 96.4853},
    other_sign="are the labels gradients instead of forces?",
    option="data.energy_unit=... (and data.length_unit=...)",
)
_STRESSES = _Quantity(
    name="stresses",
    factors={"GPa": 160.218, "kbar": 1602.18},
    other_sign="VASP's and DeePMD's sign is not ASE's: data.stress_unit=-kbar, or data.virial_key=...",
    option="data.stress_unit=...",
)
_SIMILAR = 0.5
"""Correlation from which on two lists of numbers are taken for the same quantity."""


def unit_hints(predictions: Predictions, frames: Sequence[Frame]) -> tuple[str, ...]:
    """One line for forces and one for stresses that look like another unit or sign; none where they do not.

    Args:
        predictions: of a model with pretrained weights.
        frames: the labels, for the same frames.
    """
    forces = _pairs(predictions.forces, [frame.forces for frame in frames])
    stresses = _pairs(
        [np.full((3, 3), np.nan) if stress is None else stress for stress in predictions.stresses], [frame.stress for frame in frames]
    )
    hints = (_hint(*forces, _FORCES), _hint(*stresses, _STRESSES))
    return tuple(hint for hint in hints if hint is not None)


def _pairs(predicted: Sequence[FloatArray], labels: Sequence[FloatArray]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(predictions, labels) of the components that have both."""
    mine = np.concatenate([np.ravel(values) for values in predicted] or [np.empty(0)])
    theirs = np.concatenate([np.ravel(values) for values in labels] or [np.empty(0)])
    known = np.isfinite(mine) & np.isfinite(theirs)
    return mine[known], theirs[known]


def _hint(mine: FloatArray, theirs: FloatArray, quantity: _Quantity) -> str | None:
    if len(mine) < 6 or not np.any(mine) or not np.any(theirs):
        return None
    similarity = float(mine @ theirs / np.sqrt((mine @ mine) * (theirs @ theirs)))
    if similarity < -_SIMILAR:
        return f"{quantity.name} point against the model's (correlation {similarity:.2f}): {quantity.other_sign}"
    slope = float(mine @ theirs / (mine @ mine))
    if similarity < _SIMILAR:
        return None
    unit, factor = min((("", 1.0), *quantity.factors.items()), key=lambda item: abs(np.log(slope / item[1])))
    if unit and 0.6 < slope / factor < 1.6:
        return f"{quantity.name} are {slope:.3g} times the model's: they look like {unit}; pass {quantity.option}"
    return None
