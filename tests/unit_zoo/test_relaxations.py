"""Relaxations with EMT in the part of DFT, and with EMT or something worse in the part of the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.optimize import BFGS

import zoo
from tests.refusals import refusal_of
from zoo.data.frame import FloatArray, Frame
from zoo.data.keys import LabelKeys
from zoo.data.readers import read_frames
from zoo.errors import ZooError
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.relaxations import RelaxedStructures, average_force_below_threshold, relax_frames, relaxation_metrics


class PushedEMT(EMT):
    """EMT with a uniform field on the oxygen atoms, a wrong model."""

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = ("positions",)) -> None:
        super().calculate(atoms, properties, system_changes)
        oxygen = self.atoms.numbers == 8
        self.results["forces"] = self.results["forces"] + 0.5 * oxygen[:, None] * np.array([0.0, 0.0, 1.0])
        self.results["energy"] -= 0.5 * self.atoms.positions[oxygen, 2].sum()


class Model:
    """What `relax_frames` needs of a potential."""

    def __init__(self, make: Callable[[], Calculator]) -> None:
        self.calculator = make


def slab(seed: int) -> Atoms:
    """O on Cu(111) with the lower layer fixed and everything else rattled, one atom across the cell's edge."""
    atoms = fcc111("Cu", size=(2, 2, 2), vacuum=6.0)
    add_adsorbate(atoms, "O", 1.3, "fcc")
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 2))
    atoms.set_positions(atoms.positions + np.random.RandomState(seed).normal(0, 0.05, (len(atoms), 3)))
    atoms.pbc = True
    return atoms


def relaxed_by_emt(index: int) -> Frame:
    """A frame with its relaxed energy and positions as another optimiser finds them, tightly converged and wrapped into the cell."""
    atoms = slab(index)
    fixed = np.isin(np.arange(len(atoms)), atoms.constraints[0].index)
    start = replace(Frame.unlabelled(atoms, "slabs.xyz", index), fixed=fixed)
    atoms.calc = EMT()
    assert BFGS(atoms, logfile=None).run(fmax=1e-4, steps=500)
    energy = atoms.get_potential_energy()
    atoms.wrap()
    return replace(start, relaxed_energy=energy, relaxed_positions=atoms.positions.copy())


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [relaxed_by_emt(index) for index in range(3)]


@pytest.fixture(scope="module")
def exact(frames: list[Frame]) -> RelaxedStructures:
    return relax_frames(Model(EMT), frames)


def single_points(frames: Sequence[Frame], relaxed: RelaxedStructures, path: Path, failed: Sequence[int] = ()) -> list[Frame]:
    """EMT's forces at the relaxed structures, through a file; calculations that ``failed`` have none."""
    images = []
    for index, (frame, positions) in enumerate(zip(frames, relaxed.positions, strict=True)):
        atoms = frame.to_atoms()
        atoms.set_constraint()
        atoms.positions = positions
        atoms.wrap()
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy()} | ({} if index in failed else {"forces": atoms.get_forces()})
        atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")
    return read_frames(path, LabelKeys())


def test_the_reference_method_as_model_finds_the_reference_relaxations(frames: list[Frame], exact: RelaxedStructures) -> None:
    metrics = relaxation_metrics(exact, frames)
    assert exact.converged.all()
    assert (exact.steps > 3).all()
    assert metrics["relaxed_energy_mae_mev"] < 2.0
    assert metrics["relaxed_energy_within_threshold_percent"] == 100.0
    assert metrics["average_distance_within_threshold_percent"] > 99.0
    assert set(metrics) < set(METRICS)


def test_the_structures_before_relaxation_and_a_wrong_model_score_lower(frames: list[Frame], exact: RelaxedStructures) -> None:
    best = relaxation_metrics(exact, frames)
    unrelaxed = replace(exact, positions=tuple(frame.positions for frame in frames))
    wrong = relax_frames(Model(PushedEMT), frames)
    assert wrong.converged.all()
    for other in (unrelaxed, wrong):
        metrics = relaxation_metrics(other, frames)
        assert metrics["average_distance_within_threshold_percent"] < best["average_distance_within_threshold_percent"] - 3
    assert relaxation_metrics(wrong, frames)["relaxed_energy_within_threshold_percent"] == 0.0


