"""``zoo evaluate task=relaxation`` on a small file in the form of OC20's IS2RE: every number by hand, every refusal one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from torch_geometric.data import Data

from tests.refusals import cli_refusal, lacks
from zoo import load
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record import read_record

COUNT = 3
STEPS = 3
Evaluate = Callable[..., Any]


def _slab(number: int) -> Atoms:
    """A copper slab with an adsorbed oxygen, its lowest layer held in place."""
    atoms = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.pbc = True
    atoms.info.clear()
    atoms.set_tags([0, 1, 1, 2])
    atoms.set_positions(atoms.positions + np.random.default_rng(number).normal(0, 0.05, (len(atoms), 3)))
    return atoms


def _write_lmdb(path: Path, labels: Sequence[tuple[float, np.ndarray]]) -> Path:
    """IS2RE records in the published layout; ``labels`` are relaxed energy and positions."""
    environment = lmdb.open(str(path), subdir=False, map_size=2**24, lock=False)
    with environment.begin(write=True) as transaction:
        for number, (energy, positions) in enumerate(labels):
            atoms = _slab(number)
            record = Data(
                atomic_numbers=torch.Tensor(atoms.numbers), pos=torch.Tensor(atoms.positions), cell=torch.Tensor(atoms.cell.array)[None],
                natoms=len(atoms), tags=torch.Tensor(atoms.get_tags()), fixed=torch.Tensor([1, 0, 0, 0]), sid=number,
                y_init=2.5, y_relaxed=float(energy), pos_relaxed=torch.Tensor(positions),
            )  # fmt: skip
            transaction.put(f"{number}".encode("ascii"), pickle.dumps(record, protocol=-1))
        transaction.put(b"length", pickle.dumps(len(labels), protocol=-1))
    environment.close()
    return path


@pytest.fixture
def unrelated(tmp_path: Path) -> Path:
    """Frames whose relaxed labels are far from where any model ends."""
    return _write_lmdb(tmp_path / "is2re.lmdb", [(-7.0, _slab(number).positions + 0.7) for number in range(COUNT)])


@pytest.fixture
def evaluate(zoo: Any, toy_checkpoint: Path) -> Evaluate:
    """``evaluate("data=...")``: the command with the toy in float64 and a few steps of every relaxation."""
    words = ("evaluate", f"backbone={toy_checkpoint}", "backbone.dtype=float64", "task=relaxation", f"relaxation.max_steps={STEPS}")
    return lambda *more: zoo(*words, *more)


def _values(out: str, part: str) -> dict[str, float]:
    """Metrics printed for a part, by name."""
    by_label = {metric.label: name for name, metric in METRICS.items()}
    rows = [line[len(part) :].strip() for line in out.splitlines() if line.startswith(f"{part} ")]
    found = {}
    for row in rows:
        label = next(label for label in sorted(by_label, key=len, reverse=True) if row.startswith(label))
        value, *unit = row[len(label) :].split()
        assert " ".join(unit) == METRICS[by_label[label]].unit
        found[by_label[label]] = float(value)
    return found


def test_relaxed_structures_are_written_with_the_potentials_energies(evaluate, unrelated, toy_checkpoint, tmp_path):
    finished = evaluate(f"data={unrelated}", "relaxation.output=relaxed.xyz")
    assert finished.code == 0, finished.err
    assert f"is2re: 0 of {COUNT} relaxations converged, {STEPS} steps each" in finished.out
    assert "relaxed structures: relaxed.xyz" in finished.out
    images = read(tmp_path / "relaxed.xyz", ":")
    predictions = load(toy_checkpoint, dtype="float64").predict(
        [Atoms(image.numbers, image.positions, cell=image.cell, pbc=True) for image in images]
    )
    for number, (image, prediction) in enumerate(zip(images, predictions, strict=True)):
        start = _slab(number)
        assert image.get_potential_energy() == pytest.approx(prediction.energy, abs=1e-6)
        assert (image.info["source"], image.info["frame_id"]) == ("is2re.lmdb", number)
        assert np.abs(image.positions[0] - start.positions[0]).max() < 1e-6  # float32 of the file
        assert np.abs(image.positions[1:] - start.positions[1:]).max(axis=1).min() > 1e-3
        assert image.get_tags().tolist() == [0, 1, 1, 2]
        (held,) = image.constraints
        assert isinstance(held, FixAtoms)
        assert held.index.tolist() == [0]


def _displaced(positions: np.ndarray, mean: float) -> np.ndarray:
    """Free atoms moved by ``mean`` on average, the held atom far."""
    moved = positions.copy()
    moved[0] += 1.0
    for atom, share in ((1, 1.5), (2, 1.0), (3, 0.5)):
        moved[atom, atom - 1] += share * mean
    return moved


def test_every_metric_of_a_relaxation_equals_the_number_worked_out_by_hand(evaluate, unrelated, tmp_path):
    far = evaluate(f"data={unrelated}", "relaxation.output=relaxed.xyz")
    images = read(tmp_path / "relaxed.xyz", ":")
    ends = [(image.get_potential_energy(), image.positions) for image in images]
    assert _values(far.out, "is2re")["relaxed_energy_mae_mev"] == pytest.approx(1000 * np.mean([abs(e + 7) for e, _ in ends]), abs=2e-3)
    assert _values(far.out, "is2re")["average_distance_within_threshold_percent"] == 0.0

    errors, distances, forces = (0.01, 1.0, -0.015), (0.1005, 0.3005, 0.7), (0.1005, 0.3005, None)
    labels = [(energy - error, _displaced(place, mean)) for (energy, place), error, mean in zip(ends, errors, distances, strict=True)]
    path = _write_lmdb(tmp_path / "near.lmdb", labels)
    points = []
    for (energy, place), norm in zip(ends, forces, strict=True):
        atoms = images[len(points)].copy()
        atoms.set_constraint()
        atoms.positions = place
        atoms.wrap()
        # the held atom feels more, and no component of the free one as much as the norm
        known = {} if norm is None else {"forces": np.array([[9.0, 0, 0], [0, 0, 0], [0, 0.6 * norm, 0.8 * norm], [0, 0, 0]])}
        atoms.calc = SinglePointCalculator(atoms, energy=energy, **known)
        points.append(atoms)
    write(tmp_path / "points.xyz", points)
    finished = evaluate(f"data={path}", "relaxation.single_points=points.xyz", "record=record.json")
    assert finished.code == 0, finished.err
    assert "near: AFbT over 2 single points, 1 without forces left out" in finished.out
    wanted = {
        "relaxed_energy_mae_mev": (10 + 1000 + 15) / 3,
        "relaxed_energy_within_threshold_percent": 200 / 3,
        # thresholds 0.010 to 0.499 by 0.001, and 0.010 to 0.399
        "average_distance_within_threshold_percent": 100 * (399 + 199 + 0) / (3 * 490),
        "average_force_below_threshold_percent": 100 * (299 + 99) / (2 * 390),
    }
    assert _values(finished.out, "near") == pytest.approx(wanted, abs=1e-3)

    record = read_record(tmp_path / "record.json")
    assert {metric.name: metric.value for metric in record.metrics} == pytest.approx(wanted, abs=1e-3)
    assert [metric.kind for metric in record.metrics] == ["MAE", "percent", "percent", "percent"]
    assert {metric.unit for metric in record.metrics if metric.kind == "percent"} == {"%"}
    assert (record.data.protocol, record.data.splits["near"].frames) == ("file/near whole", COUNT)
    assert record.adapter is None


def test_single_points_of_other_structures_are_refused(evaluate, unrelated, tmp_path):
    assert evaluate(f"data={unrelated}", "relaxation.output=relaxed.xyz").code == 0
    images = read(tmp_path / "relaxed.xyz", ":")
    write(tmp_path / "points.xyz", images[::-1])
    words = [f"data={unrelated}", "relaxation.single_points=points.xyz"]
    assert not lacks(cli_refusal(evaluate(*words)), "points.xyz: frame 0: an atom is", "from where is2re.lmdb: frame 0 relaxed to")
    write(tmp_path / "points.xyz", images[:2])
    assert "2 single points for 3 relaxed structures" in cli_refusal(evaluate(*words))


def test_limits_are_those_that_were_asked_for(evaluate, unrelated):
    easy = evaluate(f"data={unrelated}", "relaxation.fmax_ev_per_angstrom=1000")
    assert f"is2re: {COUNT} of {COUNT} relaxations converged, 0 steps each" in easy.out
    longer = evaluate(f"data={unrelated}", "relaxation.max_steps=5", "relaxation.fmax_ev_per_angstrom=1e-9")
    assert f"is2re: 0 of {COUNT} relaxations converged, 5 steps each" in longer.out


def test_a_file_of_structures_is_for_one_part(evaluate, unrelated, tmp_path):
    other = tmp_path / "other.lmdb"
    other.write_bytes(unrelated.read_bytes())
    words = [f"data.train={unrelated}", f"data.test=[{unrelated},{other}]", "data=file"]
    whole = evaluate(*words)
    assert whole.code == 0, whole.err
    assert set(_values(whole.out, "other")) == set(_values(whole.out, "is2re")) != set()
    write(tmp_path / "points.xyz", [_slab(0)])
    for option in ("relaxation.output=relaxed.xyz", "relaxation.single_points=points.xyz"):
        assert "relaxation.output and relaxation.single_points are for one part, found is2re, other; pass split=..." in cli_refusal(
            evaluate(*words, option)
        )
    assert not (tmp_path / "relaxed.xyz").exists()
    one = evaluate(*words, "relaxation.output=relaxed.xyz", "split=other")
    assert one.code == 0, one.err
    assert len(read(tmp_path / "relaxed.xyz", ":")) == COUNT


def test_frames_without_relaxed_labels_have_nothing_to_compare_with(evaluate, zoo, toy_checkpoint, tmp_path):
    atoms = _slab(0)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((4, 3)))
    write(tmp_path / "plain.xyz", [atoms])
    assert not lacks(
        cli_refusal(evaluate("data=plain.xyz")), "plain: no frame is labelled with a relaxed energy or structure", "relaxation.output=FILE"
    )
    written = evaluate("data=plain.xyz", "relaxation.output=relaxed.xyz")
    assert written.code == 0, written.err
    assert len(read(tmp_path / "relaxed.xyz", ":")) == 1
    assert zoo("evaluate", f"backbone={toy_checkpoint}", "data=plain.xyz").code == 0  # it is the task that they do not fit


@pytest.mark.parametrize("word", ["relaxation.max_steps=5", "relaxation.output=relaxed.xyz", "relaxation.fmax_ev_per_angstrom=0.05"])
def test_settings_of_relaxations_want_the_task(word, zoo, unrelated, toy_checkpoint):
    assert "no effect without task=relaxation" in cli_refusal(zoo("evaluate", f"backbone={toy_checkpoint}", f"data={unrelated}", word))


def test_misspelt_settings_are_refused_with_the_nearest_name(evaluate, unrelated):
    assert not lacks(cli_refusal(evaluate(f"data={unrelated}", "relaxation.max_step=5")), "unknown key 'relaxation.max_step'", "max_steps")
    assert not lacks(cli_refusal(evaluate(f"data={unrelated}", "task=relaxations")), "task='relaxations'", "relaxation")
