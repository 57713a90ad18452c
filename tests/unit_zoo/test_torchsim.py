"""TorchSim's view of a potential: its states read right, the same numbers as everywhere else, and its own integrators at work."""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.md.verlet import VelocityVerlet

import zoo
from tests.families import needs
from zoo.backbones import load_family
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.graph import AtomGraph
from zoo.potential import Potential
from zoo.torchsim_state import frames_of_state


def sheared_copper() -> Atoms:
    """Four atoms in a cell that differs from its transpose, one atom outside the cell."""
    atoms = bulk("Cu", a=3.7, cubic=True)
    atoms.set_cell([[3.7, 0.0, 0.0], [0.9, 3.6, 0.0], [-0.3, 0.5, 3.9]], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    atoms.positions[2] += 3 * atoms.cell.array[0] - atoms.cell.array[2]
    return atoms


def crystals() -> list[Atoms]:
    """Systems of 4, 2 and 1 atoms in unlike cells."""
    alloy = bulk("CuAu", "rocksalt", a=5.2)
    alloy.positions[1] += [0.1, 0.2, 0.05]
    return [sheared_copper(), alloy, bulk("Cu", a=3.3)]


def molecules() -> list[Atoms]:
    return [molecule("CH3CH2OH"), molecule("H2O"), Atoms("Cu")]


def plain_state(structures: list[Atoms], pbc: Any = True) -> SimpleNamespace:
    """The tensors of a `SimState`, made without TorchSim; lattice vectors are columns there."""
    return SimpleNamespace(
        positions=torch.tensor(np.concatenate([atoms.positions for atoms in structures])),
        cell=torch.tensor(np.stack([atoms.cell.array.T for atoms in structures])),
        pbc=pbc,
        atomic_numbers=torch.tensor(np.concatenate([atoms.numbers for atoms in structures]), dtype=torch.int32),
        system_idx=torch.tensor(np.repeat(np.arange(len(structures)), [len(atoms) for atoms in structures])),
    )


def with_random_adapter(family: str) -> Potential:
    needs(family)
    potential = Potential(load_family(family).toy(0))
    potential.adapters.add("tuned", "elora")
    potential.adapters.randomise("tuned", seed=3)
    potential.set_reference_shifts({29: -1.25, 8: 0.5})
    return potential


@pytest.fixture(scope="module")
def potential() -> Potential:
    return with_random_adapter("sevennet")


@pytest.fixture
def torch_sim() -> ModuleType:
    return pytest.importorskip("torch_sim", reason="the optional package torch-sim-atomistic is not installed")


def state_of(torch_sim: ModuleType, structures: list[Atoms]) -> Any:
    return torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)


# Without TorchSim


def test_a_state_becomes_the_frames_it_was_made_of() -> None:
    structures = crystals()
    frames = frames_of_state(plain_state(structures))
    assert [len(frame) for frame in frames] == [4, 2, 1]
    for frame, atoms in zip(frames, structures, strict=True):
        expected = Frame.unlabelled(atoms)
        for name in ("atomic_numbers", "positions", "cell", "pbc"):
            np.testing.assert_array_equal(getattr(frame, name), getattr(expected, name))


def test_a_transposed_cell_would_change_the_neighbours() -> None:
    """So the comparison of cells above and of forces below can fail."""
    state = plain_state([sheared_copper()])
    right = AtomGraph.from_frame(frames_of_state(state)[0], 4.0)
    state.cell = state.cell.mT
    wrong = AtomGraph.from_frame(frames_of_state(state)[0], 4.0)
    shortest = [graph.edge_vectors().norm(dim=1).min() for graph in (right, wrong)]
    assert abs(shortest[0] - shortest[1]) > 1e-2


@pytest.mark.parametrize("pbc", [False, np.array([False]), torch.tensor(False)], ids=["bool", "of a trajectory", "tensor"])
def test_a_state_that_is_not_periodic_gives_molecules(pbc: Any) -> None:
    frames = frames_of_state(plain_state(molecules(), pbc))
    assert not np.any([frame.pbc for frame in frames])
    assert frames[0].name == "TorchSim state: frame 0"


