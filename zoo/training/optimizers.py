"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from zoo.training.config import OptimizerConfig, ScheduleConfig
from zoo.training.plan import Plan


def make_optimizer(groups: list[dict[str, Any]], config: OptimizerConfig, warmup_steps: int) -> torch.optim.Optimizer:
    """The optimizer over an adapter's own parameter groups (each may carry its rate and decay).

    Args:
        groups: as `adapters.stack.AdapterStack.param_groups` returns them.
        config: name and hyper-parameters.
        warmup_steps: used by the schedule-free optimizer, which warms up by itself.
    """
    if config.name in ("adam", "amsgrad"):
        return torch.optim.Adam(
            groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, amsgrad=config.name == "amsgrad"
        )
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)
    from schedulefree import AdamWScheduleFree

    optimizer: torch.optim.Optimizer = AdamWScheduleFree(
        groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, warmup_steps=warmup_steps, foreach=False
    )
    return optimizer


def rate_factor(config: ScheduleConfig, plan: Plan) -> Callable[[int], float]:
    """Factor on every group's learning rate at a step, counted from 0: linear warm-up, then constant or a cosine to ``final_fraction``.

    The warm-up reaches 1 at its last step; with ``warmup_factor`` it starts from that and reaches 1 one step later, as fairchem's does.
    """
    warmup_steps = plan.warmup_steps
    last_of_warmup = warmup_steps if config.warmup_factor is not None else warmup_steps - 1
    cosine_start = 0 if config.cosine_begins == "at_start" else warmup_steps

    def warmup(step: int) -> float:
        if config.warmup_factor is None:
            return (step + 1) / warmup_steps
        return config.warmup_factor + (1 - config.warmup_factor) * step / warmup_steps

    def factor(step: int) -> float:
        if warmup_steps and step <= last_of_warmup:
            return warmup(step)
        if config.name != "cosine":
            return 1.0
        progress = min(1.0, (step - cosine_start) / max(1, plan.steps - cosine_start))
        return config.final_fraction + (1 - config.final_fraction) * (1 + math.cos(math.pi * progress)) / 2

    return factor


class PlateauFactor:
    """Multiplies the rate by ``plateau_factor`` after more than ``plateau_patience`` validations without a better loss."""

    def __init__(self, config: ScheduleConfig) -> None:
        self._config = config
        self.factor = 1.0
        self._best = math.inf
        self._waited = 0

    def observe(self, validation_loss: float) -> None:
        """Take one validation's loss in."""
        if validation_loss < self._best:
            self._best, self._waited = validation_loss, 0
            return
        self._waited += 1
        if self._waited > self._config.plateau_patience:
            self.factor *= self._config.plateau_factor
            self._waited = 0

    def state_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return {"factor": self.factor, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore `state_dict`."""
        self.factor, self._best, self._waited = state["factor"], state["best"], int(state["waited"])


def make_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, plan: Plan, plateau: PlateauFactor | None) -> LambdaLR:
    """One factor a step for every group; the plateau's factor multiplies it."""
    base = rate_factor(config, plan)
    return LambdaLR(optimizer, lambda step: base(step) * (plateau.factor if plateau is not None else 1.0))
