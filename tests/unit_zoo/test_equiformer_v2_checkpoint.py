"""Files in upstream's layout, written here from small models, load with the numbers they were written with; damaged ones are refused."""

from __future__ import annotations

import copy
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.refusals import lacks, refusal_of
from tests.unit_zoo.equiformer_v2_golden import HEADS
from zoo.backbones.equiformer_v2.checkpoint import read_checkpoint, recognises
from zoo.backbones.equiformer_v2.config import Architecture, parse_config, parse_heads
from zoo.backbones.equiformer_v2.network import Structures, build_network

SETTINGS = {
    "max_neighbors": 20, "max_radius": 6.0, "max_num_elements": 90, "num_layers": 1, "sphere_channels": 4, "attn_hidden_channels": 4,
    "num_heads": 2, "attn_alpha_channels": 4, "attn_value_channels": 2, "ffn_hidden_channels": 4, "norm_type": "layer_norm_sh",
    "lmax_list": [2], "mmax_list": [1], "grid_resolution": 8, "edge_channels": 4, "num_distance_basis": 512, "attn_activation": "silu",
    "use_grid_mlp": True, "weight_init": "uniform", "use_pbc": True, "otf_graph": True, "num_sphere_samples": 128,
}  # fmt: skip
NORMALISERS = {
    "target": {"mean": torch.tensor(-0.75), "std": torch.tensor(2.9)},
    "grad_target": {"mean": torch.tensor(0.0), "std": torch.tensor(2.9)},
}


def content_of(form: str, **changes: Any) -> dict[str, Any]:
    """What upstream's trainer saves: weights of the last step, averages that differ from them, constants, and settings in its form."""
    torch.manual_seed(3)
    settings = SETTINGS | changes
    heads = parse_heads(HEADS, form) if form == "hydra" else None
    network = build_network(Architecture(parse_config(settings, form), heads), torch.float32)
    backbone = "backbone." if form == "hydra" else ""
    constants = (
        "mappingReduced.to_m",
        "SO3_rotation.0.mapping.l_harmonic",
        "blocks.0.ga.SO3_grid.2.1.to_grid_mat",
        "blocks.0.ga.proj.expand_index",
    )
    constants += ("norm.balance_degree_weight", "distance_expansion.offset", "SO3_grid.0.0.mapping.m_complex")
    state = {f"module.module.{name}": value for name, value in network.state_dict().items()}
    state |= {f"module.module.{backbone}{name}": torch.zeros(3) for name in constants}
    config: dict[str, Any] = {
        "2023": {"model": "equiformer_v2", "model_attributes": settings},
        "nested": {"model": {"name": "equiformer_v2", **settings}},
        "hydra": {
            "model": {
                "name": "hydra", "otf_graph": True, "pass_through_head_outputs": True,
                "backbone": {"model": "equiformer_v2_backbone", "use_pbc_single": True, **settings}, "heads": HEADS,
            }
        },
    }[form]  # fmt: skip
    averages = [value.detach() + 0.1 for value in network.parameters() if value.requires_grad]
    return {
        "epoch": 3,
        "state_dict": state,
        "config": config | {"task": {"dataset": "lmdb"}},
        "normalizers": copy.deepcopy(NORMALISERS),
        "ema": {"decay": 0.999, "num_updates": 12, "shadow_params": averages, "collected_params": []},
        "val_metrics": {"energy_mae": {"metric": np.float64(0.25), "numel": 4}},
    }


def written(content: Any, folder: Path) -> Path:
    path = folder / "model.pt"
    torch.save(content, path)
    return path


def structures(dtype: torch.dtype = torch.float32) -> Structures:
    vectors = torch.tensor([[0.3, 1.0, 0.2], [-0.3, -1.0, -0.2]], dtype=dtype)
    return Structures(torch.tensor([8, 1]), torch.tensor([[1, 0], [0, 1]]), vectors, torch.tensor([0, 0]), 1)


