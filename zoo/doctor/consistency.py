"""Whether labels agree with one another: changes of energy with the work of forces and stresses, without any model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.doctor.pairs import LEAST_WORK_EV, Pair
from zoo.doctor.registry import check
from zoo.doctor.report import Finding, Level
from zoo.doctor.slopes import Slope, energy_over_work_meanings, slope_of
from zoo.doctor.subject import Subject
from zoo.units import STRESS_IN_EV_PER_ANGSTROM3

FEWEST_PAIRS = 8
CLEAR = 0.8
"""Rank correlation from which a slope is believed; clean trajectories have 0.94 and more."""
UNRELATED = 0.55
_ENOUGH_FOR_NONE = 20  # pairs, to say that there is no relation
_SLOPE_OF_ONE = (0.67, 1.5)


@check("forces.energies", "Do energies change as the forces say (sign, unit, same quantity)?", cheap=True)
def forces_and_energies(subject: Subject) -> Iterator[Finding]:
    """Slope of dE on -F.dx over close pairs of frames in one cell."""
    pairs = [pair for pair in subject.pairs if pair.strain == 0 and abs(pair.work) > LEAST_WORK_EV]
    slope = slope_of([pair.work for pair in pairs], [pair.energy_change for pair in pairs])
    seen = _Comparison("forces.energies", "from one frame to a close one", "the forces on the way", slope, pairs)
    if seen.too_few:
        return
    if seen.opposite:
        yield seen.finding("error", "a slope of 1", "the forces have the wrong sign (gradients): negate them in the file")
    elif seen.scaled:
        atoms = float(np.median([len(pair.first) for pair in pairs]))
        meanings = energy_over_work_meanings(slope.value, atoms)
        remedy = f"it looks like {' or '.join(meanings)}: pass data.energy_unit and data.length_unit, or convert one of the two"
        expected = "a slope of 1: energies in eV, forces in eV/Å"
        other = "energies or forces are scaled: find out which, and convert"
        yield seen.finding("error" if meanings else "warning", expected, remedy if meanings else other)
    elif abs(slope.agreement) < UNRELATED and slope.count >= _ENOUGH_FOR_NONE:
        remedy = (
            "energies and forces are not of the same quantity: interaction or corrected energies beside total forces, labels in another "
            "order than frames, or another state (charge, spin)"
        )
        yield seen.finding("error", "a slope of 1 and a correlation near 1", remedy)
    else:
        yield seen.note()


@check("stress.energies", "Do energies of strained cells change as the stress says (sign, unit)?", cheap=True)
def stress_and_energies(subject: Subject) -> Iterator[Finding]:
    """Slope of dE + F.dx on V s : e over close pairs whose cells differ, where the strain does most of the work."""
    pairs = [
        pair
        for pair in subject.pairs
        if pair.strain > 0 and np.isfinite(pair.strain_work) and abs(pair.strain_work) > max(LEAST_WORK_EV, abs(pair.work))
    ]
    slope = slope_of([pair.strain_work for pair in pairs], [pair.energy_change - pair.work for pair in pairs])
    seen = _Comparison("stress.energies", "from one cell to a strained one", "the stresses", slope, pairs)
    if seen.too_few:
        return
    if seen.opposite:
        if _is_one(-slope.value):  # -kbar would make these 1,602 times too small
            remedy = "the size is that of eV/Å^3 and the sign is not ASE's: negate the stresses in the file"
        else:
            remedy = "VASP's and DeePMD's sign is not ASE's: pass data.stress_unit=-kbar, or data.virial_key=..., or negate it"
        yield seen.finding("error", "a slope of 1: negative under compression", remedy)
    elif seen.scaled:
        unit = _stress_unit(slope)
        remedy = f"stresses look like {unit}: pass data.stress_unit={unit}" if unit else "find out the stresses' unit: data.stress_unit=..."
        yield seen.finding("error" if unit else "warning", "a slope of 1: eV/Å^3", remedy)
    else:
        yield seen.note()


@dataclass(frozen=True)
class _Comparison:
    """Energies of pairs of frames beside what other labels say of them, and how one check words that.

    Attributes:
        check: that asks.
        way: from which frame to which.
        said_by: the labels that say how energies should change.
        slope: of the energies' changes on what they say.
        pairs: of frames, those that the slope is of.
    """

    check: str
    way: str
    said_by: str
    slope: Slope
    pairs: Sequence[Pair]

    @property
    def too_few(self) -> bool:
        return self.slope.count < FEWEST_PAIRS

    @property
    def opposite(self) -> bool:
        return self.slope.agreement <= -CLEAR

    @property
    def scaled(self) -> bool:
        return self.slope.agreement >= CLEAR and not _is_one(self.slope.value)

    @property
    def found(self) -> str:
        return (
            f"{self.way}, energies change by {self.slope.value:.3g} times what {self.said_by} say, which is 1 where both are right "
            f"({self.slope.count:,} pairs, rank correlation {self.slope.agreement:.2f})"
        )

    def finding(self, level: Level, expected: str, remedy: str) -> Finding:
        return Finding(level, self.check, self.found, expected, remedy, _frames(self.pairs))

    def note(self) -> Finding:
        return Finding("note", self.check, self.found)


def _is_one(slope: float) -> bool:
    return _SLOPE_OF_ONE[0] <= slope <= _SLOPE_OF_ONE[1]


def _stress_unit(slope: Slope) -> str | None:
    off = {unit: abs(float(np.log(slope.value / in_ev))) for unit, in_ev in STRESS_IN_EV_PER_ANGSTROM3.items() if in_ev > 0 and in_ev != 1}
    unit = min(off, key=off.__getitem__)
    return unit if off[unit] < np.log(1.5) else None


def _frames(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """The frames of the pairs with the most work, as examples."""
    most = sorted(pairs, key=lambda pair: -abs(pair.work))[:2]
    return tuple(dict.fromkeys(frame.name for pair in most for frame in (pair.first, pair.second)))
