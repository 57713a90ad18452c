"""What a file of the NequIP framework must not get away with: another model than it says, a traceback, or all of the memory."""

from __future__ import annotations

import copy
import re
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ase.build import molecule
from ase.data import chemical_symbols

import zoo
from tests.refusals import refusal_of
from zoo.backbones import load_family
from zoo.backbones.nequip import NequIPFramework, toy_config
from zoo.backbones.nequip_build import build_graph_model, energy_network
from zoo.backbones.nequip_checkpoint import checkpoint_payload, recognises
from zoo.backbones.nequip_compare import compare_networks
from zoo.backbones.nequip_config import clean_config
from zoo.backbones.nequip_yaml import read_configuration
from zoo.errors import ZooError

SMALL = {"_target_": "nequip.model.NequIPGNNModel", **toy_config(0), "num_layers": 2, "num_features": [8, 4], "radial_mlp_width": 8}
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": SMALL["type_names"]}
PREFIX = "model.sole_model.model.func."


def payload_of(config: dict[str, Any]) -> dict[str, Any]:
    state = build_graph_model(config, torch.float64).state_dict()
    return checkpoint_payload(copy.deepcopy(config), {name: value.clone() for name, value in state.items()})


@pytest.fixture(scope="module")
def payloads() -> dict[str, dict[str, Any]]:
    """Checkpoints of two models, built once and copied by each test."""
    return {"plain": payload_of(SMALL), "with ZBL": payload_of({**SMALL, "pair_potential": ZBL})}


def refused(tmp_path: Path, content: Any) -> str:
    torch.save(content, tmp_path / "a.ckpt")
    message = refusal_of(load_family("nequip").load, tmp_path / "a.ckpt", None, False)
    assert message.startswith(f"{tmp_path / 'a.ckpt'}: ")
    return message


