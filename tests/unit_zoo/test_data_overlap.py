"""Leaks between parts are found whatever container the structures came in, and neighbours on a trajectory are no leak."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from zoo.data import overlap
from zoo.data.frame import FloatArray, Frame
from zoo.data.overlap import overlap_notes, without_repeats
from zoo.data.parts import draw
from zoo.data.splits import SplitSizes


def molecules(count: int = 30, step: float = 0.01) -> list[Frame]:
    """A trajectory of benzene: every frame a small random step from the one before."""
    random = np.random.default_rng(3)
    atoms = molecule("C6H6")
    frames = []
    for index in range(count):
        atoms.positions += random.normal(scale=step, size=(12, 3))
        frames.append(Frame.unlabelled(atoms, "md.xyz", index))
    return frames


def crystals(count: int = 30) -> list[Frame]:
    random = np.random.default_rng(4)
    atoms: Atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    frames = []
    for index in range(count):
        atoms.positions += random.normal(scale=0.01, size=(8, 3))
        frames.append(Frame.unlabelled(atoms, "md.xyz", index))
    return frames


def as_float32(frame: Frame) -> Frame:
    positions, cell = (values.astype(np.float32).astype(np.float64) for values in (frame.positions, frame.cell))
    return replace(frame, positions=positions, cell=cell)


def shifted(frame: Frame) -> Frame:
    return replace(frame, positions=frame.positions + np.array([1.0, -20.0, 0.3]))


def wrapped(frame: Frame) -> Frame:
    cells: FloatArray = np.random.default_rng(5).integers(-2, 3, size=(len(frame), 3)) @ frame.cell
    return replace(frame, positions=frame.positions + cells)


def five_decimals(frame: Frame) -> Frame:
    return replace(frame, positions=np.round(frame.positions, 5))


@pytest.mark.parametrize("change", [as_float32, shifted, five_decimals, lambda frame: as_float32(shifted(frame))])
@pytest.mark.parametrize("frames", [molecules(), crystals()], ids=["molecules", "crystals"])
def test_every_copy_is_found_in_another_container(frames: list[Frame], change) -> None:
    (note,) = overlap_notes(frames[:20], [], {"test": [change(frame) for frame in frames[:15]] + frames[20:]})
    assert note == "15 frames are in both train and test: errors on test are too optimistic"


def test_atoms_that_another_code_wrapped_are_the_same_atoms() -> None:
    frames = crystals()
    (note,) = overlap_notes(frames[:20], [], {"test": [shifted(wrapped(frame)) for frame in frames[10:30]]})
    assert note.startswith("10 frames are")
    molecules_in_no_cell = molecules(4)
    assert overlap_notes(molecules_in_no_cell[:2], [], {"test": molecules_in_no_cell[2:]}) == ()


def test_frames_of_a_slow_start_are_a_leak_between_parts_but_no_repeats_within_one() -> None:
    frames = molecules(10, step=1e-5)
    assert without_repeats(frames) == frames
    (note,) = overlap_notes(frames[::2], [], {"test": frames[1::2]})
    assert note.startswith("5 frames are")


@pytest.mark.parametrize("frames", [molecules(step=0.001), crystals()], ids=["molecules", "crystals"])
def test_neighbours_on_a_trajectory_are_other_structures(frames: list[Frame]) -> None:
    assert overlap_notes(frames[::2], [], {"test": frames[1::2]}) == ()


def test_other_elements_or_cells_at_the_same_places_are_other_structures() -> None:
    frame = crystals(1)[0]
    other = replace(frame, atomic_numbers=np.where(frame.atomic_numbers == 11, 19, frame.atomic_numbers))
    stretched = replace(frame, cell=frame.cell * 1.001)
    molecule_like = replace(frame, pbc=np.zeros(3, dtype=bool))
    assert overlap_notes([frame], [], {"test": [other, stretched, molecule_like]}) == ()


def test_a_structure_that_a_pool_holds_twice_is_drawn_once_and_the_line_says_so() -> None:
    frames = molecules(20)
    pool = [*frames, *[replace(frame, positions=np.round(frame.positions, 7)) for frame in frames[:5]]]
    assert len(without_repeats(pool)) == 20
    drawn = draw(pool, SplitSizes(valid_fraction=0.25, test_fraction=0.25), 0, "x")
    assert (len(drawn.train), len(drawn.valid), len(drawn.test)) == (10, 5, 5)
    assert drawn.text.endswith("(repeated frames left out: 5)")
    assert overlap_notes(drawn.train, drawn.valid, {"test": drawn.test}) == ()
    plain = draw(frames, SplitSizes(valid_fraction=0.25, test_fraction=0.25), 0, "x")
    assert "repeated" not in plain.text
    assert [frame.frame_id for frame in plain.train] == [frame.frame_id for frame in drawn.train]


@pytest.mark.parametrize("frames", [molecules(60, 0.001), crystals(60)], ids=["molecules", "crystals"])
@pytest.mark.parametrize("pairs_at_once", [1, 10**6])
def test_the_pairs_that_are_looked_at_hide_no_shared_structure(frames: list[Frame], pairs_at_once: int, monkeypatch) -> None:
    random = np.random.default_rng(1)
    copies = [replace(frame, positions=frame.positions + random.uniform(-4e-5, 4e-5, frame.positions.shape)) for frame in frames[10:35]]
    others = [*copies, *(shifted(frame) for frame in frames[50:])]
    every = sum(any(overlap._same_geometry(first, second, overlap.SAME_ANGSTROM) for first in frames[:55]) for second in others)
    monkeypatch.setattr(overlap, "_PAIRS_AT_ONCE", pairs_at_once)
    monkeypatch.setattr(overlap, "_ROWS_AT_ONCE", 7)
    (note,) = overlap_notes(frames[:55], [], {"test": others})
    assert note.startswith(f"{every} frames are in both")
    assert every >= 30


def test_many_frames_of_one_trajectory_leave_few_pairs_to_look_at() -> None:
    frames = molecules(2000, 0.02)
    facts = overlap.geometry_of(frames)
    assert len(list(overlap._candidates(facts, facts, overlap.SAME_ANGSTROM))) < 2 * len(frames)
