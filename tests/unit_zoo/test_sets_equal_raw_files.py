"""Published sets against a second, plain readout of their raw files, container by container.

The readout knows the containers (text, NumPy, JSON, SQLite) and nothing of the package, which only finds the files, by their checksums.
"""

from __future__ import annotations

import json
import re
import sqlite3
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_numbers, chemical_symbols
from ase.io import ulm

from tests.published_sets import KCAL_PER_MOL, frames_of
from zoo.data.config import DataConfig
from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.named import load_named
from zoo.data.readers import read_file

KBAR = 1e8 / 1.602176634e11  # in eV/Å^3: pascals over elementary charge and Å^3


MOLECULES = ("aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde", "naphthalene", "paracetamol", "salicylic", "toluene", "uracil")
ACAC = ("train_300K", "train_600K", "test_300K", "test_600K", "test_dihedral", "test_H_transfer", "isolated_atoms")


@dataclass(frozen=True)
class Plain:
    """One frame of the second readout, in eV, Å and ASE's sign; None where the raw file has nothing, NaN forces on held atoms."""

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    energy: float
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    fixed: np.ndarray | None = None
    tags: np.ndarray | None = None
    moments: np.ndarray | None = None
    magnetic_forces: np.ndarray | None = None


def _assert_equal(frames: tuple[Frame, ...] | list[Frame], plain: list[Plain], energy_tolerance: float = 1e-15) -> None:
    assert len(frames) == len(plain) > 0
    for frame, raw in zip(frames, plain, strict=True):
        np.testing.assert_array_equal(frame.atomic_numbers, raw.numbers)
        np.testing.assert_array_equal(frame.positions, raw.positions)
        np.testing.assert_allclose(frame.cell, raw.cell, rtol=0, atol=1e-12)
        np.testing.assert_allclose(frame.energy, raw.energy, rtol=energy_tolerance)
        missing = np.full(frame.positions.shape, np.nan)
        np.testing.assert_allclose(frame.forces, missing if raw.forces is None else raw.forces, rtol=energy_tolerance, atol=1e-14)
        stress = np.full((3, 3), np.nan) if raw.stress is None else raw.stress
        np.testing.assert_allclose(frame.stress, stress, rtol=1e-8, atol=1e-14)
        for ours, theirs in (
            (frame.fixed, raw.fixed),
            (frame.tags, raw.tags),
            (frame.magnetic_moments, raw.moments),
            (frame.magnetic_forces, raw.magnetic_forces),
        ):
            assert (ours is None) == (theirs is None)
            if theirs is not None:
                np.testing.assert_array_equal(ours, theirs)


