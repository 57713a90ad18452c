"""Every card against its own package's ASE calculator, and derivatives against the energies alone."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import Calculator

import zoo
from zoo.data.frame import Frame
from zoo.evaluation.finite_differences import force_residual, stress_residual
from zoo.graph import AtomGraph
from zoo.potential import Potential

ENERGY_EV_PER_ATOM, FORCES_EV_PER_ANGSTROM, STRESS_EV_PER_ANGSTROM3 = 1e-5, 1e-5, 1e-6


def structures() -> dict[str, Atoms]:
    """Rattled, so that no force is zero by symmetry."""
    slab = fcc111("Pt", (1, 1, 3), vacuum=7.0)
    add_adsorbate(slab, molecule("CO"), 1.9, "ontop", mol_index=1)  # carbon down
    sheared = Atoms("Cu3Au", 1.9 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0]]), cell=[3.8] * 3, pbc=True)
    sheared.set_cell(sheared.cell.array @ np.array([[1.02, 0.07, 0.0], [0.0, 0.98, -0.09], [0.05, 0.0, 1.01]]), scale_atoms=True)
    perovskite = Atoms(
        "SrTiO3", 3.9 * np.array([[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]), cell=[3.9] * 3, pbc=True
    )
    found = {
        "molecule": molecule("CH3CH2OH"),
        "crystal": bulk("Si", "diamond", a=5.43),
        "slab with adsorbate": slab,
        "sheared intermetallic": sheared,
        "several elements": perovskite,
        "ionic NaCl": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        "wire": Atoms("AgAu", [[0, 0, 0], [0.3, 0, 2.8]], cell=[12, 12, 5.7], pbc=(False, False, True)),
        "atoms outside the cell": Atoms("LiF", [[-3.1, 9.0, 14.2], [-1.2, 9.2, 14.4]], cell=[4.1, 4.0, 4.3], pbc=True),
    }
    generator = np.random.default_rng(4)
    for atoms in found.values():
        atoms.positions += 0.07 * generator.standard_normal(atoms.positions.shape)
    found["one atom in a cell"] = Atoms("Cu", cell=3.6 * np.array([[0.5, 0.5, 0.02], [0, 0.5, 0.5], [0.47, 0, 0.5]]), pbc=True)
    found["isolated atom"] = Atoms("Cu")
    return found


STRUCTURES = structures()


def upstream(model: str, **settings: str) -> Calculator:
    from sevenn.calculator import SevenNetCalculator

    with contextlib.redirect_stdout(io.StringIO()):
        return SevenNetCalculator(model, device="cpu", **settings)


@pytest.fixture(scope="module")
def potential() -> Potential:
    return zoo.load("sevennet-0")


@pytest.fixture(scope="module")
def reference() -> Calculator:
    return upstream("7net-0")


def differences(potential: Potential, reference: Calculator, atoms: Atoms) -> tuple[float, float, float | None]:
    """Of the energy per atom, the forces and, for 3D-periodic cells, the stress; what is compared is not zero."""
    theirs, ours = atoms.copy(), atoms.copy()
    theirs.calc, ours.calc = reference, potential.calculator()
    energy = abs(ours.get_potential_energy() - theirs.get_potential_energy()) / len(atoms)
    forces = np.abs(ours.get_forces() - theirs.get_forces()).max()
    assert abs(theirs.get_potential_energy()) > 0.01
    if not atoms.pbc.all():
        return float(energy), float(forces), None
    assert np.abs(theirs.get_stress()).max() > 1e-4
    return float(energy), float(forces), float(np.abs(ours.get_stress() - theirs.get_stress()).max())


def assert_within(found: tuple[float, float, float | None]) -> None:
    energy, forces, stress = found
    assert energy < ENERGY_EV_PER_ATOM
    assert forces < FORCES_EV_PER_ANGSTROM
    assert stress is None or stress < STRESS_EV_PER_ANGSTROM3


@pytest.mark.parametrize("name", STRUCTURES)
def test_sevennet_0_agrees_with_its_own_calculator(potential, reference, name):
    assert potential.dtype == torch.float32
    assert_within(differences(potential, reference, STRUCTURES[name]))


def test_the_structures_have_forces_to_compare(potential):
    largest = {name: np.abs(potential.predict([atoms])[0].forces).max() for name, atoms in STRUCTURES.items()}
    assert sorted(name for name, force in largest.items() if force < 0.1) == ["isolated atom", "one atom in a cell"]


def test_a_mirrored_model_is_caught_by_its_forces(potential, reference, monkeypatch):
    """Edge vectors of the wrong sign: SevenNet-0 is no O(3) model, but on NaCl its energies hardly tell."""
    honest = AtomGraph.edge_vectors
    monkeypatch.setattr(AtomGraph, "edge_vectors", lambda graph: -honest(graph))
    energy, forces, _ = differences(potential, reference, STRUCTURES["ionic NaCl"])
    assert energy < 3 * ENERGY_EV_PER_ATOM  # which an energy test of the usual tolerance would pass
    assert forces > 5 * FORCES_EV_PER_ANGSTROM


def test_swapped_edge_rows_are_caught(potential, reference, monkeypatch):
    """Centre and neighbour exchanged without turning the vector."""
    network = potential.backbone
    honest = network._upstream_input

    def swapped(graph):
        data = honest(graph)
        return {**data, "edge_index": data["edge_index"].flip(0)}

    assert "edge_index" in honest(potential.graph(STRUCTURES["molecule"]))
    monkeypatch.setattr(network, "_upstream_input", swapped)
    assert differences(potential, reference, STRUCTURES["ionic NaCl"])[1] > 5 * FORCES_EV_PER_ANGSTROM


@pytest.mark.parametrize(
    ("card", "model", "head"),
    [
        ("sevennet-0-22may2024", "7net-0_22May2024", None),
        ("sevennet-l3i5", "7net-l3i5", None),
        ("sevennet-mf-0", "7net-mf-0", "PBE"),
        ("sevennet-mf-0", "7net-mf-0", "R2SCAN"),
    ],
)
def test_the_other_cards_agree_with_their_own_calculators(card, model, head):
    potential = zoo.load(card, head=head)
    reference = upstream(model, **({"modal": head} if head else {}))
    for name in ("molecule", "sheared intermetallic"):
        assert_within(differences(potential, reference, STRUCTURES[name]))


def test_the_two_heads_differ():
    energies = [zoo.load("sevennet-mf-0", head=head).predict([STRUCTURES["ionic NaCl"]])[0].energy for head in ("PBE", "R2SCAN")]
    assert abs(energies[0] - energies[1]) > 1


@pytest.mark.parametrize("name", ["molecule", "slab with adsorbate", "sheared intermetallic"])
def test_forces_and_stress_are_the_derivatives_of_the_energy_to_1e_6(double, name):
    frame = Frame.unlabelled(STRUCTURES[name])
    prediction = double.predict([frame])[0]
    accepted = 1e-6 * np.abs(prediction.forces).max()
    assert force_residual(double, frame, prediction.forces, np.random.default_rng(0), accepted=accepted, components=4) <= accepted
    assert (prediction.stress is not None) == bool(frame.pbc.all())
    if prediction.stress is not None:
        accepted = 1e-6 * np.abs(prediction.stress).max()
        assert stress_residual(double, frame, prediction.stress, accepted=accepted) <= accepted


@pytest.fixture(scope="module")
def double(potential: Potential) -> Potential:
    return potential.to_dtype(torch.float64)


def test_float64_and_float32_differ_by_float32s_rounding_alone(potential, double):
    for name in ("molecule", "sheared intermetallic"):
        single, exact = potential.predict([STRUCTURES[name]])[0], double.predict([STRUCTURES[name]])[0]
        assert 0 < abs(single.energy - exact.energy) / len(exact.forces) < 1e-5
        assert 0 < np.abs(single.forces - exact.forces).max() < 3e-5
