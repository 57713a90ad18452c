"""Runs on frames of which some lack a label: systems without a virial, atoms held in place; and on a published set by its card."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write
from safetensors.torch import load_file

from adapters.method import create_method
from tests.refusals import cli_refusal
from zoo import load
from zoo.backbones import load_family
from zoo.compose import compose
from zoo.data.config import DataConfig
from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.readers import read_frames
from zoo.data.source import load_splits
from zoo.data.splits import SplitSizes, frame_sha256, frames_sha256, random_split
from zoo.graph import AtomGraph, collate
from zoo.potential import Potential
from zoo.training.config import LossConfig, RunConfig, parse_config
from zoo.training.losses import loss_terms
from zoo.training.module import FineTuning
from zoo.training.run import fine_tune

Run = Callable[..., Path]

# one step over all training frames at once, with the base's own energies: its loss is that of the base, which can be worked out by hand
ONE_STEP = (
    "training.steps=1",
    "training.validate_every=1",
    "training.batch_size=8",
    "training.ema_decay=null",
    "training.loss.energy.weight=1",
    "training.loss.forces.weight=10",
    "strategy.reference_energies_before=base",
    "strategy.refit_reference_energies=false",
    "backbone.dtype=float64",
)
STRESS_WEIGHT = 1e5


@pytest.fixture
def run(small_run: list[str], tmp_path: Path) -> Run:
    """``run("name", "data=...", ...)``: the folder of a finished run of one step; later words go before earlier ones."""

    def start(name: str, *words: str) -> Path:
        plain = [word for word in small_run if not word.startswith("data.")]
        fine_tune(_config([*plain, *ONE_STEP, *words], tmp_path / name), say=lambda _: None)
        return tmp_path / name

    return start


def _config(words: Sequence[str], folder: Path) -> RunConfig:
    config: RunConfig = parse_config(compose("train", [*words, f"run.folder={folder}", f"run.name={folder.name}"]))
    return config


def _losses(folder: Path) -> tuple[float, float]:
    """(training loss of the first step, validation loss after it)."""
    (row,) = csv.DictReader((folder / "history.csv").open())
    return float(row["train/loss"]), float(row["valid/loss"])


def _metrics(folder: Path) -> dict[tuple[str, str], float]:
    return {(one["test_set"], one["name"]): one["value"] for one in json.loads((folder / "record.json").read_text())["metrics"]}


def _loss_by_hand(potential: Potential, frames: Sequence[Frame], stress_weight: float = 0.0) -> float:
    """Mean squared errors over what is labelled, with the weights of `ONE_STEP`."""
    predicted = potential.predict(list(frames))
    pairs = list(zip(predicted, frames, strict=True))
    energy = np.mean([((found.energy - frame.energy) / len(frame)) ** 2 for found, frame in pairs])
    forces = np.concatenate([(found.forces - frame.forces)[frame.free].ravel() for found, frame in pairs])
    stresses = [np.mean((found.stress - frame.stress) ** 2) for found, frame in pairs if np.isfinite(frame.stress).all()]
    return float(energy + 10 * np.mean(forces**2) + (stress_weight * np.mean(stresses) if stress_weight else 0.0))


# --- DeePMD systems, of which one has no virial


def _copper(repeats: int, seed: int) -> Atoms:
    atoms = bulk("Cu", cubic=True).repeat((repeats, 1, 1))
    random = np.random.default_rng(seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.normal(0, 0.03, (3, 3))), scale_atoms=True)
    atoms.set_positions(atoms.positions + random.normal(0, 0.05, (len(atoms), 3)))
    atoms.calc = EMT()
    return atoms


def _deepmd_system(folder: Path, frames: Sequence[Atoms], virial: bool, precision: str) -> Path:
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text(" ".join("0" * len(frames[0])))
    (folder / "type_map.raw").write_text("Cu")
    arrays = {
        "box": [atoms.cell.array for atoms in frames],
        "coord": [atoms.positions for atoms in frames],
        "force": [atoms.get_forces() for atoms in frames],
    }
    if virial:
        arrays["virial"] = [-atoms.get_volume() * atoms.get_stress(voigt=False) for atoms in frames]
    for name, values in arrays.items():
        np.save(folder / "set.000" / f"{name}.npy", np.array(values, dtype=precision).reshape(len(frames), -1))
    np.save(folder / "set.000" / "energy.npy", np.array([atoms.get_potential_energy() for atoms in frames], dtype=precision))
    return folder


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two DeePMD systems of 6 frames each: ``bare`` in float64 without a virial, ``whole`` in float32 with one."""
    folder = tmp_path_factory.mktemp("deepmd") / "systems"
    _deepmd_system(folder / "bare", [_copper(1, seed) for seed in range(6)], virial=False, precision="float64")
    _deepmd_system(folder / "whole", [_copper(2, 10 + seed) for seed in range(6)], virial=True, precision="float32")
    return folder


