"""The length of a run in steps and the rate at each of them, against numbers by hand and of the reference implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.refusals import refusal_of
from zoo.training.config import TrainingConfig, parse_config
from zoo.training.optimizers import rate_factor
from zoo.training.plan import Plan


def _factor(schedule: dict[str, Any], frames: int = 100, **training: Any) -> Callable[[int], float]:
    config = TrainingConfig(schedule=schedule, **training)
    return rate_factor(config.schedule, Plan.of(config, frames))


def test_cosine_warms_up_linearly_and_ends_at_its_final_fraction():
    factor = _factor({"name": "cosine", "warmup_steps": 10, "final_fraction": 0.1}, steps=110)
    assert [factor(0), factor(4), factor(9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(60) == pytest.approx(0.1 + 0.9 / 2)
    assert factor(110) == pytest.approx(0.1)
    assert factor(1000) == pytest.approx(0.1)


def test_constant_schedule_without_warm_up_is_one_everywhere():
    for begin in (None, 0.2):
        factor = _factor({"name": "constant", "warmup_steps": 0, "warmup_factor": begin}, steps=10)
        assert {factor(step) for step in range(20)} == {1.0}


def test_warm_up_takes_at_most_half_of_the_steps():
    factor = _factor({"warmup_steps": 20}, steps=12)
    assert [factor(step) for step in (0, 5)] == [pytest.approx(1 / 6), 1.0]
    assert factor(6) == 1.0
    assert factor(11) < 0.1
    unchanged = _factor({"warmup_steps": 20}, steps=200)
    assert unchanged(9) == pytest.approx(0.5)
    assert Plan.of(TrainingConfig(epochs=1, schedule={"warmup_epochs": 0.9}), 50).warmup_steps == 5


# `CosineLRLambda` of fairchem-core 1.10 with 12 epochs of 100 batches, warmup_epochs 0.1, warmup_factor 0.2, lr_min_factor 0.01
REFERENCE = {
    0: 0.2, 1: 0.28, 5: 0.6, 9: 0.92, 10: 1.0, 11: 0.9997947572559012, 300: 0.855017856687341, 600: 0.505,
    1199: 0.010001696337287537, 1200: 0.01, 1300: 0.01,
}  # fmt: skip


def test_cosine_with_the_papers_numbers_is_the_reference_implementations():
    schedule = {"name": "cosine", "warmup_epochs": 0.1, "warmup_factor": 0.2, "final_fraction": 0.01, "cosine_begins": "at_start"}
    factor = _factor(schedule, frames=6400, epochs=12, batch_size=64)
    assert {step: factor(step) for step in REFERENCE} == pytest.approx(REFERENCE, rel=1e-13)
    # the control: a cosine that begins after the warm-up is another curve
    late = _factor({**schedule, "cosine_begins": "after_warmup"}, frames=6400, epochs=12, batch_size=64)
    assert late(300) > REFERENCE[300] + 1e-3
    assert late(10) == 1.0


@pytest.mark.parametrize(
    ("training", "frames", "expected"),
    [
        ({"steps": 200}, 50, (200, 20, 10)),
        ({"epochs": 12, "batch_size": 64}, 6400, (1200, 20, 100)),
        ({"epochs": 2, "batch_size": 8, "schedule": {"warmup_epochs": 0.5}}, 47, (12, 3, 6)),  # 6 batches, the last of 7
        ({"epochs": 0.29, "batch_size": 1, "schedule": {"warmup_epochs": 0.1}}, 100, (29, 10, 100)),  # 28.999999999999996
        ({"epochs": 0.001, "batch_size": 1, "schedule": {"warmup_epochs": 0.1}}, 100, (1, 0, 100)),
        ({"steps": 7, "schedule": {"warmup_epochs": 1}}, 10, (7, 2, 2)),
    ],
)
def test_epochs_become_steps_of_whole_batches(training, frames, expected):
    plan = Plan.of(TrainingConfig(**training), frames)
    assert (plan.steps, plan.warmup_steps, plan.steps_per_epoch) == expected


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"steps": 10, "epochs": 2},
            "are given, which are one choice; set training.steps=null or training.epochs=null",
        ),
        ({"steps": None}, r"neither steps nor epochs is given; pass training.steps=... or training.epochs=..."),
        ({"schedule": {"warmup_steps": 3, "warmup_epochs": 0.1}}, "both warmup_steps and warmup_epochs are given"),
        ({"schedule": {"warmup_steps": None}}, "neither warmup_steps nor warmup_epochs is given; pass training.schedule.warmup_steps="),
        ({"schedule": {"name": "constant", "cosine_begins": "at_start"}}, "cosine_begins=at_start says nothing of the constant schedule"),
        (
            {
                "optimizer": {"name": "schedule_free_adamw"},
                "ema_decay": None,
                "schedule": {"name": "constant", "warmup_factor": 0.2},
            },
            "warms up by itself, from zero; set training.schedule.warmup_factor=null",
        ),
    ],
)
def test_lengths_and_schedules_that_contradict_each_other_are_refused(training, message):
    assert message in refusal_of(parse_config, training, TrainingConfig)
