"""Files to frames: every label found under the name it has, every doubt refused with the frame's number."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from tests.refusals import refusal_of
from zoo.data.checks import LabelReport, check_elements, elements_of
from zoo.data.keys import LabelKeys
from zoo.data.readers import read_file, read_frames
from zoo.errors import ZooError


def crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.set_cell(atoms.cell.array + 0.05 * np.arange(9).reshape(3, 3) / 9, scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    return atoms


def labelled(count: int = 3) -> list[Atoms]:
    frames = []
    for shift in range(count):
        atoms = molecule("H2O")
        atoms.positions[0, 0] += 0.01 * shift
        atoms.calc = SinglePointCalculator(atoms, energy=-14.0 - shift, forces=np.arange(9.0).reshape(3, 3) + shift)
        frames.append(atoms)
    return frames


def renamed(**labels: Any) -> Atoms:
    """A water molecule with labels under the given names; arrays of shape (3, 3) become per-atom arrays."""
    atoms = molecule("H2O")
    for name, value in labels.items():
        if "force" in name.lower():
            atoms.arrays[name] = np.asarray(value)
        else:
            atoms.info[name] = value
    return atoms


def write(path: Path, frames: list[Atoms]) -> Path:
    ase.io.write(path, frames, format="extxyz")
    return path


def test_extxyz_gives_the_labels_that_were_written(tmp_path: Path) -> None:
    frames = read_frames(write(tmp_path / "water.xyz", labelled()), level_of_theory="PBE", needs=("energy", "forces"))
    assert [frame.energy for frame in frames] == [-14.0, -15.0, -16.0]
    assert [frame.frame_id for frame in frames] == [0, 1, 2]
    np.testing.assert_allclose(frames[2].forces, np.arange(9.0).reshape(3, 3) + 2)
    assert frames[0].source == "water.xyz"
    assert frames[0].level_of_theory == "PBE"
    assert not frames[0].has_stress


@pytest.mark.parametrize("suffix", ["db", "traj", "json", "extxyz"])
def test_every_format_gives_energy_forces_and_stress_of_the_calculator(tmp_path: Path, suffix: str) -> None:
    atoms = crystal()
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
    ase.io.write(tmp_path / f"copper.{suffix}", atoms)
    (frame,) = read_frames(tmp_path / f"copper.{suffix}", needs=("energy", "forces", "stress"))
    assert abs(stress[0, 1]) > 1e-4  # a wrong Voigt order would not show otherwise
    np.testing.assert_allclose(frame.energy, energy, atol=1e-7)
    np.testing.assert_allclose(frame.forces, forces, atol=1e-7)
    np.testing.assert_allclose(frame.stress, stress, atol=1e-7)
    np.testing.assert_allclose(frame.cell, atoms.cell.array, atol=1e-7)


def test_an_ase_database_gives_labels_from_its_key_value_pairs_and_data(tmp_path: Path) -> None:
    with connect(tmp_path / "water.db") as database:
        database.write(molecule("H2O"), dft_energy=-3.5, data={"dft_forces": np.full((3, 3), 0.25)})
    keys = LabelKeys(energy_key="dft_energy", forces_key="dft_forces")
    (frame,) = read_frames(tmp_path / "water.db", keys, needs=("energy", "forces"))
    assert frame.energy == -3.5
    np.testing.assert_array_equal(frame.forces, np.full((3, 3), 0.25))


def test_other_names_and_units_are_converted(tmp_path: Path) -> None:
    atoms = renamed(E_dft=2.0, F_force=np.ones((3, 3)))
    positions = atoms.get_positions()
    write(tmp_path / "other.xyz", [atoms])
    keys = LabelKeys(energy_key="E_dft", forces_key="F_force", energy_unit="Hartree", length_unit="Bohr")
    (frame,) = read_frames(tmp_path / "other.xyz", keys, needs=("energy", "forces"))
    assert frame.energy == pytest.approx(2 * units.Hartree)
    np.testing.assert_allclose(frame.forces, units.Hartree / units.Bohr)
    np.testing.assert_allclose(frame.positions, positions * units.Bohr, atol=1e-7)


def test_a_virial_becomes_a_stress_of_opposite_sign_per_volume(tmp_path: Path) -> None:
    atoms = crystal()
    stress = atoms.get_stress(voigt=False)
    plain = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    plain.info.update(energy=1.0, box_virial=-stress * atoms.get_volume())
    write(tmp_path / "virial.xyz", [plain])
    (frame,) = read_frames(tmp_path / "virial.xyz", LabelKeys(virial_key="box_virial"), needs=("energy", "stress"))
    np.testing.assert_allclose(frame.stress, stress, atol=1e-8)


def test_vasp_kilobar_turns_the_sign(tmp_path: Path) -> None:
    plain = bulk("Cu")
    plain.info.update(energy=1.0, pressure_like=np.eye(3) * 10)
    write(tmp_path / "kbar.xyz", [plain])
    keys = LabelKeys(stress_key="pressure_like", stress_unit="-kbar")
    (frame,) = read_frames(tmp_path / "kbar.xyz", keys, needs=("stress",))
    np.testing.assert_allclose(frame.stress, -np.eye(3) * units.GPa)


def test_a_stress_of_a_molecule_is_left_out_even_where_stress_is_wanted(tmp_path: Path) -> None:
    write(tmp_path / "mixed.xyz", [renamed(energy=1.0, my_stress=np.eye(3))])
    (frame,) = read_frames(tmp_path / "mixed.xyz", LabelKeys(stress_key="my_stress"), needs=("energy", "stress"))
    assert np.isnan(frame.stress).all()


def test_a_missing_label_names_the_frame_the_option_and_what_was_found(tmp_path: Path) -> None:
    frames = [*labelled(2), renamed(energy=-1.0, REF_forces=np.zeros((3, 3)))]
    assert (
        refusal_of(read_frames, write(tmp_path / "water.xyz", frames), needs=("energy", "forces"))
        == "water.xyz: frame 2 has no 'forces'; pass data.forces_key=... (found: REF_forces, energy)"
    )


def test_forces_under_another_name_are_refused_even_where_not_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "water.xyz", [renamed(energy=-1.0, REF_forces=np.zeros((3, 3)))])
    with pytest.raises(ZooError, match=r"data\.forces_key=REF_forces"):
        read_frames(path)
    (frame,) = read_frames(path, LabelKeys(forces_key=None))
    assert not frame.has_forces


@pytest.mark.parametrize("value", [np.full((3, 3), np.nan), np.diag([1.0, np.nan, 1.0])])
def test_nan_forces_are_refused_with_the_frame_where_needed(tmp_path: Path, value: np.ndarray) -> None:
    frames = [renamed(energy=1.0, my_forces=np.zeros((3, 3))), renamed(energy=1.0, my_forces=value)]
    with pytest.raises(ZooError, match=r"frame 1: \d of 9 numbers of 'my_forces' are NaN"):
        read_frames(write(tmp_path / "nan.xyz", frames), LabelKeys(forces_key="my_forces"), needs=("energy", "forces"))


def test_all_nan_forces_pass_as_unlabelled_only_where_not_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "nan.xyz", [renamed(energy=1.0, my_forces=np.full((3, 3), np.nan))])
    (frame,) = read_frames(path, LabelKeys(forces_key="my_forces"))
    assert not frame.has_forces
    with pytest.raises(ZooError, match="NaN"):
        read_frames(write(tmp_path / "e.xyz", [renamed(my_energy=float("nan"))]), LabelKeys(energy_key="my_energy"))


def test_a_wrong_shape_or_a_word_for_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"shape \(3,\), wanted \(\) or \(1,\)"):
        read_frames(write(tmp_path / "a.xyz", [renamed(my_energy=[1.0, 2.0, 3.0])]), LabelKeys(energy_key="my_energy"))
    with pytest.raises(ZooError, match="'failed', not a number"):
        read_frames(write(tmp_path / "b.xyz", [renamed(my_energy="failed")]), LabelKeys(energy_key="my_energy"))


@pytest.mark.parametrize("name", ["cut.xyz", "empty.xyz", "noise.xyz", "noise.unknown", "noise.db"])
def test_truncated_empty_and_foreign_files_are_one_line_naming_the_file(tmp_path: Path, name: str) -> None:
    whole = write(tmp_path / "whole.xyz", labelled()).read_bytes()
    content = {"cut": whole[: int(len(whole) * 0.8)], "empty": b"", "noise": bytes(range(256)) * 8}[name.split(".")[0]]
    (tmp_path / name).write_bytes(content)
    assert len(read_frames(tmp_path / "whole.xyz")) == 3
    refusal = refusal_of(read_frames, tmp_path / name)
    assert re.search(name, refusal)
    words = {"empty.xyz": "is empty (0 bytes)", "cut.xyz": "is it complete?", "noise.xyz": "not a number of atoms"}
    assert words.get(name, "cannot be read") in refusal


def test_an_absent_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "absent.db", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(ZooError, match=what):
            read_frames(path)
    assert not (tmp_path / "absent.db").exists()


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["run.trj", "run.pckl", "run.traj", "run.db", "run.xyz"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "ran"
    hostile = pickle.dumps(_Hostile(marker))
    pickle.loads(hostile)  # noqa: S301 (positive control: the file would act)
    assert marker.exists()
    marker.unlink()
    (tmp_path / name).write_bytes(hostile)
    with pytest.raises(ZooError):
        read_frames(tmp_path / name)
    assert not marker.exists()


def test_units_that_nobody_knows_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'kcal/mol'"):
        LabelKeys(energy_unit="kcal/mole")
    with pytest.raises(ValueError, match="forse_key"):
        LabelKeys(forse_key="forces")  # type: ignore[call-arg]


def test_the_report_counts_labels_by_source(tmp_path: Path) -> None:
    frames = read_frames(write(tmp_path / "a.xyz", labelled(2))) + read_frames(write(tmp_path / "b.xyz", [renamed(energy=1.0)]))
    assert LabelReport.of(frames).text() == "a.xyz: 2 frames, energy 2, forces 2, stress 0\nb.xyz: 1 frames, energy 1, forces 0, stress 0"


def test_an_unknown_element_is_named_with_its_frame(tmp_path: Path) -> None:
    frames = read_frames(write(tmp_path / "water.xyz", labelled()))
    assert elements_of(frames) == (1, 8)
    check_elements(frames, (1, 6, 8))
    with pytest.raises(ZooError, match=r"frame 0 has O, which sevennet-0 does not know \(it knows H, C\)"):
        check_elements(frames, (1, 6), "sevennet-0")


def test_a_stress_whose_unit_no_longer_follows_is_refused_until_it_is_said(tmp_path: Path) -> None:
    atoms = crystal()
    atoms.get_stress(), atoms.get_forces()
    path = write(tmp_path / "cu.xyz", [atoms])
    assert "say nothing of its unit" in refusal_of(read_frames, path, LabelKeys(energy_unit="Hartree"))
    (plain,) = read_frames(path)
    (scaled,) = read_frames(path, LabelKeys(energy_unit="Hartree", stress_unit="GPa"))
    assert plain.has_stress
    assert np.allclose(scaled.stress, plain.stress * units.GPa, rtol=1e-12)
    assert not read_frames(path, LabelKeys(energy_unit="Hartree", stress_key=None))[0].has_stress


def test_a_file_that_states_its_units_is_believed_and_never_contradicted(tmp_path: Path) -> None:
    atoms = crystal()
    atoms.info["stress_unit"], atoms.info["energy_unit"] = "eV/A^3", "eV"
    atoms.arrays["forces"], atoms.info["energy"], atoms.info["stress"] = (
        atoms.get_forces(),
        atoms.get_potential_energy(),
        atoms.get_stress(voigt=False),
    )
    atoms.calc = None
    path = write(tmp_path / "stated.xyz", [atoms])
    assert np.allclose(read_frames(path)[0].stress, atoms.info["stress"], atol=1e-8)
    for wrong in ({"stress_unit": "GPa"}, {"energy_unit": "Hartree"}):
        assert "is set; remove the setting" in refusal_of(read_frames, path, LabelKeys(**wrong))


@pytest.mark.parametrize(
    ("policy", "zeroed", "kept"), [("auto", True, False), ("auto", False, True), ("left_out", False, False), ("kept", True, True)]
)
def test_forces_of_fixed_atoms_are_labels_only_where_they_are_forces(tmp_path: Path, policy: str, zeroed: bool, kept: bool) -> None:
    from ase.constraints import FixAtoms

    atoms = crystal()
    forces = atoms.get_forces()
    forces[:2] *= 0.0 if zeroed else 1.0
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=forces)
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "fixed.traj", atoms)
    content = read_file(tmp_path / "fixed.traj", LabelKeys(fixed_atoms=policy))
    (frame,) = content.frames
    assert frame.has_forces
    assert frame.fixed is not None
    assert frame.fixed.nonzero()[0].tolist() == [0, 1]
    assert np.isfinite(frame.forces[:2]).all() == kept
    assert np.allclose(frame.forces[2:], forces[2:])
    assert ("kept as labels" if kept else "left out") in " ".join(content.notes)


@pytest.mark.parametrize(
    ("stated", "factor"), [("Hartree", units.Hartree), ("kcal/mol", units.kcal / units.mol), ("Ha", units.Hartree), ("eV", 1.0)]
)
def test_an_energy_unit_that_the_file_states_is_the_one_it_is_read_in(tmp_path: Path, stated: str, factor: float) -> None:
    atoms = renamed(energy=-2.0)
    atoms.info["energy_unit"] = stated
    (frame,) = read_frames(write(tmp_path / "stated.xyz", [atoms]))
    assert frame.energy == pytest.approx(-2.0 * factor, rel=1e-12)


def test_a_length_unit_that_the_file_states_holds_for_positions_too(tmp_path: Path) -> None:
    atoms = renamed(energy=-2.0)
    atoms.info["length_unit"] = "Bohr"
    (frame,) = read_frames(write(tmp_path / "bohr.xyz", [atoms]))
    assert np.allclose(frame.positions, atoms.positions * units.Bohr, atol=1e-7)


@pytest.mark.parametrize(
    ("key", "text"), [("energy_unit", "foot-pound"), ("stress_unit", "psi"), ("forces_unit", "kcal/mol/A"), ("forces_unit", "dyn")]
)
def test_a_unit_that_the_file_states_and_nobody_knows_here_is_refused(tmp_path: Path, key: str, text: str) -> None:
    atoms = renamed(energy=-2.0, forces=np.ones((3, 3)))
    atoms.info[key] = text
    assert re.search(text, refusal_of(read_frames, write(tmp_path / "odd.xyz", [atoms])))


def test_a_virial_that_nobody_asked_for_is_at_least_mentioned(tmp_path: Path) -> None:
    atoms = crystal()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    atoms.info["virial"] = np.eye(3)
    content = read_file(write(tmp_path / "v.xyz", [atoms]))
    assert not content.frames[0].has_stress
    assert "data.virial_key=virial" in " ".join(content.notes)
    asked = read_file(tmp_path / "v.xyz", LabelKeys(virial_key="virial"))
    assert asked.frames[0].has_stress
    assert not asked.notes
