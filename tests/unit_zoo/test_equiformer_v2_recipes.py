"""The published recipes of EquiformerV2 as presets, and the small experiments that show that it learns."""

from __future__ import annotations

from typing import Any

import pytest

from zoo.compose import compose
from zoo.config_groups import group_options
from zoo.training.config import RunConfig, parse_config
from zoo.training.plan import Plan


def _composed(*words: str) -> RunConfig:
    return parse_config(compose("train", [*words, "run.folder=runs/x", "run.name=x"]))


COLUMNS = (
    "epochs", "warmup_epochs", "learning_rate", "batch_size", "weight_decay", "dropout", "stochastic_depth", "energy", "forces", "clip",
    "ema",
)  # fmt: skip
# arXiv:2306.12059: Table 7 (three columns), 11, 9 (its first column, in which forces have no part), 13 with appendix F.2 (U_0)
TABLES: dict[str, tuple[float | None, ...]] = {
    "oc20_2M": (12, 0.1, 2e-4, 64, 1e-3, 0.1, 0.05, 2, 100, 100, 0.999),
    "oc20_31M": (3, 0.01, 4e-4, 512, 1e-3, 0.1, 0.1, 4, 100, 100, 0.999),
    "oc20_153M": (1, 0.01, 4e-4, 512, 1e-3, 0.1, 0.1, 4, 100, 100, 0.999),
    "oc22": (6, 0.1, 2e-4, 128, 1e-3, 0.1, 0.1, 4, 100, 50, 0.999),
    "is2re": (20, 2, 4e-4, 32, 1e-3, 0.2, 0.05, 1, 0, 100, 0.999),
    "qm9": (300, 5, 1.5e-4, 48, 0, 0, 0, 1, 0, None, None),
}


@pytest.mark.parametrize("name", TABLES)
def test_preset_has_the_numbers_of_its_table(name):
    config = _composed(f"training=equiformer_v2_{name}", "strategy=scratch", "adapter=full_scratch")
    training = config.training
    found = (
        training.epochs, training.schedule.warmup_epochs, training.optimizer.learning_rate, training.batch_size,
        training.optimizer.weight_decay, training.dropout, training.stochastic_depth, training.loss.energy.weight,
        training.loss.forces.weight, training.gradient_clip_norm, training.ema_decay,
    )  # fmt: skip
    assert dict(zip(COLUMNS, found, strict=True)) == dict(zip(COLUMNS, TABLES[name], strict=True))
    assert (training.optimizer.name, training.schedule.name, training.steps) == ("adamw", "cosine", None)
    assert (training.loss.energy.kind, training.loss.energy_per_atom, training.loss.forces.kind) == ("mae", False, "l2norm")
    assert config.adapter == {"name": "full", "decay_towards": "zero", "no_decay": ["bias", "norm"]}


def test_every_preset_of_a_recipe_is_checked_here():
    experiments = {name.removeprefix("equiformer_v2_") for name in group_options("experiment") if name.startswith("equiformer_v2_")}
    presets = {name.removeprefix("equiformer_v2_") for name in group_options("training") if name.startswith("equiformer_v2_")}
    assert presets == set(TABLES) | experiments


def test_the_base_setting_takes_as_many_steps_as_upstream_on_two_million_structures():
    training = _composed("training=equiformer_v2_oc20_2M").training
    plan = Plan.of(training, 2_000_000)
    assert (plan.steps, plan.warmup_steps, plan.steps_per_epoch) == (12 * 31_250, 3_125, 31_250)


@pytest.mark.parametrize("name", ["overfit", "ethanol"])
def test_experiment_keeps_the_recipes_optimiser_and_loss(name):
    """It may take another length, batch, rate, average and lambda_E: the rest is that of the base setting."""
    small, recipe = (
        _composed(word).training.model_dump() for word in (f"experiment=equiformer_v2_{name}", "training=equiformer_v2_oc20_2M")
    )
    free = {"epochs", "batch_size", "validate_every", "ema_decay", "ema_warmup"}
    assert {key for key in recipe if small[key] != recipe[key]} <= free | {"loss", "optimizer", "schedule"}
    assert _differences(small["optimizer"], recipe["optimizer"]) <= {"learning_rate"}
    assert _differences(small["schedule"], recipe["schedule"]) <= {"warmup_epochs"}
    for label in ("energy", "forces"):
        assert _differences(small["loss"][label], recipe["loss"][label]) <= {"weight", "scale"}


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> set[str]:
    return {key for key in wanted if found[key] != wanted[key]}
