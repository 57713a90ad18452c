"""The real DeePMD sets: equal to dpdata system by system, with stress and magnetic forces of the sign that other knowledge asks for."""

from __future__ import annotations

import dpdata
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

from tests.refusals import refusal_of
from zoo.data.keys import LabelKeys
from zoo.data.raw import RawFrame, ReadOptions
from zoo.data.readers import formats, read_file, read_frames

SSE_TYPES = ("Li", "Ge", "P", "S")


def test_stress_of_hafnia_rises_with_the_volume(data_folder) -> None:
    by_system: dict[str, list[tuple[float, float]]] = {}
    for frame in read_frames(data_folder("lam_hfo2")):
        by_system.setdefault(frame.source, []).append((abs(np.linalg.det(frame.cell)), np.trace(frame.stress)))
    assert len(by_system) == 24
    for source, pairs in by_system.items():
        volumes, traces = np.array(pairs).T
        assert np.corrcoef(volumes, traces)[0, 1] > 0.7, source
        assert traces[volumes.argmin()] < traces[volumes.argmax()], source


def test_stress_of_the_electrolyte_is_that_of_sevennet_and_not_its_negative(data_folder) -> None:
    from sevenn.calculator import SevenNetCalculator

    frames = read_frames(data_folder("lam_sse_pbe_ligeps"), LabelKeys(type_map=SSE_TYPES))
    calculator = SevenNetCalculator("7net-0", device="cpu")
    predicted, read = [], []
    for frame in [frame for frame in frames if frame.has_stress and len(frame) == 50][::500]:
        atoms = frame.to_atoms()
        atoms.calc = calculator
        predicted.append(atoms.get_stress(voigt=False).ravel())
        read.append(frame.stress.ravel())
    slope = np.polyfit(np.concatenate(predicted), np.concatenate(read), 1)[0]
    assert 0.8 < slope < 1.25


@pytest.mark.parametrize(("name", "type_map"), [("lam_sse_pbe_ligeps", SSE_TYPES), ("lam_hfo2", None), ("deepmd_nio_spin", None)])
def test_every_system_equals_dpdata(data_folder, name: str, type_map: tuple[str, ...] | None) -> None:
    folder = data_folder(name)
    by_system: dict[str, list[RawFrame]] = {}
    for frame in formats()["deepmd"].read(folder, ReadOptions(type_map)):
        by_system.setdefault(frame.source, []).append(frame)
    assert list(by_system) == sorted(file.parent.relative_to(folder).as_posix() for file in folder.rglob("type.raw"))
    for source, frames in by_system.items():
        theirs = dpdata.LabeledSystem(str(folder / source), fmt="deepmd/npy", type_map=list(type_map) if type_map else None)
        symbols = [theirs["atom_names"][index] for index in theirs["atom_types"]]
        assert all(Atoms(frame.numbers).get_chemical_symbols() == symbols for frame in frames)
        np.testing.assert_array_equal([frame.positions for frame in frames], theirs["coords"])
        np.testing.assert_array_equal([frame.cell for frame in frames], theirs["cells"])
        np.testing.assert_array_equal([frame.found["energy"] for frame in frames], theirs["energies"])
        np.testing.assert_array_equal([frame.found["forces"] for frame in frames], theirs["forces"])
        pairs = {"virial": "virials", "magnetic_moments": "spins", "magnetic_forces": "force_mags"}
        for ours, their_name in pairs.items():
            assert all((ours in frame.found) == (their_name in theirs.data) for frame in frames)
            if their_name in theirs.data:
                np.testing.assert_array_equal([frame.found[ours] for frame in frames], theirs[their_name])
    assert all(frame.pbc.all() for frames in by_system.values() for frame in frames)


def test_electrolyte_has_its_frames_and_a_stress_where_there_is_a_virial(data_folder) -> None:
    content = read_file(data_folder("lam_sse_pbe_ligeps"), LabelKeys(type_map=SSE_TYPES), needs=("energy", "forces"))
    assert len(content.frames) == 3499
    assert len({frame.source for frame in content.frames}) == 15
    assert {int(number) for frame in content.frames for number in frame.atomic_numbers} == {3, 32, 15, 16}
    without = [frame for frame in content.frames if not frame.has_stress]
    assert len(without) == 590
    assert {frame.source for frame in without} == {"LiGePS-init.system"}
    assert content.notes == ("lam_sse_pbe_ligeps: labels stored in float32 (2909 of 3499 frames)",)


def test_hafnia_and_nickel_oxide_have_their_frames(data_folder) -> None:
    hafnia = read_frames(data_folder("lam_hfo2"), needs=("energy", "forces", "stress"))
    assert len(hafnia) == 1180
    assert {int(number) for frame in hafnia for number in frame.atomic_numbers} == {72, 8}
    nickel_oxide = read_frames(data_folder("deepmd_nio_spin"))
    assert len(nickel_oxide) == 151
    moments = np.array([np.linalg.norm(frame.magnetic_moments, axis=1) for frame in nickel_oxide])  # (151, 32)
    of_nickel = nickel_oxide[0].atomic_numbers == 28
    assert moments[:, of_nickel].mean() > 0.5
    assert not moments[:, ~of_nickel].any()
    assert all(np.isfinite(frame.magnetic_forces).all() for frame in nickel_oxide)


def test_magnetic_forces_are_minus_the_gradient_of_the_energy(data_folder) -> None:
    """E = J Σ m_i·m_j + const over second neighbours (superexchange through O) explains the energies; its gradient is compared."""
    frames = [frame for frame in read_frames(data_folder("deepmd_nio_spin")) if frame.source == "data_1"]
    nickel = frames[0].atomic_numbers == 28
    centres, others, distances = neighbor_list("ijd", frames[0].to_atoms()[nickel], 4.6)
    centres, others = centres[distances > 3.8], others[distances > 3.8]
    fields, products, energies, moments, forces = [], [], [], [], []
    for frame in frames:
        moment = frame.magnetic_moments[nickel]
        field = np.zeros_like(moment)
        np.add.at(field, centres, moment[others])
        fields.append(field)
        products.append(0.5 * np.sum(moment * field))
        energies.append(frame.energy)
        moments.append(moment)
        forces.append(frame.magnetic_forces[nickel])
    coupling = np.polyfit(products, energies, 1)[0]
    assert np.corrcoef(products, energies)[0, 1] > 0.99
    directions = np.array(moments) / np.linalg.norm(moments, axis=-1, keepdims=True)

    def transverse(vectors: np.ndarray) -> np.ndarray:
        return (vectors - directions * np.sum(directions * vectors, axis=-1, keepdims=True)).ravel()

    slope = np.polyfit(transverse(-coupling * np.array(fields)), transverse(np.array(forces)), 1)[0]
    assert 0.7 < slope < 1.3


def test_without_a_type_map_the_error_counts_the_types(data_folder) -> None:
    message = refusal_of(read_file, data_folder("lam_sse_pbe_ligeps"))
    assert "LiGePS-init.system: has no type_map.raw" in message
    assert "20 of type 0, 2 of type 1, 4 of type 2, 24 of type 3" in message
    assert "data.type_map=[..]" in message
