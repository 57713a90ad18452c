"""UMA and eSEN: the numbers of fairchem-core's own calculator, charge and spin, and what a file or a configuration may say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

import zoo
from adapters.blocks import find_blocks
from adapters.method import create_method
from tests.families import skip_without
from tests.refusals import lacks, refusal_of
from tests.unit_zoo import round_trip
from tests.unit_zoo.uma_models import KINDS, changed, toy
from zoo.backbones import load_family
from zoo.backbones.base import Backbone
from zoo.potential import Potential

pytestmark = [skip_without("uma"), pytest.mark.filterwarnings("ignore::UserWarning")]


def rattled(atoms: Atoms, seed: int, **info: int) -> Atoms:
    atoms.positions += 0.05 * np.random.default_rng(seed).standard_normal(atoms.positions.shape)
    atoms.info.update(info)
    return atoms


def sheared(atoms: Atoms) -> Atoms:
    atoms.set_cell(atoms.cell.array @ np.array([[1.02, 0.01, 0], [0, 0.97, 0.02], [0.01, 0, 1.04]]), scale_atoms=True)
    return atoms


def structures(charged: bool) -> list[Atoms]:
    """Crystals, a slab that is periodic in two directions, and molecules; ions and open shells for a task that knows them."""
    slab = fcc111("Au", (2, 2, 2), vacuum=5.0)
    slab.pbc = (True, True, False)
    found = [sheared(rattled(bulk("Cu", cubic=True), 0)), rattled(slab, 1), rattled(molecule("CH3OH"), 2)]
    if charged:
        found += [
            rattled(molecule("CH3OH"), 2, charge=1, spin=2),
            rattled(molecule("NO2"), 3, charge=-1),
            rattled(molecule("O2"), 4, spin=3),
        ]
    return [*found, Atoms("H")] if charged else found


def differences(found: round_trip.Numbers, wanted: round_trip.Numbers) -> dict[str, float]:
    """Largest of each quantity, relative to its largest value."""
    return {name: float(np.abs(found[name] - value).max() / np.abs(value).max()) for name, value in wanted.items() if value.size}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fairchems_own_calculator_reads_the_checkpoint_and_gives_the_same_numbers(kind, tmp_path, monkeypatch):
    """In a process without equizoo, its graphs and its derivatives its own; an adapter and reference energies are in the file."""
    original = Potential(toy(kind))
    original.adapters.add("elora", "elora")
    original.adapters.randomise("elora", seed=4)
    original.set_reference_shifts({29: -1.25, 79: 0.5, 6: 0.25})
    wanted, files = {}, {}
    for dtype in ("float64", "float32"):
        potential = original.to_dtype(getattr(torch, dtype))
        files[dtype] = tmp_path / dtype / "inference_ckpt.pt"
        files[dtype].parent.mkdir()
        potential.save_upstream_checkpoint(files[dtype])
        atoms = structures(kind == "experts")
        wanted[dtype] = round_trip.numbers(potential, atoms)
    monkeypatch.setenv("UMA_TASK", "omol")
    found = round_trip.upstream("uma", files, structures=atoms)
    tolerances = {
        "float64": {"energy": 1e-12, "forces": 1e-10, "stress": 1e-10},
        "float32": {"energy": 1e-6, "forces": 1e-4, "stress": 1e-4},
    }
    if kind == "direct":
        tolerances["float64"]["stress"] = 1e-6  # upstream puts a direct stress together in float32 in any precision
    for dtype, tolerance in tolerances.items():
        measured = differences(found[dtype], wanted[dtype])
        print(kind, dtype, {name: f"{value:.1e}" for name, value in measured.items()})
        assert measured.keys() == tolerance.keys()
        assert all(measured[name] < tolerance[name] for name in measured), measured


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["toy", "experts"])
def test_an_exported_adapter_runs_in_the_modes_that_are_refused_here_because_it_is_merged(kind, tmp_path):
    from fairchem.core import FAIRChemCalculator
    from fairchem.core.units.mlip_unit import InferenceSettings, load_predict_unit

    potential = Potential(toy(kind))
    base = potential.predict([molecule("CH3OH")])[0]
    potential.adapters.add("elora", "elora")
    potential.adapters.randomise("elora", seed=1)
    potential.save_upstream_checkpoint(tmp_path / "merged.pt")
    wanted = potential.predict([molecule("CH3OH")])[0]
    assert np.abs(wanted.forces - base.forces).max() > 1e-3 * np.abs(base.forces).max()
    for mode in ("general", "umas_fast_pytorch"):
        given = {"activation_checkpointing": False, "merge_mole": True, "base_precision_dtype": "float64", "execution_mode": mode}
        unit = load_predict_unit(tmp_path / "merged.pt", inference_settings=InferenceSettings(**given), device="cpu")
        atoms = molecule("CH3OH")
        atoms.calc = FAIRChemCalculator(unit, task_name={"toy": "omat", "experts": "omol"}[kind])
        np.testing.assert_allclose(atoms.get_forces(), wanted.forces, atol=1e-6 * np.abs(wanted.forces).max())


@pytest.mark.slow
def test_limits_of_neighbours_are_fairchems(tmp_path):
    """Shells that are equally far are kept whole: crystals at their ideal places, where rounding could tell neighbours apart."""
    crystals = [bulk("Cu", cubic=True), bulk("Fe"), rattled(bulk("Cu", cubic=True), 0)]
    for limit in (8, 12, 30):
        backbone = changed("toy", backbone={"max_neighbors": limit, "cutoff": 5.0})
        potential = Potential(backbone)
        potential.save_upstream_checkpoint(tmp_path / "limited.pt")
        found = round_trip.upstream("uma", {"float64": tmp_path / "limited.pt"}, structures=crystals)["float64"]
        assert max(differences({"energy": found["energy"]}, {"energy": round_trip.numbers(potential, crystals)["energy"]}).values()) < 1e-13
        edges = potential.graph(crystals[0]).edge_index.shape[1] / 4
        assert edges == {8: 12, 12: 18, 30: 42}[limit]


# ----- charge and spin


def test_charge_spin_and_task_enter_the_energy_of_a_model_that_knows_them():
    methanol = rattled(molecule("CH3OH"), 2)
    energies = {}
    for name, info in {
        "neutral": {},
        "cation": {"charge": 1, "spin": 2},
        "anion": {"charge": -1, "spin": 2},
        "triplet": {"spin": 3},
    }.items():
        methanol.info = dict(info)
        energies[name] = Potential(toy("experts")).predict([methanol])[0].energy
    assert len({round(energy, 9) for energy in energies.values()}) == 4
    methanol.info = {"spin": 1, "charge": 0}
    assert Potential(toy("experts")).predict([methanol])[0].energy == energies["neutral"]  # what upstream takes where nothing is stated
    methanol.info = {}
    other = Potential(zoo_load_head(toy("experts"), "omat"))
    assert other.backbone.head == "omat"
    assert abs(other.predict([methanol])[0].energy - energies["neutral"]) > 1e-6


def zoo_load_head(backbone: Backbone, head: str) -> Backbone:
    from zoo.backbones.uma.model import Uma

    assert isinstance(backbone, Uma)
    return Uma(backbone.config, backbone.tasks, head, torch.float64)


def test_structures_of_any_charge_share_a_batch():
    potential = Potential(toy("experts"))
    atoms = structures(charged=True)
    together = potential.predict(atoms, batch_size=len(atoms))
    for one, prediction in zip(atoms, together, strict=True):
        alone = potential.predict([one])[0]
        assert prediction.energy == pytest.approx(alone.energy, abs=1e-12)
        np.testing.assert_allclose(prediction.forces, alone.forces, atol=1e-13)


def test_a_charge_is_refused_by_models_and_tasks_that_do_not_know_it_and_never_left_out():
    ion = rattled(molecule("CH3OH"), 2, charge=1)
    assert not lacks(refusal_of(Potential(load_family("sevennet").toy(0)).predict, [ion]), "charge +1", "no input", "info['charge']")
    assert not lacks(refusal_of(Potential(toy()).predict, [ion]), "'omat'", "trained without", "info['charge']")
    ion.info["charge"] = 0.5
    assert not lacks(refusal_of(Potential(toy("experts")).predict, [ion]), "charge=0.5", "whole number")
    ion.info["charge"] = 101
    assert not lacks(refusal_of(Potential(toy("experts")).predict, [ion]), "charge=101", "-100 to 100")


def test_the_calculator_sees_a_charge_that_changes():
    ion = rattled(molecule("CH3OH"), 2)
    ion.calc = Potential(toy("experts")).calculator()
    neutral = ion.get_potential_energy()
    ion.info["charge"] = 1
    assert abs(ion.get_potential_energy() - neutral) > 1e-9
    ion.info["charge"] = 0
    assert ion.get_potential_energy() == neutral


# ----- the network


def test_predictions_leave_the_stream_of_random_numbers_alone_and_do_not_depend_on_it():
    potential = Potential(toy("direct"))
    atoms = structures(charged=False)
    torch.manual_seed(1)
    one, after = potential.predict(atoms), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    other = potential.predict(atoms)
    assert [p.energy for p in one] == [p.energy for p in other]
    assert all(np.array_equal(p.forces, q.forces) for p, q in zip(one, other, strict=True))


def test_dropouts_of_the_configuration_act_in_training_and_never_in_predictions():
    backbone = changed("experts", backbone={"moe_dropout": 0.5, "composition_dropout": 0.5})
    potential = Potential(backbone)
    graph = potential.graph(rattled(molecule("CH3OH"), 2))
    assert len({float(potential(graph)["energy"]) for _ in range(3)}) == 1
    potential.train()
    assert len({float(potential(graph)["energy"]) for _ in range(8)}) > 1
    potential.eval()
    assert len({float(potential(graph)["energy"]) for _ in range(3)}) == 1


def test_the_direction_of_an_edge_may_be_any_also_along_and_against_y():
    """Frames of edges turn y into the edge; forces have no jump and no NaN where that leaves the angle about it open."""
    potential = Potential(toy())
    length = 1.7
    forces = []
    for direction in ([0, 1, 0], [0, -1, 0], [1e-9, 1, 0], [0, -1, 1e-9], [1, 0, 0], [0.6, 0, 0.8]):
        unit = np.array(direction) / np.linalg.norm(direction)
        prediction = potential.predict([Atoms("CO", [[0, 0, 0], length * unit])])[0]
        forces.append(prediction.forces[1] @ unit)
        np.testing.assert_allclose(prediction.forces[1], forces[-1] * unit, atol=1e-12)
    assert abs(forces[0]) > 1e-4
    np.testing.assert_allclose(forces, forces[0], rtol=1e-10)


@pytest.mark.parametrize("norm", ["layer_norm", "layer_norm_sh", "rms_norm_sh"])
@pytest.mark.parametrize("kind", ["toy", "direct"])
def test_networks_of_every_norm_come_back_from_their_files(kind, norm, tmp_path):
    backbone: Any = changed(kind, backbone={"norm_type": norm})
    potential = Potential(backbone)
    atoms = structures(charged=False)
    assert potential.coverage.not_adaptable == {}
    potential.save_upstream_checkpoint(tmp_path / "norm.pt")
    again = zoo.load(tmp_path / "norm.pt")
    assert again.base_sha256 == potential.base_sha256
    assert again.backbone.network.state_dict().keys() == backbone.network.state_dict().keys()
    for one, other in zip(again.predict(atoms), potential.predict(atoms), strict=True):
        assert one.energy == other.energy
        assert np.array_equal(one.forces, other.forces)


@pytest.mark.parametrize("kind", KINDS)
def test_every_so2_and_so3_weight_of_fairchems_classes_is_in_a_block_of_its_order_or_degree(kind):
    backbone = toy(kind)
    coverage = find_blocks(backbone, backbone.adapter_roles)
    print(coverage.table())
    assert coverage.not_adaptable == {}
    assert coverage.share(coverage.blocks) == 1.0
    parameters = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    orders: dict[int, int] = {}
    for block in coverage.blocks:
        if block.role == "so2" and block.order is not None:
            orders[block.order] = orders.get(block.order, 0) + block.numel
    counted = {
        order: sum(count for name, count in parameters.items() if ".so2_conv_" in name and part in name and "bias" not in name)
        for order, part in enumerate([".fc_m0.", ".so2_m_conv.0.", ".so2_m_conv.1."])
    }
    assert orders == {order: count for order, count in counted.items() if count}
    so3 = sum(count for name, count in parameters.items() if ".so3_linear_" in name and name.endswith("weight"))
    degrees = {block.degree for block in coverage.blocks if block.role == "so3"}
    assert sum(block.numel for block in coverage.blocks if block.role == "so3") == so3
    assert degrees == ({0, 1, 2} if so3 else set())


def published_shape(experts: int) -> Backbone:
    """Of upstream's public training configurations: 4 layers of 128 channels, l <= 2, gates, cutoff 6 Å, elements up to 99."""
    widths = {"sphere_channels": 128, "hidden_channels": 128, "edge_channels": 128, "num_distance_basis": 64, "num_layers": 4}
    reach = {"cutoff": 6.0, "max_num_elements": 100, "mmax": 2}
    if not experts:
        return changed("toy", backbone={**widths, **reach})
    one_head_for_all = {
        "module": "fairchem.core.models.uma.escn_moe.DatasetSpecificSingleHeadWrapper",
        "head_cls": "fairchem.core.models.uma.escn_md.MLP_EFS_Head",
        "head_kwargs": {"wrap_property": False},
        "dataset_names": ["omat", "omat_rattle", "omol"],
    }
    own = {"num_experts": experts, "charge_balanced_channels": None}
    return changed("experts", backbone={**widths, **reach, **own}, model={"heads": {"energyandforcehead": one_head_for_all}})


