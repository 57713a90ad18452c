"""Metrics against numbers worked out by hand, and against the ways a metric can silently be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.readers import read_frames
from zoo.errors import ZooError
from zoo.evaluation.metrics import METRICS, VALUE_RANGES, compute_metrics
from zoo.evaluation.predictions import Predictions, write_extxyz


def water(energy: float = -14.0, forces: float = 0.0, **changes: object) -> Frame:
    atoms = Atoms("OH2", positions=[[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
    frame = replace(Frame.unlabelled(atoms, "water.xyz"), energy=energy, forces=np.full((3, 3), forces))
    return replace(frame, **changes)  # type: ignore[arg-type]


def copper(energy: float = -4.0, stress: float = 0.0) -> Frame:
    atoms = Atoms("Cu", cell=np.eye(3) * 2.6, pbc=True)
    return replace(Frame.unlabelled(atoms, "cu.xyz"), energy=energy, forces=np.zeros((1, 3)), stress=np.full((3, 3), stress))


def predictions(frames: list[Frame], energy_errors: list[float], force_error: float = 0.0, stress: float | None = None) -> Predictions:
    return Predictions(
        names=tuple(frame.name for frame in frames),
        energies=np.array([frame.energy + error for frame, error in zip(frames, energy_errors, strict=True)]),
        forces=tuple(np.nan_to_num(frame.forces) + force_error for frame in frames),
        stresses=tuple(None if stress is None else np.full((3, 3), stress) for _ in frames),
    )


def test_energy_metrics_equal_the_numbers_worked_out_by_hand() -> None:
    frames = [water(), water(), water()]
    metrics = compute_metrics(predictions(frames, [0.03, -0.06, 0.0]), frames)
    assert metrics["energy_mae_mev"] == pytest.approx(30.0)
    assert metrics["energy_mae_mev_per_atom"] == pytest.approx(10.0)
    assert metrics["energy_rmse_mev"] == pytest.approx(math.sqrt((30**2 + 60**2) / 3))
    assert metrics["energy_rmse_mev_per_atom"] == pytest.approx(math.sqrt((10**2 + 20**2) / 3))
    assert metrics["energy_rmse_mev_offset_removed"] == pytest.approx(math.sqrt((40**2 + 50**2 + 10**2) / 3))
    assert metrics["energy_mae_mev_offset_removed"] == pytest.approx(100 / 3)


def test_per_atom_energy_divides_each_structure_by_its_own_atom_count() -> None:
    frames = [water(), copper()]
    metrics = compute_metrics(predictions(frames, [0.03, 0.03]), frames)
    assert metrics["energy_mae_mev_per_atom"] == pytest.approx((10 + 30) / 2)


def test_force_metrics_run_over_components_so_large_structures_weigh_more() -> None:
    frames = [water(), copper()]
    answer = predictions(frames, [0, 0])
    answer = replace(answer, forces=(answer.forces[0] + 0.2, answer.forces[1]))
    metrics = compute_metrics(answer, frames)
    assert metrics["force_mae_mev_per_angstrom"] == pytest.approx(200 * 9 / 12)
    assert metrics["force_rmse_mev_per_angstrom"] == pytest.approx(200 * math.sqrt(9 / 12))


def test_stress_metrics_run_over_nine_components() -> None:
    frames = [copper(stress=0.01)]
    answer = predictions(frames, [0], stress=0.01)
    off = np.full((3, 3), 0.01)
    off[0, 0] += 0.009
    metrics = compute_metrics(replace(answer, stresses=(off,)), frames)
    assert metrics["stress_mae_mev_per_angstrom3"] == pytest.approx(1.0)
    assert metrics["stress_rmse_mev_per_angstrom3"] == pytest.approx(3.0)


def test_absolute_energies_of_thousands_of_ev_keep_micro_ev_errors() -> None:
    frames = [water(energy=-9391.254099941396), water(energy=-9391.254099941396)]
    assert compute_metrics(predictions(frames, [1e-6, 1e-6]), frames)["energy_mae_mev"] == pytest.approx(1e-3, rel=1e-5)


def test_a_quantity_without_labels_is_absent_and_not_zero() -> None:
    labelled = [water()]
    assert "force_mae_mev_per_angstrom" in compute_metrics(predictions(labelled, [0.0]), labelled)  # positive control
    frames = [replace(water(), forces=np.full((3, 3), np.nan))]
    metrics = compute_metrics(predictions(frames, [0.0]), frames)
    assert not [name for name in metrics if name.startswith(("force", "stress"))]
    unlabelled = [Frame.unlabelled(frames[0].to_atoms())]
    assert compute_metrics(predictions([water()], [0.0]), unlabelled) == {}


def test_unlabelled_frames_are_masked_and_do_not_dilute_the_others() -> None:
    frames = [water(), replace(water(), energy=float("nan"), forces=np.full((3, 3), np.nan))]
    answer = Predictions(("a", "b"), np.array([-13.97, 5.0]), (np.full((3, 3), 0.1), np.ones((3, 3))), (None, None))
    metrics = compute_metrics(answer, frames)
    assert metrics["energy_mae_mev"] == pytest.approx(30.0)
    assert metrics["force_mae_mev_per_angstrom"] == pytest.approx(100.0)


@pytest.mark.parametrize("frames", [[water()], [water(), copper()]], ids=["one frame", "two compositions"])
def test_offset_removed_energy_exists_only_for_several_frames_of_one_composition(frames: list[Frame]) -> None:
    metrics = compute_metrics(predictions(frames, [0.5] * len(frames)), frames)
    assert "energy_rmse_mev" in metrics
    assert "energy_rmse_mev_offset_removed" not in metrics


@pytest.mark.parametrize("quantity", ["energies", "forces"])
def test_a_prediction_that_is_not_a_number_is_an_error_and_not_masked(quantity: str) -> None:
    frames = [water()]
    answer = predictions(frames, [0.0])
    broken = replace(answer, energies=np.array([np.nan])) if quantity == "energies" else replace(answer, forces=(np.full((3, 3), np.nan),))
    with pytest.raises(ZooError, match=r"water.xyz: frame 0: the predicted .* is not a number"):
        compute_metrics(broken, frames)


def test_predictions_of_other_frames_are_refused() -> None:
    answer = predictions([water()], [0.0])
    with pytest.raises(ZooError, match="1 predictions for 2 frames"):
        compute_metrics(answer, [water(), water()])
    with pytest.raises(ZooError, match=r"cu.xyz: frame 0: 1 atoms, but the prediction .* has 3"):
        compute_metrics(answer, [copper()])


def test_a_stress_missing_for_some_periodic_frames_is_an_error_and_for_molecules_is_not() -> None:
    frames = [copper(), copper()]
    answer = predictions(frames, [0, 0], stress=0.0)
    with pytest.raises(ZooError, match="labelled with a stress but predicted without one"):
        compute_metrics(replace(answer, stresses=(answer.stresses[0], None)), frames)
    molecule = replace(water(), stress=np.zeros((3, 3)))
    mixed = Predictions(("a", "b"), np.array([-4.0, -14.0]), (np.zeros((1, 3)), np.zeros((3, 3))), (np.zeros((3, 3)), None))
    assert compute_metrics(mixed, [copper(), molecule])["stress_mae_mev_per_angstrom3"] == 0.0
    assert "stress_mae_mev_per_angstrom3" not in compute_metrics(replace(answer, stresses=(None, None)), frames)


def test_every_metric_name_states_its_kind_and_unit() -> None:
    suffix_of_unit = {"meV": "mev", "meV/atom": "mev_per_atom", "meV/Å": "mev_per_angstrom", "meV/Å^3": "mev_per_angstrom3"}
    assert {metric.kind for metric in METRICS.values()} == set(VALUE_RANGES)
    for name, metric in METRICS.items():
        if metric.kind in ("MAE", "RMSE"):
            assert f"_{metric.kind.lower()}_{suffix_of_unit[metric.unit]}" in name
            assert metric.better == "lower"
        else:
            assert name.endswith(f"_{metric.kind}")
            assert (metric.unit, metric.better) == ({"cosine": "", "percent": "%"}[metric.kind], "higher")
        assert ("offset_removed" in name) == ("offset removed" in metric.normalisation)


def fake_predictions(frames: list[Frame]) -> Predictions:
    """Deterministic errors of tenths of an eV, with an offset and of both signs."""
    random = np.random.RandomState(5)
    return Predictions(
        names=tuple(frame.name for frame in frames),
        energies=np.array([frame.energy for frame in frames]) + random.normal(0.05, 0.1, len(frames)),
        forces=tuple(np.nan_to_num(frame.forces) + random.normal(0, 0.2, (len(frame), 3)) for frame in frames),
        stresses=(None,) * len(frames),
    )


def test_metrics_are_taken_over_all_frames_and_not_averaged_over_batches() -> None:
    frames = [water(energy=-14.0 - 0.1 * index, forces=0.1 * index) for index in range(5)]
    answer = fake_predictions(frames)
    whole = compute_metrics(answer, frames)
    batches = [
        compute_metrics(Predictions(answer.names[part], answer.energies[part], answer.forces[part], answer.stresses[part]), frames[part])
        for part in (slice(0, 4), slice(4, 5))
    ]
    for name in ("energy_mae_mev", "energy_rmse_mev", "force_rmse_mev_per_angstrom", "force_cosine"):
        assert whole[name] != pytest.approx(np.mean([batch[name] for batch in batches]), rel=1e-3), name
    # what the whole is instead: every frame weighs the same, and squares are averaged before the root
    assert whole["energy_mae_mev"] == pytest.approx((4 * batches[0]["energy_mae_mev"] + batches[1]["energy_mae_mev"]) / 5)
    mean_square = (4 * batches[0]["energy_rmse_mev"] ** 2 + batches[1]["energy_rmse_mev"] ** 2) / 5
    assert whole["energy_rmse_mev"] == pytest.approx(math.sqrt(mean_square))


def energy_key_of(line: str) -> float:
    return float(next(word for word in line.split() if word.startswith("energy=")).removeprefix("energy="))


def test_stored_predictions_of_acac_give_by_hand_what_the_metrics_say(data_folder: Callable[[str], Path], tmp_path: Path) -> None:
    source = data_folder("acac") / "test_dihedral.xyz"
    frames = read_frames(source, LabelKeys())
    write_extxyz(tmp_path / "predictions.xyz", frames, fake_predictions(frames))
    metrics = compute_metrics(fake_predictions(frames), frames)

    labels = [energy_key_of(line) for line in source.read_text().splitlines() if line.startswith("Lattice=")]
    stored = ase.io.read(tmp_path / "predictions.xyz", ":")
    assert len(stored) == len(labels) == len(frames) == 45
    absolute, square, absolute_per_atom, square_per_atom, within = 0.0, 0.0, 0.0, 0.0, 0
    for atoms, label in zip(stored, labels, strict=True):
        assert atoms.info["reference_energy"] == label
        error = atoms.get_potential_energy() - label
        absolute += abs(error)
        square += error**2
        absolute_per_atom += abs(error) / len(atoms)
        square_per_atom += (error / len(atoms)) ** 2
        within += abs(error) < 0.02
    count = len(stored)
    assert metrics["energy_mae_mev"] == pytest.approx(1000 * absolute / count, rel=1e-9)  # MAE per molecule
    assert metrics["energy_rmse_mev"] == pytest.approx(1000 * math.sqrt(square / count), rel=1e-9)  # RMSE per molecule
    assert metrics["energy_mae_mev_per_atom"] == pytest.approx(1000 * absolute_per_atom / count, rel=1e-9)  # MAE per atom
    assert metrics["energy_rmse_mev_per_atom"] == pytest.approx(1000 * math.sqrt(square_per_atom / count), rel=1e-9)  # RMSE per atom
    assert metrics["energy_within_threshold_percent"] == pytest.approx(100 * within / count)
    assert 0 < within < count
    assert not [name for name in metrics if "force" in name], "this file has no forces"


def test_stored_forces_of_rmd17_give_by_hand_what_the_metrics_say(data_folder: Callable[[str], Path], tmp_path: Path) -> None:
    path = data_folder("rmd17") / "rmd17_ethanol_train_01.npz"
    raw = np.load(path, allow_pickle=False)
    ev_per_kcal_per_mol = 0.0433641153  # FACTS of the publications, not this project's constant
    frames = [
        replace(
            Frame.unlabelled(Atoms(raw["nuclear_charges"], positions=raw["coords"][index]), path.name, index),
            energy=float(raw["energies"][index]) * ev_per_kcal_per_mol,
            forces=raw["forces"][index].astype(np.float64) * ev_per_kcal_per_mol,
        )
        for index in range(40)
    ]
    write_extxyz(tmp_path / "predictions.xyz", frames, fake_predictions(frames))
    metrics = compute_metrics(fake_predictions(frames), frames)

    absolute, square, cosine, components, atoms_seen = 0.0, 0.0, 0.0, 0, 0
    for index, atoms in enumerate(ase.io.read(tmp_path / "predictions.xyz", ":")):
        for predicted, label in zip(atoms.get_forces(), raw["forces"][index], strict=True):
            dot, length, label_length = 0.0, 0.0, 0.0
            for axis in range(3):
                wanted = float(label[axis]) * ev_per_kcal_per_mol
                absolute += abs(predicted[axis] - wanted)
                square += (predicted[axis] - wanted) ** 2
                components += 1
                dot += predicted[axis] * wanted
                length += predicted[axis] ** 2
                label_length += wanted**2
            cosine += dot / math.sqrt(length * label_length)
            atoms_seen += 1
    assert components == 40 * 9 * 3
    # the file holds eight decimals of a force
    assert metrics["force_mae_mev_per_angstrom"] == pytest.approx(1000 * absolute / components, abs=1e-5)
    assert metrics["force_rmse_mev_per_angstrom"] == pytest.approx(1000 * math.sqrt(square / components), abs=1e-5)
    assert metrics["force_cosine"] == pytest.approx(cosine / atoms_seen, abs=1e-6)
