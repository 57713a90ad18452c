"""pymatgen's JSON as SNAP, MatPES and MPtrj write it: labels, VASP's stress, and ASE's own JSON left to ASE."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT

from tests.refusals import refusal_of
from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.readers import formats, json_members, read_file, read_frames
from zoo.errors import ZooError

KBAR = units.GPa / 10
# VASP's order of six numbers as rows and columns of the tensor
VASP_ORDER = ((0, 1, 2, 0, 1, 2), (0, 1, 2, 1, 2, 0))
SNAP_FRAMES = {"AIMD": 120, "Elastic": 122, "Surface": 12, "Vacancy": 40}
ALL = ("energy", "forces", "stress")


def copper(shift: float = 0.0, scale: float = 1.0) -> Atoms:
    """A sheared, displaced cell of four atoms: no two components of its stress are alike."""
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(scale * atoms.cell.array + 0.1 * np.arange(9).reshape(3, 3) / 9, scale_atoms=True)
    atoms.rattle(0.05, seed=2)
    atoms.positions[0, 0] += shift
    atoms.calc = EMT()
    return atoms


def structure(atoms: Atoms, **site: Any) -> dict[str, Any]:
    """As pymatgen's ``Structure.as_dict`` writes it."""
    fractional = atoms.get_scaled_positions(wrap=False)
    sites = [
        {"species": [{"element": symbol, "occu": 1}], "abc": list(abc), "xyz": list(xyz), "label": symbol, **site}
        for symbol, abc, xyz in zip(atoms.get_chemical_symbols(), fractional, atoms.positions, strict=True)
    ]
    return {"@module": "pymatgen.core.structure", "@class": "Structure", "lattice": {"matrix": atoms.cell.tolist()}, "sites": sites}


def vasp_stress(atoms: Atoms) -> np.ndarray:
    """What VASP would print for the same structure: kbar, positive under compression, its own order."""
    return -atoms.get_stress(voigt=False)[VASP_ORDER] / KBAR


def labels(atoms: Atoms) -> dict[str, Any]:
    return {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist(), "stress": vasp_stress(atoms).tolist()}


def snap(atoms: Atoms) -> dict[str, Any]:
    return {"_id": "5b33", "group": "Cu", "tags": ["vac"], "num_atoms": 4, "structure": structure(atoms), "outputs": labels(atoms)}


def mptrj(atoms: Atoms, **changes: Any) -> dict[str, Any]:
    energy = atoms.get_potential_energy()
    entry = {
        "structure": structure(atoms),
        "uncorrected_total_energy": energy,
        "corrected_total_energy": energy - 3,
        "energy_per_atom": 1.0,
    }
    stress = (-atoms.get_stress(voigt=False) / KBAR).tolist()
    return {**entry, "force": atoms.get_forces().tolist(), "stress": stress, "magmom": [0.1, -0.2, 0.3, 0.0], "mp_id": "mp-1", **changes}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def assert_same(frame: Frame, atoms: Atoms) -> None:
    np.testing.assert_allclose(frame.positions, atoms.positions, rtol=1e-12)
    np.testing.assert_allclose(frame.cell, atoms.cell.array)
    assert frame.pbc.all()
    np.testing.assert_allclose(frame.energy, atoms.get_potential_energy())
    np.testing.assert_allclose(frame.forces, atoms.get_forces())
    np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), rtol=1e-12)


@pytest.mark.parametrize("name", SNAP_FRAMES)
def test_snap_copper_equals_a_plain_readout(data_folder: Callable[[str], Path], name: str) -> None:
    path = data_folder("near_cu_snap") / f"{name}.json"
    frames = read_frames(path, needs=ALL)
    entries = json.loads(path.read_text())
    assert len(frames) == len(entries) == SNAP_FRAMES[name]
    for frame, entry in zip(frames, entries, strict=True):
        assert frame.atomic_numbers.tolist() == [29] * entry["num_atoms"]
        np.testing.assert_array_equal(frame.positions, [site["xyz"] for site in entry["structure"]["sites"]])
        np.testing.assert_array_equal(frame.cell, entry["structure"]["lattice"]["matrix"])
        assert frame.energy == entry["outputs"]["energy"]
        np.testing.assert_array_equal(frame.forces, entry["outputs"]["forces"])
        np.testing.assert_allclose(-frame.stress[VASP_ORDER] / KBAR, entry["outputs"]["stress"], rtol=1e-12)
        assert frame.identifier == entry["_id"]


