"""Structures that two sets of frames share: the leak between training and test that flatters every number.

Compared by geometry alone, because a leak with another label is a leak as well; up to rounding, to a shift of the whole structure and to
lattice vectors, because one published structure comes in several containers. Frames whose atoms are listed in another order, or that are
rotated, are not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.facts import can_wrap
from zoo.data.frame import FloatArray, Frame
from zoo.data.stored_frames import geometry_of, take

Facts = Mapping[str, NDArray[Any]]

SAME_ANGSTROM = 1e-4
"""How far atoms may be apart in one structure in two containers: float32 keeps 100 Å to 1e-5 Å, text with five decimals to half of that.
The first steps of a trajectory that starts at rest lie closer, and are as good as the same structure for a test."""
REPEAT_ANGSTROM = 1e-6
"""How far in a structure that one set holds twice: as a text with six decimals gives it back, and less than any step."""
_SAME_MOMENT = 1e-3  # μ_B
_SLACK_OF_TOLERANCE = 20  # an invariant moves by less than that times what atoms do
_SMALLEST_SLACK = 2e-4
# the mean of all atoms, and two single ones, which say most beside it
_GRID = [0, 2, 4]
_ROWS_AT_ONCE = 20_000
_PAIRS_AT_ONCE = 4_000_000


def overlap_notes(train: Sequence[Frame], valid: Sequence[Frame], tests: Mapping[str, Sequence[Frame]]) -> tuple[str, ...]:
    """One line for every part that shares structures with one drawn before it, e.g. ``"3 frames are in both train and test_300K"``.

    Test sets may share frames among themselves. One geometry with other magnetic moments is another state, and said so.
    """
    notes = []
    facts = {name: geometry_of(frames) for name, frames in {"train": train, "valid": valid}.items()}
    for first_name, first in (("train", train), ("valid", valid)):
        others = {"valid": valid, **tests} if first_name == "train" else tests
        for second_name, second in others.items():
            if not first or not second:
                continue
            found = _matches(first, facts[first_name], second, facts[second_name] if second is valid else geometry_of(second))
            shared = sum(found.values())
            if shared:
                verb = "frame is" if shared == 1 else "frames are"
                notes.append(f"{shared} {verb} in both {first_name} and {second_name}: errors on {second_name} are too optimistic")
            if len(found) > shared:
                count = len(found) - shared
                verb = "frame has" if count == 1 else "frames have"
                notes.append(f"{count} {verb} in {second_name} the geometry, with other spins, of a frame in {first_name}")
    return tuple(notes)


def shared(first: Sequence[Frame], second: Sequence[Frame], tolerance_angstrom: float = SAME_ANGSTROM) -> list[int]:
    """Positions in ``second`` of frames whose structure (and spins) one of ``first`` has, in order."""
    if not first or not second:
        return []
    found = _matches(first, geometry_of(first), second, geometry_of(second), tolerance_angstrom)
    return sorted(position for position, with_spins in found.items() if with_spins)


def without_repeats(frames: Sequence[Frame]) -> Sequence[Frame]:
    """The frames without those whose structure (and spins) an earlier one has."""
    repeated = repeats(frames)
    return take(frames, [index for index in range(len(frames)) if index not in repeated]) if repeated else frames


def repeats(frames: Sequence[Frame]) -> set[int]:
    """Positions of the frames whose structure (and spins) an earlier one has."""
    facts = geometry_of(frames)
    first_of_its_bytes = np.sort(np.unique(facts["exact"], return_index=True)[1])
    repeated = set(range(len(frames))) - set(first_of_its_bytes.tolist()) if len(first_of_its_bytes) < len(frames) else set()
    distinct = {name: values[first_of_its_bytes] for name, values in facts.items()}
    for one, other in _candidates(distinct, distinct, REPEAT_ANGSTROM):
        earlier, later = int(first_of_its_bytes[one]), int(first_of_its_bytes[other])
        if earlier < later and not repeated & {earlier, later} and _same(frames[earlier], frames[later], REPEAT_ANGSTROM):
            repeated.add(later)
    return repeated


def _matches(
    first: Sequence[Frame], facts: Facts, second: Sequence[Frame], other_facts: Facts, tolerance: float = SAME_ANGSTROM
) -> dict[int, bool]:
    """Which frames of ``second`` have the geometry of one of ``first``, and whether with its magnetic moments too (or either has none)."""
    found: dict[int, bool] = {}
    for one, other in _candidates(facts, other_facts, tolerance):
        if not found.get(other) and _same_geometry(first[one], second[other], tolerance):
            found[other] = _same_spins(first[one], second[other])
    return found


def _candidates(first: Facts, second: Facts, tolerance: float) -> Iterator[tuple[int, int]]:
    """(index in first, index in second), the latter ascending, of all pairs whose invariants leave it open whether they are one structure.

    Three of the invariants make a grid of cells, in which each structure of ``second`` has at most eight to look into.
    """
    slack = max(_SLACK_OF_TOLERANCE * tolerance, _SMALLEST_SLACK)
    width = 2 * slack
    keys = _cell_keys(first["composition"], np.floor(first["invariants"][:, _GRID] / width))
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    count = len(second["composition"])
    blocks = [(start, min(start + _ROWS_AT_ONCE, count)) for start in range(0, count, _ROWS_AT_ONCE)][::-1]
    while blocks:
        start, stop = blocks.pop()
        own, compositions = second["invariants"][start:stop], second["composition"][start:stop]
        low, high = (np.floor((own[:, _GRID] + side) / width) for side in (-slack, slack))
        found = []
        for corner in product((False, True), repeat=len(_GRID)):
            apart = ~np.any(np.array(corner) & (low == high), axis=1)  # else this cell was another corner's already
            wanted = _cell_keys(compositions, np.where(corner, high, low))
            begin, end = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
            found.append((begin, np.where(apart, end - begin, 0)))
        if sum(int(counts.sum()) for _, counts in found) > _PAIRS_AT_ONCE and stop - start > 1:
            middle = (start + stop) // 2
            blocks += [(middle, stop), (start, middle)]
            continue
        one, other = np.concatenate([_pairs(begin, counts) for begin, counts in found], axis=1)
        one, other = order[one], other + start
        close = (np.abs(first["invariants"][one] - second["invariants"][other]) <= slack).all(axis=1)
        close &= first["composition"][one] == second["composition"][other]
        one, other = one[close], other[close]
        in_order = np.lexsort((one, other))
        yield from zip(one[in_order].tolist(), other[in_order].tolist(), strict=True)


def _pairs(begin: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(2, sum of counts) every place of the ranges that begin there, and the number of its range."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([np.repeat(begin, counts) + within, np.repeat(np.arange(len(counts)), counts)])


def _cell_keys(composition: NDArray[Any], cells: NDArray[np.float64]) -> NDArray[np.uint64]:
    """(F,) one number for a composition and a cell of the grid (F, 3); two cells with one number only cost a comparison."""
    mixed: NDArray[np.uint64] = composition.astype(np.uint64)
    for column in cells.T:
        mixed = (mixed ^ column.astype(np.int64).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _same(first: Frame, second: Frame, tolerance: float) -> bool:
    return _same_geometry(first, second, tolerance) and _same_spins(first, second)


def _same_geometry(first: Frame, second: Frame, tolerance: float) -> bool:
    """Whether two frames are one structure, up to a shift and whole lattice vectors."""
    if not np.array_equal(first.atomic_numbers, second.atomic_numbers) or not np.array_equal(first.pbc, second.pbc):
        return False
    if first.pbc.any() and not np.allclose(first.cell[first.pbc], second.cell[second.pbc], rtol=0, atol=tolerance):
        return False
    apart: FloatArray = (first.positions - first.positions[0]) - (second.positions - second.positions[0])  # (N, 3)
    if can_wrap(first):
        fractions = np.linalg.solve(first.cell.T, apart.T).T
        fractions -= np.where(first.pbc, np.round(fractions), 0.0)
        apart = fractions @ first.cell
    return bool(np.abs(apart).max() <= tolerance)


def _same_spins(first: Frame, second: Frame) -> bool:
    a, b = first.magnetic_moments, second.magnetic_moments
    return a is None or b is None or bool(np.allclose(a, b, rtol=0, atol=_SAME_MOMENT))