def _deepmd_words(folder: Path, stress_weight: float = STRESS_WEIGHT) -> list[str]:
    return [f"data={folder}", "data.n_train=8", "data.n_valid=4", f"training.loss.stress.weight={stress_weight}"]


def test_frames_without_virial_train_beside_labelled_ones_and_count_nowhere(systems, run, toy_checkpoint):
    folder = run("run", *_deepmd_words(systems))
    splits = load_splits(DataConfig(name="file", path=str(systems), n_train=8, n_valid=4))
    for frames in (splits.train, splits.valid):
        assert {frame.source: frame.has_stress for frame in frames} == {"bare": False, "whole": True}
    base = load(toy_checkpoint, dtype="float64")
    wanted = _loss_by_hand(base, splits.train, STRESS_WEIGHT)
    assert _losses(folder)[0] == pytest.approx(wanted, rel=1e-9)
    tuned = load(toy_checkpoint, adapter=folder / "adapter.safetensors", dtype="float64")
    assert _losses(folder)[1] == pytest.approx(_loss_by_hand(tuned, splits.valid, STRESS_WEIGHT), rel=1e-6)
    # what a stress of zero in place of none would give is another number
    as_zeros = [Frame(**{**vars(frame), "stress": np.nan_to_num(frame.stress)}) for frame in splits.train]
    assert abs(_loss_by_hand(base, as_zeros, STRESS_WEIGHT) / wanted - 1) > 0.01
    names = {name for _, name in _metrics(folder)}
    assert "stress_mae_mev_per_angstrom3" in names


def test_the_gradient_of_a_mixed_batch_is_finite_and_that_of_its_labelled_frames(systems):
    potential = Potential(load_family("sevennet").toy(0))
    potential.adapters.add("a", create_method("elora"), seed=0)
    potential.adapters.randomise("a", 0, 0.1)
    potential.train()
    parameters = dict(potential.adapters.named_parameters())
    frames = read_frames(systems)
    config = LossConfig(energy={"weight": 0}, forces={"weight": 0}, stress={"weight": 1})

    def gradients(chosen: Sequence[Frame]) -> list[torch.Tensor]:
        batch = collate([AtomGraph.from_frame(frame, potential.backbone.cutoff) for frame in chosen])
        (loss,) = loss_terms(potential(batch), batch, config).values()
        return list(torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True))

    mixed, labelled = gradients(frames), gradients([frame for frame in frames if frame.has_stress])
    assert len([frame for frame in frames if not frame.has_stress]) == 6
    assert all(torch.isfinite(one).all() for one in mixed)
    assert max(float(one.abs().max()) for one in labelled) > 1e-6
    for one, other in zip(mixed, labelled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-14)


def test_a_set_without_any_stress_is_refused_where_the_stress_weighs(systems, small_run, zoo):
    plain = [word for word in small_run if not word.startswith("data.")]
    words = ["train", *plain, f"data={systems / 'bare'}", "data.n_train=4", "data.n_valid=2", "run.name=run", "training.steps=1"]
    assert "training.loss.stress.weight=0" in cli_refusal(zoo(*words, "training.loss.stress.weight=1"))
    assert zoo(*words, "training.loss.stress.weight=0").code == 0  # positive control


def test_labels_reach_the_loss_with_the_bits_of_their_file(systems, run, monkeypatch):
    seen: list[AtomGraph] = []
    original = FineTuning.training_step

    def watched(self: FineTuning, batch: AtomGraph, index: int) -> torch.Tensor:
        seen.append(batch)
        return original(self, batch, index)

    monkeypatch.setattr(FineTuning, "training_step", watched)
    run("run", *_deepmd_words(systems), "backbone.dtype=float32")
    (batch,) = seen
    arrays = {
        (system, name): np.load(systems / system / "set.000" / f"{name}.npy")
        for system in ("bare", "whole") for name in ("energy", "force", "coord", "box", "virial") if name != "virial" or system == "whole"
    }  # fmt: skip
    assert {arrays["bare", name].dtype for name in ("energy", "force")} == {np.dtype("float64")}
    rounded = arrays["bare", "force"].astype(np.float32).astype(np.float64)
    assert rounded.tobytes() != arrays["bare", "force"].tobytes()  # else the bits below prove nothing
    assert {batch[name].dtype for name in ("energy", "forces", "stress", "positions", "cell")} == {torch.float64}
    for graph, (source, number) in enumerate(zip(batch.source, batch.frame_id.tolist(), strict=True)):
        of_file = {name: values[number].astype(np.float64) for (system, name), values in arrays.items() if system == source}
        atoms = batch.graph_of_atom == graph
        assert batch.energy[graph].item() == of_file["energy"]
        assert batch.forces[atoms].numpy().tobytes() == of_file["force"].tobytes()
        assert batch.positions[atoms].numpy().tobytes() == of_file["coord"].tobytes()
        assert batch.cell[graph].numpy().tobytes() == of_file["box"].tobytes()
        if source == "whole":
            volume = np.linalg.det(of_file["box"].reshape(3, 3))
            np.testing.assert_allclose(batch.stress[graph], -of_file["virial"].reshape(3, 3) / volume, rtol=1e-14)
        else:
            assert torch.isnan(batch.stress[graph]).all()


