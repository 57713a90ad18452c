"""EquiformerV2 through `zoo.load`: cards without a download, official files in eV and Å, configurations, forces as a gradient."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase.build import molecule

import zoo
from adapters.state import base_fingerprint
from tests.refusals import lacks, refusal_of
from tests.unit_zoo.equiformer_v2_golden import CASES, FORMS, HEADS, read_architecture, read_case, read_network
from tests.unit_zoo.test_equiformer_v2_checkpoint import content_of, written
from tests.unit_zoo.test_equiformer_v2_graph import stored_structures
from zoo.backbones import family_of_checkpoint, load_family
from zoo.backbones.equiformer_v2.backbone import EquiformerV2, structures_of
from zoo.backbones.equiformer_v2.checkpoint import read_architecture as architecture_of
from zoo.backbones.equiformer_v2.claims import aliasing_floor
from zoo.backbones.equiformer_v2.network import build_network
from zoo.backbones.equiformer_v2.toys import toy as small_network
from zoo.backbones.equiformer_v2.units import stated_normalisers
from zoo.evaluation.equivariance import check_equivariance
from zoo.evaluation.probes import probe_frames
from zoo.registry import Card, describe, list_models
from zoo.training.sanity import describe_idle

CARDS = [name for name in list_models() if describe(name).family == "equiformer_v2"]
LISTS = {"equiformer_v2-31M": "31M", "equiformer_v2-83M": "base", "equiformer_v2-153M": "153M", "eqv2-s.omat24": "omat_31M"}
# the paper's Tables 7 and 11, and Table 1 of arXiv:2410.12771: degree, order, blocks
SIZES = {
    "equiformer_v2-31M": (4, 2, 8),
    "equiformer_v2-83M": (6, 2, 12),
    "equiformer_v2-153M": (6, 3, 20),
    "equiformer_v2-121M.oc22": (6, 2, 18),
    "eqv2-s.omat24": (4, 2, 8),
    "eqv2-m.omat24": (6, 4, 10),
    "eqv2-l.omat24": (6, 3, 20),
}


@pytest.fixture(scope="module")
def folder(golden_folder) -> Path:
    return golden_folder("equiformer_v2")


def network_of(card: Card) -> torch.nn.Module:
    assert card.architecture is not None
    with torch.device("meta"):
        return build_network(architecture_of(card.architecture, card.name), torch.float32)


@pytest.mark.parametrize("name", CARDS)
def test_a_cards_architecture_is_the_cards_model(name):
    card = describe(name)
    network = network_of(card)
    config = network.architecture.config
    assert card.parameter_count in (None, sum(p.numel() for p in network.parameters() if p.requires_grad))
    assert (card.cutoff_angstrom, card.conservative, card.symmetry) == (config.max_radius, False, "SO(3)")
    assert card.aliasing_floor == pytest.approx(aliasing_floor(config), rel=0.15)
    assert card.element_count == len(card.elements or range(1, config.max_num_elements))
    family, _, tag = name.partition(".")
    assert (config.lmax, config.mmax, config.num_layers) == SIZES[name if tag != "oam" else f"{family}.omat24"]
    assert (config.max_neighbors, config.grid_resolution, config.use_grid_mlp, config.norm_type) == (20, 18, True, "layer_norm_sh")
    assert config.enforce_max_neighbors_strictly == (tag == "")
    assert (config.avg_num_nodes, config.avg_degree) == ((31.17, 61.95) if name.startswith("eqv2") else (77.81317, 23.395238876342773))


@pytest.mark.parametrize(("name", "listed"), LISTS.items())
def test_a_cards_weights_have_the_names_and_shapes_of_the_official_file(folder, name, listed):
    lines = [line.split("\t") for line in (folder / f"parameters_{listed}.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 100
    assert [(key, list(value.shape)) for key, value in network_of(describe(name)).named_parameters()] == [
        (key, yaml.safe_load(shape)) for key, shape in lines
    ]


def test_cards_of_one_size_differ_in_their_file_alone():
    """OMat24's models and those fine-tuned from them; upstream published both."""
    for size in "sml":
        first, second = (describe(f"eqv2-{size}.{tag}") for tag in ("omat24", "oam"))
        assert first.architecture == second.architecture
        assert first.file.url != second.file.url