@pytest.mark.slow
def test_the_published_shapes_have_the_published_sizes_and_every_weight_can_be_adapted():
    """eSEN small: 6.3 million; UMA small: 145 million, as their authors round them."""
    for experts, millions in ((0, 6.3), (32, 145)):
        backbone = published_shape(experts)
        count = sum(parameter.numel() for parameter in backbone.parameters())
        assert count / 1e6 == pytest.approx(millions, rel=0.015)
        coverage = find_blocks(backbone, backbone.adapter_roles)
        assert coverage.not_adaptable == {}
        so2 = sum(block.numel for block in coverage.blocks if block.role == "so2")
        assert so2 / count > 0.7


@pytest.mark.slow
def test_elora_with_random_weights_stays_equivariant_to_rounding_at_the_small_models_shape():
    """4 layers of 128 channels, l <= 2, 8 of UMA-s's 32 experts: published shapes; every SO(2) and SO(3) weight moved."""
    backbone = published_shape(experts=8)
    potential = Potential(backbone)
    potential.adapters.add("elora", create_method({"name": "elora", "rank": 4, "roles": ["so2", "so3"]}))
    potential.adapters.randomise("elora", seed=1, relative=0.15)
    atoms = rattled(molecule("CH3OH"), 2)
    one = potential.predict([atoms])[0]
    turned = atoms.copy()
    turned.rotate(40, (1, 2, -1))
    other = potential.predict([turned])[0]
    rotation = np.linalg.lstsq(atoms.positions - atoms.positions[0], turned.positions - turned.positions[0], rcond=None)[0]
    scale = np.abs(one.forces).max()
    assert abs(one.energy - other.energy) / len(atoms) / scale < 1e-10
    assert np.abs(one.forces @ rotation - other.forces).max() / scale < 1e-10
