"""Labels against what the base predicts before training: a foundation model errs by tens of per cent, a unit by a factor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from zoo.data.frame import Frame
from zoo.data.reference_energies import fit_element_shifts
from zoo.doctor.energies import without_composition
from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.slopes import Slope, energy_meanings, slope_of
from zoo.doctor.subject import Subject, by_name
from zoo.evaluation.unit_hints import unit_hints

CLEAR = 0.65
"""Rank correlation: a dozen frames of a molecule at 300 K have 0.75 with SevenNet-0, and units differ by factors of 13 and more."""
FEWEST_DEGREES = 5
"""Of freedom that a sum over elements leaves to the energies of the sample."""
MODELS_ERROR = 0.45
"""In the logarithm: energies of a foundation model vary by up to half more or less than those of another level of theory."""
_LEAST_SPREAD_EV_PER_ATOM = 1e-3
_SLOPE_OF_ONE = (0.4, 2.5)
_RATIO_WINDOW = 0.1
_FEWEST_COMPOSITIONS = 5
_PER_ATOM = "multiply them by the number of atoms"
INTERACTION_SHARE = 0.1
WORST_FIT_EV_PER_ATOM = 0.5


@check("zero_shot.forces", "Do forces and stresses have the sign and the unit of the base's predictions?", needs=("weights",))
def forces_and_stress(subject: Subject) -> Iterator[Finding]:
    """`zoo.evaluation.unit_hints`, which ``zoo train`` and ``zoo evaluate`` print too."""
    for hint in unit_hints(subject.predictions, subject.sample, subject.given_units[1]):
        found, _, remedy = hint.partition(": ")
        name = "zero_shot.stress" if hint.startswith("stress") else "zero_shot.forces"
        yield Finding("error", name, found, "the base's own unit and sign, to within a third", remedy, by_name(subject.sample[:2]))


@check("zero_shot.energies", "Are energies totals in eV, by the base's predictions?", needs=("weights",))
def energies(subject: Subject) -> Iterator[Finding]:
    """The slope of what a sum over elements leaves of the labels on what it leaves of the predictions; no zero of energy enters."""
    rows = [(frame, mine) for frame, mine in zip(subject.sample, subject.predictions.energies, strict=True) if frame.has_energy]
    if len(rows) < 2 or _spins_differ([frame for frame, _ in rows]):
        return
    frames, predicted = [frame for frame, _ in rows], np.array([mine for _, mine in rows])
    labels, atoms = np.array([frame.energy for frame in frames]), np.array([len(frame) for frame in frames], dtype=np.float64)
    slope = _slope_without_composition(frames, labels, predicted, atoms)
    usual = float(np.median(atoms))
    examples = by_name(frames[:2])
    if slope is not None and slope.agreement >= CLEAR and not _SLOPE_OF_ONE[0] < slope.value < _SLOPE_OF_ONE[1]:
        found = f"energies vary {slope.value:.3g} times as the base's do (rank correlation {slope.agreement:.2f}, {slope.count} frames)"
        yield _wrong_unit(found, energy_meanings(slope.value, usual, MODELS_ERROR, subject.given_units[0]), examples)
    elif slope is not None and slope.agreement <= -CLEAR:
        found = f"energies vary against the base's (rank correlation {slope.agreement:.2f}, {slope.count} frames)"
        yield Finding("error", "zero_shot.energies", found, "the same sign", "negate the energies", examples)
    elif slope is None:
        yield from _by_ratio(frames, labels, predicted, usual, subject.given_units[0])


@check("zero_shot.zero", "Is the zero of energy that of totals, not of interaction, formation or adsorption?", needs=("weights",))
def zero_of_energy(subject: Subject) -> Iterator[Finding]:
    """Near zero an atom, where the base's atoms are bound by eV; and how far labels are from the base after a fit of the elements."""
    rows = [
        (frame, mine)
        for frame, mine in zip(subject.sample, subject.predictions.energies, strict=True)
        if frame.has_energy and len(frame) > 1
    ]
    if not rows:
        return
    frames, predicted = [frame for frame, _ in rows], np.array([mine for _, mine in rows])
    labels, atoms = np.array([frame.energy for frame in frames]), np.array([len(frame) for frame in frames])
    own, bound = float(np.median(labels / atoms)), _binding(subject, frames, predicted)
    theirs = float(np.median(predicted / atoms))
    found = f"energies are {own:.4g} eV/atom (median), the base's {theirs:.4g}, of which {bound:.3g} is binding; their zeros may differ"
    if abs(own) < INTERACTION_SHARE * abs(bound) and abs(bound) > 0.5:
        remedy = (
            "they look like interaction, formation or other relative energies: train on totals, or make sure that forces belong to the "
            "same quantity (check forces.energies)"
        )
        yield Finding("warning", "zero_shot.zero", found, "totals or cohesive energies", remedy, by_name(frames[:2]))
    else:
        yield Finding("note", "zero_shot.zero", found)
    if _degrees(frames) < FEWEST_DEGREES:
        return
    rms = fit_element_shifts(frames, labels - predicted).rms_after_ev / float(atoms.mean())
    found = f"after a fit of one energy an element, labels of {len(frames)} frames differ from the base by {rms * 1e3:.3g} meV/atom RMS"
    if rms > WORST_FIT_EV_PER_ATOM:
        remedy = "check data.energy_unit, that energies are totals of the frame, and that all frames are of one level of theory"
        yield Finding("warning", "zero_shot.zero", found, f"less than {WORST_FIT_EV_PER_ATOM:g} eV/atom", remedy, by_name(frames[:2]))
    else:
        yield Finding("note", "zero_shot.zero", found)