def test_energies_and_forces_are_those_at_the_final_positions(frames: list[Frame], exact: RelaxedStructures) -> None:
    for frame, positions, energy in zip(frames, exact.positions, exact.energies, strict=True):
        atoms = frame.to_atoms()
        atoms.set_constraint()
        atoms.positions, atoms.calc = positions, EMT()
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-10)
        assert np.linalg.norm(atoms.get_forces()[frame.free], axis=1).max() < 0.02


def test_fixed_atoms_do_not_move_by_a_bit_and_free_ones_do(frames: list[Frame], exact: RelaxedStructures) -> None:
    for frame, positions in zip(frames, exact.positions, strict=True):
        assert frame.fixed is not None
        assert frame.fixed.sum() == 4
        assert positions[frame.fixed].tobytes() == frame.positions[frame.fixed].tobytes()
        assert (np.abs(positions[frame.free] - frame.positions[frame.free]).max(axis=1) > 1e-4).all()
    everything_free = relax_frames(Model(EMT), [replace(frames[0], fixed=None)])
    assert np.abs(everything_free.positions[0][:4] - frames[0].positions[:4]).max() > 1e-4  # positive control


def test_distances_of_fixed_atoms_do_not_count(frames: list[Frame], exact: RelaxedStructures) -> None:
    frame = frames[0]
    assert frame.relaxed_positions is not None
    moved = frame.relaxed_positions + 0.4 * ~frame.free[:, None]
    first = replace(exact, names=exact.names[:1], positions=exact.positions[:1], energies=exact.energies[:1])
    assert relaxation_metrics(first, [replace(frame, relaxed_positions=moved)]) == relaxation_metrics(first, [frame])
    moved_free = frame.relaxed_positions + 0.4 * frame.free[:, None]
    assert relaxation_metrics(first, [replace(frame, relaxed_positions=moved_free)])["average_distance_within_threshold_percent"] == 0.0


def test_labels_that_no_frame_has_give_no_metric(frames: list[Frame], exact: RelaxedStructures) -> None:
    bare = [replace(frame, relaxed_energy=float("nan"), relaxed_positions=None) for frame in frames]
    assert relaxation_metrics(exact, bare) == {}
    one = relaxation_metrics(exact, [frames[0], *bare[1:]])
    assert one["relaxed_energy_mae_mev"] == pytest.approx(1000 * abs(exact.energies[0] - frames[0].relaxed_energy))


def test_a_relaxation_out_of_steps_is_reported_and_still_counts(frames: list[Frame]) -> None:
    done: list[int] = []
    short = relax_frames(Model(EMT), frames, max_steps=2, progress=done.append)
    assert not short.converged.any()
    assert short.steps.tolist() == [2, 2, 2]
    assert done == [1, 2, 3]
    assert relaxation_metrics(short, frames)["average_distance_within_threshold_percent"] > 0


def test_the_force_score_is_high_for_the_reference_and_lower_for_a_wrong_model(
    frames: list[Frame], exact: RelaxedStructures, tmp_path: Path
) -> None:
    best = average_force_below_threshold(exact, frames, single_points(frames, exact, tmp_path / "exact.xyz"))
    # forces below 0.02 pass from threshold 0.020 on: 380 of 390
    assert 100 * 380 / 390 <= best.percent <= 100
    assert (best.structures, best.left_out) == (3, 0)
    wrong = relax_frames(Model(PushedEMT), frames)
    worst = average_force_below_threshold(wrong, frames, single_points(frames, wrong, tmp_path / "wrong.xyz"))
    assert worst.percent == 0.0


