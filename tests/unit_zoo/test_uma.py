"""UMA and eSEN: the numbers of fairchem-core's own calculator, charge and spin, and what a file or a configuration may say."""

from __future__ import annotations

import copy
import functools
import os
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk, fcc111, molecule

import zoo
from adapters.blocks import find_blocks
from adapters.method import create_method
from tests.families import needs, skip_without
from tests.refusals import lacks, refusal_of
from tests.unit_zoo import round_trip
from zoo.backbones import family_of_checkpoint, load_family
from zoo.backbones.base import Backbone
from zoo.potential import Potential

pytestmark = [skip_without("uma"), pytest.mark.filterwarnings("ignore::UserWarning")]

KINDS = ("toy", "direct", "grid", "experts")


def toy(kind: str = "toy", seed: int = 0) -> Backbone:
    family = load_family("uma")
    return family.toy(seed) if kind == "toy" else family.more_toys[kind](seed)


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
        atoms = [one for one in structures(kind == "experts") if len(one) > 1]  # upstream looks single atoms up in another file
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


def changed(kind: str, dataset: str | None = None, **parts: dict[str, Any]) -> Backbone:
    """A toy of another configuration: ``backbone`` updates the backbone's settings, ``model`` the model's."""
    from zoo.backbones.uma.config import read_config
    from zoo.backbones.uma.model import Uma
    from zoo.backbones.uma.tasks import read_tasks
    from zoo.backbones.uma.toys import MORE_TOYS, TOY

    found = TOY if kind == "toy" else MORE_TOYS[kind]
    config = copy.deepcopy(found.model_config) | parts.get("model", {})
    config["backbone"] |= parts.get("backbone", {})
    tasks = parts.get("tasks", found.tasks_config)
    return Uma(read_config(config, "a test's"), read_tasks(tasks, "a test's"), dataset or found.dataset, torch.float64)


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
    return Uma(backbone.config, (backbone.tasks, backbone.tasks_config), head, torch.float64)


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


@pytest.mark.slow
def test_elora_with_random_weights_stays_equivariant_to_rounding_at_the_small_models_shape():
    """4 layers of 128 channels, l <= 2, 8 of UMA-s's 32 experts: published shapes; every SO(2) and SO(3) weight moved."""
    backbone = changed(
        "experts",
        backbone={
            **{"sphere_channels": 128, "hidden_channels": 128, "edge_channels": 128, "num_distance_basis": 64, "num_layers": 4},
            **{"cutoff": 6.0, "num_experts": 8, "max_num_elements": 80},
        },
    )
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


# ----- what is refused


def test_ways_of_computing_that_copy_weights_are_refused_in_one_line():
    for mode in ("umas_fast_pytorch", "umas_fast_gpu"):
        message = refusal_of(functools.partial(changed, "toy", backbone={"execution_mode": mode}))
        assert not lacks(message, "a test's", mode, "no adapter reaches", "'general'")