def _xyz(path: Path) -> Iterator[Plain]:
    """Extended XYZ whose columns are element, position and perhaps force."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = 0
    while start < len(lines):
        count, comment = int(lines[start]), lines[start + 1]
        rows = [line.split() for line in lines[start + 2 : start + 2 + count]]
        values = np.array([row[1:] for row in rows], dtype=np.float64)
        cell = re.search(r'Lattice="([^"]*)"', comment)
        periodic = 'pbc="T T T"' in comment
        assert periodic or 'pbc="F F F"' in comment
        stress = re.search(r'stress="([^"]*)"', comment)
        energy = re.search(r"(?:^| )energy=(\S+)", comment)
        forces = "forces:R:3" in comment
        assert energy is not None
        assert values.shape[1] == (6 if forces else 3)
        yield Plain(
            numbers=np.array([atomic_numbers[row[0]] for row in rows]),
            positions=values[:, :3],
            cell=np.array(cell[1].split(), dtype=np.float64).reshape(3, 3) if cell else np.zeros((3, 3)),
            energy=float(energy[1]),
            forces=values[:, 3:] if forces else None,
            stress=np.array(stress[1].split(), dtype=np.float64).reshape(3, 3) if stress else None,
        )
        start += 2 + count


@pytest.mark.parametrize(
    ("name", "key"),
    [*(("acac", key) for key in ACAC), ("3bpa", "train_300K"), ("3bpa", "train_mixedT"), ("3bpa", "isolated_atoms")],
)
def test_texts_of_molecules_equal_their_columns(name: str, key: str, on_disk) -> None:
    _assert_equal(frames_of(name, key), list(_xyz(on_disk(name, key))))


@pytest.mark.parametrize("name", ["alexandria-random-1k", "mpf-tp", "mptrj-1k", "mptrj-highest-stress-1k"])
def test_texts_of_crystals_equal_their_columns_in_the_units_that_they_state(name: str, on_disk) -> None:
    path = on_disk(name, "frames")
    text = path.read_text(encoding="utf-8")
    assert text.count("energy_unit=eV forces_unit=eV/A stress_unit=eV/A^3 ") == text.count("Lattice=")
    plain = list(_xyz(path))
    assert all(raw.stress is not None for raw in plain)
    _assert_equal(frames_of(name, "frames"), plain)


@pytest.mark.parametrize("key", ["train_1", "test_1", "isolated_atoms"])
@pytest.mark.parametrize("molecule", MOLECULES)
def test_rmd17_equals_its_arrays_in_ev(molecule: str, key: str, on_disk) -> None:
    name = f"rmd17/{molecule}"
    path = on_disk(name, key)
    if key == "isolated_atoms":
        return _assert_equal(frames_of(name, key), list(_xyz(path)))
    with np.load(path, allow_pickle=False) as arrays:
        charges, positions, energies, forces = (arrays[name] for name in ("nuclear_charges", "coords", "energies", "forces"))
        assert not np.allclose(energies, arrays["old_energies"], rtol=1e-9), "the labels of the first MD17 would pass for these"
    plain = [
        Plain(charges, position, np.zeros((3, 3)), energy * KCAL_PER_MOL, force * KCAL_PER_MOL)
        for position, energy, force in zip(positions, energies, forces, strict=True)
    ]
    return _assert_equal(frames_of(name, key), plain, energy_tolerance=1e-12)


@pytest.mark.parametrize("key", ["test_300K", "test_600K"])
def test_3bpa_archives_equal_their_arrays_and_are_molecules_by_their_card_alone(key: str, on_disk) -> None:
    path = on_disk("3bpa", key, ".npz")
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["pbc"].all()
        numbers = arrays["atomic_numbers"]
        plain = [
            Plain(numbers, position, np.zeros((3, 3)), float(energy[0]), force)
            for position, energy, force in zip(arrays["pos"], arrays["energy"], arrays["forces"], strict=True)
        ]
    _assert_equal(frames_of("3bpa", key), plain)
    assert not any(frame.pbc.any() for frame in frames_of("3bpa", key))
    content = read_file(path, LabelKeys())
    assert all(frame.pbc.all() and frame.cell.any() for frame in content.frames)


def _systems(folder: Path, types: list[str] | None = None) -> dict[str, list[Plain]]:
    """DeePMD npy: system name to its frames, in the order of its sets."""
    systems = {}
    for types_file in sorted(folder.rglob("type.raw")):
        system = types_file.parent
        symbols = types or (system / "type_map.raw").read_text().split()
        numbers = np.array([atomic_numbers[symbols[int(index)]] for index in types_file.read_text().split()])
        frames = []
        for part in sorted(system.glob("set.*")):
            stored = {path.stem: np.load(path, allow_pickle=False) for path in part.glob("*.npy")}
            for index in range(len(stored["energy"])):
                row = {name: values[index].astype(np.float64) for name, values in stored.items()}
                cell = row["box"].reshape(3, 3)
                volume = abs(np.dot(cell[0], np.cross(cell[1], cell[2])))
                frames.append(
                    Plain(
                        numbers=numbers,
                        positions=row["coord"].reshape(-1, 3),
                        cell=cell,
                        energy=float(row["energy"]),
                        forces=row["force"].reshape(-1, 3),
                        stress=-row["virial"].reshape(3, 3) / volume if "virial" in row else None,
                        moments=row["spin"].reshape(-1, 3) if "spin" in row else None,
                        magnetic_forces=row["force_mag"].reshape(-1, 3) if "force_mag" in row else None,
                    )
                )
        systems[system.relative_to(folder).as_posix()] = frames
    return systems


@pytest.mark.parametrize(("name", "types", "count"), [("lam/sse-pbe-ligeps", ["Li", "Ge", "P", "S"], 15), ("lam/hfo2-init", None, 24)])
def test_deepmd_systems_equal_their_arrays_with_stress_from_the_virial(name: str, types: list[str] | None, count: int, on_disk) -> None:
    systems = _systems(on_disk(name, "frames"), types)
    assert len(systems) == count
    ours: dict[str, list[Frame]] = {}
    for frame in frames_of(name, "frames"):
        ours.setdefault(frame.source, []).append(frame)
    assert set(ours) == set(systems)
    for system, plain in systems.items():
        _assert_equal(ours[system], plain)


def test_precision_of_deepmd_arrays_is_mixed_and_kept(on_disk) -> None:
    folder = on_disk("lam/sse-pbe-ligeps", "frames")
    kinds = {}
    for path in folder.rglob("energy.npy"):
        kinds[path.parents[1].relative_to(folder).as_posix()] = np.load(path, allow_pickle=False).dtype
    assert set(kinds.values()) == {np.dtype("f4"), np.dtype("f8")}
    for frame in frames_of("lam/sse-pbe-ligeps", "frames"):
        single = float(np.float32(frame.energy)) == frame.energy
        assert single or kinds[frame.source] == np.dtype("f8")
    doubles = [frame.energy for frame in frames_of("lam/sse-pbe-ligeps", "frames") if kinds[frame.source] == np.dtype("f8")]
    assert not np.array_equal(np.float32(doubles).astype(np.float64), doubles)


@pytest.mark.parametrize("key", ["data_0", "data_1", "data_2"])
def test_spins_and_magnetic_forces_equal_their_arrays(key: str, on_disk) -> None:
    (plain,) = _systems(on_disk("nio-deltaspin", key)).values()
    assert all(raw.moments is not None and raw.magnetic_forces is not None and raw.moments.any() for raw in plain)
    _assert_equal(frames_of("nio-deltaspin", key), plain)


@pytest.mark.parametrize("key", ["AIMD", "Elastic", "Surface", "Vacancy"])
def test_copper_equals_its_json_with_stress_turned_into_ases(key: str, on_disk) -> None:
    plain = []
    for entry in json.loads(on_disk("cu-snap", key).read_text(encoding="utf-8")):
        sites, outputs = entry["structure"]["sites"], entry["outputs"]
        xx, yy, zz, xy, yz, zx = (-value * KBAR for value in outputs["stress"])
        plain.append(
            Plain(
                numbers=np.array([atomic_numbers[site["species"][0]["element"]] for site in sites]),
                positions=np.array([site["xyz"] for site in sites]),
                cell=np.array(entry["structure"]["lattice"]["matrix"]),
                energy=outputs["energy"],
                forces=np.array(outputs["forces"]),
                stress=np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]]),
            )
        )
    assert any(abs(raw.stress[0, 1] - raw.stress[1, 2]) > 1e-5 for raw in plain), "a wrong order of the six would pass"
    _assert_equal(frames_of("cu-snap", key), plain)


@pytest.mark.parametrize(("name", "key", "correlation"), [("cu-snap", "Elastic", 0.9), ("lam/hfo2-init", "frames", 0.5)])
def test_a_stretched_cell_pulls_and_a_compressed_one_pushes(name: str, key: str, correlation: float, on_disk) -> None:
    on_disk(name, key)
    volumes, traces = np.array([(abs(np.linalg.det(f.cell)) / len(f), np.trace(f.stress)) for f in frames_of(name, key)]).T
    assert np.corrcoef(volumes, traces)[0, 1] > correlation
    assert traces[volumes.argmin()] < 0 < traces[volumes.argmax()]


def test_oxides_equal_the_numbers_in_their_database(on_disk) -> None:
    with sqlite3.connect(f"file:{on_disk('oxides', 'frames')}?mode=ro&immutable=1", uri=True) as database:
        rows = database.execute("SELECT numbers, positions, cell, pbc, energy, forces, tags FROM systems ORDER BY id").fetchall()
    plain = []
    for numbers, positions, cell, pbc, energy, forces, tags in rows:
        assert pbc == 7  # a bit for each direction
        positions, cell, forces = (np.frombuffer(blob, "<f8").reshape(-1, 3) for blob in (positions, cell, forces))
        plain.append(Plain(np.frombuffer(numbers, "<i4"), positions, cell, energy, forces, tags=np.frombuffer(tags, "<i4")))
    _assert_equal(frames_of("oxides", "frames"), plain)


def test_a_slab_equals_its_json_and_its_held_atoms_have_no_forces(on_disk) -> None:
    row = json.loads(on_disk("oc20/samples", "slab").read_text(encoding="utf-8"))["1"]

    def array(value: dict) -> np.ndarray:
        shape, kind, values = value["__ndarray__"]
        return np.array(values, dtype=kind).reshape(shape)

    held = np.zeros(34, dtype=bool)
    held[row["constraints"][0]["kwargs"]["indices"]] = True
    forces = array(row["forces"])
    forces[held] = np.nan
    plain = Plain(
        array(row["numbers"]),
        array(row["positions"]),
        array(row["cell"]["array"]),
        row["energy"],
        forces,
        fixed=held,
        tags=array(row["tags"]),
    )
    assert held.sum() == 24
    assert set(plain.tags) == {0, 1}
    _assert_equal(frames_of("oc20/samples", "slab"), [plain])


def test_a_trajectory_equals_the_items_of_its_file(on_disk) -> None:
    items = ulm.open(on_disk("oc20/samples", "trajectory"))
    held = np.zeros(17, dtype=bool)
    plain = []
    for item in items:
        (constraint,) = json.loads(item.constraints)
        held[:] = False
        held[constraint["kwargs"]["indices"]] = True
        forces = np.where(held[:, None], np.nan, item.calculator.forces)
        plain.append(Plain(item.numbers, item.positions, np.array(item.cell), item.calculator.energy, forces, fixed=held.copy()))
    assert 0 < held.sum() < 17
    _assert_equal(frames_of("oc20/samples", "trajectory"), plain)


def test_linear_references_are_those_of_the_file_without_its_garbage(on_disk) -> None:
    with np.load(on_disk("oc20/samples", "linear_references"), allow_pickle=False) as arrays:
        coefficients = arrays["coeff"]
    assert np.abs(coefficients).max() > 1e8
    references = load_named(DataConfig(name="oc20/samples"), ()).origin.linear_references
    assert references == {number: energy for number, energy in enumerate(coefficients) if 0 < abs(energy) < 1e3}
    assert len(references) > 50


def _member(archive: Path, ending: str) -> str:
    with zipfile.ZipFile(archive) as opened:
        (name,) = [name for name in opened.namelist() if name.endswith(ending) and not name.startswith("__MACOSX")]
        return opened.read(name).decode()


def test_an_outcar_equals_its_own_text(on_disk) -> None:
    text = _member(on_disk("chgnet-vasp", "outcar"), "/OUTCAR")
    table = [line.split() for line in text.split("TOTAL-FORCE (eV/Angst)")[1].splitlines()[2:42]]
    positions, forces = np.hsplit(np.array(table, dtype=np.float64), 2)
    # thirteen characters a number, which may touch
    rows = [line[3:] for line in text.split("direct lattice vectors")[-1].splitlines()[1:4]]
    cell = np.array([[row[:13], row[13:26], row[26:39]] for row in rows], dtype=np.float64)
    xx, yy, zz, xy, yz, zx = (-KBAR * float(value) for value in re.search(r"in kB +(.*)", text)[1].split())
    species = [atomic_numbers[name.split("_")[0]] for name in re.findall(r"VRHFIN =(\w+)", text)]
    counts = [int(count) for count in re.search(r"ions per type = +(.*)", text)[1].split()]
    moments = [float(line.split()[-1]) for line in text.rsplit("magnetization (x)", 1)[1].splitlines()[4:44]]
    plain = Plain(
        numbers=np.repeat(species, counts),
        positions=positions,
        cell=cell,
        energy=float(re.search(r"energy  without entropy=.*energy\(sigma->0\) = +(\S+)", text)[1]),
        forces=forces,
        stress=np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]]),
        moments=np.column_stack([np.zeros((40, 2)), moments]),
    )
    _assert_equal(frames_of("chgnet-vasp", "outcar"), [plain])


def test_a_vasprun_equals_its_own_tables(on_disk) -> None:
    path = on_disk("chgnet-vasp", "vasprun")
    root = ElementTree.fromstring(path.read_text())
    (step,) = root.iter("calculation")

    def rows(name: str) -> np.ndarray:
        return np.array([entry.text.split() for entry in step.findall(f".//varray[@name='{name}']/v")], dtype=np.float64)

    cell = rows("basis")
    (frame,) = frames_of("chgnet-vasp", "vasprun")
    symbols = [entry.find("c").text.strip() for entry in root.findall(".//array[@name='atoms']/set/rc")]
    assert [chemical_symbols[number] for number in frame.atomic_numbers] == symbols
    np.testing.assert_allclose(frame.cell, cell, atol=1e-12)
    np.testing.assert_allclose(frame.positions, rows("positions") @ cell, atol=1e-10)
    np.testing.assert_array_equal(frame.forces, rows("forces"))
    stress = rows("stress")
    np.testing.assert_allclose(frame.stress, -KBAR * (stress + stress.T) / 2, rtol=1e-5, atol=1e-9)
    assert frame.energy == float(step.find("energy/i[@name='e_0_energy']").text)
    assert not frame.has_magnetic_moments