def test_the_force_score_counts_the_norm_on_free_atoms_by_hand(frames: list[Frame], exact: RelaxedStructures, tmp_path: Path) -> None:
    points = single_points(frames, exact, tmp_path / "points.xyz")
    forces = np.zeros((len(frames[0]), 3))
    forces[0] = 9.0  # fixed
    forces[-1] = (0.06, 0.08, 0.0)  # a norm of 0.1, while no component is above 0.08
    changed: list[Frame] = [replace(point, forces=forces) for point in points]
    wanted = 100 * sum(threshold > 0.1 + 1e-9 for threshold in np.arange(0.01, 0.4, 0.001)) / 390
    assert average_force_below_threshold(exact, frames, changed).percent == pytest.approx(wanted)


def test_single_points_that_failed_count_nowhere_and_are_reported(frames: list[Frame], exact: RelaxedStructures, tmp_path: Path) -> None:
    whole = average_force_below_threshold(exact, frames, single_points(frames, exact, tmp_path / "whole.xyz"))
    part = average_force_below_threshold(exact, frames, single_points(frames, exact, tmp_path / "part.xyz", failed=[1]))
    assert (part.structures, part.left_out) == (2, 1)
    assert part.percent == pytest.approx(whole.percent, abs=3)
    with pytest.raises(ZooError, match="no single point has forces on every free atom"):
        average_force_below_threshold(exact, frames, single_points(frames, exact, tmp_path / "none.xyz", failed=[0, 1, 2]))


def test_single_points_of_other_structures_are_refused(frames: list[Frame], exact: RelaxedStructures, tmp_path: Path) -> None:
    points = single_points(frames, exact, tmp_path / "points.xyz")
    with pytest.raises(ZooError, match="2 single points for 3 relaxed structures"):
        average_force_below_threshold(exact, frames, points[:2])
    with pytest.raises(ZooError, match=r"points.xyz: frame 1: an atom is .* Å from where slabs.xyz: frame 0 relaxed to"):
        average_force_below_threshold(exact, frames, [points[1], points[0], points[2]])
    other = replace(points[0], atomic_numbers=points[0].atomic_numbers[::-1].copy())
    with pytest.raises(ZooError, match=r"other elements than slabs.xyz: frame 0"):
        average_force_below_threshold(exact, frames, [other, *points[1:]])


def diverged(relaxed: RelaxedStructures) -> FloatArray:
    energies = relaxed.energies.copy()
    energies[1] = np.nan
    return energies


def test_what_cannot_be_compared_or_relaxed_is_one_line(frames: list[Frame], exact: RelaxedStructures) -> None:
    with pytest.raises(ZooError, match="3 relaxed structures for 2 frames"):
        relaxation_metrics(exact, frames[:2])
    short = replace(exact, positions=(exact.positions[0][:-1], *exact.positions[1:]))
    with pytest.raises(ZooError, match=r"slabs.xyz: frame 0: 9 atoms, the relaxed .* has 8"):
        relaxation_metrics(short, frames)
    with pytest.raises(ZooError, match=r"slabs.xyz: frame 1: the predicted relaxed energy is not a number"):
        relaxation_metrics(replace(exact, energies=diverged(exact)), frames)
    with pytest.raises(ZooError, match=r"slabs.xyz: frame 0: every atom is fixed"):
        relaxation_metrics(exact, [replace(frames[0], fixed=np.ones(9, dtype=bool)), *frames[1:]])
    with pytest.raises(ZooError, match="positive force and at least one step"):
        relax_frames(Model(EMT), frames, fmax_ev_per_angstrom=0.0)


def test_a_potential_relaxes_and_names_the_frame_it_cannot_compute(toy_checkpoint: Path, frames: list[Frame]) -> None:
    potential = zoo.load(toy_checkpoint)
    relaxed = relax_frames(potential, frames[:1], max_steps=2)
    assert relaxed.steps.tolist() == [2]
    xenon = [Frame.unlabelled(Atoms("Xe"), "xe.xyz", 4)]
    assert re.search(r"^xe.xyz: frame 4: step 0 of the relaxation: .*Xe", refusal_of(relax_frames, potential, xenon))
