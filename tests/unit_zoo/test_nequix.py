"""Nequix in torch: upstream's numbers, upstream's files bit for bit, and one line for every file that is none of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

import zoo
from tests.refusals import lacks, refusal_of
from zoo.backbones import load_family
from zoo.backbones.nequix_checkpoint import read_file
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import check_equivariance
from zoo.potential import Potential

CARDS = ("nequix-mp-1", "nequix-omat-1", "nequix-oam-1")
ENERGY_EV_PER_ATOM, FORCES_EV_PER_ANGSTROM, STRESS_EV_PER_ANGSTROM3 = 1e-5, 3e-5, 1e-6


@pytest.fixture(scope="module")
def weights(data_folder: Callable[[str], Path]) -> Path:
    """The folder with the published files."""
    return data_folder("weights/nequix")


@pytest.fixture(scope="module")
def golden(weights: Path) -> tuple[list[Atoms], dict[str, np.ndarray]]:
    """Structures, and upstream's energies, forces of all atoms in one array, and stresses."""
    with np.load(weights / "golden" / "nequix-mp-1_reference.npz") as reference:
        numbers = dict(reference)
    return ase.io.read(weights / "golden" / "structures.extxyz", ":"), numbers


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The toy as a file."""
    path = tmp_path / "toy.nqx"
    Potential(load_family("nequix").toy(0)).save_upstream_checkpoint(path)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mp_1_reproduces_the_numbers_of_upstreams_jax_calculator(golden, dtype):
    structures, numbers = golden
    predictions = zoo.load("nequix-mp-1", dtype=dtype).predict(structures)
    ends = np.cumsum([len(atoms) for atoms in structures])
    for atoms, found, energy, forces, stress in zip(
        structures, predictions, numbers["energy"], np.split(numbers["forces"], ends[:-1]), numbers["stress"], strict=True
    ):
        assert abs(found.energy - energy) / len(atoms) < ENERGY_EV_PER_ATOM
        assert np.abs(found.forces - forces).max() < FORCES_EV_PER_ANGSTROM
        assert np.abs(found.stress - stress).max() < STRESS_EV_PER_ANGSTROM3
        assert np.abs(forces).max() > 0.1  # there is something to compare
        assert np.abs(stress).max() > 1e-4


def test_the_three_models_load_with_what_their_cards_say_and_differ(weights):
    water = Atoms("OH2", [[0, 0, 0.1], [0, 0.76, -0.5], [0.1, -0.76, -0.5]])
    energies = set()
    for name in CARDS:
        card, potential = zoo.describe(name), zoo.load(name)
        assert (card.family, card.cutoff_angstrom, card.symmetry) == ("nequix", potential.backbone.cutoff, potential.backbone.symmetry)
        assert card.element_count == len(potential.backbone.elements)
        assert card.parameter_count == potential.coverage.trainable_count
        assert card.conservative
        energies.add(round(potential.predict([water])[0].energy, 3))
    assert len(energies) == 3


def test_every_weight_of_mp_1_but_its_atom_energies_is_in_a_block(weights):
    coverage = zoo.load("nequix-mp-1").coverage
    assert coverage.roles == ("embedding", "linear", "norm", "radial", "readout")
    assert coverage.trainable_count == 707_569
    assert coverage.not_adaptable == {"network.atom_energies": "frozen by the base (requires_grad=False)"}


@pytest.mark.parametrize("name", CARDS)
def test_a_published_file_comes_back_bit_for_bit(weights, name, tmp_path):
    zoo.load(name).save_upstream_checkpoint(tmp_path / "again.nqx")
    assert (tmp_path / "again.nqx").read_bytes() == (weights / f"{name}.nqx").read_bytes()


def test_mp_1_is_invariant_under_rotations_and_inversion_with_a_random_adapter_in_float64(golden):
    potential = zoo.load("nequix-mp-1", dtype="float64")
    potential.adapters.add("elora", "elora")
    potential.adapters.randomise("elora", seed=3, relative=0.1)
    report = check_equivariance(potential, [Frame.unlabelled(golden[0][1])])
    assert report.symmetry == "O(3)"
    assert report.passed, report.text()


def test_reference_energies_go_into_both_copies_of_the_atom_energies(file, tmp_path):
    potential = zoo.load(file, dtype="float64")
    potential.set_reference_shifts({6: 0.25, 79: -1.5})
    potential.save_upstream_checkpoint(tmp_path / "shifted.nqx")
    network, settings, tail = read_file(tmp_path / "shifted.nqx")
    assert network.atom_energies.tolist() == [-0.5, -0.75, -1.5, -2.0, -4.0]
    assert settings["atom_energies"] == {"1": -0.5, "6": -0.75, "8": -1.5, "29": -2.0, "79": -4.0}
    assert tail == b""
    assert read_file(file)[1]["atom_energies"]["6"] == -1.0  # of the original, which keeps its own


def test_large_atom_energies_do_not_round_the_differences_of_energies_in_float32(file, tmp_path):
    potential = zoo.load(file)
    potential.set_reference_shifts(dict.fromkeys(potential.backbone.elements, -4096.0))
    potential.save_upstream_checkpoint(tmp_path / "shifted.nqx")
    shifted, structures = zoo.load(tmp_path / "shifted.nqx"), [Atoms("CO", [[0, 0, 0], [0, 0, d]]) for d in (1.1, 1.2)]
    assert shifted.dtype == torch.float32
    near, far = (found.energy for found in shifted.predict(structures))
    assert near < -8000
    potential.set_reference_shifts({})
    expected = [found.energy for found in potential.predict(structures)]
    assert near - far == pytest.approx(expected[0] - expected[1], abs=1e-9)


def test_tensors_and_settings_survive_the_way_through_the_file(file, tmp_path):
    toy, loaded = load_family("nequix").toy(0), zoo.load(file).backbone
    for (name, own), found in zip(toy.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(own.float(), found), name
    loaded.write_upstream_checkpoint(tmp_path / "again.nqx", {})
    assert (tmp_path / "again.nqx").read_bytes() == file.read_bytes()


def refusal(path: Path) -> str:
    """What is said of a file, after its name."""
    message = refusal_of(load_family("nequix").load, path, None, False)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_ends(file, kept):
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    assert refusal(file)


def test_bytes_behind_the_last_array_are_refused_unless_upstream_writes_such(file):
    content = file.read_bytes()
    record = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    for tail in (b"\n", record + bytes(8), 2 * (record + bytes(8))):
        file.write_bytes(content + tail)
        assert read_file(file)[2] == tail
    for tail in (b"x", b"\n\n", record + bytes(7), record + bytes(9), record.replace(b"()", b"(9,)") + bytes(72)):
        file.write_bytes(content + tail)
        assert f"{len(tail)} bytes behind the last array" in refusal(file)


def with_settings(path: Path, **changes: object) -> Path:
    line, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(json.dumps({**json.loads(line), **changes}).encode() + b"\n" + rest)
    return path


def test_settings_of_another_model_are_refused(file):
    content = file.read_bytes()
    for changes, words in (
        ({"hidden_irreps": "12x0e + 4x1o + 2x2e"}, ("array 5 of 20", "wanted float32 (5, 18)")),
        ({"hidden_irreps": "10x0e + 4x1x"}, ("hidden_irreps",)),
        ({"hidden_irreps": "4x1o + 10x0e"}, ("hidden_irreps", "sorted irreps")),
        ({"index_weights": True}, ("index_weights",)),
        ({"cutoff": "far"}, ("cutoff",)),
        ({"atomic_numbers": [1, 1, 6, 8, 29]}, ("atomic_numbers", "each once")),
        ({"n_layers": 1}, ("array",)),
    ):
        file.write_bytes(content)
        assert not lacks(refusal(with_settings(file, **changes)), *words)


def test_foreign_files_are_refused_in_one_line(file, toy_checkpoint, tmp_path):
    assert not load_family("nequix").recognises(toy_checkpoint)
    assert "no Nequix file" in refusal(toy_checkpoint)
    for content in (b"", b"\n", b"[1, 2]\n", b'"hidden_irreps"\n', b"[" * 100_000 + b"\n"):
        (tmp_path / "foreign").write_bytes(content)
        assert not load_family("nequix").recognises(tmp_path / "foreign")
        assert "no Nequix file" in refusal(tmp_path / "foreign")
    assert "cannot be read" in refusal(tmp_path / "absent")
    assert "has no heads" in refusal_of(zoo.load, file, head="PBE")


def test_a_record_of_objects_is_refused_and_not_unpickled(file):
    content = file.read_bytes()
    file.write_bytes(content.replace(b"'descr': '<f4'", b"'descr': '|O' ", 1))
    assert not lacks(refusal(file), "object", "wanted float32")


def test_mp_1_fine_tunes_on_acac_by_the_command_that_fine_tunes_sevennet(weights, data_folder, zoo, tmp_path):
    data_folder("acac")
    small = ("data.n_train=6", "data.n_valid=3", "data.test=[]", "training.steps=5", "training.validate_every=1", "training.batch_size=3")
    quiet = ("training.threads=1", "training.loggers.tensorboard=false", "training.progress_bar=false", "evaluation.plots=false")
    rate = "training.optimizer.learning_rate=3e-4"
    finished = zoo("train", "backbone=nequix-mp-1", "data=acac", "adapter=elora", rate, *small, *quiet, "run.name=tuned")
    assert finished.code == 0, finished.err
    with (tmp_path / "runs" / "tuned" / "history.csv").open() as lines:
        losses = [float(row["train/loss"]) for row in csv.DictReader(lines)]
    assert losses[-1] < 0.5 * losses[0]
    assert "step 0 equals the zero-shot model bit for bit" in finished.out