def test_snap_stress_has_the_sign_and_order_of_a_real_model(data_folder: Callable[[str], Path]) -> None:
    import zoo

    folder = data_folder("near_cu_snap")
    frames = [*read_frames(folder / "Vacancy.json", needs=ALL)[:1], *read_frames(folder / "AIMD.json", needs=ALL)[:2]]
    predicted = np.stack([one.stress for one in zoo.load("sevennet-0").predict([frame.to_atoms() for frame in frames])])
    stress = np.stack([frame.stress for frame in frames])
    shear = (0, 1, 0), (1, 2, 2)  # xy, yz, xz
    found, wanted = stress[:, *shear], predicted[:, *shear]
    in_place = np.abs(found - wanted).max()
    # the positive controls: ASE's order for the six numbers, and the other sign, are both much further away
    assert np.abs(found[:, [1, 2, 0]] - wanted).max() > 3 * in_place
    assert np.abs(found + wanted).max() > 3 * in_place
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.95


def test_a_compressed_cell_has_ases_negative_stress(tmp_path: Path) -> None:
    squeezed, pulled = copper(scale=0.95), copper(scale=1.05)
    frames = read_frames(write(tmp_path / "cu.json", [snap(squeezed), snap(pulled)]), needs=ALL)
    assert np.trace(frames[0].stress) < 0 < np.trace(frames[1].stress)
    # the diagonal is -dE/dV by finite differences of the energies that were written
    volumes, energies = [], []
    for factor in (0.949, 0.951):
        atoms = copper(scale=0.95)
        atoms.set_cell(atoms.cell * factor / 0.95, scale_atoms=True)
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    np.testing.assert_allclose(np.trace(frames[0].stress) / 3, np.diff(energies)[0] / np.diff(volumes)[0], rtol=1e-3)


def test_every_layout_gives_the_same_frames(tmp_path: Path) -> None:
    first, second = copper(), copper(0.03)
    bare = [{**structure(atoms), **labels(atoms)} for atoms in (first, second)]
    entries = [{"matpes_id": f"matpes-{i}", "structure": structure(atoms), **labels(atoms)} for i, atoms in enumerate((first, second))]
    trajectories = {"mp-1": {"mp-1-0-0": mptrj(first)}, "mp-2": {"mp-2-0-0": mptrj(second)}}
    for content in ([snap(first), snap(second)], bare, entries, trajectories):
        frames = read_frames(write(tmp_path / "cu.json", content), needs=ALL)
        assert len(frames) == 2
        assert_same(frames[0], first)
        assert_same(frames[1], second)
    for content in (snap(first), bare[0], entries[0], {"params": {"pp": {"Cu": "Cu_pv"}}, **entries[0]}):
        (frame,) = read_frames(write(tmp_path / "cu.json", content), needs=ALL)
        assert_same(frame, first)


def test_mptrj_has_raw_energies_moments_and_names_of_its_frames(tmp_path: Path) -> None:
    first, second = copper(), copper(0.03)
    content = {"mp-1": {"mp-1-0-0": mptrj(first), "mp-1-0-1": mptrj(second, magmom=None)}}
    path = write(tmp_path / "mptrj.json", content)
    read = read_file(path, needs=ALL)
    assert [frame.identifier for frame in read.frames] == ["mp-1-0-0", "mp-1-0-1"]
    assert read.frames[0].magnetic_moments is not None
    assert read.frames[0].magnetic_moments.tolist() == [[0, 0, 0.1], [0, 0, -0.2], [0, 0, 0.3], [0, 0, 0]]
    assert not read.frames[1].has_magnetic_moments
    assert any("energy is uncorrected_total_energy" in note for note in read.notes)
    assert any("positive under compression" in note for note in read.notes)
    corrected = read_frames(path, LabelKeys(energy_key="corrected_total_energy"))
    np.testing.assert_allclose(corrected[1].energy, second.get_potential_energy() - 3)


def test_site_properties_are_labels_where_they_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "cu.json", [{"structure": structure(copper(), properties={"magmom": 0.5}), "energy": -1.0}])
    assert not read_frames(path)[0].has_magnetic_moments  # in an input structure they are the initial ones
    (frame,) = read_frames(path, LabelKeys(magnetic_moments_key="magmom"))
    assert frame.magnetic_moments is not None
    assert frame.magnetic_moments[:, 2].tolist() == [0.5] * 4
    # one number for the whole cell is no label of atoms
    path = write(tmp_path / "cu.json", [{"structure": structure(copper()), "energy": -1.0, "magmom": 2.0}])
    assert not read_frames(path)[0].has_magnetic_moments


def test_positions_are_made_of_the_cell_where_only_fractional_ones_are_there(tmp_path: Path) -> None:
    atoms = copper()
    entry = snap(atoms)
    for site in entry["structure"]["sites"]:
        del site["xyz"]
    (frame,) = read_frames(write(tmp_path / "cu.json", [entry]))
    np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-12)


