"""DeePMD folders: equal to dpdata and to what was written, stress of ASE's sign, and every doubt refused with the file's name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import dpdata
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from tests.refusals import refusal_of
from zoo.data.keys import LabelKeys
from zoo.data.raw import RawFrame, ReadOptions
from zoo.data.readers import formats, read_file, read_frames

FRAMES, TYPES = 3, (0, 1, 1)


def arrays_of(types: tuple[int, ...] = TYPES, frames: int = FRAMES, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    width = 3 * len(types)
    return {
        "box": np.tile(np.diag([4.0, 5.0, 6.0]).ravel(), (frames, 1)) + random.normal(0, 0.1, (frames, 9)),
        "coord": random.uniform(0, 4, (frames, width)),
        "energy": -9391.123456789 + random.normal(size=frames),
        "force": random.normal(size=(frames, width)),
        "virial": random.normal(size=(frames, 9)),
    }


def write(folder: Path, types: tuple[int, ...] = TYPES, symbols: str | None = "O H", **sets: dict[str, np.ndarray]) -> Path:
    """A system with the arrays of each set (``set_000={...}``), one drawn at random where none is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type.raw").write_text(" ".join(map(str, types)))
    if symbols is not None:
        (folder / "type_map.raw").write_text(symbols)
    for name, arrays in (sets or {"set_000": arrays_of(types)}).items():
        target = folder / name.replace("_", ".")
        target.mkdir()
        for stem, array in arrays.items():
            np.save(target / f"{stem}.npy", array)
    return folder


def raw_frames(path: Path, type_map: tuple[str, ...] | None = None) -> list[RawFrame]:
    return list(formats()["deepmd"].read(path, ReadOptions(type_map)))


def refusal(path: Path, **keys: Any) -> str:
    message = refusal_of(read_file, path, LabelKeys(format="deepmd", **keys))
    assert "cannot be read as deepmd" not in message  # the net below the format: a case that it did not foresee
    return message


def strained_copper(scale: float) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(scale * atoms.cell.array @ (np.eye(3) + 0.01 * np.arange(9).reshape(3, 3) / 9), scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    return atoms


def stress_by_differences(atoms: Atoms, step: float = 1e-5) -> np.ndarray:
    """(3, 3) of dE/dε / V, central differences over symmetric strains."""
    stress = np.zeros((3, 3))
    for i, j in np.ndindex(3, 3):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += 0.5 * sign * step
            strain[j, i] += 0.5 * sign * step
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            moved.calc = EMT()
            energies.append(moved.get_potential_energy())
        stress[i, j] = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
    return stress


# --- the sign of the stress


@pytest.mark.parametrize(("scale", "sign"), [(0.96, -1), (1.04, 1)], ids=["compressed", "stretched"])
def test_stress_is_the_derivative_of_the_energy_by_the_strain(tmp_path: Path, scale: float, sign: int) -> None:
    atoms = strained_copper(scale)
    stress = atoms.get_stress(voigt=False)
    arrays = {
        "box": atoms.cell.array.reshape(1, 9),
        "coord": atoms.positions.reshape(1, -1),
        "energy": np.array([atoms.get_potential_energy()]),
        "force": atoms.get_forces().reshape(1, -1),
        "virial": (-stress * atoms.get_volume()).reshape(1, 9),
    }
    (frame,) = read_frames(write(tmp_path / "copper", (0,) * len(atoms), "Cu", set_000=arrays), needs=("energy", "forces", "stress"))
    assert np.sign(np.trace(frame.stress)) == sign
    assert np.abs(frame.stress[0, 1]) > 1e-4  # a transposed or reordered tensor would not show otherwise
    np.testing.assert_allclose(frame.stress, stress, rtol=1e-12)
    np.testing.assert_allclose(frame.stress, stress_by_differences(frame.to_atoms()), atol=1e-8)
    np.testing.assert_allclose(frame.forces, atoms.get_forces(), rtol=1e-12)


@pytest.mark.parametrize("scale", [0.96, 1.04])
def test_stress_comes_back_from_what_another_program_writes(tmp_path: Path, scale: float) -> None:
    atoms = strained_copper(scale)
    dpdata.LabeledSystem(atoms, fmt="ase/structure").to("deepmd/npy", str(tmp_path / "copper"), prec=np.float64)
    (frame,) = read_frames(tmp_path / "copper")
    np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), rtol=1e-9)