def _slope_without_composition(
    frames: Sequence[Frame], labels: NDArray[np.float64], predicted: NDArray[np.float64], atoms: NDArray[np.float64]
) -> Slope | None:
    """None where the compositions explain too much of so few frames, or energies hardly vary."""
    mine, theirs = without_composition(frames, predicted), without_composition(frames, labels)
    if _degrees(frames) < FEWEST_DEGREES:
        return None
    if float(np.sqrt(np.mean(np.square(mine / atoms)))) < _LEAST_SPREAD_EV_PER_ATOM:
        return None
    return slope_of(mine, theirs)


def _degrees(frames: Sequence[Frame]) -> int:
    """Of freedom that energies of the elements leave."""
    compositions = {tuple(np.bincount(frame.atomic_numbers)) for frame in frames}
    elements = {int(number) for frame in frames for number in frame.atomic_numbers}
    return len(frames) - min(len(elements), len(compositions))


def _by_ratio(
    frames: Sequence[Frame], labels: NDArray[np.float64], predicted: NDArray[np.float64], usual: float, given_in_ev: float
) -> Iterator[Finding]:
    """Where every frame has another composition: one factor between labels and predictions of all of them."""
    compositions = {tuple(np.bincount(frame.atomic_numbers) / len(frame)) for frame in frames}
    if len(compositions) < _FEWEST_COMPOSITIONS:
        return
    ratios = labels / predicted
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    meanings = energy_meanings(float(middle), usual, given_in_ev=given_in_ev)
    if meanings and high - low < 2 * _RATIO_WINDOW * abs(middle):
        found = f"energies are {middle:.3g} times the base's in frames of {len(compositions)} compositions"
        yield _wrong_unit(found, meanings, by_name(frames[:2]))
        return
    counts = np.array([len(frame) for frame in frames], dtype=np.float64)
    low, middle, high = np.quantile(ratios * counts, (0.25, 0.5, 0.75))
    if len(set(counts)) >= _FEWEST_COMPOSITIONS and abs(middle - 1) < 2 * _RATIO_WINDOW and high - low < 2 * _RATIO_WINDOW:
        found = f"energies are {middle:.3g} times the base's energies per atom, in frames of {len(set(counts))} sizes"
        yield _wrong_unit(found, ["an energy per atom"], by_name(frames[:2]))


def _wrong_unit(found: str, meanings: list[str], frames: tuple[str, ...]) -> Finding:
    if not meanings:
        remedy = "find out their unit, and whether they are totals: data.energy_unit=...; or the base is far off in these structures"
        return Finding("warning", "zero_shot.energies", found, "about 1: totals in eV", remedy, frames)
    remedies = (f"pass data.energy_unit={one} (which forces follow)" if "per atom" not in one else _PER_ATOM for one in meanings)
    remedy = ", or ".join(remedies)
    return Finding(
        "error", "zero_shot.energies", f"{found}: they look like {' or '.join(meanings)}", "about 1: totals in eV", remedy, frames
    )


def _spins_differ(frames: Sequence[Frame]) -> bool:
    """Whether magnetic moments change between frames of one structure: energies of spins, which the base does not see."""
    moments = [frame.magnetic_moments for frame in frames]
    return any(a is not None and b is not None and a.shape == b.shape and np.abs(a - b).max() > 0.05 for a, b in pairwise(moments))


def _binding(subject: Subject, frames: Sequence[Frame], predicted: NDArray[np.float64]) -> float:
    """eV/atom (median), by the base's own isolated atoms."""
    potential = subject.model
    numbers = sorted({int(number) for frame in frames for number in frame.atomic_numbers})
    with subject.base_alone():
        alone = dict(zip(numbers, (one.energy for one in potential.predict([Atoms(numbers=[z]) for z in numbers])), strict=True))
    return float(
        np.median([(mine - sum(alone[int(z)] for z in f.atomic_numbers)) / len(f) for f, mine in zip(frames, predicted, strict=True)])
    )