@pytest.mark.parametrize(
    "pbc", [(True, True, False), torch.tensor([True, False, False]), 1, None], ids=["tuple", "tensor", "number", "none"]
)
def test_periodicity_that_torchsim_cannot_mean_is_refused(pbc: Any) -> None:
    with pytest.raises(ZooError, match=r"pbc is .* all directions \(True\) or in none \(False\).*ASE") as caught:
        frames_of_state(plain_state([sheared_copper()], pbc))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system_idx": torch.tensor([0, 1, 0, 1, 1, 1, 2])}, "do not stand together"),
        ({"system_idx": torch.tensor([0, 0, 0, 0, 1, 1, 3])}, "3 cells for 4 systems"),
        ({"system_idx": torch.tensor([0, 0, 0, 0, 2, 2, 2])}, "frame 1 has no atoms"),
        ({"positions": torch.full((7, 3), torch.nan)}, "frame 0 has a position or cell entry that is not a number"),
        ({"cell": torch.zeros(3, 3, 3)}, "lattice vector of length zero"),
    ],
    ids=["mixed", "too few cells", "empty system", "exploded", "no cell"],
)
def test_a_state_that_is_not_sound_is_refused(changes: dict[str, Any], message: str) -> None:
    state = plain_state(crystals())
    vars(state).update(changes)
    with pytest.raises(ZooError, match=message):
        frames_of_state(state)


def test_without_torchsim_the_error_says_how_to_install_it(potential: Potential, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "zoo.torchsim", raising=False)
    for name in ("torch_sim", "torch_sim.models.interface"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ZooError, match=r"needs the package 'torch_sim'.*pip install -c constraints.txt torch-sim-atomistic"):
        potential.torchsim()


# With TorchSim


@pytest.mark.parametrize("family", ["sevennet", "mace"])
def test_a_batch_has_the_numbers_of_predict(torch_sim: ModuleType, family: str) -> None:
    potential = with_random_adapter(family)
    structures = crystals()
    found = potential.torchsim()(state_of(torch_sim, structures))
    expected = potential.predict(structures, batch_size=1)
    forces = np.concatenate([prediction.forces for prediction in expected])
    stress = np.stack([prediction.stress for prediction in expected])
    assert np.abs(forces).max() > 1e-2
    assert np.abs(stress).max() > 1e-4
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(("energy", "forces", "stress"), torch.float64)
    np.testing.assert_allclose(found["energy"].numpy(), [prediction.energy for prediction in expected], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["forces"].numpy(), forces, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["stress"].numpy(), stress, rtol=0, atol=1e-12)


def test_torchsims_own_validation_passes(torch_sim: ModuleType) -> None:
    from torch_sim.models.interface import validate_model_outputs

    model = zoo.load("sevennet-0").torchsim(compute_forces=False, compute_stress=False)
    validate_model_outputs(model, model.device, model.dtype)  # on silicon and iron, one by one and together; it switches both flags on
    assert model.compute_forces
    assert model.compute_stress


def test_the_active_adapters_count(torch_sim: ModuleType) -> None:
    potential = with_random_adapter("sevennet")
    model, state = potential.torchsim(), state_of(torch_sim, crystals())
    adapted = model(state)["energy"]
    potential.adapters.activate([])
    base = model(state)["energy"]
    assert (adapted - base).abs().min() > 1e-3
    np.testing.assert_allclose(base.numpy(), [one.energy for one in potential.predict(crystals())], rtol=0, atol=1e-10)


def test_the_flags_choose_what_is_returned(torch_sim: ModuleType, potential: Potential) -> None:
    state = state_of(torch_sim, crystals())
    model = potential.torchsim(compute_stress=False)
    assert set(model(state)) == {"energy", "forces"}
    model.compute_forces, model.compute_stress = False, True
    assert set(model(state)) == {"energy", "stress"}
    assert (model.dtype, model.device, model.memory_scales_with) == (torch.float64, torch.device("cpu"), "n_atoms_x_density")