def test_virial_of_the_keys_gives_the_same_stress(tmp_path: Path) -> None:
    folder = write(tmp_path / "water")
    for frame, other in zip(read_frames(folder), read_frames(folder, LabelKeys(virial_key="virial")), strict=True):
        np.testing.assert_allclose(other.stress, frame.stress, rtol=1e-12)


# --- the forms of a system


def test_sets_come_in_order_and_only_those_with_a_virial_have_a_stress(tmp_path: Path) -> None:
    first, second = arrays_of(seed=1), arrays_of(seed=2, frames=2)
    del second["virial"]
    frames = read_frames(write(tmp_path / "water", set_001=second, set_000=first))
    assert [frame.energy for frame in frames] == [*first["energy"], *second["energy"]]
    assert [frame.has_stress for frame in frames] == [True, True, True, False, False]
    assert [frame.name for frame in frames][-1] == "water: frame 4"


def test_text_files_give_what_npy_files_give(tmp_path: Path) -> None:
    expected = read_frames(write(tmp_path / "npy"))
    dpdata.LabeledSystem(str(tmp_path / "npy"), fmt="deepmd/npy").to("deepmd/raw", str(tmp_path / "raw"))
    assert not list((tmp_path / "raw").glob("set.*"))
    for frame, other in zip(read_frames(tmp_path / "raw"), expected, strict=True):
        assert (frame.atomic_numbers == other.atomic_numbers).all()
        assert frame.energy == pytest.approx(other.energy, rel=1e-15)
        for name in ("positions", "cell", "forces", "stress"):
            np.testing.assert_allclose(getattr(frame, name), getattr(other, name), rtol=1e-14)


def test_text_files_beside_sets_are_not_read_twice(tmp_path: Path) -> None:
    folder = write(tmp_path / "water")
    (folder / "coord.raw").write_text("0 0 0\n")
    assert len(read_frames(folder)) == FRAMES


@pytest.mark.parametrize("padded", [None, 5], ids=["equal lengths", "with virtual atoms"])
def test_mixed_types_give_each_frame_its_own_elements(tmp_path: Path, padded: int | None) -> None:
    compositions = ((0, 1, 1), (1, 0, 0), (0, 0, 0), (0, 1, 1, 0))
    separate = [write(tmp_path / "one" / str(seed), types, set_000=arrays_of(types, seed=seed)) for seed, types in enumerate(compositions)]
    systems = dpdata.MultiSystems(*(dpdata.LabeledSystem(str(folder), fmt="deepmd/npy") for folder in separate))
    systems.to_deepmd_npy_mixed(str(tmp_path / "mixed"), **({} if padded is None else {"atom_numb_pad": padded}))
    assert len(list((tmp_path / "mixed").rglob("type.raw"))) == (2 if padded is None else 1)
    mixed = {frame.found["energy"]: frame for frame in raw_frames(tmp_path / "mixed")}
    expected = {frame.found["energy"]: frame for frame in raw_frames(tmp_path / "one")}
    assert mixed.keys() == expected.keys()
    assert len(mixed) == FRAMES * len(compositions)
    assert {tuple(sorted(frame.numbers)) for frame in mixed.values()} == {(1, 1, 8), (1, 8, 8), (8, 8, 8), (1, 1, 8, 8)}
    for energy, frame in mixed.items():
        # dpdata sorts the atoms of a system by element
        order, theirs = np.argsort(frame.positions[:, 0]), expected[energy]
        other = np.argsort(theirs.positions[:, 0])
        assert (frame.numbers[order] == theirs.numbers[other]).all()
        np.testing.assert_array_equal(frame.positions[order], theirs.positions[other])
        assert frame.found["forces"].shape == frame.positions.shape
        np.testing.assert_array_equal(frame.found["forces"][order], theirs.found["forces"][other])
        np.testing.assert_array_equal(frame.found["stress"], theirs.found["stress"])


