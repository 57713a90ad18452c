"""Cosines and shares within thresholds against torch, loops and ASE, with values on either side of each threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import fcc111
from ase.geometry import find_mic

from zoo.data.frame import FloatArray, Frame
from zoo.evaluation.metrics import compute_metrics
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.threshold_metrics import (
    DISTANCE_THRESHOLDS_ANGSTROM,
    RESIDUAL_FORCE_THRESHOLDS_EV_PER_ANGSTROM,
    average_distance_within_threshold_percent,
    average_force_below_threshold_percent,
    energy_force_within_threshold_percent,
    energy_within_threshold_percent,
    force_cosine,
    minimum_image_distances,
)

EV_LARGE_ERROR = 50.0


def random_forces(atoms: int, seed: int) -> FloatArray:
    return np.random.RandomState(seed).normal(size=(atoms, 3))


def test_the_force_cosine_is_the_mean_of_torchs_over_all_atoms() -> None:
    predicted, labels = random_forces(40, 1), random_forces(40, 2) + random_forces(40, 1)
    labels[3] = 0.0  # no direction
    predicted[7] = 1e-9 * predicted[7]  # shorter than the smallest norm
    wanted = torch.cosine_similarity(torch.from_numpy(predicted), torch.from_numpy(labels), dim=1).mean().item()
    assert force_cosine(predicted, labels) == pytest.approx(wanted, abs=1e-12)
    assert 0.1 < wanted < 0.99


def test_the_force_cosine_of_exact_opposite_and_absent_forces() -> None:
    forces = random_forces(500, 3)
    assert force_cosine(forces, 3 * forces) == pytest.approx(1.0)
    each = [force[None] for force in forces]
    assert max((force @ (3 * force).T / np.linalg.norm(force) / np.linalg.norm(3 * force)).item() for force in each) > 1.0  # rounding
    assert max(force_cosine(force, 3 * force) for force in each) == 1.0, "a record refuses a cosine above 1"
    assert force_cosine(-2 * forces, forces) == pytest.approx(-1.0)
    assert force_cosine(np.zeros((2, 3)), np.zeros((2, 3))) == 0.0


def test_energy_within_threshold_is_strict_and_counts_both_signs() -> None:
    assert energy_within_threshold_percent(np.array([0.0, 0.0199, -0.0199, 0.02, -0.0201, 3.0])) == pytest.approx(50.0)


def test_energy_and_forces_have_to_be_within_their_thresholds_together() -> None:
    energies = np.array([0.01, 0.01, 0.03, 0.03, 0.019])
    forces = np.array([0.02, 0.04, 0.02, 0.04, 0.03])
    assert energy_within_threshold_percent(energies) == pytest.approx(60.0)
    assert energy_force_within_threshold_percent(energies, forces) == pytest.approx(20.0)


def test_the_thresholds_are_those_of_the_published_ranges() -> None:
    np.testing.assert_allclose(DISTANCE_THRESHOLDS_ANGSTROM, np.arange(0.01, 0.5, 0.001), rtol=1e-12)
    np.testing.assert_allclose(RESIDUAL_FORCE_THRESHOLDS_EV_PER_ANGSTROM, np.arange(0.01, 0.4, 0.001), rtol=1e-12)


def looped_percent(values: list[float], thresholds: FloatArray) -> float:
    passed = sum(value < threshold for value in values for threshold in thresholds)
    return 100 * passed / (len(values) * len(thresholds))


def test_averages_over_thresholds_equal_an_explicit_loop() -> None:
    values = [0.0, 0.0123, 0.2505, 0.39, 0.45, 0.6]
    assert average_distance_within_threshold_percent(np.array(values)) == pytest.approx(looped_percent(values, np.arange(0.01, 0.5, 0.001)))
    assert average_force_below_threshold_percent(np.array(values)) == pytest.approx(looped_percent(values, np.arange(0.01, 0.4, 0.001)))
    assert average_distance_within_threshold_percent(np.zeros(3)) == 100.0
    assert average_distance_within_threshold_percent(np.full(3, 0.5)) == 0.0
    assert average_force_below_threshold_percent(np.full(3, 0.4)) == 0.0


def test_distances_are_those_of_ases_minimum_image_convention() -> None:
    slab = fcc111("Cu", size=(2, 2, 3), vacuum=5.0)
    random = np.random.RandomState(0)
    moved = slab.positions + random.uniform(-0.5, 0.5, slab.positions.shape)
    images = random.randint(-2, 3, slab.positions.shape) * slab.pbc
    _, wanted = find_mic(moved - slab.positions, slab.cell, slab.pbc)
    assert wanted.max() > 0.3
    np.testing.assert_allclose(minimum_image_distances(moved + images @ slab.cell.array, slab.positions, slab.cell.array, slab.pbc), wanted)


def test_directions_that_are_not_periodic_are_not_wrapped() -> None:
    cell, moved = np.diag([4.0, 4.0, 4.0]), np.array([[3.0, 0.0, 3.0]])
    periodic, slab, molecule = np.array([True] * 3), np.array([True, True, False]), np.array([False] * 3)
    origin = np.zeros((1, 3))
    assert minimum_image_distances(moved, origin, cell, periodic)[0] == pytest.approx(np.sqrt(2))
    assert minimum_image_distances(moved, origin, cell, slab)[0] == pytest.approx(np.sqrt(10))
    for any_cell in (cell, np.zeros((3, 3)), np.ones((3, 3))):
        assert minimum_image_distances(moved, origin, any_cell, molecule)[0] == pytest.approx(np.sqrt(18))


def slab_frame(energy: float = -5.0) -> Frame:
    """Four atoms, of which the first two are fixed and their forces no labels."""
    atoms = Atoms("Cu4", positions=np.diag([0.0, 2.0, 4.0, 6.0])[:, [1, 2, 3]], cell=np.eye(3) * 9, pbc=True)
    forces = np.array([[np.nan] * 3, [np.nan] * 3, [0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])
    fixed = np.array([True, True, False, False])
    return replace(Frame.unlabelled(atoms, "slab.xyz"), energy=energy, forces=forces, fixed=fixed)


def answer(frames: list[Frame], energy_errors: list[float], forces: list[FloatArray]) -> Predictions:
    energies = np.array([frame.energy + error for frame, error in zip(frames, energy_errors, strict=True)])
    return Predictions(tuple(frame.name for frame in frames), energies, tuple(forces), (None,) * len(frames))


def test_fixed_atoms_count_in_no_force_metric() -> None:
    frame = slab_frame()
    right = np.nan_to_num(frame.forces)
    wrong_where_fixed, wrong_where_free = right.copy(), right.copy()
    wrong_where_fixed[:2] = EV_LARGE_ERROR
    wrong_where_free[2:] = EV_LARGE_ERROR
    good = compute_metrics(answer([frame], [0.0], [wrong_where_fixed]), [frame])
    bad = compute_metrics(answer([frame], [0.0], [wrong_where_free]), [frame])
    assert bad["force_mae_mev_per_angstrom"] > 1e4  # positive control
    assert bad["force_cosine"] == pytest.approx(1 / np.sqrt(3))
    assert bad["energy_force_within_threshold_percent"] == 0.0
    assert good["force_mae_mev_per_angstrom"] == good["force_rmse_mev_per_angstrom"] == 0.0
    assert good["force_cosine"] == 1.0
    assert good["energy_force_within_threshold_percent"] == 100.0


def test_the_joint_share_runs_over_frames_with_energy_and_all_forces() -> None:
    whole, no_energy = slab_frame(), slab_frame(energy=float("nan"))
    no_forces = replace(slab_frame(), forces=np.full((4, 3), np.nan))
    one_atom_unknown = slab_frame()
    one_atom_unknown.forces[3] = np.nan
    frames = [whole, no_energy, no_forces, one_atom_unknown]
    zero = [np.nan_to_num(frame.forces) for frame in frames]
    off = [forces + 0.031 for forces in zero]
    assert compute_metrics(answer(frames, [0.0] * 4, zero), frames)["energy_force_within_threshold_percent"] == 100.0
    metrics = compute_metrics(answer(frames, [0.0] * 4, [zero[0], *off[1:]]), frames)
    assert metrics["energy_force_within_threshold_percent"] == 100.0, "only the first frame has everything"
    assert metrics["energy_within_threshold_percent"] == 100.0
    metrics = compute_metrics(answer(frames, [0.0] * 4, [off[0], *zero[1:]]), frames)
    assert metrics["energy_force_within_threshold_percent"] == 0.0
    rest = [no_energy, no_forces, one_atom_unknown]
    metrics = compute_metrics(answer(rest, [0.0] * 3, zero[1:]), rest)
    assert "energy_force_within_threshold_percent" not in metrics
    assert {"force_cosine", "energy_within_threshold_percent"} <= metrics.keys()
