"""Files of the NequIP framework: what is read, what is refused, and what runs code only with trust."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk

import zoo
from tests.families import needs
from tests.refusals import refusal_of
from zoo.backbones import family_of_checkpoint, load_family, nequip_config
from zoo.backbones.nequip import NequIPFramework, toy_config
from zoo.backbones.nequip_build import build_graph_model, contained_global_state
from zoo.backbones.nequip_config import clean_config
from zoo.backbones.nequip_recover import recovered_config
from zoo.errors import ZooError
from zoo.potential import Potential

NEQUIP = {"_target_": "nequip.model.NequIPGNNModel", "num_layers": 2, "num_features": [8, 4], "radial_mlp_width": 8, "num_bessels": 4}
TYPES = ["H", "C", "O", "Cu", "Au"]
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": TYPES}


def sheared_crystal() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Au"
    atoms.rattle(0.1, seed=1)
    return atoms


def payload(config: dict[str, Any] | None = None) -> dict[str, Any]:
    """A checkpoint of the toy, or of another configuration."""
    if config is None:
        return load_family("nequip").toy(0).upstream_checkpoint({})
    return NequIPFramework(config, torch.float64).upstream_checkpoint({})


def written(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def test_a_run_with_moving_averages_is_read_with_them_as_upstream_evaluates_it(tmp_path):
    from nequip.train import EMALightningModule

    config = {**toy_config(1), **NEQUIP}
    with contained_global_state():
        module = EMALightningModule(model=config, num_datasets={"train": 1, "val": 0, "test": 0, "predict": 0}, ema_decay=0.9)
        for index, weight in enumerate(module.ema.ema_weights):
            weight.copy_(torch.full_like(weight, 0.1 * (index + 1)))
        state = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in module.state_dict().items()}
        hyper_parameters = dict(module.hparams)
        evaluated = module.evaluation_model["sole_model"]
    content = {"pytorch-lightning_version": "2", "state_dict": state, "hyper_parameters": hyper_parameters, "epoch": 0}
    loaded = zoo.load(written(tmp_path / "run.ckpt", content))
    expected = dict(evaluated.model.func.named_parameters())
    for name, parameter in loaded.backbone.network.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    raw = state["model.sole_model.model.func.layer0_convnet.conv.linear_1.weight"]
    assert not torch.equal(loaded.backbone.network.layer0_convnet.conv.linear_1.weight, raw)


def test_kernels_are_ignored_and_what_became_trainable_is_kept(tmp_path):
    inner = {**toy_config(1), **NEQUIP, "compile_mode": "compile"}
    modifiers = [
        {"modifier": "enable_OpenEquivariance"},
        {"modifier": "modify_PerTypeScaleShift", "shifts": {"Cu": 9.0}, "shifts_trainable": True},
    ]
    content = payload({**inner, "per_type_energy_shifts_trainable": True})
    content["hyper_parameters"]["model"] = {"_target_": "nequip.model.modify", "modifiers": modifiers, "model": inner}
    content["state_dict"]["model.sole_model.model.func.per_type_energy_scale_shift.shifts"][3] = 9.0
    loaded = zoo.load(written(tmp_path / "modified.ckpt", content))
    assert loaded.predict([Atoms("Cu")])[0].energy == pytest.approx(9.0, abs=1e-12)
    assert {block.role for block in loaded.coverage.blocks} >= {"scale_shift"}
    assert zoo.load(tmp_path / "modified.ckpt").to_dtype(torch.float32).predict([Atoms("Cu")])[0].energy == pytest.approx(9.0, abs=1e-6)


def test_configurations_that_cannot_be_rebuilt_are_one_line_each():
    good = {**toy_config(0), **NEQUIP}
    faults: list[tuple[Any, str]] = [
        ("a string", "wanted a mapping"),
        ({**good, "_target_": "os.system"}, "built by os.system, which is not known here"),
        ({**good, "pair_potential": {"_target_": "os.system", "command": "true"}}, "would call os.system.*do not load it"),
        ({**good, "pair_potential": [{"x": {"_target_": "subprocess.run"}}]}, "would call subprocess.run"),
        ({**good, "type_names": ["H", "mycu"]}, "chemical symbols.*'mycu'"),
        ({**good, "categorical_graph_field_embed": [{"field": "charge"}]}, "categorical fields"),
        ({"_target_": "nequip.model.modify", "modifiers": [{"modifier": "add_charges"}], "model": good}, "modifier 'add_charges'"),
    ]
    for raw, message in faults:
        refusal = refusal_of(clean_config, raw, "a.ckpt")
        assert re.search(message, refusal)
        assert refusal.startswith("a.ckpt: ")


class _Planted:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["PLANTED"],)


def test_a_hostile_checkpoint_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED", str(tmp_path / "ran"))
    path = written(tmp_path / "hostile.ckpt", {**payload(), "callbacks": _Planted()})
    assert family_of_checkpoint(path).name == "nequip"
    with pytest.raises(ZooError, match=r"would run code when loaded.*trust_pickle=True"):
        zoo.load(path)
    assert not (tmp_path / "ran").exists()
    zoo.load(path, trust_pickle=True)  # and the planted call would have been seen
    assert (tmp_path / "ran").exists()


def test_damaged_inconsistent_and_foreign_files_are_one_line_each(tmp_path):
    load = load_family("nequip").load
    half = written(tmp_path / "half.ckpt", payload())
    half.write_bytes(half.read_bytes()[:5000])
    with pytest.raises(ZooError, match=r"half.ckpt: an archive whose end is missing.*fetch the file again"):
        zoo.load(half)
    with pytest.raises(ZooError, match="cannot be read"):
        load(half, None, False)
    with pytest.raises(ZooError, match="holds 'state_dict' and 'hyper_parameters'"):
        load(written(tmp_path / "other.ckpt", {"weights": 1}), None, False)
    content = payload()
    name = "model.sole_model.model.func.layer0_convnet.conv.linear_1.weight"
    content["state_dict"][name] = content["state_dict"][name][:5]
    with pytest.raises(ZooError, match=r"linear_1.weight: found \(5,\) float64, wanted \(36,\) float64"):
        zoo.load(written(tmp_path / "short.ckpt", content))
    strange = payload()
    strange["hyper_parameters"]["model"]["no_such_setting"] = 1
    with pytest.raises(ZooError, match=r"not one that the nequip installed here builds.*no_such_setting"):
        zoo.load(written(tmp_path / "strange.ckpt", strange))
    several = payload()
    several["state_dict"]["model.second.x"] = torch.zeros(1)
    with pytest.raises(ZooError, match="only checkpoints of a single model"):
        zoo.load(written(tmp_path / "several.ckpt", several))
    with pytest.raises(ZooError, match="has no heads"):
        zoo.load(written(tmp_path / "good.ckpt", payload()), head="PBE")


def test_a_configuration_of_nequip_train_is_built_with_random_weights(tmp_path):
    model = {**toy_config(0), **NEQUIP, "r_max": "${cutoff_radius}", "type_names": "${model_type_names}"}
    config = {"cutoff_radius": 3.5, "model_type_names": ["H", "Cu"], "training_module": {"_target_": "x", "model": model}}
    config["training_module"]["model"].update(per_type_energy_scales=1.0, per_type_energy_shifts={"H": -1.0, "Cu": -2.0})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ZooError, match=r"config.yaml: a configuration without weights; pass weights=None"):
        zoo.load(path)
    torch.manual_seed(1)
    one, other = zoo.load(path, weights=None), zoo.load(path, weights=None)
    assert (one.backbone.cutoff, one.backbone.elements) == (3.5, (1, 29))
    assert one.predict([Atoms("Cu")])[0].energy == pytest.approx(-2.0, abs=1e-9)
    assert one.base_sha256 != other.base_sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training_module: {model: {r_max: '${training_data_stats:num_neighbors_mean}'}}", r"training_data_stats.*write the numbers"),
        ("training_module: [", "no nequip-train configuration"),
        ("training_module: 3", "no nequip-train configuration|wanted a mapping"),
        ("model: {x: 1}", "not a checkpoint of any known family"),
    ],
)
def test_other_yaml_is_one_line(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ZooError, match=message) as caught:
        zoo.load(path, weights=None)
    assert "\n" not in str(caught.value)


def test_an_allegro_model_without_its_package_names_the_command(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "allegro" else find_spec(name, *args))
    with pytest.raises(
        ZooError, match=r"needs the package 'allegro', which is not installed; run: pip install -c constraints\.txt nequip-allegro"
    ):
        load_family("allegro")
    content = payload()
    content["hyper_parameters"]["model"] = {**content["hyper_parameters"]["model"], "_target_": "allegro.model.AllegroModel"}
    assert nequip_config.ALLEGRO_COMMAND in refusal_of(zoo.load, written(tmp_path / "allegro.ckpt", content))


@pytest.mark.parametrize(
    "config",
    [
        {**NEQUIP, "pair_potential": {**ZBL, "polynomial_cutoff_p": 8}, "polynomial_cutoff_p": 5, "bessel_trainable": True},
        {**NEQUIP, "readout_mlp_hidden_layers_depth": 2, "readout_mlp_nonlinearity": "mish", "per_type_energy_scales": None},
        {**NEQUIP, "parity": False, "radial_mlp_depth": 2, "per_edge_type_cutoff": {"H": 2.5, "C": {"O": 3.0}}},
        {
            **NEQUIP,
            "avg_num_neighbors": dict(zip(TYPES, (2.0, 3.0, 4.0, 12.0, 12.0), strict=True)),
            "per_type_energy_shifts_trainable": True,
        },
        {
            **{"_target_": "allegro.model.AllegroModel", "num_layers": 2, "num_scalar_features": 8, "num_tensor_features": 4},
            **{"radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 5, "polynomial_cutoff_p": 8}},
            **{"radial_chemical_embed_dim": 6, "scalar_embed_mlp_hidden_layers_width": 7, "allegro_mlp_hidden_layers_depth": 2},
        },
        {
            **{"_target_": "allegro.model.AllegroModel", "l_max": 2, "parity": False, "num_layers": 3, "num_tensor_features": 4},
            **{"radial_chemical_embed": {"_target_": "allegro.nn.TwoBodySplineScalarEmbed", "num_splines": 6, "spline_span": 4}},
            **{"tp_path_channel_coupling": False, "pair_potential": ZBL},
        },
    ],
    ids=lambda config: config["_target_"].rpartition(".")[2],
)
def test_a_configuration_is_recovered_from_the_modules_of_a_model(config):
    needs("allegro" if "allegro" in config["_target_"] else "nequip")
    original = build_graph_model({**toy_config(5), **config}, torch.float64)
    recovered = clean_config(recovered_config(original, "a package"), "a package")
    assert recovered["_target_"].rpartition(".")[2].startswith("Full")
    twin = build_graph_model(recovered, torch.float64)
    assert {name: p.shape for name, p in twin.named_parameters()} == {name: p.shape for name, p in original.named_parameters()}
    one, other = NequIPFramework({**toy_config(5), **config}, torch.float64), NequIPFramework(recovered, torch.float64)
    other.load_state_dict(one.state_dict(), strict=False)
    found, wanted = (Potential(backbone).predict([sheared_crystal()])[0] for backbone in (other, one))
    assert found.energy == pytest.approx(wanted.energy, abs=1e-12)
    np.testing.assert_allclose(found.forces, wanted.forces, rtol=0, atol=1e-12)


def test_the_neighbours_of_an_older_package_are_recovered_too():
    model = build_graph_model({**toy_config(5), **NEQUIP, "avg_num_neighbors": 16.0}, torch.float64)
    for index in range(2):
        convolution = model.model.func.get_submodule(f"layer{index}_convnet.conv")
        del convolution.avg_num_neighbors_norm
        convolution.scatter_norm_factor = 0.25  # one number of the layer, as published packages have it
    assert recovered_config(model, "a package")["avg_num_neighbors"] == pytest.approx(16.0)
    del convolution.edge_mlp
    with pytest.raises(ZooError, match="not a NequIP or Allegro network of this version"):
        recovered_config(model, "a package")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy as ``nequip-package`` packs it, from our checkpoint, in a process of its own."""
    folder = tmp_path_factory.mktemp("package")
    torch.save(payload(), folder / "toy.ckpt")
    command = [sys.executable, "-m", "nequip.scripts.package", "build", "toy.ckpt", "toy.nequip.zip"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "toy.nequip.zip"


def test_a_package_runs_its_code_only_with_trust_and_gives_the_numbers_of_the_model(package):
    assert family_of_checkpoint(package).name == "nequip"
    with pytest.raises(ZooError, match=r"carries its own code.*trust_pickle=True"):
        zoo.load(package)
    before = (torch.get_default_dtype(), torch.get_rng_state().tolist())
    loaded = zoo.load(package, trust_pickle=True)
    assert (torch.get_default_dtype(), torch.get_rng_state().tolist()) == before
    toy = Potential(load_family("nequip").toy(0))
    assert loaded.base_sha256 == toy.base_sha256
    for found, wanted in zip(loaded.predict([sheared_crystal()]), toy.predict([sheared_crystal()]), strict=True):
        assert found.energy == pytest.approx(wanted.energy, abs=1e-12)
        np.testing.assert_allclose(found.forces, wanted.forces, rtol=0, atol=1e-12)


def test_a_fine_tuned_package_is_rebuilt_from_its_modules_and_another_version_is_refused(package, tmp_path):
    """Its configuration names only the file that the fine-tuning began with."""
    fine_tuned = _with_config(
        package, tmp_path / "tuned.nequip.zip", "_target_: nequip.model.NequIPGNNModel", "_target_: nequip.model.ModelFromPackage"
    )
    toy = Potential(load_family("nequip").toy(0))
    loaded = zoo.load(fine_tuned, trust_pickle=True)
    assert loaded.predict([sheared_crystal()])[0].energy == pytest.approx(toy.predict([sheared_crystal()])[0].energy, abs=1e-12)
    other = _with_config(package, tmp_path / "other.nequip.zip", "avg_num_neighbors: 5.0", "avg_num_neighbors: 7.0")
    with pytest.raises(ZooError, match=r"rebuilt here, the energy of an atom differs by .* from what the package's own code gives"):
        zoo.load(other, trust_pickle=True)


def _with_config(package: Path, target: Path, old: str, new: str) -> Path:
    """A copy of the package with one line of its configuration changed."""
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(target, "w") as copy:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("/model/config.yaml"):
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode())
            copy.writestr(entry, content)
    return target


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_an_exported_checkpoint_is_compiled_by_upstream(tmp_path):
    torch.save(payload(), tmp_path / "toy.ckpt")
    options = ["--mode", "aotinductor", "--device", "cpu", "--target", "ase"]
    command = [sys.executable, "-m", "nequip.scripts.compile", "toy.ckpt", "toy.nequip.pt2", *options]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "toy.nequip.pt2").stat().st_size > 10_000