def test_a_compressed_file_reads_alike(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "cu.json.gz", "wt") as stream:
        json.dump([snap(copper())], stream)
    assert_same(read_frames(tmp_path / "cu.json.gz", needs=ALL)[0], copper())


def test_ases_own_json_goes_to_ase(tmp_path: Path, data_folder: Callable[[str], Path]) -> None:
    atoms = copper()
    atoms.get_forces()
    ase.io.write(tmp_path / "ase.json", atoms)
    snap_file = write(tmp_path / "snap.json", [snap(copper())])
    slab = data_folder("oc20") / "atoms.json"
    recognises = formats()["pymatgen_json"].recognises
    assert [recognises(path) for path in (tmp_path / "ase.json", snap_file, slab)] == [False, True, False]
    assert read_frames(slab)[0].energy == pytest.approx(-135.66393572)
    assert read_frames(tmp_path / "ase.json")[0].energy == pytest.approx(atoms.get_potential_energy())


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    entry = snap(copper())
    change(entry)
    return entry


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            broken(lambda e: e["structure"]["sites"][2].update(species=[{"element": "Cu", "occu": 0.5}, {"element": "Au", "occu": 0.5}])),
            r"entry 1, site 2, is disordered \(Cu 0.5, Au 0.5\)",
        ),
        (broken(lambda e: e["structure"]["sites"][0].update(species=[{"element": "Cu", "occu": 0.9}])), r"is disordered \(Cu 0.9\)"),
        (broken(lambda e: e["structure"]["sites"][0].update(species=[{"element": "Q", "occu": 1}])), "'Q', which is not an element"),
        (broken(lambda e: e.update(num_atoms=5)), "entry 1 says num_atoms=5 but has 4 sites"),
        (broken(lambda e: e["structure"]["sites"][0].update(xyz=[1.0, 2.0, 3.0])), "'xyz' and 'abc' of its sites are up to"),
        (broken(lambda e: e["structure"].pop("lattice")), "entry 1 holds no pymatgen structure"),
        (broken(lambda e: e.update(structure="POSCAR")), "entry 1 holds no pymatgen structure"),
        (broken(lambda e: e["outputs"].pop("forces")), r"frame 1 has no 'forces'; pass data.forces_key"),
        (broken(lambda e: e["outputs"].update(stress=[1, 2, 3])), r"'stress' has shape \(3,\)"),
        (broken(lambda e: e["outputs"].update(energy=float("nan"))), "'energy' are NaN or infinite"),
        ([1, 2], "entry 1 holds no pymatgen structure"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_one_line(tmp_path: Path, entry: Any, message: str) -> None:
    path = write(tmp_path / "cu.json", [snap(copper()), entry])
    refusal = refusal_of(read_frames, path, needs=ALL)
    assert re.search(message, refusal)
    assert "cu.json" in refusal


@pytest.mark.parametrize("layout", ["list", "object"])
def test_a_truncated_file_says_after_how_many_entries(tmp_path: Path, layout: str) -> None:
    entries = [snap(copper(0.01 * step)) for step in range(3)]
    text = json.dumps(entries if layout == "list" else {f"mp-{i}": {"frame": entry} for i, entry in enumerate(entries)})
    (tmp_path / "cu.json").write_text(text[: int(0.9 * len(text))])
    assert "cu.json: is incomplete or not JSON after 2 whole entries" in refusal_of(read_frames, tmp_path / "cu.json")
    compressed = gzip.compress(text.encode())
    (tmp_path / "cu.json.gz").write_bytes(compressed[: len(compressed) // 2])
    with pytest.raises(ZooError, match=r"cu\.json\.gz: is incomplete or not JSON"):
        read_frames(tmp_path / "cu.json.gz")


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_members_are_those_of_json_wherever_the_window_ends(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_members, "_CHUNK_CHARACTERS", chunk)
    listed = [12, -3.5e-2, 'a "quoted" [string]', [], {}, {"a": [1, {"b": None}]}, True, "é", 123456]
    for text in (json.dumps(listed), json.dumps(listed, indent=2), f"  {json.dumps(listed)}\n"):
        assert [value for _, value in json_members.members(io.StringIO(text))] == listed
    named = {f"key {index}": value for index, value in enumerate(listed)}
    assert list(json_members.members(io.StringIO(json.dumps(named, indent=1)))) == list(named.items())
    assert list(json_members.members(io.StringIO(" [ ] "))) == list(json_members.members(io.StringIO("{}"))) == []


@pytest.mark.parametrize("text", ["", "12", "[1 2]", "[1,", '{"a" 1}', '{"a": 1', "[1, nope]", '["a'])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        list(json_members.members(io.StringIO(text)))
