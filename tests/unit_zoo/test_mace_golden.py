"""A whole-module pickle that e3nn 0.4.4 wrote: converted, it gives the numbers it gave there, in its own Clebsch-Gordan signs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read

import zoo
from adapters.errors import AdapterError
from adapters.method import create_method
from adapters.state import AdapterManifest, load_into, read_adapter, write_adapter
from tests.unit_zoo.round_trip import upstream
from zoo.backbones.mace import Mace
from zoo.backbones.mace_network import build_network
from zoo.backbones.mace_state import load_state
from zoo.errors import ZooError
from zoo.evaluation.equivariance import check_equivariance
from zoo.evaluation.probes import probe_frames
from zoo.potential import Potential, Prediction

NAME = "ssmace_density_32_0e1o"


@pytest.fixture(scope="module")
def folder(golden_folder) -> Path:
    return golden_folder("mace_e3nn04")


@pytest.fixture(scope="module")
def potential(folder: Path) -> Potential:
    return zoo.load(folder / f"{NAME}.model", trust_pickle=True)


@pytest.fixture(scope="module")
def structures(folder: Path) -> list[Atoms]:
    """The reference was computed before its structures were written with 8 decimals: 5e-9 Å is 1e-8 eV/Å. They are made again here."""
    generator = np.random.default_rng(0)
    made = [*map(molecule, ("CH3CH2OH", "CH3CN", "C6H6", "SiH4", "H2O", "NH3")), bulk("Si", "diamond", a=5.43, cubic=True)]
    for atoms, written in zip(made, read(folder / "structures.extxyz", ":"), strict=True):
        atoms.positions += 0.05 * generator.normal(size=atoms.positions.shape)
        assert atoms.get_chemical_symbols() == written.get_chemical_symbols()
        assert np.abs(atoms.positions - written.positions).max() < 5.1e-9
        assert np.array_equal(atoms.cell.array, written.cell.array)
    return made


@pytest.fixture(scope="module")
def reference(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / f"{NAME}_reference.npz") as arrays:
        return dict(arrays)


def assert_agrees(found: list[Prediction], reference: dict[str, np.ndarray], forces: float, energy: float = 1e-12) -> None:
    """Energies relative to their size (up to 6e4 eV), forces in eV/Å, stress of the one crystal in eV/Å^3."""
    np.testing.assert_allclose([p.energy for p in found], reference["energy"], rtol=energy)
    np.testing.assert_allclose(np.concatenate([p.forces for p in found]), reference["forces"], atol=forces)
    (stress,) = [p.stress for p in found if p.stress is not None]
    np.testing.assert_allclose(stress, reference["stress"][-1], atol=forces)
    assert np.abs(stress).max() > 1e-4


def test_the_pickle_gives_its_stored_numbers_to_1e_12(potential, structures, reference):
    assert potential.dtype == torch.float64
    assert_agrees(potential.predict(structures), reference, 1e-12)


def test_the_written_structures_give_them_to_their_rounding(potential, folder, reference):
    assert_agrees(potential.predict(read(folder / "structures.extxyz", ":")), reference, 2e-8, energy=1e-11)


def test_from_then_on_nothing_is_unpickled(folder, structures, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    zoo.load(folder / f"{NAME}.model")
    (converted,) = (tmp_path / "cache" / "converted").iterdir()
    assert converted.name.endswith(".mace.safetensors")

    def forbidden(*arguments: object) -> None:
        raise AssertionError("the pickle was read again")

    monkeypatch.setattr("zoo.backbones.mace_checkpoint.read_module", forbidden)
    monkeypatch.setattr("pickle.Unpickler", forbidden)
    for path in (folder / f"{NAME}.model", converted):
        assert_agrees(zoo.load(path).predict(structures), reference, 1e-12)
    shutil.copy(folder / f"{NAME}.model", tmp_path / "other.model")
    (tmp_path / "other.model").chmod(0o644)
    with (tmp_path / "other.model").open("ab") as stream:
        stream.write(b"another checksum")
    with pytest.raises(AssertionError, match="read again"):  # the positive control
        zoo.load(tmp_path / "other.model")


def test_zoo_convert_writes_what_zoo_load_reads(folder, structures, reference, tmp_path, capsys):
    from zoo.cli import main

    output = tmp_path / "golden.mace.safetensors"
    main(["convert", str(folder / f"{NAME}.model"), f"output={output}"])
    assert str(output) in capsys.readouterr().out
    assert_agrees(zoo.load(output).predict(structures), reference, 1e-12)
    content = output.read_bytes()
    main(["convert", str(folder / f"{NAME}.model"), f"output={output}"])
    assert output.read_bytes() == content
    middle = len(content) // 2
    output.write_bytes(content[:middle] + bytes([content[middle] ^ 0x41]) + content[middle + 1 :])
    with pytest.raises(ZooError, match=r"golden\.mace\.safetensors: damaged converted model"):
        zoo.load(output)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "found: nothing"),
        (["missing.model"], "missing.model: no such file"),
        (["missing.model", "outptu=x"], "zoo convert takes one FILE"),
        (["text.model"], "is no pickled MACE model"),
        (["lr=0.1/missing.model"], "lr=0.1/missing.model: no such file"),
        (["text.model", "output="], "zoo convert takes one FILE"),
    ],
)
def test_wrong_words_of_zoo_convert_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    from zoo.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.model").write_text("not a model")
    with pytest.raises(SystemExit) as stop:
        main(["convert", *words])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


def test_its_signs_are_not_those_of_the_installed_e3nn_and_survive_every_way(potential, structures, reference, tmp_path):
    backbone = potential.backbone
    assert isinstance(backbone, Mace)
    assert backbone.convention.startswith("signs-")
    again = Potential(backbone.rebuilt(torch.float32)).backbone.rebuilt(torch.float64)
    assert again.convention == backbone.convention
    expected = potential.predict(structures)
    for found, wanted in zip(Potential(again).predict(structures), expected, strict=True):
        assert 0 < np.abs(found.forces - wanted.forces).max() < 1e-6
    assert check_equivariance(Potential(again), probe_frames(again.elements)[:1]).passed
    assert_agrees(potential.to_dtype(torch.float64).predict(structures), reference, 1e-12)
    potential.save_upstream_checkpoint(tmp_path / "again.model")
    written = zoo.load(tmp_path / "again.model")
    assert written.backbone.convention == backbone.convention
    assert_agrees(written.predict(structures), reference, 1e-12)


def in_native_signs(backbone: Mace) -> Mace:
    """The naive copy: the same parameters in a network whose coefficients the installed e3nn computed."""
    network = build_network(backbone.config, torch.float64)
    own = backbone.network.state_dict()
    coupling = {name: value for name, value in network.state_dict().items() if "U_matrix" in name or "_w3j_" in name}
    load_state(network, {**own, **coupling}, "naive copy")
    return Mace(network, backbone.config, backbone.head, "e3nn-0.6")


def test_a_naive_copy_of_the_parameters_is_wrong_and_an_adapter_for_one_is_refused_on_the_other(potential, structures, tmp_path):
    naive = Potential(in_native_signs(potential.backbone))
    for (name, one), (_, other) in zip(potential.backbone.named_parameters(), naive.backbone.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    wrong = max(
        float(np.abs(a.forces - b.forces).max()) for a, b in zip(naive.predict(structures), potential.predict(structures), strict=True)
    )
    assert wrong > 1e-5  # eV/Å: a model that looks like the right one
    assert naive.base_sha256 != potential.base_sha256
    trained = potential.to_dtype(torch.float64)
    trained.adapters.add("elora", create_method({"name": "elora", "rank": 2}))
    trained.adapters.randomise("elora", seed=1)
    adapter = trained.adapters.get("elora")
    manifest = AdapterManifest(
        method="elora",
        config=adapter.method.config_dict,
        base_card="golden",
        base_family="mace",
        base_sha256=trained.base_sha256,
        base_convention=trained.backbone.convention,
    )
    write_adapter(tmp_path / "adapter.safetensors", adapter, manifest)
    read_back, tensors = read_adapter(tmp_path / "adapter.safetensors")
    with pytest.raises(AdapterError, match=r"a base of the convention 'signs-\w+'.*found 'e3nn-0.6'"):
        load_into(naive.adapters, "elora", read_back, tensors)
    load_into(potential.to_dtype(torch.float64).adapters, "elora", read_back, tensors)  # the positive control
    untold = read_back.model_copy(update={"base_convention": ""})
    with pytest.raises(AdapterError, match="found a base with values"):  # its hash alone tells as well
        load_into(naive.adapters, "elora", untold, tensors)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-6)])
def test_a_merged_adapter_is_read_by_maces_own_calculator_in_a_fresh_process(potential, structures, tmp_path, dtype, tolerance):
    merged = potential.to_dtype(getattr(torch, dtype))
    merged.adapters.add("elora", create_method({"name": "elora", "rank": 4}))
    merged.adapters.randomise("elora", seed=3)
    merged.set_reference_shifts({1: 0.125, 6: -0.5})
    merged.save_upstream_checkpoint(tmp_path / "merged.model")
    found = upstream("mace", {dtype: tmp_path / "merged.model"}, structures=structures)[dtype]
    predictions = merged.predict(structures)
    np.testing.assert_allclose(np.concatenate([p.forces for p in predictions]), found["forces"], atol=tolerance)
    # float32 resolves 4e-3 eV at the 6e4 eV of this model's reference energies, which upstream adds in it
    np.testing.assert_allclose([p.energy for p in predictions], found["energy"], rtol=1e-13 if dtype == "float64" else 1e-6)