def test_oc20s_units_are_in_its_cards_and_oc22s_differ():
    for name in ("equiformer_v2-31M", "equiformer_v2-83M", "equiformer_v2-153M"):
        normalisers = stated_normalisers(describe(name).architecture, name)
        assert (float(normalisers["energy"].shift), float(normalisers["energy"].scale)) == (-0.7554450631141663, 2.887317180633545)
        assert (float(normalisers["forces"].shift), float(normalisers["forces"].scale)) == (0, 2.887317180633545)
    oc22 = stated_normalisers(describe("equiformer_v2-121M.oc22").architecture, "oc22")
    assert (float(oc22["energy"].scale), float(oc22["forces"].scale)) == (25.119809935106424, 0.14759646356105804)


def test_a_card_without_weights_needs_no_file_and_knows_its_units(monkeypatch):
    monkeypatch.setattr("zoo.loading.local_weights", lambda card: pytest.fail("a file was asked for"))
    torch.manual_seed(0)
    potential = zoo.load("equiformer_v2-31M", adapter="elora", weights=None, dtype="float64")
    assert sum(parameter.numel() for parameter in potential.backbone.parameters()) == 31_058_690
    assert potential.backbone.elements == tuple(range(1, 90))  # random weights know no element better than another
    assert potential.adapters.get("elora").trainable_count > 2_000_000
    atoms = molecule("CH3OH")
    bare = potential.backbone.network(structures_of(potential.graph(atoms), potential.dtype), ("energy", "forces"))
    (prediction,) = potential.predict([atoms])
    assert prediction.energy == pytest.approx(float(bare["energy"]) * 2.887317180633545 - 0.7554450631141663, abs=1e-12)
    np.testing.assert_allclose(prediction.forces, 2.887317180633545 * bare["forces"].detach().numpy(), rtol=0, atol=1e-12)
    assert prediction.stress is None
    torch.manual_seed(0)
    again = zoo.load("equiformer_v2-31M", weights=None)
    assert again.base_sha256 == potential.base_sha256
    assert zoo.load("equiformer_v2-31M", weights=None).base_sha256 != potential.base_sha256


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_official_files_of_the_stored_networks_give_the_stored_numbers(folder, form, case, tmp_path):
    """With upstream's units applied, from atoms to eV and Å, in our own frames and by our own neighbours."""
    stored, network = read_case(folder, form, case), read_network(folder, form, torch.float32)
    settings = yaml.safe_load((folder / "golden" / f"{form}_L4M2_config.json").read_text())
    model = {"name": "equiformer_v2", **settings}
    if form == "hydra":
        model = {"name": "hydra", "backbone": {"model": "equiformer_v2_backbone", **settings}, "heads": HEADS}
    shadow = [value.detach().clone() for value in network.parameters()]
    content = {
        "state_dict": {f"module.{name}": torch.zeros_like(value) for name, value in network.named_parameters()},
        "config": {"model": model},
        "normalizers": {"target": {"mean": torch.tensor(-0.5), "std": torch.tensor(3.0)}, "grad_target": {"mean": 0.0, "std": 3.0}},
        "ema": {"decay": 0.999, "shadow_params": shadow},
    }
    potential = zoo.load(written(content, tmp_path), dtype="float64")
    predictions = potential.predict(stored_structures(stored))
    energies = np.array([prediction.energy for prediction in predictions])
    np.testing.assert_allclose(energies, 3 * stored["out_energy"].numpy().reshape(-1) - 0.5, rtol=0, atol=3e-6)  # positions: float32's
    forces = np.concatenate([prediction.forces for prediction in predictions])
    np.testing.assert_allclose(forces, 3 * stored["out_forces"].numpy(), rtol=0, atol=3e-5)
    assert np.abs(forces).max() > 0.1
    has_stress = [prediction.stress is not None for prediction in predictions]
    assert has_stress == [form == "hydra" and bool(pbc.all()) for pbc in stored["pbc"]]