def test_networks_that_were_prepared_for_inference_are_refused():
    from fairchem.core.models.uma.nn.execution_backends import UMASFastPytorchBackend
    from fairchem.core.models.uma.nn.so2_layers import convert_so2_conv2

    atoms = [molecule("CH3OH")]
    prepared: Any = toy("experts")
    plain = changed("toy")
    own: Any = plain.network.backbone.blocks[1].edge_wise
    own.so2_conv_2 = convert_so2_conv2(own.so2_conv_2)
    cached = {name for name, reason in find_blocks(plain).not_adaptable.items() if "copy of its weights" in reason}
    assert cached == {"network.backbone.blocks.1.edge_wise.so2_conv_2.so2_m_conv.0.fc.weight"}
    assert not lacks(refusal_of(Potential(plain).predict, atoms), "SO2_Conv2_InternalBlock", "no adapter reaches")
    prepared.network.backbone.backend = UMASFastPytorchBackend()
    assert not lacks(refusal_of(Potential(prepared).predict, atoms), "UMASFastPytorchBackend", "no adapter reaches")
    merged: Any = toy("experts")
    merged.network.backbone.routing_mlp = None
    assert not lacks(refusal_of(Potential(merged).predict, atoms), "merged for one composition", "load it again")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"backbone": {"lmaxx": 3}}, ["lmaxx", "lmax"]),
        ({"backbone": {"model": "os.system"}}, ["os.system", "not of the eSCN-MD family", "escnmd_backbone"]),
        ({"model": {"_target_": "subprocess.run"}}, ["subprocess.run", "HydraModel"]),
        ({"model": {"heads": {"h": {"module": "builtins.print"}}}}, ["builtins.print", "MLP_EFS_Head"]),
        ({"model": {"heads": {"h": {"module": "MLP_EFS_Head", "reduce": "median"}}}}, []),
        ({"backbone": {"norm_type": "batch_norm"}}, ["a test's", "no network"]),
        ({"backbone": {"cutoff": "${cutoff}"}}, ["${cutoff}", "training run"]),
        ({"backbone": {"chg_spin_emb_type": "lin_emb"}}, ["lin_emb", "rand_emb"]),
        ({"model": {"backbone": None}}, ["backbone", "heads"]),
    ],
)
def test_a_configuration_names_known_classes_and_settings_and_nothing_else(parts, said):
    if not said:  # a choice that upstream itself looks at when it computes
        with pytest.raises(ValueError, match="median"):
            Potential(changed("toy", **parts)).predict([molecule("CH3OH")])
        return
    if parts.get("model", {}).get("backbone", 0) is None:
        from zoo.backbones.uma.config import read_config

        assert not lacks(refusal_of(read_config, {"heads": {}}, "a test's"), *said)
        return
    assert not lacks(refusal_of(functools.partial(changed, "toy", **parts)), *said)


def test_uma_of_a_generation_that_upstream_dropped_is_refused_and_the_next_is_named():
    nameless = {"model": {"model_id": None}}
    assert not lacks(refusal_of(functools.partial(changed, "experts", **nameless)), "UMA 1.0", "uma-s-1p1")
    named: Any = changed("experts", backbone={"model_version": 1.1}, **nameless)
    assert named.network.backbone.model_id == "UMA-1.1"


def test_normalisers_that_make_forces_no_gradient_are_refused():
    tasks = copy.deepcopy(toy().tasks_config)
    tasks[1]["normalizer"]["rmsd"] = 2.0
    assert not lacks(refusal_of(functools.partial(changed, "toy", tasks=tasks)), "forces", "rmsd 2", "no gradient")
    tasks = copy.deepcopy(toy("direct").tasks_config)
    tasks[1]["normalizer"]["rmsd"] = 2 * tasks[1]["normalizer"]["rmsd"]
    torch.manual_seed(0)
    doubled = changed("direct", tasks=tasks)
    torch.manual_seed(0)
    single = changed("direct")
    atoms = [molecule("CH3OH")]
    np.testing.assert_allclose(Potential(doubled).predict(atoms)[0].forces, 2 * Potential(single).predict(atoms)[0].forces)


# ----- files


def test_a_head_is_never_chosen_silently(tmp_path):
    path = tmp_path / "experts.pt"
    Potential(toy("experts")).save_upstream_checkpoint(path)
    assert family_of_checkpoint(path).name == "uma"
    assert not lacks(refusal_of(zoo.load, path), "several heads", "omat, omat_rattle, omol", "head=")
    assert not lacks(refusal_of(zoo.load, path, head="spice"), "unknown head 'spice'")
    assert zoo.load(path, head="OMol").backbone.head == "omol"


def test_the_averaged_weights_are_the_ones_that_predict(tmp_path):
    record = toy().upstream_checkpoint({})
    for name, value in record.model_state_dict.items():
        record.model_state_dict[name] = value + 1 if value.is_floating_point() else value
    torch.save(record, tmp_path / "averaged.pt")
    atoms = [molecule("CH3OH")]
    assert zoo.load(tmp_path / "averaged.pt").predict(atoms)[0].energy == Potential(toy()).predict(atoms)[0].energy