def outputs_with(content: dict[str, Any], weights: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the network that the content describes, with weights entered by hand."""
    model = content["config"]["model"]
    hydra = model.get("heads") if isinstance(model, dict) else None
    network = build_network(Architecture(parse_config(SETTINGS, "x"), parse_heads(hydra, "x") if hydra else None), torch.float32).eval()
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), weights, strict=True):
            parameter.copy_(value)
        return network(structures())


def is_weight(name: str) -> bool:
    constants = ("SO3_grid", "SO3_rotation", "mappingReduced", "expand_index", "balance_degree", "distance_expansion")
    return not any(part in name for part in constants)


@pytest.mark.parametrize("form", ["2023", "nested", "hydra"])
def test_a_file_in_each_of_upstreams_forms_gives_the_averages_numbers(form, tmp_path):
    content = content_of(form)
    path = written(content, tmp_path)
    assert recognises(path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.averaged
    wanted = outputs_with(content, content["ema"]["shadow_params"])
    with torch.no_grad():
        found = checkpoint.network(structures())
    assert set(found) == set(wanted) >= {"energy", "forces"}
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
        assert value.abs().max() > 1e-3, name
    last = outputs_with(content, [value for name, value in content["state_dict"].items() if is_weight(name)])
    assert (last["energy"] - found["energy"]).abs() > 1e-3


def test_without_averages_the_last_weights_are_taken(tmp_path):
    content = content_of("2023") | {"ema": None}
    checkpoint = read_checkpoint(written(content, tmp_path))
    assert not checkpoint.averaged
    stored = content["state_dict"]["module.module.sphere_embedding.weight"]
    assert torch.equal(checkpoint.network.sphere_embedding.weight, stored)


def test_normalisers_and_element_references_come_with_the_file(tmp_path):
    content = content_of("hydra") | {"elementrefs": {"energy": {"element_references": torch.arange(95.0)}}}
    content["normalizers"] = {
        "energy": {"mean": torch.tensor(0.5), "rmsd": torch.tensor(3.0)},
        "stress_anisotropic": {"mean": torch.zeros(5), "rmsd": torch.tensor([2.0])},
    }
    checkpoint = read_checkpoint(written(content, tmp_path))
    assert (checkpoint.normalisers["energy"].shift, checkpoint.normalisers["energy"].scale) == (0.5, 3.0)
    assert checkpoint.normalisers["stress_anisotropic"].shift.shape == (5,)
    assert checkpoint.element_references.tolist() == list(range(95))
    older = read_checkpoint(written(content_of("2023"), tmp_path))
    assert older.normalisers["forces"].scale == pytest.approx(2.9)
    assert older.element_references is None


def test_linear_references_of_oc22_are_weights_but_no_averages(tmp_path):
    content = content_of("2023", load_energy_lin_ref=True, use_energy_lin_ref=True)
    name = "module.module.energy_lin_ref"
    content["state_dict"][name] = torch.arange(90.0)
    with torch.no_grad():
        with_references = read_checkpoint(written(content, tmp_path)).network(structures())["energy"]
        content["state_dict"][name] = torch.zeros(90)
        without = read_checkpoint(written(content, tmp_path)).network(structures())["energy"]
    network = read_checkpoint(written(content, tmp_path)).network
    assert [name for name, value in network.named_parameters() if not value.requires_grad] == ["energy_lin_ref"]
    assert with_references - without == pytest.approx(8 + 1, rel=1e-5)


def test_a_wrong_number_of_averages_is_one_line(tmp_path):
    content = content_of("2023")
    content["ema"]["shadow_params"].pop()
    path = written(content, tmp_path)
    count = len(content["ema"]["shadow_params"])
    assert not lacks(refusal_of(read_checkpoint, path), str(path), str(count), str(count + 1), "cannot be told")


def test_an_average_of_another_shape_is_one_line_with_its_name(tmp_path):
    content = content_of("2023")
    content["ema"]["shadow_params"][1] = torch.zeros(2, 2)
    message = refusal_of(read_checkpoint, written(content, tmp_path))
    assert not lacks(message, "edge_degree_embedding.source_embedding.weight", "(2, 2)", "(90, 4)")


def test_a_missing_weight_is_one_line_with_its_name(tmp_path):
    content = content_of("nested")
    del content["state_dict"]["module.module.blocks.0.ga.alpha_dot"]
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), "blocks.0.ga.alpha_dot", "does not have")


def test_a_weight_without_a_use_is_one_line_with_its_name(tmp_path):
    content = content_of("nested")
    content["state_dict"]["module.module.dens_head.weight"] = torch.zeros(3)
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), "dens_head.weight", "no use")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"num_sphere_chanels": 8}, ["num_sphere_chanels", "unknown hyper-parameter"]),
        ({"use_s2_act_attn": True}, ["use_s2_act_attn", "False"]),
        ({"lmax_list": [4, 2]}, ["lmax_list"]),
        ({"mmax_list": [7]}, ["mmax_list", "7"]),
    ],
)
def test_an_unknown_hyper_parameter_or_value_is_one_line(tmp_path, changes, parts):
    content = content_of("2023")
    content["config"]["model_attributes"] |= changes
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), *parts)


def test_another_model_or_another_file_is_one_line(tmp_path):
    content = content_of("2023")
    content["config"]["model"] = "gemnet_oc"
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), "gemnet_oc", "equiformer_v2")
    assert not lacks(refusal_of(read_checkpoint, written([1, 2], tmp_path)), "EquiformerV2", "state_dict")
    path = tmp_path / "model.pt"
    path.write_bytes(b"no archive")
    assert not recognises(path)
    assert not lacks(refusal_of(read_checkpoint, path), "EquiformerV2")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    content = content_of("2023") | {"optimizer": torch.nn.Linear(1, 1)}
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), "run code", "trust_pickle")


def test_averages_of_heads_alone_beside_a_frozen_backbone(tmp_path):
    """Hydra's fine-tuning of heads keeps averages of what it trains."""
    content = content_of("hydra")
    content["config"]["model"]["freeze_backbone"] = True
    names = [name.removeprefix("module.module.") for name in content["state_dict"] if is_weight(name)]
    everything = content["ema"]["shadow_params"]
    content["ema"]["shadow_params"] = [value for name, value in zip(names, everything, strict=True) if not name.startswith("backbone.")]
    assert 0 < len(content["ema"]["shadow_params"]) < len(everything)
    network = read_checkpoint(written(content, tmp_path)).network
    found = dict(network.named_parameters())
    for name, average in zip(names, everything, strict=True):
        last = content["state_dict"][f"module.module.{name}"]
        assert torch.equal(found[name], last if name.startswith("backbone.") else average)


def test_linear_references_in_the_weights_are_used_whatever_the_configuration_of_the_training_says(tmp_path):
    """Training takes them off the labels; only for its tests does upstream's configuration add them."""
    content = content_of("2023", load_energy_lin_ref=True, use_energy_lin_ref=True)
    content["state_dict"]["module.module.energy_lin_ref"] = torch.arange(90.0)
    with torch.no_grad():
        expected = read_checkpoint(written(content, tmp_path)).network(structures())["energy"]
        for key in ("load_energy_lin_ref", "use_energy_lin_ref"):
            del content["config"]["model_attributes"][key]
        assert torch.equal(read_checkpoint(written(content, tmp_path)).network(structures())["energy"], expected)


UNITS = {
    "an output that no network has": ({"banana": {"mean": 0.0, "rmsd": 1.0}}, "banana"),
    "a number for a name": ({3: {"mean": 0.0, "rmsd": 1.0}}, "the network has no such output"),
    "both names of one output": ({"target": {"mean": 0.0, "std": 1.0}, "energy": {"mean": 0.0, "rmsd": 1.0}}, "two normalisers of energy"),
    "a scale of zero": ({"forces": {"mean": 0.0, "rmsd": 0.0}}, "scale above 0"),
    "a negative scale": ({"forces": {"mean": 0.0, "rmsd": -2.0}}, "scale above 0"),
    "no number": ({"energy": {"mean": float("nan"), "rmsd": 1.0}}, "finite"),
    "text": ({"energy": {"mean": "much", "rmsd": 1.0}}, "holds no numbers"),
    "complex numbers": ({"energy": {"mean": torch.tensor(1j), "rmsd": 1.0}}, "holds no numbers"),
    "too many numbers": ({"energy": {"mean": torch.zeros(3), "rmsd": 1.0}}, "wanted one of each"),
    "no scale": ({"energy": {"mean": 0.0}}, "no mean and rmsd"),
    "a list": ([1, 2], "no 'normalizers'"),
    "nothing": (None, "no 'normalizers'"),
}


@pytest.mark.parametrize(("states", "message"), UNITS.values(), ids=UNITS)
def test_units_that_are_none_are_one_line(tmp_path, states, message):
    content = content_of("2023") | {"normalizers": states}
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), message)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"transforms": {"element_references": {"fit": {"targets": ["energy"]}}}}, "less those of the elements"),
        ([{"src": "x", "lin_ref": "coefficients.npz"}], "less those of the elements"),
        ({"train": {"transforms": {"normalizer": {"file": "normalizers.pt"}}}}, "normalisers from a file"),
    ],
)
def test_what_the_training_took_off_and_the_file_lacks_is_one_line(tmp_path, dataset, message):
    content = content_of("nested")
    content["config"]["dataset"], content["normalizers"] = dataset, {}
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), message)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (torch.zeros(20), "for each of 90 rows"),
        (torch.full((90,), torch.nan), "not finite"),
        (torch.zeros(90, dtype=torch.long), "hold no"),
    ],
)
def test_references_that_do_not_fit_are_one_line(tmp_path, references, message):
    content = content_of("nested") | {"elementrefs": {"energy": {"element_references": references}}}
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "wanted a tensor"),
        (torch.zeros(90, 4, dtype=torch.long), "floating-point"),
        (torch.zeros(90, 4).to_sparse(), "floating-point"),
        (torch.zeros(90, 5), "(90, 4)"),
    ],
)
def test_weights_that_are_none_are_one_line(tmp_path, value, message):
    content = content_of("2023")
    content["state_dict"]["module.module.sphere_embedding.weight"] = value
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), "sphere_embedding.weight", message)