def test_a_backbone_with_a_fixed_number_of_neighbours_scales_with_atoms(
    torch_sim: ModuleType, potential: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(potential.backbone, "max_neighbours", 20)
    assert potential.torchsim().memory_scales_with == "n_atoms"


def test_molecules_have_no_stress_and_states_may_be_dictionaries(torch_sim: ModuleType, potential: Potential) -> None:
    found = potential.torchsim()(vars(plain_state(molecules(), pbc=False)))
    expected = potential.predict(molecules())
    np.testing.assert_allclose(found["energy"].numpy(), [one.energy for one in expected], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["forces"].numpy(), np.concatenate([one.forces for one in expected]), rtol=0, atol=1e-10)
    assert bool(found["stress"].isnan().all())


def test_torchsim_itself_forgets_that_a_slab_is_periodic(torch_sim: ModuleType) -> None:
    """Why the documentation sends slabs to ASE: what arrives here is a cluster, and nothing tells it from one."""
    slab = fcc111("Cu", (1, 1, 2), vacuum=5.0)
    assert slab.pbc.tolist() == [True, True, False]
    assert state_of(torch_sim, [slab]).pbc is False


def test_an_unknown_element_and_an_explosion_are_one_line(torch_sim: ModuleType) -> None:
    potential = with_random_adapter("sevennet")
    model = potential.torchsim()
    with pytest.raises(ZooError, match="TorchSim state: frame 1 has Po, which sevennet does not know"):
        model(state_of(torch_sim, [bulk("Cu"), bulk("Po")]))
    with torch.no_grad():
        for tensor in potential.adapters.get("tuned").tensors.values():
            tensor.fill_(torch.nan)
    with pytest.raises(ZooError, match="frame 0: the predicted energy is not a number"):
        model(state_of(torch_sim, crystals()))


def test_a_call_leaves_training_mode_and_needs_no_gradient(torch_sim: ModuleType) -> None:
    potential = with_random_adapter("sevennet")
    potential.train()
    with torch.no_grad():
        found = potential.torchsim()(state_of(torch_sim, crystals()))
    assert potential.training
    assert not any(value.requires_grad for value in found.values())


def test_nve_follows_ases_trajectory_and_conserves_the_energy_of_each_system(torch_sim: ModuleType, potential: Potential) -> None:
    structures, timestep, steps = [sheared_copper(), bulk("Cu", a=3.4) * (2, 1, 1)], 1.0 * units.fs, 20
    in_float64 = partial(torch.tensor, dtype=torch.float64)
    model = potential.torchsim(compute_stress=False)
    state = state_of(torch_sim, structures)
    begin, advance = torch_sim.nve(model=model, dt=in_float64(timestep), kT=in_float64(600 * units.kB), seed=1)
    state = begin(state)
    start = state.clone()
    totals, kinetic = [], []
    for _ in range(steps):
        state = advance(state)
        kinetic.append(torch_sim.calc_kinetic_energy(momenta=state.momenta, masses=state.masses, system_idx=state.system_idx))
        totals.append(state.energy + kinetic[-1])
    assert torch.stack(kinetic).std(0).min() > 1e-3  # something moves between the two kinds of energy, in each system
    assert (torch.stack(totals).std(0) < 0.02 * torch.stack(kinetic).std(0)).all()
    for index, atoms in enumerate(structures):
        own = start.system_idx == index
        atoms.calc = potential.calculator()
        atoms.set_masses(start.masses[own].numpy())
        atoms.set_momenta(start.momenta[own].numpy())
        dynamics = VelocityVerlet(atoms, timestep=timestep)
        dynamics.run(steps)
        assert np.abs(atoms.positions - start.positions[own].numpy()).max() > 1e-2
        difference = (state.positions[own].numpy() - atoms.positions) @ np.linalg.inv(atoms.cell.array)
        np.testing.assert_allclose(difference, np.round(difference), rtol=0, atol=1e-10)  # TorchSim moves atoms back into the cell
        assert float(totals[-1][index]) == pytest.approx(atoms.get_total_energy(), abs=1e-8)


def test_torchsims_cell_relaxation_goes_downhill_with_our_stress(torch_sim: ModuleType, potential: Potential) -> None:
    state = state_of(torch_sim, crystals())
    begin, advance = torch_sim.unit_cell_gradient_descent(model=potential.torchsim(), positions_lr=1e-4, cell_lr=1e-3)
    state = begin(state)
    energies, volumes = state.energy.clone(), state.volume.clone()
    for _ in range(3):
        state = advance(state)
    assert (state.energy < energies).all()
    assert ((state.volume - volumes).abs() > 1e-4).all()


def test_an_autobatcher_splits_and_restores_the_order(torch_sim: ModuleType, potential: Potential) -> None:
    structures = [*crystals(), *reversed(crystals())]
    model = potential.torchsim()
    batcher = torch_sim.BinningAutoBatcher(model=model, memory_scales_with="n_atoms", max_memory_scaler=5)
    found = torch_sim.static(structures, model, autobatcher=batcher)
    assert len(batcher.index_bins) > 1
    energies = [float(properties["potential_energy"]) for properties in found]
    np.testing.assert_allclose(energies, [one.energy for one in potential.predict(structures)], rtol=0, atol=1e-10)


def test_torchsims_own_mace_agrees_on_the_exported_model(torch_sim: ModuleType) -> None:
    """An independent way into TorchSim for the same network: its conversion of the state, its neighbour list, mace's forces and stress."""
    potential = with_random_adapter("mace")
    from torch_sim.models.mace import MaceModel  # after the family, which keeps `import mace` from changing torch for the whole process

    potential.adapters.merge()
    theirs = MaceModel(potential.backbone.upstream_checkpoint(potential.get_reference_shifts()), device=torch.device("cpu"))
    potential.adapters.unmerge()
    state = state_of(torch_sim, crystals())
    expected, found = theirs(state), potential.torchsim()(state)
    for quantity in ("energy", "forces", "stress"):
        assert expected[quantity].abs().max() > 1e-4
        np.testing.assert_allclose(found[quantity].numpy(), expected[quantity].detach().numpy(), rtol=0, atol=1e-10)