def _toy_of(elements: Sequence[int], path: Path) -> Path:
    """The toy checkpoint with its five species taken for ``elements``."""
    from ase.data import chemical_symbols
    from sevenn import _keys as keys

    payload = load_family("sevennet").toy(0).upstream_checkpoint({})
    payload["config"][keys.TYPE_MAP] = {number: index for index, number in enumerate(elements)}
    payload["config"][keys.CHEMICAL_SPECIES] = [chemical_symbols[number] for number in elements]
    torch.save(payload, path)
    return path


def test_published_systems_of_both_kinds_train_on_the_stress(data_folder, run, tmp_path):
    published = data_folder("lam_sse_pbe_ligeps")
    for name in ("LiGePS-init.system", "LiGePS-iter.000000-data.000"):
        copy = tmp_path / "some" / name
        (copy / "set.000").mkdir(parents=True)
        shutil.copy(published / name / "type.raw", copy)
        for file in (published / name / "set.000").glob("*.npy"):
            np.save(copy / "set.000" / file.name, np.load(file)[:3])
    toy = _toy_of((3, 15, 16, 32, 1), tmp_path / "ligeps.pth")
    sizes = {"n_train": 4, "n_valid": 2, "split_seed": 1}
    words = [f"data.{name}={value}" for name, value in sizes.items()]
    stress = f"training.loss.stress.weight={STRESS_WEIGHT}"
    folder = run("run", f"backbone={toy}", f"data={tmp_path / 'some'}", "data.type_map=[Li,Ge,P,S]", *words, stress)
    splits = load_splits(DataConfig(name="file", path=str(tmp_path / "some"), type_map=("Li", "Ge", "P", "S"), **sizes))
    assert sorted(frame.has_stress for frame in splits.train) == [False, False, True, True]
    wanted = _loss_by_hand(load(toy, dtype="float64"), splits.train, STRESS_WEIGHT)
    assert _losses(folder)[0] == pytest.approx(wanted, rel=1e-9)


# --- atoms held in place


def _slab(seed: int) -> Atoms:
    """A rattled copper slab whose lower layer is held, with EMT's labels on every atom."""
    atoms = fcc111("Cu", size=(1, 2, 2), vacuum=5.0, orthogonal=True)
    atoms.pbc = True
    atoms.info.clear()
    atoms.set_positions(atoms.positions + np.random.default_rng(seed).normal(0, 0.08, (len(atoms), 3)))
    atoms.calc = EMT()
    labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def _write_slabs(path: Path, nonsense: float) -> Path:
    """12 frames; every force component on a held atom is ``nonsense``."""
    frames = [_slab(seed) for seed in range(12)]
    for atoms in frames:
        held = atoms.get_tags() == 2
        atoms.calc.results["forces"][held] = nonsense
        atoms.set_constraint(FixAtoms(mask=held))
    path.parent.mkdir()
    write(path, frames)
    assert len([line for line in path.read_text().splitlines() if f"{nonsense:.1f}" in line]) >= 12 * 2  # ASE has written them
    return path


@pytest.fixture
def slabs(tmp_path: Path) -> tuple[Path, Path]:
    """Two files that differ in the forces on held atoms alone."""
    return _write_slabs(tmp_path / "one" / "slabs.xyz", 7.0), _write_slabs(tmp_path / "two" / "slabs.xyz", 900.0)


SIZES = ("data.n_train=6", "data.n_valid=3", "data.n_test=3")


