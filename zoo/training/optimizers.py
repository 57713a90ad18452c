"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from zoo.training.config import OptimizerConfig, ScheduleConfig


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


def warmup_length(config: ScheduleConfig, steps: int) -> int:
    """Steps of warm-up: as configured, but at most half of a run of ``steps``, which would otherwise end before its full rate."""
    return min(config.warmup_steps, steps // 2)


def rate_factor(config: ScheduleConfig, steps: int) -> Callable[[int], float]:
    """Factor on every group's learning rate at a step: linear warm-up, then constant or a cosine down to ``final_fraction``."""
    warmup_steps = warmup_length(config, steps)

    def factor(step: int) -> float:
        warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
        if config.name != "cosine":
            return warmup
        progress = min(1.0, max(0.0, (step - warmup_steps) / max(1, steps - warmup_steps)))
        return warmup * (config.final_fraction + (1 - config.final_fraction) * (1 + math.cos(math.pi * progress)) / 2)

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


def make_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, steps: int, plateau: PlateauFactor | None) -> LambdaLR:
    """One factor a step for every group; the plateau's factor multiplies it."""
    base = rate_factor(config, steps)
    return LambdaLR(optimizer, lambda step: base(step) * (plateau.factor if plateau is not None else 1.0))
