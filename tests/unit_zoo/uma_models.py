"""Networks of the family ``uma`` for tests: its toys, and toys of another configuration."""

from __future__ import annotations

import copy
from typing import Any

import torch

from zoo.backbones import load_family
from zoo.backbones.base import Backbone

KINDS = ("toy", "direct", "grid", "experts")


def toy(kind: str = "toy", seed: int = 0) -> Backbone:
    family = load_family("uma")
    return family.toy(seed) if kind == "toy" else family.more_toys[kind](seed)


def changed(kind: str, dataset: str | None = None, **parts: dict[str, Any]) -> Backbone:
    """A toy of another configuration: ``backbone`` updates the backbone's settings, ``model`` the model's."""
    from zoo.backbones.uma.config import read_config
    from zoo.backbones.uma.model import Uma
    from zoo.backbones.uma.tasks import read_tasks
    from zoo.backbones.uma.toys import MORE_TOYS, TOY

    found = TOY if kind == "toy" else MORE_TOYS[kind]
    config = copy.deepcopy(found.model_config) | parts.get("model", {})
    config["backbone"] |= parts.get("backbone", {})
    tasks = parts.get("tasks", found.tasks_config)
    return Uma(read_config(config, "a test's"), read_tasks(tasks, "a test's"), dataset or found.dataset, torch.float64)