def test_configurations_in_omegaconfs_containers_are_read_as_values(tmp_path):
    from omegaconf import OmegaConf

    record = toy("experts").upstream_checkpoint({})
    plain = copy.deepcopy(record.model_config)
    record.model_config, record.tasks_config = OmegaConf.create(record.model_config), OmegaConf.create(record.tasks_config)
    torch.save(record, tmp_path / "omegaconf.pt")
    found: Any = zoo.load(tmp_path / "omegaconf.pt", head="omol").backbone
    assert found.config.raw == plain


def test_a_file_that_would_run_code_is_refused(tmp_path):
    record = toy().upstream_checkpoint({})
    record.tasks_config[0]["loss_fn"] = os.getcwd
    torch.save(record, tmp_path / "hostile.pt")
    assert not lacks(refusal_of(zoo.load, tmp_path / "hostile.pt"), "hostile.pt", "would run code", "getcwd", "trust_pickle")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda record: vars(record).pop("tasks_config"), ["lacks tasks_config", "inference_ckpt.pt"]),
        (lambda record: record.ema_state_dict.clear(), ["ema_state_dict", "empty"]),
        (lambda record: record.ema_state_dict.pop("module.backbone.mix_csd.bias"), ["1 missing", "no backbone.mix_csd.bias"]),
        (lambda record: record.ema_state_dict.update({"module.backbone.more": torch.ones(1)}), ["1 too many", "backbone.more"]),
        (
            lambda record: record.ema_state_dict.update({"module.backbone.mix_csd.bias": torch.ones(7)}),
            ["mix_csd.bias has shape (7,)", "wanted (4,)"],
        ),
        (lambda record: record.ema_state_dict["module.backbone.mix_csd.bias"].fill_(np.nan), ["mix_csd.bias", "not finite"]),
        (lambda record: record.tasks_config[0].update(normalizer={"_target_": "os.system"}), ["normaliser", "os.system"]),
        (lambda record: record.tasks_config[0].update(element_references={"_target_": "os.system"}), ["element references"]),
        (lambda record: record.tasks_config.append(record.tasks_config[0]), ["'energy' and 'energy'"]),
        (lambda record: record.tasks_config.pop(0), ["none of its tasks is an energy"]),
        (lambda record: record.tasks_config[0].update(name="enthalpy"), ["'enthalpy'", "heads give: energy"]),
    ],
)
def test_a_spoilt_checkpoint_is_one_clear_line(spoil, said, tmp_path):
    record = toy().upstream_checkpoint({})
    record.ema_state_dict = {name: value.clone() for name, value in record.ema_state_dict.items()}
    spoil(record)
    path = tmp_path / "spoilt.pt"
    torch.save(record, path)
    if "heads give: energy" in said[-1]:
        assert not lacks(refusal_of(zoo.load(path).predict, [molecule("CH3OH")]), "spoilt.pt", *said)
        return
    assert not lacks(refusal_of(zoo.load, path), "spoilt.pt", *said)


def test_a_configuration_alone_is_an_architecture_with_random_weights(tmp_path):
    backbone: Any = toy("experts")
    path = tmp_path / "uma.yaml"
    path.write_text(yaml.safe_dump({"model_config": backbone.config.raw, "tasks_config": backbone.tasks_config}))
    assert family_of_checkpoint(path).name == "uma"
    assert not lacks(refusal_of(zoo.load, path, head="omol"), "weights=None")
    torch.manual_seed(3)
    one = zoo.load(path, head="omol", weights=None)
    assert one.dtype == torch.float32
    assert sum(p.numel() for p in one.parameters()) == sum(p.numel() for p in backbone.parameters())
    assert not torch.equal(
        one.backbone.network.backbone.mix_csd.weight, zoo.load(path, head="omol", weights=None).backbone.network.backbone.mix_csd.weight
    )


def test_without_the_package_the_error_names_the_commands_of_the_readme(monkeypatch, tmp_path):
    needs("uma")
    import importlib.util

    path = tmp_path / "uma.pt"
    Potential(toy()).save_upstream_checkpoint(path)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name.startswith("fairchem") else found(name, *rest))
    assert not lacks(refusal_of(load_family, "uma"), "fairchem.core", "pip install", "--no-deps fairchem-core==2.24.0")
    assert not lacks(refusal_of(zoo.load, path), "not installed: uma", "fairchem-core==2.24.0")
