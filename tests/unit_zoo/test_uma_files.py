"""What files and configurations of UMA and eSEN may say, and what is refused: one line each time."""

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
from ase.build import bulk, molecule

import zoo
from adapters.blocks import find_blocks
from tests.families import needs, skip_without
from tests.refusals import lacks, refusal_of
from tests.unit_zoo.uma_models import changed, toy
from zoo.backbones import family_of_checkpoint, load_family
from zoo.config_groups import config_root
from zoo.potential import Potential

pytestmark = [skip_without("uma"), pytest.mark.filterwarnings("ignore::UserWarning")]


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


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"backbone": {"lmaxx": 3}}, ["lmaxx", "lmax"]),
        ({"backbone": {"model": "os.system"}}, ["os.system", "not of the eSCN-MD family", "escnmd_backbone"]),
        ({"model": {"_target_": "subprocess.run"}}, ["subprocess.run", "HydraModel"]),
        ({"model": {"heads": {"h": {"module": "builtins.print"}}}}, ["builtins.print", "MLP_EFS_Head"]),
        ({"backbone": {"num_layers": 10**8}}, ["num_layers above 100"]),
        ({"backbone": {"lmax": 40}}, ["lmax above 10"]),
        ({"backbone": {"cutoff": 10**400}}, ["Å up to 100"]),
        ({"backbone": {"ff_type": "zzz"}}, ["ff_type 'zzz'", "'spectral' or 'grid'"]),
        ({"model": {"heads": {"h": {"module": "MLP_EFS_Head"}}}}, ["'MLP_EFS_Head'", "fairchem.core.models.uma.escn_md.MLP_EFS_Head"]),
        ({"backbone": {"norm_type": "batch_norm"}}, ["a test's", "no network"]),
        ({"backbone": {"cutoff": "six"}}, ["cutoff 'six'", "Å"]),
        ({"backbone": {"max_neighbors": None}}, ["max_neighbors None", "whole number"]),
        ({"backbone": {"lmax": 2.5}}, ["lmax 2.5", "whole number"]),
        ({"backbone": {"cutoff": "${cutoff}"}}, ["${cutoff}", "training run"]),
        ({"backbone": {"chg_spin_emb_type": "lin_emb"}}, ["lin_emb", "rand_emb"]),
        ({"model": {"backbone": None}}, ["backbone", "heads"]),
    ],
)
def test_a_configuration_names_known_classes_and_settings_and_nothing_else(parts, said):
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


def test_the_one_generation_whose_composition_is_not_extensive_is_kept_as_it_is():
    """UMA-S-1.2 counts one atom of zeros too many in its mean; with the same weights later generations do not."""
    atoms = molecule("CH3OH")
    far = atoms.copy()
    far.translate([50.0, 0.0, 0.0])
    excess = {}
    for generation in ("UMA-S-1.2", "UMA-S-1.2.1"):
        torch.manual_seed(0)
        potential = Potential(changed("experts", model={"model_id": generation}))
        one, two = potential.predict([atoms, atoms + far])
        excess[generation] = abs(two.energy - 2 * one.energy)
    assert excess["UMA-S-1.2"] > 1e-8
    assert excess["UMA-S-1.2.1"] < 1e-12
    assert [changed("experts", model={"model_id": name}).extensive for name in excess] == [False, True]
    assert not changed("toy", backbone={"spin_balanced_channels": [0]}).extensive


def test_isolated_atoms_are_refused_by_models_that_upstream_asks_a_table_for_them():
    hydrogen = Atoms("H")
    assert np.isfinite(Potential(changed("toy")).predict([hydrogen])[0].energy)
    older = Potential(changed("toy", model={"supports_single_atoms": False}))
    assert not lacks(refusal_of(older.predict, [hydrogen]), "one isolated atom", "table", "uma-s-1p2")
    hydrogen.set_cell([3.0, 3.0, 3.0])
    hydrogen.pbc = True
    assert np.isfinite(older.predict([hydrogen])[0].energy)


def test_normalisers_that_make_forces_no_gradient_are_refused():
    tasks = copy.deepcopy(toy().tasks.raw)
    tasks[1]["normalizer"]["rmsd"] = 2.0
    assert not lacks(refusal_of(functools.partial(changed, "toy", tasks=tasks)), "forces", "rmsd 2", "no gradient")
    tasks = copy.deepcopy(toy("direct").tasks.raw)
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
    path.write_text(yaml.safe_dump({"model_config": backbone.config.raw, "tasks_config": backbone.tasks.raw}))
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


def test_a_network_that_upstream_merged_for_one_composition_is_refused():
    backbone: Any = toy("experts")
    potential = Potential(backbone)
    graph = potential.graph(molecule("CH3OH"))
    data = {"charge": graph.charge, "spin": graph.spin, "dataset": [backbone.predicted.dataset], "batch": graph.graph_of_atom}
    backbone.network.backbone = backbone.network.backbone.merge_MOLE_model({**data, "atomic_numbers": graph.atomic_numbers})
    assert not lacks(refusal_of(potential.predict, [molecule("CH3OH")]), "merged for one composition", "load it again")
    heads: Any = toy("experts")
    next(iter(heads.network.output_heads.values())).merged_on_dataset = "omat"
    assert "merged for one composition" in refusal_of(Potential(heads).predict, [molecule("CH3OH")])


def test_the_documented_small_network_predicts_and_takes_an_adapter():
    potential = zoo.load(config_root() / "network" / "esen_small.yaml", weights=None, adapter="elora")
    assert (potential.backbone.family, potential.conservative) == ("uma", True)
    assert np.abs(potential.predict([bulk("Cu", cubic=True) * (1, 1, 2), molecule("CH3OH")])[1].forces).max() > 1e-4
