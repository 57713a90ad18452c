"""Energies per element: fitted to labels or to a model's own error, or read from a table of isolated atoms.

A foundation model and a new data set rarely share a zero of energy (another functional, other pseudopotentials, total instead of
cohesive energies). The difference is, to first order, a sum over elements, so it is fitted as one: the energies e minimise
|r - C e|^2 over frames, where C counts atoms (F, Z).

Where frames are few or alike, C leaves combinations of elements open. These are settled by a ridge towards one common energy per atom:
with e_z = m + d_z, |r - C e|^2 + RIDGE |d|^2 is minimised over m and d. As m goes unpunished, frames of one molecule give all of its
elements the same energy, the mean energy per atom; the minimum norm would give each one in proportion to its count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from zoo.data.checks import elements_of
from zoo.data.frame import FloatArray, Frame
from zoo.data.keys import LabelKeys
from zoo.data.readers import read_frames
from zoo.data.stored_frames import atomic_numbers_of, take
from zoo.errors import ZooError

MAX_ATOMIC_NUMBER = 118
FEW_FRAMES = 5
# In units of frames with one atom of an element, about the least that a frame can say. What the compositions determine, if only by one such
# frame, is moved by about this share of d: 1e-6 eV where energies are -1e5 eV. What they leave open is settled by any positive value; its
# square root, which the fit sees, stays far enough above rounding (1e-16 of the atoms counted) to settle it to 1e-6 of the energies.
RIDGE = 1e-11
_MOST_COUNTS_HELD = 20_000_000
_FRAMES_AT_ONCE = 20_000


@dataclass(frozen=True)
class ElementShifts:
    """What to add to a model's energy for each atom of an element.

    Attributes:
        shifts: atomic number to eV; elements that no frame holds are absent.
        rank: how many combinations of these the compositions determine.
        frames_used: frames that had an energy.
        rms_before_ev: root mean square of the residuals, per frame.
        rms_after_ev: the same after adding the shifts.
        undetermined: elements whose energy the compositions leave open, settled by the ridge.
        rare: elements in fewer than `FEW_FRAMES` frames, whose energy takes up much of the error of these frames.
    """

    shifts: dict[int, float]
    rank: int
    frames_used: int
    rms_before_ev: float
    rms_after_ev: float
    undetermined: tuple[int, ...] = ()
    rare: tuple[int, ...] = ()

    @property
    def note(self) -> str:
        """One line for the log; says so where single elements have no meaning on their own."""
        text = f"reference energies fitted on {self.frames_used} frames: RMS {self.rms_before_ev:.4g} -> {self.rms_after_ev:.4g} eV"
        if self.undetermined:
            text += (
                f"; the compositions determine {self.rank} of {len(self.shifts)} energies and leave {_symbols(self.undetermined)} open: "
                "settled by a ridge towards one common energy per atom, exact for these compositions only"
            )
        if self.rare:
            text += f"; in fewer than {FEW_FRAMES} frames, so uncertain: {_symbols(self.rare)}"
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
    for row, numbers in enumerate(atomic_numbers_of(frames)):
        for column, number in enumerate(elements):
            counts[row, column] = np.count_nonzero(numbers == number)
    return counts


def fit_element_shifts(frames: Sequence[Frame], residual_energies_ev: NDArray[np.float64]) -> ElementShifts:
    """Least squares over elements, in float64, with a ridge where the compositions leave a choice or an element is rare.

    Args:
        frames: the training frames; validation and test frames must not shift the baseline.
        residual_energies_ev: (F,) label minus the model's energy, or the label itself, eV per frame; NaN rows are left out.

    Raises:
        ZooError: where no frame has a finite residual, or the lengths differ.
    """
    residuals = np.asarray(residual_energies_ev, dtype=np.float64)
    if residuals.shape != (len(frames),):
        raise ZooError(f"{residuals.size} residual energies for {len(frames)} frames; give one per frame")
    used = np.isfinite(residuals)
    if not used.any():
        raise ZooError("no frame has an energy to fit reference energies on; give energies, or switch the re-estimation off")
    kept = take(frames, np.flatnonzero(used).tolist())
    residuals = residuals[used]
    elements = elements_of(kept)
    counts, wanted, occurrences = _rows_to_fit(kept, elements, residuals)
    least_squares, _, rank, _ = np.linalg.lstsq(counts, wanted, rcond=None)
    solution = least_squares.astype(np.float64)
    undetermined = _undetermined(counts, int(rank))
    rare = occurrences < FEW_FRAMES
    if undetermined.any() or rare.any():
        solution = _ridge(counts, solution)
    return ElementShifts(
        shifts={number: float(shift) for number, shift in zip(elements, solution, strict=True)},
        rank=int(rank),
        frames_used=len(kept),
        rms_before_ev=float(np.sqrt(np.mean(residuals**2))),
        rms_after_ev=float(np.sqrt(np.mean((residuals - _sums(kept, elements, counts, solution)) ** 2))),
        undetermined=tuple(number for number, is_open in zip(elements, undetermined, strict=True) if is_open),
        rare=tuple(number for number, is_rare in zip(elements, rare, strict=True) if is_rare),
    )


def _rows_to_fit(
    frames: Sequence[Frame], elements: Sequence[int], residuals: FloatArray
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """(counts, residuals, frames with each element): a row a frame or, for very many frames, a row an element.

    In the latter case these are R and Q^T r of counts = Q R, joined piece by piece: least squares over them are those over the frames.
    """
    if len(frames) * len(elements) <= _MOST_COUNTS_HELD:
        counts = composition_counts(frames, elements)  # (F, Z)
        return counts, residuals, np.count_nonzero(counts, axis=0)
    joined, occurrences = np.empty((0, len(elements) + 1)), np.zeros(len(elements), dtype=np.int64)
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        counts = composition_counts(frames[start : start + _FRAMES_AT_ONCE], elements)
        occurrences += np.count_nonzero(counts, axis=0)
        joined = _factor(np.vstack((joined, np.column_stack((counts, residuals[start : start + _FRAMES_AT_ONCE])))))
    return joined[:, :-1], joined[:, -1], occurrences


def _sums(frames: Sequence[Frame], elements: Sequence[int], counts: FloatArray, energies: FloatArray) -> FloatArray:
    """(F,) eV: the elements' energies summed over each frame's atoms; ``counts`` of `_rows_to_fit`."""
    if len(counts) == len(frames):
        return counts @ energies
    starts = range(0, len(frames), _FRAMES_AT_ONCE)
    return np.concatenate([composition_counts(frames[start : start + _FRAMES_AT_ONCE], elements) @ energies for start in starts])


def _undetermined(counts: FloatArray, rank: int) -> NDArray[np.bool_]:
    """(Z,) the elements that occur in a combination which no frame sees: a null vector of ``counts`` (F, Z)."""
    null_vectors = np.linalg.svd(_factor(counts))[2][rank:]  # (Z - rank, Z), orthonormal
    open_elements: NDArray[np.bool_] = np.linalg.norm(null_vectors, axis=0) > 1e-6
    return open_elements


def _factor(counts: FloatArray) -> FloatArray:
    """(min(F, Z), Z) R of ``counts`` = Q R: as long as ``counts`` in every direction, however many frames there are."""
    factor: FloatArray = np.linalg.qr(counts)[1]
    return factor


def _ridge(counts: FloatArray, least_squares: FloatArray) -> FloatArray:
    """(Z,) the energies e_z = m + d_z that minimise |C (least_squares - e)|^2 + RIDGE |d|^2, with C = ``counts`` (F, Z).

    Against |r - C e|^2 this leaves out only what no e can fit, and R of C = QR stands in for C: a system of 2Z rows, without the noise and
    the number of the frames, so that rounding does not reach the directions that the ridge alone holds.
    """
    factor = _factor(counts)
    size = counts.shape[1]
    per_atom = factor.sum(axis=1, keepdims=True)
    penalty = np.hstack((np.zeros((size, 1)), np.sqrt(RIDGE) * np.eye(size)))
    rows = np.vstack((np.hstack((per_atom, factor)), penalty))  # (min(F, Z) + Z, 1 + Z), unknowns m and d
    wanted = np.concatenate((factor @ least_squares, np.zeros(size)))
    solution = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    energies: FloatArray = solution[0] + solution[1:]
    return energies


def _symbols(numbers: Sequence[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in numbers)


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