def test_a_name_twice_and_a_number_for_a_name_are_one_line(tmp_path):
    for name in ("sphere_embedding.weight", 7):
        content = content_of("2023")
        content["state_dict"][name] = torch.zeros(90, 4)
        assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), str(name), "the file is damaged")


@pytest.mark.parametrize("changes", [{"num_layers": 99}, {"num_layers": 10**9}, {"sphere_channels": 10**9}, {"grid_resolution": 40_000}])
def test_a_configuration_that_would_fill_the_memory_is_refused_before_it_does(tmp_path, changes):
    content = content_of("2023")
    content["config"]["model_attributes"] |= changes
    (name,) = changes
    assert not lacks(refusal_of(read_checkpoint, written(content, tmp_path)), "blocks" if changes == {"num_layers": 99} else name)


def test_a_compressed_pickle_is_not_unpacked_to_see_whose_it_is(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"equiformer_v2 state_dict" + bytes(2**26))
    assert recognises(path)
    assert "EquiformerV2" in refusal_of(read_checkpoint, path)
    tracemalloc.start()
    recognises(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_double_weights_stay_double_and_a_double_constant_changes_nothing(tmp_path):
    content = content_of("2023") | {"ema": None}
    content["state_dict"]["module.module.distance_expansion.offset"] = torch.zeros(600, dtype=torch.float64)
    assert read_checkpoint(written(content, tmp_path)).network.sphere_embedding.weight.dtype == torch.float32
    content["state_dict"] = {name: value.double() for name, value in content["state_dict"].items()}
    assert read_checkpoint(written(content, tmp_path)).network.sphere_embedding.weight.dtype == torch.float64