def test_a_file_in_upstreams_layout_is_recognised_and_read_in_ev(tmp_path):
    path = written(content_of("2023"), tmp_path)
    assert family_of_checkpoint(path).name == "equiformer_v2"
    content = content_of("2023")
    content["normalizers"]["target"]["mean"] = torch.tensor(99.25)
    shifted = zoo.load(written(content, tmp_path)).predict([molecule("CO")])[0]
    (tmp_path / "again").mkdir()
    plain = zoo.load(written(content_of("2023"), tmp_path / "again")).predict([molecule("CO")])[0]
    assert shifted.energy - plain.energy == pytest.approx(100, abs=1e-9)
    assert np.array_equal(shifted.forces, plain.forces)


@pytest.mark.parametrize(
    "dataset",
    [
        [{"src": "x", "normalize_labels": True, "target_mean": -0.7, "target_std": 2.8, "grad_target_mean": 0.0, "grad_target_std": 2.8}],
        {"train": {"transforms": {"normalizer": {"energy": {"mean": 0.0, "stdev": 2.0}, "forces": {"mean": 0.0, "stdev": 2.0}}}}},
        {"transforms": {"normalizer": {"fit": {"targets": {"forces": {"mean": 0.0}, "energy": {}}}}}},
    ],
)
def test_a_file_that_lost_its_normalisers_is_refused(tmp_path, dataset):
    content = content_of("nested")
    content["config"]["dataset"] = dataset
    assert zoo.load(written(content, tmp_path))
    del content["normalizers"]["grad_target"]
    assert not lacks(refusal_of(zoo.load, written(content, tmp_path)), "normalises forces", "no normaliser")


