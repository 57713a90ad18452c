"""The ASE calculator: relaxation, dynamics, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from tests.refusals import refusal_of
from zoo.backbones import load_family
from zoo.errors import ZooError
from zoo.potential import Potential


@pytest.fixture(scope="module")
def potential() -> Potential:
    return Potential(load_family("sevennet").toy(0))


def with_calculator(potential: Potential, atoms: Atoms) -> Atoms:
    atoms.calc = potential.calculator()
    return atoms


def test_results_are_those_of_the_potential_in_ases_order(potential):
    atoms = bulk("CuAu", "rocksalt", a=5.2)
    atoms.positions[1] += [0.1, 0.2, 0.05]
    prediction = potential.predict([atoms])[0]
    with_calculator(potential, atoms)
    assert atoms.get_potential_energy() == atoms.get_potential_energy(force_consistent=True) == prediction.energy
    assert np.array_equal(atoms.get_forces(), prediction.forces)
    assert np.array_equal(atoms.get_stress(voigt=False), prediction.stress)
    s = prediction.stress
    np.testing.assert_array_equal(atoms.get_stress(), [s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])


@pytest.mark.parametrize("atoms", [molecule("H2O"), fcc111("Cu", (1, 1, 2), vacuum=5.0)], ids=["molecule", "slab"])
def test_the_stress_of_what_has_no_volume_is_not_implemented(potential, atoms):
    with_calculator(potential, atoms)
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError, match="periodic in all three"):
        atoms.get_stress()
    assert atoms.get_forces().shape == (len(atoms), 3)  # the calculator goes on


def test_a_compressed_crystal_has_a_negative_stress_in_ases_sign(potential):
    """By the energies: where the energy rises under compression, ASE's stress is negative."""
    found = []
    for lattice in (3.3, 3.4, 3.5, 3.6, 3.8):
        energies = [with_calculator(potential, bulk("Cu", a=lattice * (1 + step))).get_potential_energy() for step in (-1e-4, 1e-4)]
        trace = with_calculator(potential, bulk("Cu", a=lattice)).get_stress()[:3].sum()
        found.append(np.sign(energies[1] - energies[0]) == np.sign(trace))
    assert all(found)


def test_a_relaxation_ends_where_the_forces_vanish(potential):
    atoms = with_calculator(potential, Atoms("CuAu", [[0, 0, 0], [0.1, 0.2, 2.6]]))
    energy, force = atoms.get_potential_energy(), np.abs(atoms.get_forces()).max()
    assert force > 0.01
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=100)
    assert atoms.get_potential_energy() < energy
    assert np.abs(atoms.get_forces()).max() < 1e-4


def test_dynamics_conserve_the_total_energy(potential):
    atoms = with_calculator(potential, bulk("Cu", a=3.6, cubic=True))
    MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, timestep=1.0 * units.fs)
    totals, kinetic = [], []
    for _ in range(60):
        dynamics.run(1)
        totals.append(atoms.get_total_energy())
        kinetic.append(atoms.get_kinetic_energy())
    assert np.ptp(kinetic) > 1e-3  # something moves between the two kinds of energy
    assert np.ptp(totals) < 0.02 * np.ptp(kinetic)


def test_a_cell_relaxation_lowers_the_energy_by_changing_the_cell(potential):
    atoms = with_calculator(potential, bulk("Cu", a=3.6, cubic=True))
    energy, volume = atoms.get_potential_energy(), atoms.get_volume()
    BFGS(FrechetCellFilter(atoms), logfile=None, maxstep=0.05).run(fmax=1e-4, steps=5)
    assert atoms.get_potential_energy() < energy - 1e-3
    assert abs(atoms.get_volume() - volume) > 0.1


def test_another_adapter_or_other_reference_energies_are_seen_without_moving_an_atom(potential):
    atoms = with_calculator(potential, molecule("H2O"))
    base = atoms.get_potential_energy()
    potential.adapters.add("full", "full")
    try:
        assert atoms.get_potential_energy() == base
        potential.adapters.randomise("full", seed=1)
        adapted = atoms.get_potential_energy()
        assert adapted != base
        potential.adapters.activate([])
        assert atoms.get_potential_energy() == base
        potential.adapters.activate(["full"])
        assert atoms.get_potential_energy() == adapted
        potential.set_reference_shifts({8: 1.5})
        assert atoms.get_potential_energy() == pytest.approx(adapted + 1.5)
    finally:
        potential.adapters.delete("full")
        potential.set_reference_shifts({})
    assert atoms.get_potential_energy() == base


def test_the_adapter_is_swapped_between_two_steps_of_one_run(potential):
    """Dynamics that go on with another adapter are those of a calculator that had it from that step on."""
    for seed, name in enumerate(("one", "other")):
        potential.adapters.add(name, "full")
        potential.adapters.randomise(name, seed)
    network = [id(module) for module in potential.backbone.modules()]
    try:
        atoms = with_calculator(potential, bulk("Cu", a=3.6, cubic=True))
        atoms.rattle(0.05, seed=1)
        atoms.calc.set_adapter("one")
        dynamics = VelocityVerlet(atoms, timestep=1.0 * units.fs)
        dynamics.run(2)
        first = atoms.get_forces()
        energies = [atoms.get_potential_energy()]
        for choice in ("other", ["one", "other"], None):
            atoms.calc.set_adapter(choice)
            energies.append(atoms.get_potential_energy())
            fresh = with_calculator(potential, atoms.copy())
            assert energies[-1] == fresh.get_potential_energy()
        assert len(set(energies)) == 4
        atoms.calc.set_adapter("one")
        assert np.array_equal(atoms.get_forces(), first)
        potential.adapters.scale("one", 0.5)
        assert not np.array_equal(atoms.get_forces(), first)
        assert "did you mean 'other'" in refusal_of(atoms.calc.set_adapter, "othr")
    finally:
        for name in ("one", "other"):
            potential.adapters.delete(name)
    assert [id(module) for module in potential.backbone.modules()] == network


def test_nothing_is_computed_twice_for_the_same_structure(potential, monkeypatch):
    calls = []
    honest = Potential.predict
    monkeypatch.setattr(Potential, "predict", lambda self, *args, **kwargs: calls.append(1) or honest(self, *args, **kwargs))
    atoms = with_calculator(potential, bulk("Cu", a=3.6))
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    assert len(calls) == 1
    atoms.rattle(0.01, seed=0)
    atoms.get_forces()
    assert len(calls) == 2


def test_an_isolated_atom_and_an_unknown_element(potential):
    assert np.array_equal(with_calculator(potential, Atoms("Cu")).get_forces(), np.zeros((1, 3)))
    with pytest.raises(ZooError, match="has Po, which sevennet does not know"):
        with_calculator(potential, Atoms("Po")).get_potential_energy()


def test_a_structure_that_is_refused_does_not_get_the_energy_of_the_one_before(potential):
    calculator = potential.calculator()
    calculator.calculate(bulk("Cu"))
    assert "energy" in calculator.results
    collapsed = Atoms("Cu2", [[0, 0, 0], [0, 0, 0]])
    assert "at one place" in refusal_of(calculator.calculate, collapsed)
    assert "at one place" in refusal_of(calculator.get_potential_energy, collapsed)
