"""The embedded set: the same on every machine, small, and with labels that belong to its structures."""

from __future__ import annotations

import numpy as np
import pytest
from ase.calculators.emt import EMT

from zoo.data.emt import POOL_FRAMES, TEST_FRAMES, emt_frames, emt_pool, emt_test
from zoo.data.frame import Frame
from zoo.data.splits import frame_sha256, frames_sha256

POOL_SHA256 = "8d20839eb3dbefdbeb9160f1bed2795b53adb6ec7675a2a56fedddf50c245c53"
TEST_SHA256 = "401c4012e139a5b74abb3691fc37f3c8f3d42983cf71225c8c7b9b895b9fc9e7"


@pytest.fixture(scope="module")
def pool() -> list[Frame]:
    return emt_pool()


def test_the_set_is_the_published_one(pool: list[Frame]) -> None:
    # the records of the quickstart name these hashes
    assert frames_sha256(pool) == POOL_SHA256
    assert frames_sha256(emt_test()) == TEST_SHA256
    assert (len(pool), len(emt_test())) == (POOL_FRAMES, TEST_FRAMES)


def test_another_seed_gives_other_frames_and_no_frame_occurs_twice(pool: list[Frame]) -> None:
    other = emt_frames(20, 77, "other")
    hashes = [frame_sha256(frame) for frame in [*pool, *emt_test(), *other]]
    assert len(set(hashes)) == len(hashes)


def test_frames_are_small_and_of_all_three_kinds(pool: list[Frame]) -> None:
    assert {len(frame) for frame in pool} <= set(range(4, 14))
    assert {tuple(frame.pbc) for frame in pool} == {(True, True, True), (True, True, False), (False, False, False)}
    assert {int(number) for frame in pool for number in frame.atomic_numbers} == {29, 79}


def test_forces_and_stress_are_derivatives_of_the_energy(pool: list[Frame]) -> None:
    step = 1e-4
    for frame in pool[:10]:
        atoms = frame.to_atoms()
        atoms.calc = EMT()
        energies = []
        for sign in (1, -1):
            atoms.positions = frame.positions
            atoms.positions[1, 2] += sign * step
            energies.append(atoms.get_potential_energy())
        assert frame.forces[1, 2] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-5)
        assert frame.has_stress == bool(frame.pbc.all())
        if frame.has_stress:
            strained = []
            for sign in (1, -1):
                deformation = np.eye(3)
                deformation[0, 0] += sign * step
                deformed = frame.to_atoms()
                deformed.set_cell(frame.cell @ deformation, scale_atoms=True)
                deformed.calc = EMT()
                strained.append(deformed.get_potential_energy())
            expected = (strained[0] - strained[1]) / (2 * step) / abs(np.linalg.det(frame.cell))
            assert frame.stress[0, 0] == pytest.approx(expected, abs=1e-6)


def test_structures_are_neither_relaxed_nor_broken(pool: list[Frame]) -> None:
    forces = np.concatenate([frame.forces.ravel() for frame in pool])
    assert 0.2 < np.abs(forces).mean() < 1.0
    assert np.abs(forces).max() < 10.0
