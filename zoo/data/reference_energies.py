"""Energies per element: fitted to a model's own error, or read from a table of isolated atoms.

A foundation model and a new data set rarely share a zero of energy (another functional, other pseudopotentials, total instead of
cohesive energies). The difference is, to first order, a sum over elements, so it is fitted as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.checks import elements_of
from zoo.data.frame import FloatArray, Frame
from zoo.data.keys import LabelKeys
from zoo.data.readers import read_frames
from zoo.errors import ZooError

MAX_ATOMIC_NUMBER = 118


@dataclass(frozen=True)
class ElementShifts:
    """What to add to a model's energy for each atom of an element.

    Attributes:
        shifts: atomic number to eV; elements that no frame holds are absent.
        rank: how many of these the compositions determine independently.
        frames_used: frames that had an energy.
        rms_before_ev: root mean square of the residuals, per frame.
        rms_after_ev: the same after adding the shifts.
    """

    shifts: dict[int, float]
    rank: int
    frames_used: int
    rms_before_ev: float
    rms_after_ev: float

    @property
    def note(self) -> str:
        """One line for the log; says so where single elements have no meaning on their own."""
        text = f"reference energies fitted on {self.frames_used} frames: RMS {self.rms_before_ev:.4g} -> {self.rms_after_ev:.4g} eV"
        if self.rank < len(self.shifts):
            text += (
                f" (the compositions determine {self.rank} of {len(self.shifts)} shifts: the smallest ones that fit were taken, "
                "exact for these compositions only)"
            )
        return text

    def vector(self) -> FloatArray:
        """(119,) eV, indexed by atomic number, zero where no frame holds the element."""
        values = np.zeros(MAX_ATOMIC_NUMBER + 1)
        for number, shift in self.shifts.items():
            values[number] = shift
        return values


def composition_counts(frames: Sequence[Frame], elements: Sequence[int]) -> FloatArray:
    """(F, len(elements)) how many atoms of each element each frame holds."""
    counts = np.zeros((len(frames), len(elements)))
    for row, frame in enumerate(frames):
        for column, number in enumerate(elements):
            counts[row, column] = np.count_nonzero(frame.atomic_numbers == number)
    return counts


def fit_element_shifts(frames: Sequence[Frame], residual_energies_ev: NDArray[np.float64]) -> ElementShifts:
    """Least squares over elements, in float64, with the minimum norm where the compositions leave a choice.

    Args:
        frames: the training frames; validation and test frames must not shift the baseline.
        residual_energies_ev: (F,) label minus the model's energy, eV per frame; NaN rows are left out.

    Raises:
        ZooError: where no frame has a finite residual, or the lengths differ.
    """
    residuals = np.asarray(residual_energies_ev, dtype=np.float64)
    if residuals.shape != (len(frames),):
        raise ZooError(f"{residuals.size} residual energies for {len(frames)} frames; give one per frame")
    used = np.isfinite(residuals)
    if not used.any():
        raise ZooError("no frame has an energy to fit reference energies on; give energies, or switch the re-estimation off")
    kept = [frame for frame, keep in zip(frames, used, strict=True) if keep]
    residuals = residuals[used]
    elements = elements_of(kept)
    counts = composition_counts(kept, elements)  # (F, Z)
    solution, _, rank, _ = np.linalg.lstsq(counts, residuals, rcond=None)
    return ElementShifts(
        shifts={number: float(shift) for number, shift in zip(elements, solution, strict=True)},
        rank=int(rank),
        frames_used=len(kept),
        rms_before_ev=float(np.sqrt(np.mean(residuals**2))),
        rms_after_ev=float(np.sqrt(np.mean((residuals - counts @ solution) ** 2))),
    )


def read_isolated_atoms(path: str | Path, keys: LabelKeys | None = None) -> dict[int, float]:
    """Atomic number to the energy of the isolated atom in eV, from a file with one single-atom frame per element.

    Raises:
        ZooError: for a frame of several atoms, or two different energies of one element.
    """
    energies: dict[int, float] = {}
    for frame in read_frames(path, keys, needs=("energy",)):
        if len(frame) != 1:
            raise ZooError(f"{path}: frame {frame.frame_id} has {len(frame)} atoms, wanted 1; keep only isolated atoms in this file")
        number = int(frame.atomic_numbers[0])
        if energies.setdefault(number, frame.energy) != frame.energy:
            raise ZooError(
                f"{path}: frame {frame.frame_id} gives Z={number} {frame.energy} eV, an earlier frame {energies[number]} eV; keep one"
            )
    return energies
