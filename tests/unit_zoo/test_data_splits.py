"""Splits by seed, hashes that name a set of frames, and leaks between parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zoo.data.emt import emt_frames
from zoo.data.frame import Frame
from zoo.data.overlap import overlap_notes
from zoo.data.splits import SplitSizes, frame_sha256, frames_sha256, random_split, seeded_permutation
from zoo.errors import ZooError


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return emt_frames(8, 5, "some")


def test_the_permutation_is_this_one_for_ever() -> None:
    # a change here silently moves every split of every record made so far
    assert seeded_permutation(10, 0).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    assert sorted(seeded_permutation(1000, 3, 4)) == list(range(1000))
    assert seeded_permutation(10, 0, 1).tolist() != seeded_permutation(10, 0).tolist() != seeded_permutation(10, 1).tolist()


def test_parts_are_disjoint_and_of_the_sizes_asked_for() -> None:
    split = random_split(100, (50, 20, 30), seed=7)
    assert [len(split.train), len(split.valid), len(split.test)] == [50, 20, 30]
    assert sorted(split.train + split.valid + split.test) == list(range(100))
    # test first, so that no choice of the other sizes moves it
    assert [*split.test, *split.valid, *split.train] == seeded_permutation(100, 7).tolist()
    assert split == random_split(100, (50, 20, 30), seed=7)
    assert split != random_split(100, (50, 20, 30), seed=8)


def test_a_larger_training_set_adds_frames_and_moves_none() -> None:
    small, large = random_split(100, (10, 20, 30), seed=7), random_split(100, (40, 20, 30), seed=7)
    assert large.train[:10] == small.train
    assert (large.valid, large.test) == (small.valid, small.test)


@pytest.mark.parametrize(
    ("sizes", "resolved"),
    [
        (SplitSizes(), (90, 10, 0)),
        (SplitSizes(n_train=50), (50, 10, 0)),
        (SplitSizes(n_train=50, n_valid=50), (50, 50, 0)),
        (SplitSizes(n_test=None, test_fraction=0.1), (80, 10, 10)),
        (SplitSizes(n_valid=25, n_test=5), (70, 25, 5)),
        (SplitSizes(valid_fraction=0.001), (99, 1, 0)),
    ],
)
def test_sizes_left_open_are_shares_or_the_rest(sizes: SplitSizes, resolved: tuple[int, int, int]) -> None:
    assert sizes.resolve(100, "set") == resolved


@pytest.mark.parametrize("sizes", [SplitSizes(n_train=95), SplitSizes(n_valid=100), SplitSizes(n_train=50, n_valid=40, n_test=11)])
def test_sizes_that_do_not_fit_are_refused(sizes: SplitSizes) -> None:
    with pytest.raises(ZooError, match=r"my set: 100 frames cannot give n_train=.*lower data.n_train"):
        sizes.resolve(100, "my set")


@pytest.mark.parametrize("field", ["atomic_numbers", "positions", "cell", "pbc", "energy", "forces", "stress"])
def test_the_hash_sees_every_field_that_matters(frames: list[Frame], field: str) -> None:
    frame = frames[0]
    value = getattr(frame, field)
    if field == "pbc":
        changed = ~value
    elif field == "atomic_numbers":
        changed = value[::-1] + 1
    else:
        changed = np.nextafter(value, np.inf)
    changed = float(changed) if field == "energy" else changed
    assert frame_sha256(replace(frame, **{field: changed})) != frame_sha256(frame)


def test_the_hash_ignores_where_a_frame_comes_from_and_the_order_of_frames(frames: list[Frame]) -> None:
    assert frame_sha256(replace(frames[0], source="other", frame_id=9)) == frame_sha256(frames[0])
    assert frames_sha256(frames[::-1]) == frames_sha256(frames)
    assert frames_sha256([*frames, frames[0]]) != frames_sha256(frames)


def test_minus_zero_and_other_nans_hash_as_zero_and_nan(frames: list[Frame]) -> None:
    other_nan = np.array([0x7FF8000000000001], dtype=np.uint64).view(np.float64)[0]
    plus = replace(frames[0], energy=0.0, stress=np.full((3, 3), np.nan))
    minus = replace(frames[0], energy=-0.0, stress=np.full((3, 3), other_nan))
    assert plus.stress.tobytes() != minus.stress.tobytes()
    assert frame_sha256(plus) == frame_sha256(minus)


def test_frames_shared_by_training_and_test_are_counted(frames: list[Frame]) -> None:
    relabelled = [replace(frame, energy=0.0) for frame in frames[:2]]
    assert overlap_notes(frames[:4], frames[4:6], {"test": frames[6:]}) == ()
    notes = overlap_notes(frames[:4], frames[4:6], {"test": [*relabelled, frames[4]], "again": relabelled})
    assert notes == (
        "2 frames are in both train and test: errors on test are too optimistic",
        "2 frames are in both train and again: errors on again are too optimistic",
        "1 frame is in both valid and test: errors on test are too optimistic",
    )