def test_a_system_marked_nopbc_is_a_molecule(tmp_path: Path) -> None:
    arrays = arrays_of()
    assert read_frames(write(tmp_path / "crystal", set_000=arrays))[0].has_stress
    folder = write(tmp_path / "molecule", set_000=arrays)
    (folder / "nopbc").touch()
    (folder / "set.000" / "box.npy").unlink()
    frame = read_frames(folder)[0]
    assert not frame.pbc.any()
    assert not frame.cell.any()
    assert not frame.has_stress
    np.testing.assert_array_equal(frame.forces.ravel(), arrays["force"][0])


def test_float32_labels_are_noted_and_only_ever_widened(tmp_path: Path) -> None:
    single = {name: array.astype(np.float32) for name, array in arrays_of(seed=1).items()}
    double = {**arrays_of(seed=2), "force": arrays_of(seed=2)["force"].astype(np.float32)}
    folder = write(tmp_path / "water", set_000=single, set_001=double)
    content = read_file(folder)
    assert content.notes == (f"water: labels stored in float32 ({FRAMES} of {2 * FRAMES} frames)",)
    frame = content.frames[0]
    assert frame.energy == float(single["energy"][0])
    box, virial = single["box"][0].reshape(3, 3), single["virial"][0].reshape(3, 3)
    in_double = -virial.astype(np.float64) / np.linalg.det(box.astype(np.float64))
    assert np.abs(-virial / np.linalg.det(box) - in_double).max() > 1e-12  # what arithmetic in float32 would give
    np.testing.assert_array_equal(frame.stress, in_double)
    assert content.frames[FRAMES].energy == double["energy"][0]


def test_other_arrays_are_found_under_their_own_names(tmp_path: Path) -> None:
    arrays = {**arrays_of(), "atom_ener": np.arange(9.0).reshape(FRAMES, 3), "fparam": np.arange(FRAMES)}
    frame = raw_frames(write(tmp_path / "water", set_000=arrays))[1]
    np.testing.assert_array_equal(frame.found["atom_ener"], [3, 4, 5])
    assert frame.found["fparam"] == 1
    np.testing.assert_array_equal(frame.found["force"], frame.found["forces"])


def test_a_single_frame_may_lie_in_its_files_without_an_axis_of_frames(tmp_path: Path) -> None:
    whole = arrays_of(frames=1)
    flat = {name: array[0] for name, array in whole.items()}
    (frame,) = read_frames(write(tmp_path / "flat", set_000=flat))
    (expected,) = read_frames(write(tmp_path / "whole", set_000=whole))
    np.testing.assert_array_equal(frame.positions, expected.positions)
    np.testing.assert_array_equal(frame.stress, expected.stress)


# --- folders and lists of systems


def test_a_folder_of_systems_is_read_in_sorted_order_at_any_depth(tmp_path: Path) -> None:
    for name in ("b", "a/y/deep", "a/x"):
        write(tmp_path / name)
    assert list(dict.fromkeys(frame.source for frame in read_frames(tmp_path))) == ["a/x", "a/y/deep", "b"]
    assert {frame.source for frame in read_frames(tmp_path / "b")} == {"b"}


def test_linked_systems_are_read_and_a_link_back_ends(tmp_path: Path) -> None:
    write(tmp_path / "store" / "water")
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "store" / "water", tmp_path / "data" / "linked")
    os.symlink(tmp_path / "data", tmp_path / "data" / "back")
    assert [frame.source for frame in read_frames(tmp_path / "data")] == ["linked"] * FRAMES


