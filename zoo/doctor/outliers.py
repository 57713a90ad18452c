"""Labels far outside the set's own distribution: one broken frame moves every weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import Frame
from zoo.data.stored_frames import atom_counts
from zoo.doctor.energies import residual_energies
from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.subject import Subject

FEWEST_FRAMES = 5
DEVIATIONS = 8.0
"""Robust standard deviations; of the largest force of a frame in the logarithm. Frames of MD at 300 K and 600 K stay below 5."""
FORCE_RATIO = 5.0
LEAST_FORCE_EV_PER_ANGSTROM = 10.0
"""A bond pulled by 0.2 Å: smaller forces are no accident, even where all other frames are relaxed."""
ENERGY_EV_PER_ATOM = 0.5


@check("outliers.forces", "Has a frame a force far above those of all others?", cheap=True)
def force_outliers(subject: Subject) -> Iterator[Finding]:
    """Judged by the set's own distribution: sets at high pressure have large forces throughout."""
    largest = largest_forces(subject.scanned)
    labelled = np.flatnonzero(np.isfinite(largest))
    if len(labelled) < FEWEST_FRAMES:
        return
    used = np.maximum(largest[labelled], 1e-3)
    usual = float(np.quantile(used, 0.9, method="lower"))  # of few frames, not what an outlier pulls it to
    far = (deviations(np.log(used)) > DEVIATIONS) | (used > 10 * usual)
    chosen = np.flatnonzero(far & (used > FORCE_RATIO * usual) & (used > LEAST_FORCE_EV_PER_ANGSTROM))
    chosen = chosen[np.argsort(-used[chosen])]
    if chosen.size:
        names = tuple(f"{subject.scanned[int(labelled[i])].name} ({used[i]:.3g} eV/Å)" for i in chosen)
        found = f"{chosen.size:,} of {len(labelled):,} frames have forces of up to {used[chosen[0]]:.3g} eV/Å"
        expected = f"forces like the others': 90 % of the frames stay below {usual:.3g} eV/Å"
        remedy = "look at these frames (unconverged? atoms too close?); leave them out, or lower their weight with a huber loss"
        yield Finding("warning", "outliers.forces", found, expected, remedy, names)


@check("outliers.energies", "Has a frame an energy that its composition does not explain?", cheap=True)
def energy_outliers(subject: Subject) -> Iterator[Finding]:
    """Residuals per atom after a fit of one energy an element, against their own spread; free atoms are not bound, and left out."""
    atoms = atom_counts(subject.scanned)
    free = [int(place) for place in np.flatnonzero(atoms == 1) if not subject.scanned[int(place)].pbc.any()]
    residuals = residual_energies(subject.scanned, without=free)
    labelled = np.flatnonzero(np.isfinite(residuals))
    if len(labelled) < FEWEST_FRAMES:
        return
    per_atom = residuals[labelled] / atoms[labelled]
    middle = float(np.median(per_atom))
    far = np.flatnonzero((deviations(per_atom, both_sides=True) > DEVIATIONS) & (np.abs(per_atom - middle) > ENERGY_EV_PER_ATOM))
    far = far[np.argsort(-np.abs(per_atom[far] - middle))]
    if far.size:
        names = tuple(f"{subject.scanned[int(labelled[i])].name} ({per_atom[i]:+.3g} eV/atom)" for i in far)
        most = abs(per_atom[far[0]] - middle)
        found = f"{far.size:,} of {len(labelled):,} frames have energies up to {most:.3g} eV/atom off a sum over elements"
        remedy = "look at these frames: another unit, level of theory or magnetic state, or far from equilibrium"
        yield Finding("warning", "outliers.energies", found, "the spread of the other frames", remedy, names)


def largest_forces(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """(F,) eV/Å, the norm of the largest force on a free atom of each frame; NaN where it has no forces."""
    return np.array([_largest_force(frame) if frame.has_forces else np.nan for frame in frames], dtype=np.float64)


def _largest_force(frame: Frame) -> float:
    return float(np.linalg.norm(frame.forces[frame.free], axis=1).max())


def deviations(values: NDArray[np.float64], both_sides: bool = False) -> NDArray[np.float64]:
    """(F,) how many robust standard deviations (1.4826 MAD) above the median, or away from it."""
    off = values - np.median(values)
    spread = 1.4826 * float(np.median(np.abs(off)))
    return np.asarray((np.abs(off) if both_sides else off) / max(spread, 1e-12), dtype=np.float64)