def test_left_out_forces_of_held_atoms_are_neither_trained_on_nor_counted(slabs, run, toy_checkpoint):
    (one, two) = (run(path.parent.name + "-run", f"data={path}", "data.fixed_atoms=left_out", *SIZES) for path in slabs)
    config = DataConfig(name="file", path=str(slabs[0]), fixed_atoms="left_out", n_train=6, n_valid=3, n_test=3)
    splits = load_splits(config)
    for frame in (*splits.train, *splits.valid, *splits.tests["test"]):
        assert frame.has_forces
        assert frame.fixed is not None
        assert np.isnan(frame.forces[frame.fixed]).all()
        assert frame.fixed.sum() == 2
    assert _losses(one)[0] == pytest.approx(_loss_by_hand(load(toy_checkpoint, dtype="float64"), splits.train), rel=1e-9)
    tuned = load(toy_checkpoint, adapter=one / "adapter.safetensors", dtype="float64")
    assert _losses(one)[1] == pytest.approx(_loss_by_hand(tuned, splits.valid), rel=1e-6)
    errors = [
        (found.forces - frame.forces)[~frame.fixed].ravel()
        for found, frame in zip(tuned.predict(splits.tests["test"]), splits.tests["test"], strict=True)
    ]
    found = _metrics(one)
    assert found["test", "force_mae_mev_per_angstrom"] == pytest.approx(1000 * np.abs(np.concatenate(errors)).mean(), rel=1e-6)
    assert {name for _, name in found} >= {"energy_mae_mev_per_atom", "force_cosine", "energy_force_within_threshold_percent"}
    # to the bit: nothing of the other nonsense gets in
    assert _losses(one) == _losses(two)
    assert found == _metrics(two)
    trained = [load_file(folder / "adapter.safetensors") for folder in (one, two)]
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())


def test_kept_forces_of_held_atoms_are_trained_on_and_counted(slabs, run, toy_checkpoint):
    (one, two) = (run(path.parent.name + "-run", f"data={path}", "data.fixed_atoms=kept", *SIZES) for path in slabs)
    frames = read_frames(slabs[0], LabelKeys(fixed_atoms="kept"))
    assert all(np.isfinite(frame.forces).all() for frame in frames)
    for first, second in zip(_losses(one), _losses(two), strict=True):
        assert second > 1000 * first
    for name in ("force_mae_mev_per_angstrom", "force_cosine"):
        assert _metrics(one)["test", name] != _metrics(two)["test", name]
    # 2 of 4 atoms with an error of about 900 eV/Å in every component
    assert _metrics(two)["test", "force_mae_mev_per_angstrom"] == pytest.approx(450_000, rel=0.01)


# --- a published set by its card


def test_a_run_on_a_set_by_its_card_names_reads_and_records_it(own_set, emt_atoms, small_run, zoo, tmp_path):
    plain = [word for word in small_run if not word.startswith("data.")]
    frames = emt_atoms(16)
    downloads = own_set(frames[:12], frames[12:], n_train=8, n_valid=3, metrics=["force_mae_mev_per_angstrom"])
    words = ["train", *plain, "data=own/set", "training.steps=1", "data.split_seed=2"]
    finished = zoo(*words)
    assert finished.code == 0, finished.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "toy-elora-r16-own_set"

    line = "own/set/all n_train=8 n_valid=3 split_seed=2 (protocol paper)"
    record = json.loads((folder / "record.json").read_text())
    assert f"data: {line} (EMT)" in finished.out
    assert (record["data"]["name"], record["data"]["protocol"], record["data"]["licence"]) == ("own/set", line, "MIT")
    pool, hot = (read_frames(downloads / f"my {key}.xyz") for key in ("pool", "hot"))
    drawn = random_split(12, SplitSizes(8, 3).resolve(12, "pool"), seed=2)
    parts = {"train": [pool[i] for i in drawn.train], "valid": [pool[i] for i in drawn.valid], "hot": hot}
    wanted = {name: {"frames": len(frames), "sha256": frames_sha256(frames)} for name, frames in parts.items()}
    assert record["data"]["splits"] == wanted
    assert len({one["sha256"] for one in wanted.values()}) == 3
    # of the set of frames, as documented
    by_hand = hashlib.sha256("\n".join(sorted(map(frame_sha256, hot))).encode()).hexdigest()
    assert wanted["hot"]["sha256"] == by_hand

    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert (saved["data"]["name"], saved["data"]["split_seed"], saved["data"]["n_train"]) == ("own/set", 2, None)
    assert parse_config(saved).model_dump(mode="json") == saved
    again = zoo(*words, "run.resume=true")
    assert again.code == 0, again.err
    assert f"this run is finished (record {record['id']})" in again.out

    evaluated = zoo("evaluate", f"run={folder}")
    assert evaluated.code == 0, evaluated.err
    assert f"protocol: {line}" in evaluated.out
    assert "warning" not in evaluated.out
    stored = {one["name"]: one["value"] for one in record["metrics"] if one["test_set"] == "hot"}
    (shown,) = [row for row in evaluated.out.splitlines() if row.startswith("hot ")]
    assert float(shown.split("force MAE")[1].split()[0]) == pytest.approx(stored["force_mae_mev_per_angstrom"], abs=2e-3)
    valid = zoo("evaluate", f"run={folder}", "split=valid")
    assert "3 frames are in both valid and evaluated valid" in valid.out