@pytest.mark.parametrize("place", ["", "lists"], ids=["beside the systems", "one folder down"])
def test_a_list_gives_its_systems_in_its_order(tmp_path: Path, place: str) -> None:
    for seed, name in enumerate(("a/x", "b", "c")):
        write(tmp_path / name, set_000=arrays_of(seed=seed))
    listed = tmp_path / place / "train.txt"
    listed.parent.mkdir(exist_ok=True)
    listed.write_text("# systems to train on\n\nb\n  a/x/  # nested\n")
    frames = read_frames(listed)
    assert [frame.source for frame in frames] == ["b"] * FRAMES + ["a/x/"] * FRAMES
    assert frames[0].energy == read_frames(tmp_path / "b")[0].energy


def test_a_list_is_held_to_its_word(tmp_path: Path) -> None:
    write(tmp_path / "a")
    listed = tmp_path / "train.txt"
    listed.write_text("a\n\nmissing\n")
    assert "line 3 names 'missing'" in refusal(listed)
    listed.write_text("a\n./a\n")
    assert "lines 1 and 2 name the same system" in refusal(listed)


def test_other_text_files_and_folders_are_not_taken_for_deepmd(tmp_path: Path) -> None:
    write(tmp_path / "a")
    recognises = formats()["deepmd"].recognises
    (tmp_path / "train.txt").write_text("a\n")
    assert recognises(tmp_path)
    assert recognises(tmp_path / "train.txt")
    (tmp_path / "notes.txt").write_text("SYSTEM = HfO2\na\n")
    (tmp_path / "one_long_line.txt").write_text("x" * 100_000)
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)))
    (tmp_path / "empty").mkdir()
    assert not any(recognises(tmp_path / name) for name in ("notes.txt", "one_long_line.txt", "binary.txt", "empty"))
    assert "holds no DeePMD system" in refusal(tmp_path / "empty")


# --- what is refused


