"""What makes two frames different: their hash, which records carry, and whether they count as shared between two parts."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from zoo.data.frame import Frame
from zoo.data.overlap import overlap_notes
from zoo.data.splits import frame_sha256, frames_sha256

RARE: dict[str, Any] = {
    "fixed": np.array([True, False]),
    "magnetic_moments": np.array([[0.0, 0.0, 2.0], [0.0, 0.0, -2.0]]),
    "magnetic_forces": np.array([[0.0, 0.1, 0.0], [0.0, 0.0, 0.2]]),
    "relaxed_positions": np.array([[0.0, 0.0, 0.0], [1.9, 0.0, 0.0]]),
    "relaxed_energy": -7.5,
}
CHANGED: dict[str, Any] = {
    "fixed": np.array([False, True]),
    "magnetic_moments": np.array([[0.0, 0.0, 2.0], [0.0, 0.0, np.nextafter(-2.0, 0)]]),
    "magnetic_forces": np.array([[0.0, 0.1, 0.0], [0.0, 0.0, np.nextafter(0.2, 1)]]),
    "relaxed_positions": np.array([[0.0, 0.0, 0.0], [np.nextafter(1.9, 2), 0.0, 0.0]]),
    "relaxed_energy": np.nextafter(-7.5, 0),
}


@pytest.fixture
def plain() -> Frame:
    """A frame as those of the first release: without anything in `RARE`, and without a stress."""
    return Frame(
        atomic_numbers=np.array([28, 8], dtype=np.int64),
        positions=np.array([[0.0, -0.0, 0.125], [2.0, 0.0, 1.0]]),
        cell=np.diag([4.0, 5.0, 6.0]),
        pbc=np.array([True, True, False]),
        energy=-6.25,
        forces=np.array([[0.5, 0.0, -1.0], [-0.5, 0.0, 1.0]]),
        stress=np.full((3, 3), math.nan),
        source="a.xyz",
        frame_id=3,
    )


@pytest.fixture
def whole(plain: Frame) -> Frame:
    """The same with all of them."""
    return replace(plain, **RARE)


def _hash_of_the_first_release(frame: Frame) -> str:
    """SHA-256 over little-endian int64 numbers, bytes of pbc, then float64 positions, cell, energy, forces, stress; one zero, one NaN."""
    content = frame.atomic_numbers.astype("<i8").tobytes() + bytes(int(one) for one in frame.pbc)
    for values in (frame.positions, frame.cell, frame.energy, frame.forces, frame.stress):
        numbers = np.array(values, dtype="<f8").ravel()
        numbers[numbers == 0] = 0.0
        numbers[np.isnan(numbers)] = math.nan
        content += numbers.tobytes()
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("field", RARE)
def test_the_hash_sees_each_rare_field_and_its_last_bit(field: str, whole: Frame, plain: Frame) -> None:
    absent = replace(whole, **{field: getattr(plain, field)})
    changed = replace(whole, **{field: CHANGED[field]})
    assert len({frame_sha256(frame) for frame in (whole, absent, changed)}) == 3
    alone, other = replace(plain, **{field: RARE[field]}), replace(plain, **{field: CHANGED[field]})
    assert len({frame_sha256(frame) for frame in (plain, alone, other)}) == 3
    copied = replace(whole, **{field: np.copy(RARE[field]) if field != "relaxed_energy" else RARE[field]})
    assert frame_sha256(copied) == frame_sha256(whole)


def test_one_array_under_two_names_is_two_frames(plain: Frame) -> None:
    vectors = RARE["magnetic_forces"]
    names = ("magnetic_moments", "magnetic_forces", "relaxed_positions")
    assert len({frame_sha256(replace(plain, **{name: vectors})) for name in names}) == 3


def test_frames_without_rare_fields_hash_as_they_did_in_the_first_release(plain: Frame) -> None:
    assert frame_sha256(plain) == _hash_of_the_first_release(plain)
    assert frame_sha256(plain) == "37372f91822a1769966d4bc4b48d5c92f20c6b870b5cf1425ad9db4da6cd8b33"
    # a change here silently breaks every record made so far
    assert frames_sha256([plain, plain]) == "4779b3f7fed2afede0bc4d87b579b8db1704068754271bfb68c65e6e421afef7"
    assert frame_sha256(replace(plain, **RARE)) != _hash_of_the_first_release(replace(plain, **RARE))


@pytest.mark.parametrize("field", ["magnetic_moments", "magnetic_forces", "relaxed_positions"])
def test_minus_zero_hashes_as_zero_in_rare_fields_too(field: str, plain: Frame) -> None:
    plus, minus = np.zeros((2, 3)), -np.zeros((2, 3))
    assert plus.tobytes() != minus.tobytes()
    assert frame_sha256(replace(plain, **{field: plus})) == frame_sha256(replace(plain, **{field: minus}))
    assert frame_sha256(replace(plain, **{field: plus})) != frame_sha256(plain)


@pytest.mark.parametrize("field", ["tags", "identifier", "source", "frame_id", "level_of_theory"])
def test_names_and_tags_are_not_hashed(field: str, whole: Frame) -> None:
    other = {"tags": np.array([0, 2]), "identifier": "random1", "source": "b.xyz", "frame_id": 4, "level_of_theory": "PBE+U"}
    assert frame_sha256(replace(whole, **{field: other[field]})) == frame_sha256(whole)


def test_one_geometry_with_other_spins_is_not_shared_and_with_equal_spins_is(plain: Frame) -> None:
    up = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 2.0]])
    up_up, up_down = replace(plain, magnetic_moments=up), replace(plain, magnetic_moments=up * [[1], [-1]])
    (note,) = overlap_notes([up_up], [], {"test": [up_down]})
    assert note == "1 frame has in test the geometry, with other spins, of a frame in train"
    # a container without the moments must not hide the leak
    (note,) = overlap_notes([up_up], [], {"test": [plain]})
    assert note == "1 frame is in both train and test: errors on test are too optimistic"
    shared, other = overlap_notes([up_up], [], {"test": [up_down, replace(up_up, energy=0.0, magnetic_forces=up)]})
    assert shared == "1 frame is in both train and test: errors on test are too optimistic"
    assert other.startswith("1 frame has in test the geometry")
    # as a text format gives them back
    (note,) = overlap_notes([], [up_up], {"test": [replace(up_up, magnetic_moments=up + 1e-8)]})
    assert note.startswith("1 frame is in both valid and test")


@pytest.mark.parametrize("field", ["fixed", "magnetic_forces", "relaxed_positions", "relaxed_energy", "tags"])
def test_other_labels_of_one_structure_do_not_hide_that_it_is_shared(field: str, whole: Frame) -> None:
    relabelled = replace(whole, **{field: {**CHANGED, "tags": np.array([1, 2])}[field]})
    assert overlap_notes([whole], [], {"test": [relabelled]}) == ("1 frame is in both train and test: errors on test are too optimistic",)
