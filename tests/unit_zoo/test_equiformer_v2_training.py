"""EquiformerV2 from random weights through the command line: what decays, dropout and its resumption, the recipes, and that it learns."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from adapters.blocks import find_blocks
from tests.published_sets import frames_of
from tests.refusals import cli_refusal
from zoo import load
from zoo.backbones import load_family
from zoo.backbones.equiformer_v2.norms import DegreewiseLayerNorm, RootMeanSquareNorm, SeparableLayerNorm
from zoo.backbones.equiformer_v2.so3 import SO3Linear
from zoo.compose import compose
from zoo.config_groups import config_root, group_options
from zoo.data.loader import BatchStream, GraphDataset
from zoo.data.source import load_splits
from zoo.evaluation.record import read_record
from zoo.potential import Potential
from zoo.training.config import parse_config
from zoo.training.run import fine_tune

NETWORK = {
    "name": "equiformer_v2", "max_neighbors": 8, "max_radius": 4.0, "max_num_elements": 90, "num_layers": 2, "sphere_channels": 4,
    "attn_hidden_channels": 4, "num_heads": 2, "attn_alpha_channels": 4, "attn_value_channels": 2, "ffn_hidden_channels": 4,
    "norm_type": "layer_norm_sh", "lmax_list": [1], "mmax_list": [1], "grid_resolution": 6, "edge_channels": 4, "use_grid_mlp": True,
    "alpha_drop": 0.3, "drop_path_rate": 0.3, "weight_init": "uniform",
}  # fmt: skip
SCHEDULE_FREE = ("training.optimizer.name=schedule_free_adamw", "training.ema_decay=null", "training.schedule.name=constant")
SCRATCH = ("strategy=scratch", "adapter=full_scratch", "training.optimizer.learning_rate=1e-2", "training.optimizer.weight_decay=0.1")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "tiny.yaml"
    path.write_text(yaml.safe_dump({"model": NETWORK}))
    return path


@pytest.fixture
def words(network: Path, small_run: list[str]) -> list[str]:
    """A run from random weights of about two seconds, with dropout and stochastic depth."""
    return [f"backbone={network}", *small_run[1:], *SCRATCH]


def _without_decay_upstream(network: nn.Module) -> set[str]:
    """Upstream's ``no_weight_decay``: of linear maps what is no weight, and norms altogether."""
    names = set()
    for prefix, module in network.named_modules():
        own = {f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if isinstance(module, nn.Linear | SO3Linear):
            names |= {name for name in own if "weight" not in name}
        elif isinstance(module, nn.LayerNorm | SeparableLayerNorm | RootMeanSquareNorm | DegreewiseLayerNorm):
            names |= own
    return names


@pytest.mark.parametrize("variant", ["", *load_family("equiformer_v2").more_toys])
def test_weight_decay_leaves_out_what_upstream_leaves_out(variant):
    family = load_family("equiformer_v2")
    potential = Potential(family.more_toys[variant](0) if variant else family.toy(0))
    expected = _without_decay_upstream(potential.backbone)
    blocks = find_blocks(potential.backbone.requires_grad_(True), potential.backbone.adapter_roles).blocks
    found = {block.parameter for block in blocks if block.layer_role in ("bias", "norm")}
    frozen = {"network.energy_lin_ref"}
    assert found - frozen == expected
    assert {"network.energy_block.so3_linear_1.bias", "network.output_heads.energy.energy_block.so3_linear_1.bias"} & expected
    decaying = {block.parameter for block in blocks} - found
    assert any("alpha_dot" in name for name in decaying)
    assert any("embedding" in name for name in decaying)


def test_recipe_is_adamw_with_clipping_and_average_on_the_networks_own_weights(words, tmp_path):
    """The published recipe through the trainer, dropout aside, against a loop of torch alone on the network that nobody adapted."""
    sigma, steps, rate, decay, clip, average_decay = 2.887317180633545, 6, 2e-2, 0.5, 20.0, 0.9
    changed = [
        "training=equiformer_v2_oc20_2M", "training.epochs=2", f"training.optimizer.weight_decay={decay}",
        f"training.ema_decay={average_decay}", f"training.optimizer.learning_rate={rate}", f"training.gradient_clip_norm={clip}",
        "training.schedule.warmup_epochs=0.7", "training.dropout=0", "training.stochastic_depth=0", "backbone.dtype=float64",
        "strategy.reference_energies_before=base", "strategy.refit_reference_energies=false", f"run.folder={tmp_path}/run", "run.name=run",
    ]  # fmt: skip
    kept = [word for word in words if not word.startswith(("training.steps", "training.loss", "training.optimizer"))]
    config = parse_config(compose("train", [*kept, *changed]))
    trained = fine_tune(config, say=lambda _: None).potential

    torch.manual_seed(config.training.seed)
    network = load(config.backbone.name, dtype="float64", weights=None).backbone
    parameters = dict(network.requires_grad_(True).named_parameters())
    free = _without_decay_upstream(network)
    assert set(parameters) > free
    groups = [{"params": [tensor for name, tensor in parameters.items() if (name in free) == is_free]} for is_free in (False, True)]
    optimizer = torch.optim.AdamW([{**group, "weight_decay": w} for group, w in zip(groups, (decay, 0.0), strict=True)], lr=rate)
    averages = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    stream = BatchStream(GraphDataset(load_splits(config.data).train, network.graph_recipe), 3, steps, config.training.seed)
    clipped = []
    for step, batch in enumerate(stream):
        factor = 0.2 + 0.8 * step / 2 if step <= 2 else 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        optimizer.zero_grad()
        outputs = network(batch)
        energy = ((outputs["energy"] - batch.energy) / sigma).abs().mean()
        forces = ((outputs["forces"] - batch.forces) / sigma).norm(dim=1).mean()
        (2 * energy + 100 * forces).backward()
        clipped.append(float(torch.nn.utils.clip_grad_norm_(list(parameters.values()), clip)) > clip)
        optimizer.step()
        for name, average in averages.items():
            average.lerp_(parameters[name].detach(), 1 - average_decay)
    assert any(clipped)
    moved = max(float((average - trained.backbone.get_parameter(name)).abs().max()) for name, average in averages.items())
    assert moved > 1e-2
    weights = {name: tensor.detach() for name, tensor in trained.adapters.weights().items()}
    idle = {name for name in parameters if parameters[name].grad is None}  # what no output depends on decays here and stays there
    for name, average in averages.items():
        assert name in idle or (weights[name] - average).abs().max() < 1e-9, name
    assert len(idle) < len(averages) / 4


def test_run_with_dropout_killed_twice_and_resumed_ends_in_the_same_bytes(words, forked_zoo, killer, zoo, tmp_path):
    command = ["train", *words, "run.name=run", "run.resume=true"]
    for begun in (2, 5):  # in the middle of a pass over the frames: before the first checkpoint, and between two
        assert forked_zoo(command, killer("zoo.training.module:FineTuning.training_step", begun)) == -signal.SIGKILL
    assert forked_zoo(command) == 0, (tmp_path / "output.txt").read_text()
    assert zoo("train", *words, "run.name=alone").code == 0
    assert zoo("train", *words, "run.name=still", "training.dropout=0", "training.stochastic_depth=0").code == 0
    for name in ("adapter.safetensors", "history.csv"):
        resumed, alone, still = ((tmp_path / "runs" / run / name).read_bytes() for run in ("run", "alone", "still"))
        assert resumed == alone, name
        assert still != alone, name  # the control: something was left out at random


def test_run_says_what_the_base_leaves_out_at_random_and_lets_the_user_set_it(words, zoo):
    keys = "training.dropout=0 training.stochastic_depth=0"
    line = f"while training, the network leaves out at random: dropout 0.3, stochastic depth 0.3; {keys}"
    assert line in zoo("train", *words, "training.steps=1", "run.name=own").out
    changed = zoo("train", *words, "training.steps=1", "run.name=changed", "training.dropout=0", "training.stochastic_depth=0.2").out
    assert "leaves out at random: stochastic depth 0.2; training.stochastic_depth=0 turns" in changed
    none = zoo("train", *words, "training.steps=1", "run.name=none", "training.dropout=0", "training.stochastic_depth=0").out
    assert "at random:" not in none


def test_dropout_of_a_base_that_has_none_is_refused(zoo, small_run):
    refused = cli_refusal(zoo("train", *small_run, "run.name=run", "training.dropout=0.1"))
    assert "sevennet models have no dropout; set training.dropout=null" in refused


def test_decay_that_the_optimizer_does_otherwise_is_refused(zoo, words):
    for optimizer in (["training.optimizer.name=adam"], [*SCHEDULE_FREE]):
        refused = cli_refusal(zoo("train", *words, *optimizer, "run.name=run"))
        assert "decays its weights as AdamW does" in refused
        assert "adapter.decay_towards=base" in refused


def test_decay_towards_random_weights_is_warned_of_where_it_is_felt(zoo, words):
    warning = "weight decay pulls every weight back to its random start"
    finished = zoo("train", *words, "training.steps=12", "adapter=full", "training.optimizer.learning_rate=1e-2", "run.name=felt")
    assert f"{warning}, by 1.2% of the way" in finished.out
    assert warning not in zoo("train", *words, "adapter=full", "training.optimizer.weight_decay=1e-8", "run.name=unfelt").out
    assert warning not in zoo("train", *words, "run.name=zero").out


RECIPES = [name for name in group_options("training") if name.startswith("equiformer_v2_")]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_runs_through_the_command_line(recipe, network, zoo, tmp_path):
    short = ["training.epochs=2", "training.batch_size=4", "training.validate_every=2", "training.threads=1", "training.progress_bar=false"]
    data = ["data.n_train=8", "data.n_valid=4", "data.test=[]", "evaluation.plots=false", "training.loggers.tensorboard=false"]
    words = [f"backbone={network}", "strategy=scratch", "adapter=full_scratch", f"training={recipe}", *short, *data, "run.name=run"]
    finished = zoo("train", *words)
    assert finished.code == 0, finished.err
    assert "training: 4 steps (2 epochs of 2)" in finished.out
    record = read_record(tmp_path / "runs/run/record.json")
    assert record.training["training"]["optimizer"]["name"] == "adamw"
    assert record.adapter.config["decay_towards"] == "zero"


@pytest.mark.parametrize("name", [path.stem for path in sorted((config_root() / "network").glob("equiformer_v2_*.yaml"))])
def test_every_network_file_is_an_architecture(name):
    family = load_family("equiformer_v2")
    path = config_root() / "network" / f"{name}.yaml"
    assert family.recognises(path)
    backbone = family.load(path, None, False)
    assert not backbone.has_weights
    counts = {"small_oc20": 127_922, "small_ethanol": 127_922}
    wanted = counts.get(name.removeprefix("equiformer_v2_"))
    assert wanted is None or sum(p.numel() for p in backbone.parameters()) == wanted


def _errors(folder: Path) -> tuple[float, float]:
    """Force errors before and after the training, on what the run was tested with, meV/Å."""
    record, name = read_record(folder / "record.json"), "force_mae_mev_per_angstrom"
    before, after = ([one.value for one in metrics if one.name == name] for metrics in (record.zero_shot_metrics, record.metrics))
    return before[0], after[0]


def test_small_network_overfits_the_47_frames_to_a_tenth_of_its_initial_force_error(on_disk, zoo, tmp_path):
    """Half of the experiment's length; the error of predicting no force at all is the same tenfold."""
    on_disk("oc20/samples", "trajectory")
    finished = zoo(
        "train", "experiment=equiformer_v2_overfit", "training.epochs=17", "training.threads=1", "training.progress_bar=false",
        "evaluation.plots=false", "run.name=run",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    before, after = _errors(tmp_path / "runs/run")
    frames = frames_of("oc20/samples", "trajectory")
    assert len(frames) == 47
    nothing = 1000 * float(np.nanmean(np.abs(np.concatenate([frame.forces for frame in frames]))))
    assert after < before / 10
    assert after < nothing / 10
    assert before == pytest.approx(nothing, rel=0.2)  # the random network predicts hardly any force


@pytest.mark.slow
def test_small_network_learns_ethanol_to_a_third_of_the_mean_predictors_force_error(on_disk, zoo, tmp_path):
    on_disk("rmd17/ethanol", "train_1")
    finished = zoo("train", "experiment=equiformer_v2_ethanol", "training.threads=1", "training.progress_bar=false", "run.name=run")
    assert finished.code == 0, finished.err
    train, test = (np.stack([frame.forces for frame in frames_of("rmd17/ethanol", key)]) for key in ("train_1", "test_1"))
    mean_predictor = 1000 * float(np.abs(test - train.mean(axis=0)).mean())
    assert mean_predictor == pytest.approx(1000 * float(np.abs(test).mean()), rel=0.05)  # mean forces are nearly none
    assert _errors(tmp_path / "runs/run")[1] < mean_predictor / 3