def test_a_type_map_stands_in_for_a_missing_file_and_never_against_one(tmp_path: Path) -> None:
    bare, named = write(tmp_path / "bare", symbols=None), write(tmp_path / "named")
    swapped = read_frames(bare, LabelKeys(type_map=("H", "O")))[0]
    assert swapped.atomic_numbers.tolist() == [1, 8, 8]
    assert read_frames(named, LabelKeys(type_map=("O", "H")))[0].atomic_numbers.tolist() == [8, 1, 1]
    message = refusal(named, type_map=("H", "O"))
    assert "type_map.raw: says [O,H], but data.type_map=[H,O] is set" in message
    assert "type 1, but data.type_map=[O] names types 0 to 0" in refusal(bare, type_map=("O",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("type.raw", "0 1 1.7", "type.raw: 1.7 is no atom type"),
        ("type.raw", "0 nan 1", "type.raw: nan is no atom type"),
        ("type.raw", "O H H", "type.raw: could not convert string to float: 'O'"),
        ("type.raw", "0 1 -1", "type.raw: has an atom of type -1"),
        ("type.raw", " \n", "type.raw: names no atoms"),
        ("type.raw", "0 1 2", "has atoms of type 2, but"),
        ("type.raw", "0 1", "coord.npy: has shape (3, 9), wanted (3, 6), 3 for each of the 2 atoms of type.raw"),
        ("type_map.raw", "O Hx", "type_map.raw: type 1 is 'Hx', not an element"),
    ],
)
def test_broken_types_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = write(tmp_path / "water")
    assert len(read_frames(folder)) == FRAMES
    (folder / name).write_text(content)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("force", np.zeros((3, 6)), "force.npy: has shape (3, 6), wanted (3, 9), 3 for each of the 3 atoms"),
        ("coord", np.zeros((3, 8)), "coord.npy: has shape (3, 8), wanted (3, 9)"),
        ("virial", np.zeros((3, 6)), "virial.npy: has shape (3, 6), wanted (3, 9)"),
        ("energy", np.zeros(2), "energy.npy: holds 2 frames, but coord.npy 3"),
        ("box", np.zeros((9, 3)), "box.npy: holds 9 frames, but coord.npy 3"),
        ("fparam", np.zeros(4), "fparam.npy: holds 4 frames, but coord.npy 3"),
        ("energy", np.array(["a", "b", "c"]), "energy.npy: holds values of type <U1; wanted numbers"),
        ("real_atom_types", np.array([[0, 1, 1], [0, 1, 5], [0, 0, 0]]), "has atoms of type 5, but"),
        ("real_atom_types", np.array([[0, 1, 1], [0, 1, 0.5], [0, 0, 0]]), "real_atom_types.npy: 0.5 is no atom type"),
        ("real_atom_types", np.array([[0, 1, 1], [0, 1, -2], [0, 0, 0]]), "has atoms of type -2, but"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    assert message in refusal(write(tmp_path / "water", set_000={**arrays_of(), name: array}))


class _Touches:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


def test_a_pickled_array_is_refused_and_not_run(tmp_path: Path) -> None:
    folder, trace = write(tmp_path / "water"), tmp_path / "trace"
    file = folder / "set.000" / "energy.npy"
    np.save(file, np.array([_Touches(trace)] * FRAMES), allow_pickle=True)
    np.load(file, allow_pickle=True)
    assert trace.exists()  # it does run where pickles are allowed
    trace.unlink()
    message = refusal(folder)
    assert "energy.npy: cannot be read" in message
    assert "without pickled objects" in message
    assert not trace.exists()


@pytest.mark.parametrize("kept", [0, 20, 100, -8])
def test_a_truncated_array_is_refused_with_its_file(tmp_path: Path, kept: int) -> None:
    folder = write(tmp_path / "water")
    file = folder / "set.000" / "force.npy"
    file.write_bytes(file.read_bytes()[:kept])
    message = refusal(folder)
    assert "force.npy: cannot be read" in message
    assert "wanted a whole npy file" in message


def test_a_truncated_or_unreadable_text_file_is_refused_with_its_name(tmp_path: Path) -> None:
    write(tmp_path / "npy")
    folder = tmp_path / "raw"
    dpdata.LabeledSystem(str(tmp_path / "npy"), fmt="deepmd/npy").to("deepmd/raw", str(folder))
    whole = (folder / "force.raw").read_text()
    (folder / "force.raw").write_text("\n".join(whole.splitlines()[:-1]))
    assert "force.raw: holds 2 frames, but coord.raw 3" in refusal(folder)
    (folder / "force.raw").write_text(whole[: len(whole) * 5 // 6])
    assert "force.raw: cannot be read" in refusal(folder)


@pytest.mark.parametrize(("name", "remedy"), [("coord", "needs the coordinates"), ("box", "an empty file nopbc beside type.raw")])
def test_a_system_without_coordinates_or_cells_is_refused(tmp_path: Path, name: str, remedy: str) -> None:
    folder = write(tmp_path / "water")
    (folder / "set.000" / f"{name}.npy").unlink()
    message = refusal(folder)
    assert f"{name}.npy: does not exist" in message
    assert remedy in message


def test_a_type_raw_alone_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "water")
    shutil.rmtree(folder / "set.000")
    assert "coord.raw: does not exist" in refusal(folder)


def test_sets_of_mixed_and_of_plain_types_are_not_combined(tmp_path: Path) -> None:
    mixed = {**arrays_of(), "real_atom_types": np.tile(TYPES, (FRAMES, 1))}
    folder = write(tmp_path / "water", set_000=mixed, set_001=arrays_of(seed=1))
    assert "set.001 has no real_atom_types.npy" in refusal(folder)
