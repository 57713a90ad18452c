"""NumPy archives: rMD17, MD17/sGDML and NequIP, each by its keys, in its units, against plain numpy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units

from tests.refusals import refusal_of
from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.readers import read_file, read_frames
from zoo.errors import ZooError
from zoo.units import ENERGY_IN_EV

# thermochemical calorie, Avogadro's number and elementary charge of CODATA 2014, which ASE's and so the house's unit is made of
KCAL_PER_MOL = 4184 / (6.022140857e23 * 1.6021766208e-19)
# an older figure that is often quoted, 2.6e-7 larger
QUOTED_KCAL_PER_MOL = 0.0433641153
MOLECULES = {
    **{"aspirin": 21, "azobenzene": 24, "benzene": 12, "ethanol": 9, "malonaldehyde": 9},
    **{"naphthalene": 18, "paracetamol": 20, "salicylic": 16, "toluene": 15, "uracil": 12},
}
NUMBERS = np.array([8, 1, 1])


def water(count: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "positions": generator.normal(size=(count, 3, 3)),
        "energy": generator.normal(size=count) - 76,
        "forces": generator.normal(size=(count, 3, 3)),
    }


def rmd17(**changes: Any) -> dict[str, Any]:
    given = water()
    arrays = {"nuclear_charges": NUMBERS.astype(np.uint8), "coords": given["positions"], "energies": given["energy"]}
    arrays |= {"forces": given["forces"], "old_energies": given["energy"] - 100, "old_forces": -given["forces"]}
    return {**arrays, "old_indices": np.array([124158, 7, 12, 5]), **changes}


def sgdml(**changes: Any) -> dict[str, Any]:
    given = water()
    arrays = {"z": NUMBERS, "R": given["positions"], "E": given["energy"][:, None], "F": given["forces"]}
    return {**arrays, "name": np.array("water"), "theory": np.array(b"PBE"), "type": np.array("d"), **changes}


def nequip(**changes: Any) -> dict[str, Any]:
    given = water()
    arrays = {"atomic_numbers": NUMBERS, "pos": given["positions"], "energy": given["energy"][:, None], "forces": given["forces"]}
    return {**arrays, **changes}


def without(arrays: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values for name, values in arrays.items() if name not in names}


def write(folder: Path, arrays: dict[str, Any]) -> Path:
    np.savez(folder / "water.npz", **arrays)
    return folder / "water.npz"


def assert_water(frames: list[Frame], energy_factor: float, length_factor: float = 1.0) -> None:
    given = water()
    assert len(frames) == 4
    for index, frame in enumerate(frames):
        assert frame.atomic_numbers.tolist() == [8, 1, 1]
        np.testing.assert_allclose(frame.positions, given["positions"][index] * length_factor, rtol=1e-9)
        np.testing.assert_allclose(frame.energy, given["energy"][index] * energy_factor, rtol=1e-9)
        np.testing.assert_allclose(frame.forces, given["forces"][index] * (energy_factor / length_factor), rtol=1e-9)


@pytest.mark.parametrize("molecule", MOLECULES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_rmd17_equals_a_plain_readout_in_ev(data_folder: Callable[[str], Path], molecule: str, part: str) -> None:
    path = data_folder("rmd17") / f"rmd17_{molecule}_{part}_01.npz"
    content = read_file(path, needs=("energy", "forces"))
    with np.load(path) as archive:
        raw = {name: archive[name] for name in archive.files}
    assert len(content.frames) == 1000
    assert {len(frame) for frame in content.frames} == {MOLECULES[molecule]}
    np.testing.assert_allclose([frame.energy for frame in content.frames], raw["energies"] * KCAL_PER_MOL, rtol=1e-8)
    # one factor for both: forces would not show an error in a constant that energies of -4000 eV do
    np.testing.assert_allclose(np.stack([frame.forces for frame in content.frames]), raw["forces"] * KCAL_PER_MOL, rtol=1e-8)
    np.testing.assert_array_equal(np.stack([frame.positions for frame in content.frames]), raw["coords"])
    np.testing.assert_array_equal(content.frames[-1].atomic_numbers, raw["nuclear_charges"])
    assert [frame.identifier for frame in content.frames] == [str(index) for index in raw["old_indices"]]
    assert not any(frame.pbc.any() or frame.cell.any() for frame in content.frames)
    assert content.notes == (f"{path.name}: energies taken as kcal/mol, as the format documents (all 1000 frames)",)


def test_the_house_kcal_per_mol_is_the_one_of_botnets_ethanol(data_folder: Callable[[str], Path]) -> None:
    assert abs(ENERGY_IN_EV["kcal/mol"] / KCAL_PER_MOL - 1) < 1e-8
    assert abs(ENERGY_IN_EV["kcal/mol"] / QUOTED_KCAL_PER_MOL - 1) > 1e-7
    # BOTNet's ethanol in eV was found 1.107 meV above rMD17 times the quoted figure: the two constants differ by just that
    frames = read_frames(data_folder("rmd17") / "rmd17_ethanol_train_01.npz")
    with np.load(data_folder("rmd17") / "rmd17_ethanol_train_01.npz") as archive:
        above = np.array([frame.energy for frame in frames]) - archive["energies"] * QUOTED_KCAL_PER_MOL
    np.testing.assert_allclose(1000 * above, 1.107, atol=6e-4)


def test_the_old_md17_labels_are_read_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, rmd17())
    frames = read_frames(path, LabelKeys(energy_key="old_energies", forces_key="old_forces"))
    np.testing.assert_allclose([frame.energy for frame in frames], (water()["energy"] - 100) * KCAL_PER_MOL)
    np.testing.assert_allclose(frames[1].forces, -water()["forces"][1] * KCAL_PER_MOL)
    assert frames[0].identifier == "124158"


@pytest.mark.parametrize(("name", "frames"), [("test_300K", 1669), ("test_600K", 2138)])
def test_3bpa_is_made_of_molecules_where_the_protocol_says_so(data_folder: Callable[[str], Path], name: str, frames: int) -> None:
    path = data_folder("3bpa") / f"{name}.npz"
    as_stored = read_frames(path)
    assert len(as_stored) == frames
    assert all(frame.pbc.all() and np.diag(frame.cell).min() == 50 for frame in as_stored)  # what the file says, and is wrong
    content = read_file(path, LabelKeys(pbc=False), needs=("energy", "forces"))
    assert not any(frame.pbc.any() or frame.cell.any() for frame in content.frames)
    assert content.notes == (f"{name}.npz: periodicity of the file replaced by pbc=False (all {frames} frames)",)
    with np.load(path) as archive:
        np.testing.assert_array_equal([frame.energy for frame in content.frames], archive["energy"][:, 0])
        np.testing.assert_array_equal(np.stack([frame.forces for frame in content.frames]), archive["forces"])
        np.testing.assert_array_equal(np.stack([frame.positions for frame in content.frames]), archive["pos"])


def test_the_3bpa_archives_are_in_ev_and_at_the_temperatures_they_are_called_after(data_folder: Callable[[str], Path]) -> None:
    folder = data_folder("3bpa")
    means = [
        np.mean([frame.energy for frame in read_frames(folder / name)]) for name in ("train_300K.xyz", "test_300K.npz", "test_600K.npz")
    ]
    # equipartition among 3 N - 6 vibrations, half of each in the potential: 0.97 eV for 300 K more
    rise = (3 * 27 - 6) / 2 * units.kB * 300
    assert abs(means[1] - means[0]) < 0.05
    assert abs(means[2] - means[1] - rise) < 0.05


def test_md17_and_sgdml_are_kcal_per_mol_where_they_state_nothing(tmp_path: Path) -> None:
    assert_water(read_frames(write(tmp_path, sgdml()), needs=("energy", "forces")), KCAL_PER_MOL)


@pytest.mark.parametrize(
    ("energy_unit", "length_unit", "energy_factor", "length_factor"),
    [
        (np.array("kcal/mol"), np.array("Ang"), KCAL_PER_MOL, 1.0),
        (np.array(b"eV"), np.array(b"Ang"), 1.0, 1.0),
        (np.array(["Hartree"]), np.array("bohr"), 27.21138602, 0.52917721067),
        (np.array("kJ/mol"), np.array("nm"), KCAL_PER_MOL / 4.184, 10.0),
    ],
)
def test_stated_units_go_before_those_of_the_layout(
    tmp_path: Path, energy_unit: np.ndarray, length_unit: np.ndarray, energy_factor: float, length_factor: float
) -> None:
    for arrays in (sgdml, rmd17, nequip):
        path = write(tmp_path, arrays(e_unit=energy_unit, r_unit=length_unit))
        assert_water(read_frames(path, needs=("energy", "forces")), energy_factor, length_factor)


def test_nequip_is_ev_in_both_shapes_of_energy_and_atomic_numbers(tmp_path: Path) -> None:
    flat = nequip(energy=water()["energy"], atomic_numbers=np.tile(NUMBERS, (4, 1)))
    mixed = {"z": NUMBERS, "R": water()["positions"], "energy": water()["energy"], "forces": water()["forces"]}
    for arrays in (nequip(), flat, mixed, nequip(forces=water()["forces"], pos=water()["positions"])):
        content = read_file(write(tmp_path, arrays), needs=("energy", "forces"))
        assert_water(content.frames, 1.0)
        assert content.notes == ()
        assert not content.frames[0].pbc.any()


def test_a_cell_and_periodicity_are_kept_for_all_frames_or_one_by_one(tmp_path: Path) -> None:
    cell = np.diag([4.0, 5.0, 6.0]) + 0.1 * np.arange(9).reshape(3, 3)
    cells = cell * np.arange(1, 5)[:, None, None]
    one = read_frames(write(tmp_path, nequip(cell=cell, pbc=np.array([True, False, True]))))
    np.testing.assert_array_equal(one[3].cell, cell)
    assert one[3].pbc.tolist() == [True, False, True]
    each = read_frames(write(tmp_path, nequip(cell=cells, pbc=np.array(True))))
    np.testing.assert_array_equal(each[2].cell, cells[2])
    assert each[2].pbc.all()
    content = read_file(write(tmp_path, nequip(cell=cell)))
    assert content.frames[0].pbc.all()
    assert "does not state pbc" in content.notes[0]


def test_a_lattice_of_sgdml_is_read_where_rows_and_columns_are_the_same(tmp_path: Path) -> None:
    frames = read_frames(write(tmp_path, sgdml(lattice=np.diag([4.0, 5.0, 6.0]))))
    np.testing.assert_array_equal(frames[0].cell, np.diag([4.0, 5.0, 6.0]))
    assert frames[0].pbc.all()
    assert not read_frames(write(tmp_path, sgdml(lattice=np.zeros((3, 3)))))[0].pbc.any()


def test_frames_stored_in_float32_are_widened_before_any_arithmetic(tmp_path: Path) -> None:
    stored = water()["energy"].astype(np.float32)
    frames = read_frames(write(tmp_path, rmd17(energies=stored)))
    np.testing.assert_array_equal([frame.energy for frame in frames], stored.astype(np.float64) * ENERGY_IN_EV["kcal/mol"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (sgdml(e_unit=np.array("kcal")), "e_unit='kcal', which is not a unit known here; write one of kcal/mol"),
        (sgdml(r_unit=np.array("furlong")), "r_unit='furlong'"),
        (sgdml(lattice=np.arange(9.0).reshape(3, 3)), "does not say whether rows or columns"),
        ({"x": np.zeros(3), "y": np.zeros(3)}, r"no known layout \(found: x, y\); wanted are nuclear_charges"),
        (without(rmd17(), "nuclear_charges"), "no known layout"),
        (without(rmd17(), "energies", "forces"), "no known layout"),
        (rmd17(energies=np.zeros(3)), r"'energies' has shape \(3,\) where there are 4 frames"),
        (rmd17(forces=np.zeros((5, 3, 3))), r"'forces' has shape \(5, 3, 3\) where there are 4 frames"),
        (rmd17(forces=np.zeros((4, 2, 3))), r"frame 0: 'forces' has shape \(2, 3\), wanted \(3, 3\)"),
        (rmd17(nuclear_charges=np.array([8, 1])), r"'nuclear_charges' has shape \(2,\), wanted \(3,\) or \(4, 3\)"),
        (rmd17(nuclear_charges=np.array([8, 1, 0])), "no atomic numbers 1 to 118"),
        (rmd17(nuclear_charges=np.array(["O", "H", "H"])), "no atomic numbers 1 to 118"),
        (rmd17(coords=np.zeros((3, 3))), r"'coords' has shape \(3, 3\), wanted \(frames, atoms, 3\)"),
        (nequip(cell=np.eye(2), pbc=np.array(True)), r"'cell' has shape \(2, 2\)"),
        (rmd17(energies=np.array([1.0, "a", None, 2], dtype=object)), "holds pickled Python objects"),
    ],
)
def test_an_archive_that_cannot_be_meant_is_one_line(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = write(tmp_path, arrays)
    refusal = refusal_of(read_frames, path, needs=("energy", "forces"))
    assert re.search(message, refusal)
    assert "water.npz" in refusal


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, without(rmd17(), "forces", "old_forces"))
    assert len(read_frames(path)) == 4
    with pytest.raises(ZooError, match=r"frame 0 has no 'forces'; pass data.forces_key=\.\.\. \(found: energy\)"):
        read_frames(path, needs=("energy", "forces"))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_archive_is_one_line(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path, rmd17())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert "water.npz: is incomplete or damaged" in refusal_of(read_frames, path)


def test_damaged_bytes_and_bare_arrays_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, rmd17())
    damaged = bytearray(path.read_bytes())
    start = damaged.find(b"energies.npy") + 170
    damaged[start : start + 8] = b"\xff" * 8
    path.write_bytes(damaged)
    with pytest.raises(ZooError, match="is incomplete or damaged"):
        read_frames(path)
    with (tmp_path / "bare.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(ZooError, match="holds one bare array"):
        read_frames(tmp_path / "bare.npz")


@pytest.mark.parametrize("wrong", [{"energy_unit": "kcal/mol"}, {"length_unit": "Bohr"}])
def test_units_that_the_archive_states_are_not_contradicted(tmp_path: Path, wrong: dict[str, str]) -> None:
    np.savez(
        tmp_path / "md.npz",
        z=[1, 1],
        R=[[[0.0, 0.0, 0.0], [0.0, 0.0, 0.7]]],
        E=[1.0],
        F=np.ones((1, 2, 3)),
        e_unit="eV",
        r_unit="Ang",
    )
    (frame,) = read_frames(tmp_path / "md.npz")
    assert frame.energy == 1.0
    with pytest.raises(ZooError, match="is set; remove the setting"):
        read_frames(tmp_path / "md.npz", LabelKeys(**wrong))