def settings(content: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A copy of the checkpoint whose configuration says something else."""
    content = copy.deepcopy(content)
    content["hyper_parameters"]["model"] = {**content["hyper_parameters"]["model"], **changed}
    return content


ELEMENTS = chemical_symbols[1:90]
BIG = {
    **SMALL,
    **{"model_dtype": "float32", "type_names": ELEMENTS, "r_max": 6.0, "avg_num_neighbors": 40.0, "type_embed_num_features": 16},
    **{"per_type_energy_scales": dict.fromkeys(ELEMENTS, 1.0), "per_type_energy_shifts": {name: -3.0 - len(name) for name in ELEMENTS}},
    "pair_potential": {**ZBL, "chemical_species": ELEMENTS},
}
WRONG = {
    "neighbours": {"avg_num_neighbors": 400.0},
    "neighbours, by little": {"avg_num_neighbors": 41.0},
    "scales": {"per_type_energy_scales": dict.fromkeys(ELEMENTS, 1.2)},
    "the scale of one element": {"per_type_energy_scales": {**dict.fromkeys(ELEMENTS, 1.0), "Ac": 1.2}},
    "the shift of one element": {"per_type_energy_shifts": {**BIG["per_type_energy_shifts"], "H": -4.001}},
    "cutoff function": {"polynomial_cutoff_p": 8},
    "cutoff": {"r_max": 5.9},
    "cutoff function of the pair term": {"pair_potential": {**BIG["pair_potential"], "polynomial_cutoff_p": 5}},
    "no pair term": {"pair_potential": None},
}


@pytest.fixture(scope="module")
def package() -> torch.nn.Module:
    """The network in a package of 89 elements in float32 with a ZBL term, as NequIP-OAM-L is."""
    return energy_network(build_graph_model(BIG, torch.float32))


def compared(package: torch.nn.Module, changed: dict[str, Any]) -> str:
    """What is said of a package rebuilt with changed settings; empty where it is found to be the same network."""
    rebuilt = NequIPFramework({**BIG, **changed}, torch.float32).network
    with torch.no_grad():
        for own, packaged in zip(rebuilt.parameters(), package.parameters(), strict=True):
            own.copy_(packaged)
    try:
        compare_networks(rebuilt, package, range(1, 90), 6.0, torch.float32, Path("a.nequip.zip"))
    except ZooError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("wrong", WRONG)
def test_one_wrong_setting_of_a_package_of_89_elements_with_zbl_in_float32_is_seen(package, wrong):
    """The total energy of all elements in one box is 2 MeV of nuclear repulsion, in which each of these was lost."""
    said = compared(package, WRONG[wrong])
    assert re.search(r"a.nequip.zip: rebuilt here, the (energy|force|energy alone) of an atom differs by .* it is of another version", said)


def test_the_same_settings_are_no_difference_in_float32(package):
    assert compared(package, {}) == ""


def test_a_network_that_answers_with_no_number_agrees_with_nothing(package):
    broken = {"per_type_energy_scales": dict.fromkeys(ELEMENTS, float("nan"))}
    assert "differs by nan" in compared(package, broken)


def test_energies_in_another_unit_are_refused(tmp_path):
    content = payload_of({**SMALL, "pair_potential": {**ZBL, "units": "real"}})
    assert "ZBL term is in kcal/mol (units: real) and energies here are in eV" in refused(tmp_path, content)


def test_tensors_without_a_place_are_refused(tmp_path, payloads):
    stripped = settings(payloads["with ZBL"], pair_potential=None)
    assert re.search(r"2 tensors have no place .*first: pair_potential\._qqr2exesquare", refused(tmp_path, stripped))
    more = copy.deepcopy(payloads["plain"])
    more["state_dict"][f"{PREFIX}layer7_convnet.conv.linear_1.weight"] = torch.randn(5)
    more["state_dict"][f"{PREFIX}charge_embed.weight"] = torch.randn(4)
    assert re.search(r"2 tensors have no place .*first: charge_embed\.weight", refused(tmp_path, more))
    whole = copy.deepcopy(payloads["with ZBL"])  # the positive control, with constants as another version of e3nn has them
    for generated in ("layer1_convnet.conv.sc._compiled_main_left_right._tensor_constant0", "layer1_convnet.conv.tp_scatter.tp.x"):
        whole["state_dict"][f"{PREFIX}{generated}"] = torch.ones(3)
    torch.save(whole, tmp_path / "whole.ckpt")
    assert zoo.load(tmp_path / "whole.ckpt").predict([molecule("H2O")])[0].energy


def test_constants_that_contradict_the_configuration_are_refused(tmp_path, payloads):
    assert "edge_norm._rmax_recip contradicts its configuration" in refused(tmp_path, settings(payloads["plain"], r_max=3.0))
    content = copy.deepcopy(payloads["plain"])
    content["state_dict"][f"{PREFIX}bessel_encode.bessel_weights"] *= 1.1
    assert "bessel_encode.bessel_weights contradicts" in refused(tmp_path, content)


def test_weights_that_would_be_rounded_or_are_no_numbers_are_refused(tmp_path, payloads):
    name = f"{PREFIX}layer0_convnet.conv.linear_1.weight"
    rounded = settings(payloads["plain"], model_dtype="float32")
    assert re.search(r"found \(.*\) float64, wanted \(.*\) float32", refused(tmp_path, rounded))
    for value, said in ((float("nan"), "not finite"), (1j, "complex128, wanted")):
        content = copy.deepcopy(payloads["plain"])
        content["state_dict"][name] = content["state_dict"][name] * value
        assert said in refused(tmp_path, content)


WITHOUT = object()
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"model_dtype": WITHOUT}, "model_dtype: Field required"),
    *(({"model_dtype": value}, "model_dtype: Input should be 'float32' or 'float64'") for value in ("double", "float16", 0, None)),
    ({"type_names": ["H", "H", "O", "Cu", "Au"]}, r"type_names: its atom types must differ.*'H' twice"),
    ({"type_names": WITHOUT}, "type_names: Field required"),
    ({"type_names": []}, "type_names: .*at least 1"),
    ({"type_names": "HO"}, "type_names: .*valid list"),
    *(({"r_max": value}, "r_max: ") for value in (WITHOUT, None, 0, -1, float("nan"), "four", [])),
    *(({"avg_num_neighbors": value}, "avg_num_neighbors: ") for value in (0, "four", [1.0], float("nan"))),
    *(
        ({f"per_type_energy_{name}": value}, f"per_type_energy_{name}: ")
        for name in ("scales", "shifts")
        for value in ("abc", float("inf"))
    ),
    *(({"parity": value}, "parity: ") for value in (None, "abc", 7)),
    ({"pair_potential": {**ZBL, "_target_": ["x"]}}, "would call"),
    ({"num_layers": 10**3, "x": [[[]]] * 10**5}, "more than 100,000 entries"),
]


@pytest.mark.parametrize(("changed", "message"), FAULTS, ids=[f"{index}: {message}" for index, (_, message) in enumerate(FAULTS)])
def test_settings_that_cannot_be_meant_are_named(changed, message):
    config = {key: value for key, value in {**SMALL, **changed}.items() if value is not WITHOUT}
    assert re.search(f"^a.ckpt: .*{message}", refusal_of(clean_config, config, "a.ckpt"))


NOT_BUILT = [
    {"avg_num_neighbors": {"H": 1.0}},
    {"num_bessels": 0},
    {"num_bessels": -1},
    {"type_embed_num_features": -1},
    {"l_max": 20},
    {"l_max": "one"},
    {"num_layers": 0},
    {"no_such_setting": 1},
    {"seed": None},
    {"pair_potential": "ZBL"},
    {"pair_potential": {"_target_": ZBL["_target_"], "units": "metal"}},
    {"pair_potential": {**ZBL, "chemical_species": ["H"]}},
]


@pytest.mark.parametrize("changed", NOT_BUILT, ids=str)
def test_whatever_upstreams_builder_raises_is_one_line(tmp_path, changed):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"training_module": {"model": {**SMALL, **changed}}}))
    said = refusal_of(zoo.load, path, weights=None)
    assert re.search(r"config.yaml: its configuration is not one that the nequip installed here builds \(.+\); mend it", said)
    assert "InstantiationException" not in said
    assert "Error in call to target" not in said  # what was wrong with the call, not that there was one
    assert torch.get_default_dtype() == torch.float32


def _put(*keys: Any) -> Callable[[dict[str, Any]], None]:
    """Put the last of ``keys`` at the place that the others lead to."""

    def change(content: dict[str, Any]) -> None:
        for key in keys[:-2]:
            content = content[key]
        content[keys[-2]] = keys[-1]

    return change


def _recursive(content: dict[str, Any]) -> None:
    model = content["hyper_parameters"]["model"]
    model["x"] = model


def _shared(content: dict[str, Any]) -> None:
    """2^40 entries in 40 lists."""
    entries: list[Any] = []
    for _ in range(20):
        entries = [entries, entries]
    content["hyper_parameters"]["model"]["x"] = entries


MODEL = ("hyper_parameters", "model")
MODIFY = {"_target_": "nequip.model.modify"}
CRAFTED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no state": (_put("state_dict", None), "state_dict: "),
    "a list for a state": (_put("state_dict", [1]), "state_dict: "),
    "a number for a name": (_put("state_dict", 3, torch.zeros(1)), "state_dict"),
    "a text for a tensor": (_put("state_dict", f"{PREFIX}type_embed.embed_module.weight", "x"), "a str where a tensor is wanted"),
    "a text for an average": (_put("state_dict", "ema.ema_weight_0", "x"), "a str where a tensor is wanted"),
    "an average without a number": (_put("state_dict", "ema.ema_weight_x", torch.zeros(1)), "not numbered from 0 to 0"),
    "too few averages": (_put("state_dict", "ema.ema_weight_0", torch.zeros(1)), "1 moving averages for"),
    "no hyper-parameters": (_put("hyper_parameters", [1]), "hyper_parameters: "),
    "no model": (_put(*MODEL, None), "wanted a mapping"),
    "a model changed, and not there": (_put(*MODEL, {**MODIFY, "modifiers": []}), "model: Field required"),
    "modifiers that are texts": (_put(*MODEL, {**MODIFY, "model": SMALL, "modifiers": ["x"]}), "modifiers: "),
    "modifiers that are a number": (_put(*MODEL, {**MODIFY, "model": SMALL, "modifiers": 5}), "modifiers: "),
    "scales of another number": (_put("state_dict", f"{PREFIX}per_type_energy_scale_shift.scales", torch.ones(3)), "found 3 energy scales"),
    "a configuration in itself": (_recursive, "nested more than 30 deep"),
    "a list of lists of lists": (_shared, "more than 100,000 entries"),
}


@pytest.mark.parametrize("crafted", CRAFTED)
def test_a_crafted_checkpoint_is_one_line(tmp_path, payloads, crafted):
    change, message = CRAFTED[crafted]
    content = copy.deepcopy(payloads["plain"])
    change(content)
    assert re.search(message, refused(tmp_path, content))


def test_a_compressed_checkpoint_is_neither_recognised_nor_read_and_fills_no_memory(tmp_path):
    """Half a megabyte of zeros, which are 512 MB."""
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb/data.pkl", "w") as stream:
        for _ in range(32):
            stream.write(bytes(2**24))
    assert path.stat().st_size < 1e6
    tracemalloc.start()
    try:
        assert not recognises(path, "nequip")
        said = refusal_of(load_family("nequip").load, path, None, True)
        assert "the compressed entry 'bomb/data.pkl', which torch does not write" in said
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


LAUGHS = "training_module:\n  model:\n    _target_: nequip.model.NequIPGNNModel\n    a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"


def ten_of_the_last(line: str, reference: str) -> str:
    """Eight lines, each of which names the one before ten times: 10^9 entries."""
    lines = [line.replace("TEN", ",".join([reference] * 10)).replace("LAST", str(n - 1)).replace("THIS", str(n)) for n in range(1, 9)]
    return "".join(lines)


BOMBS = {
    "aliases": LAUGHS + ten_of_the_last("    aTHIS: &aTHIS [TEN]\n", "*aLAST"),
    "references": LAUGHS + ten_of_the_last("    aTHIS: [TEN]\n", '"${training_module.model.aLAST}"'),
    "a reference to itself": "training_module: {model: {x: '${training_module.model.x}'}}",
    "an alias to itself": "training_module:\n  model: &a {x: *a}",
    "merge keys": "a0: &a0 {x: 1}\n" + ten_of_the_last("aTHIS: &aTHIS {<<: [TEN]}\n", "*aLAST"),
    "brackets": "training_module: {model: " + "[" * (10 * sys.getrecursionlimit()),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_configuration_that_is_a_billion_entries_is_refused_at_once(tmp_path, bomb):
    path = tmp_path / "laughs.yaml"
    path.write_text(BOMBS[bomb])
    said = refusal_of(read_configuration, path)
    assert re.search("more than 100,000 entries|merge keys|no nequip-train configuration", said)


def test_references_aliases_and_exponents_of_a_configuration_are_read_as_they_are_meant(tmp_path):
    text = """
    r: 45e-1
    names: &names [H, O]
    again: ${names}
    training_module:
      model:
        {_target_: nequip.model.NequIPGNNModel, seed: 1, model_dtype: float32, type_names: "${again}", r_max: "${r}",
        avg_num_neighbors: 1.5e1, pair_potential: {_target_: nequip.nn.pair_potential.ZBL, units: metal, chemical_species: *names}}
    """
    (tmp_path / "config.yaml").write_text(text)
    config = read_configuration(tmp_path / "config.yaml")
    assert (config["type_names"], config["r_max"], config["avg_num_neighbors"]) == (["H", "O"], 4.5, 15.0)
    assert config["pair_potential"]["chemical_species"] == ["H", "O"]


def test_nothing_of_the_machine_is_filled_into_a_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "4.0")
    (tmp_path / "config.yaml").write_text("training_module: {model: {_target_: nequip.model.NequIPGNNModel, r_max: '${oc.env:SECRET}'}}")
    assert "write the numbers" in refusal_of(read_configuration, tmp_path / "config.yaml")