def test_a_configuration_in_yaml_builds_a_network_with_its_units(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(
        textwrap.dedent(
            """
            model: {name: equiformer_v2, num_layers: 1, sphere_channels: 4, lmax_list: [2], mmax_list: [1], grid_resolution: 8,
                    num_heads: 1, attn_hidden_channels: 4, ffn_hidden_channels: 4, edge_channels: 4, max_radius: 5.0}
            dataset: {train: {transforms: {normalizer: {energy: {mean: 1.5, stdev: 2.0}, forces: {mean: 0.0, rmsd: 0.25}}}}}
            """
        )
    )
    assert "weights=None" in refusal_of(zoo.load, path)
    backbone = zoo.load(path, weights=None).backbone
    assert isinstance(backbone, EquiformerV2)
    assert (backbone.cutoff, backbone.max_neighbours) == (5.0, 500)
    assert {name: (float(one.shift), float(one.scale)) for name, one in backbone.normalisers.items()} == {
        "energy": (1.5, 2.0),
        "forces": (0.0, 0.25),
    }
    path.write_text("model: {name: equiformer_v2, nm_layers: 1}")
    assert not lacks(refusal_of(zoo.load, path, weights=None), "nm_layers", "num_layers")
    path.write_text("model: {name: equiformer_v2")
    assert "no configuration of EquiformerV2" in refusal_of(zoo.load, path, weights=None)


@pytest.mark.parametrize("form", FORMS)
def test_forces_as_a_gradient_are_those_of_finite_differences_on_the_stored_networks(folder, form):
    """On the slab of the stored numbers, with all neighbours: where none may come or go, the energy is smooth."""
    (slab,) = stored_structures(read_case(folder, form, "slab"))
    network = read_network(folder, form, torch.float64)
    network = _with_all_neighbours(folder, form, network)
    potential = zoo.Potential(EquiformerV2(network, {}, None), forces="gradient")
    own = zoo.Potential(EquiformerV2(network, {}, None))
    (prediction,), (direct,) = potential.predict([slab]), own.predict([slab])
    step = 1e-4  # Å
    for atom, axis in ((0, 0), (len(slab) - 1, 2)):
        energies = []
        for factor in (-2, -1, 1, 2):
            moved = slab.copy()
            moved.positions[atom, axis] += factor * step
            energies.append(potential.predict([moved])[0].energy)
        derivative = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
        assert prediction.forces[atom, axis] == pytest.approx(-derivative, abs=1e-6 * np.abs(prediction.forces).max())
    assert np.abs(prediction.forces).max() > 1e-3
    assert np.abs(prediction.forces - direct.forces).max() > 1e-2  # the network's own are something else
    assert prediction.energy == pytest.approx(direct.energy, abs=1e-12)


def _with_all_neighbours(folder: Path, form: str, network: torch.nn.Module) -> Any:
    anew = build_network(read_architecture(folder, form, max_neighbors=500, max_radius=4.7), torch.float64)
    anew.load_state_dict(network.state_dict())
    return anew.eval()


def test_the_bound_on_aliasing_lies_above_what_was_measured():
    """SPEC section 19, relative to the largest force: its grids of 18 and 32."""
    config = read_config(lmax=6, grid=18)
    assert 3.3e-3 < aliasing_floor(config) < 2e-2
    assert 1.4e-5 < aliasing_floor(read_config(lmax=4, grid=18)) < 1e-2
    assert aliasing_floor(read_config(lmax=6, grid=32)) > 8e-5
    assert aliasing_floor(read_config(lmax=6, grid=None)) > aliasing_floor(config)


def read_config(lmax: int, grid: int | None) -> Any:
    settings = {"name": "equiformer_v2", "lmax_list": [lmax], "grid_resolution": grid, "use_grid_mlp": True}
    return architecture_of({"model": settings}, "test").config


def test_a_narrowed_model_refuses_other_elements_and_predicts_the_same_on_its_own():
    whole = load_family("equiformer_v2").toy(0)
    narrowed = zoo.Potential(whole.restricted_to([1, 6, 8]))
    methanol = molecule("CH3OH")
    assert narrowed.predict([methanol])[0].energy == zoo.Potential(whole).predict([methanol])[0].energy
    assert "N" in refusal_of(narrowed.predict, [molecule("NH3")])
    assert "does not know U" in refusal_of(whole.restricted_to, [1, 92])


def test_a_run_says_how_much_of_its_adapter_cannot_train():
    potential = zoo.Potential(load_family("equiformer_v2").toy(0))
    potential.adapters.add("elora", "elora")
    lines: list[str] = []
    describe_idle(potential, lines.append)
    assert len(lines) == 1
    tensors = potential.adapters.get("elora").tensors
    dead = [key for key in tensors if "energy_block.so3_linear_1.weight" in key or "energy_block.grid_mlp" in key]
    dead += [key for key in tensors if "so3_linear_2.weight/l" in key and "energy" in key and "/l0/" not in key]
    dead += [key for key in tensors if "force_block.proj.weight/l" in key and "/l1/" not in key]
    assert f"note: {sum(tensors[key].numel() for key in dead):,} of these values" in lines[0]


def test_a_model_of_energies_alone_has_its_forces_as_a_gradient_and_refuses_others():
    energies = small_network(0, regress_forces=False)
    potential = zoo.Potential(energies)
    assert (potential.forces, energies.force_modes, potential.has_stress) == ("gradient", ("gradient",), True)
    assert np.abs(potential.predict([molecule("CH3OH")])[0].forces).max() > 1e-4
    assert "no direct force output" in refusal_of(zoo.Potential, energies, forces="direct")


def test_the_same_weights_in_other_units_are_another_base():
    toy = load_family("equiformer_v2").toy(0)
    other = EquiformerV2(toy.network, {**toy.normalisers, "energy": toy.normalisers["forces"]}, None)
    assert base_fingerprint(other) != base_fingerprint(toy)
    assert base_fingerprint(toy.rebuilt(torch.float32).rebuilt(torch.float64)) == base_fingerprint(toy.rebuilt(torch.float32))


def test_element_references_stay_double_whatever_the_potential_is_cast_to():
    references = torch.full((80,), -4321.123456789, dtype=torch.float64)
    toy = load_family("equiformer_v2").more_toys["hydra"](0).rebuilt(torch.float32)
    potential = zoo.Potential(EquiformerV2(toy.network, toy.normalisers, references))
    before = potential.predict([molecule("CH3OH")])[0].energy
    assert potential.float().predict([molecule("CH3OH")])[0].energy == before
    assert potential.backbone.element_references.dtype == torch.float64


def test_another_model_in_a_cards_place_is_refused(tmp_path, monkeypatch):
    """The cards whose files nobody could count yet are compared weight by weight with their architecture."""
    toy = load_family("equiformer_v2").more_toys["hydra"](0)
    path = tmp_path / "eqV2_86M_omat.pt"
    toy.write_upstream_checkpoint(path, {})
    card = describe("eqv2-m.omat24").model_copy(update={"element_count": 79, "cutoff_angstrom": 6.0})
    monkeypatch.setattr("zoo.loading.describe", lambda name: card)
    monkeypatch.setattr("zoo.loading.local_weights", lambda card: path)
    assert not lacks(refusal_of(zoo.load, "eqv2-m.omat24"), str(path), "differ from those of eqv2-m.omat24", "another model")


def test_a_finer_grid_takes_aliasing_away():
    potential = zoo.Potential(read_coarse())
    bare = check_equivariance(potential, probe_frames(potential.backbone.elements))
    assert potential.backbone.aliasing_floor == 1e-9
    assert bare.passed, bare.text()
    assert "it is aliasing" in bare.text()


def read_coarse() -> EquiformerV2:
    settings = {"name": "equiformer_v2", "lmax_list": [2], "mmax_list": [2], "grid_resolution": 8, "use_grid_mlp": True, "num_layers": 1}
    small = {"sphere_channels": 6, "attn_hidden_channels": 6, "num_heads": 1, "ffn_hidden_channels": 6, "edge_channels": 6}
    torch.manual_seed(0)
    network = build_network(architecture_of({"model": settings | small}, "test"), torch.float64).eval()
    coarse = EquiformerV2(network, {}, None)
    coarse.aliasing_floor = 1e-9
    coarse.rebuilt = lambda dtype: coarse  # type: ignore[method-assign]  # the claim of this test, not of the architecture
    return coarse


def test_a_comment_does_not_make_a_configuration_this_familys(tmp_path):
    path = tmp_path / "nequip.yaml"
    path.write_text("# better than equiformer_v2\ntraining_module: {model: {_target_: nequip.model.NequIPGNNModel}}\n")
    assert not load_family("equiformer_v2").recognises(path)


@pytest.mark.parametrize(
    "misspelt",
    [
        "datset: {}",
        "normalizer: {energy: {mean: 0.0, stdev: 1.0}}",
        "dataset: {normalizer: {energy: {mean: 0.0, stdev: 1.0}}}",
        "dataset: {train: {transforms: {normalizr: {energy: {mean: 0.0, stdev: 1.0}}}}}",
    ],
)
def test_units_under_a_misspelt_name_are_refused(tmp_path, misspelt):
    path = tmp_path / "small.yaml"
    path.write_text(f"model: {{name: equiformer_v2}}\n{misspelt}\n")
    assert not lacks(refusal_of(zoo.load, path, weights=None), "unknown name", "dataset.train.transforms.normalizer")


def test_a_card_without_heads_refuses_one_also_without_weights():
    assert "no heads" in refusal_of(zoo.load, "equiformer_v2-31M", weights=None, head="oc20")
    assert "weights='random'" in refusal_of(zoo.load, "equiformer_v2-31M", weights="random")
