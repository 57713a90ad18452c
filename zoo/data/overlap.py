"""Structures that two sets of frames share: the leak between training and test that flatters every number.

Compared by geometry alone, because a leak with another label is a leak as well; up to rounding, to a shift of the whole structure and to
lattice vectors, because one published structure comes in several containers. Frames whose atoms are listed in another order, or that are
rotated, are not found.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from zoo.data.frame import FloatArray, Frame

SAME_ANGSTROM = 1e-4
"""How far atoms may be apart in one structure in two containers: float32 keeps 100 Å to 1e-5 Å, text with five decimals to half of that.
The first steps of a trajectory that starts at rest lie closer, and are as good as the same structure for a test."""
REPEAT_ANGSTROM = 1e-6
"""How far in a structure that one set holds twice: as a text with six decimals gives it back, and less than any step."""
_SAME_MOMENT = 1e-3  # μ_B
_SUMMARY_SLACK = 2e-3


def overlap_notes(train: Sequence[Frame], valid: Sequence[Frame], tests: Mapping[str, Sequence[Frame]]) -> tuple[str, ...]:
    """One line for every part that shares structures with one drawn before it, e.g. ``"3 frames are in both train and test_300K"``.

    Test sets may share frames among themselves. One geometry with other magnetic moments is another state, and said so.
    """
    notes = []
    for first_name, first in (("train", train), ("valid", valid)):
        known = Geometries(first)
        others = {"valid": valid, **tests} if first_name == "train" else tests
        for second_name, second in others.items():
            found = [match for frame in second if (match := known.match(frame)) is not None]
            shared = sum(same_spins for same_spins in found)
            if shared:
                verb = "frame is" if shared == 1 else "frames are"
                notes.append(f"{shared} {verb} in both {first_name} and {second_name}: errors on {second_name} are too optimistic")
            if len(found) > shared:
                count = len(found) - shared
                verb = "frame has" if count == 1 else "frames have"
                notes.append(f"{count} {verb} in {second_name} the geometry, with other spins, of a frame in {first_name}")
    return tuple(notes)


def without_repeats(frames: Sequence[Frame]) -> list[Frame]:
    """The frames without those whose structure (and spins) an earlier one has."""
    known = Geometries((), REPEAT_ANGSTROM)
    kept = []
    for frame in frames:
        if not known.match(frame):
            known.add(frame)
            kept.append(frame)
    return kept


class Geometries:
    """Structures that can be asked whether one of them is a given frame's, to within ``tolerance_angstrom``."""

    def __init__(self, frames: Sequence[Frame], tolerance_angstrom: float = SAME_ANGSTROM) -> None:
        self._tolerance = tolerance_angstrom
        # by elements and periodicity, then sorted by a number that neither a shift nor a wrapped atom changes
        self._groups: defaultdict[bytes, list[tuple[float, int]]] = defaultdict(list)
        self._frames: list[Frame] = []
        for frame in frames:
            self.add(frame)

    def add(self, frame: Frame) -> None:
        """Take one more structure in."""
        insort(self._groups[_composition(frame)], (_summary(frame), len(self._frames)))
        self._frames.append(frame)

    def match(self, frame: Frame) -> bool | None:
        """None where no structure is the frame's; else whether one of them has its magnetic moments too (or either has none)."""
        group, summary = self._groups.get(_composition(frame), []), _summary(frame)
        found: bool | None = None
        for value, index in group[bisect_left(group, (summary - _SUMMARY_SLACK, -1)) :]:
            if value > summary + _SUMMARY_SLACK:
                break
            other = self._frames[index]
            if _same_geometry(frame, other, self._tolerance):
                found = found or _same_spins(frame, other)
        return found


def _composition(frame: Frame) -> bytes:
    return frame.atomic_numbers.astype("<i8").tobytes() + frame.pbc.astype("u1").tobytes()


def _summary(frame: Frame) -> float:
    """A number that moves by less than `_SUMMARY_SLACK` where atoms move by `SAME_ANGSTROM`."""
    relative = frame.positions - frame.positions[0]  # (N, 3)
    if not _can_wrap(frame):
        return float(np.linalg.norm(relative, axis=1).mean())
    fractions = np.linalg.solve(frame.cell.T, relative.T)[frame.pbc]  # (periodic, N)
    return float(np.cbrt(abs(np.linalg.det(frame.cell))) + np.cos(2 * np.pi * fractions).mean())


def _same_geometry(first: Frame, second: Frame, tolerance: float) -> bool:
    """Whether two frames of the same elements and periodicity are one structure, up to a shift and whole lattice vectors."""
    if first.pbc.any() and not np.allclose(first.cell[first.pbc], second.cell[second.pbc], rtol=0, atol=tolerance):
        return False
    apart: FloatArray = (first.positions - first.positions[0]) - (second.positions - second.positions[0])  # (N, 3)
    if _can_wrap(first):
        fractions = np.linalg.solve(first.cell.T, apart.T).T
        fractions -= np.where(first.pbc, np.round(fractions), 0.0)
        apart = fractions @ first.cell
    return bool(np.abs(apart).max() <= tolerance)


def _same_spins(first: Frame, second: Frame) -> bool:
    a, b = first.magnetic_moments, second.magnetic_moments
    return a is None or b is None or bool(np.allclose(a, b, rtol=0, atol=_SAME_MOMENT))


def _can_wrap(frame: Frame) -> bool:
    return bool(frame.pbc.any()) and abs(np.linalg.det(frame.cell)) > 0
