"""The family ``uma``: how its files are read and written, and small networks for tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from zoo.backbones.base import Backbone, Family, UpstreamFormat
from zoo.backbones.uma.checkpoint import load_state, read_checkpoint, read_configuration, recognises
from zoo.backbones.uma.config import read_config
from zoo.backbones.uma.model import Uma, chosen_dataset, randomised
from zoo.backbones.uma.tasks import read_tasks
from zoo.backbones.uma.toys import MORE_TOYS, TOY, Toy


def _load(path: Path, head: str | None, trust_pickle: bool) -> Backbone:
    """The model of an inference checkpoint, with its averaged weights, or of a configuration (``.yaml``), with random ones."""
    source = str(path)
    if path.suffix in (".yaml", ".yml"):
        model_config, tasks_config = read_configuration(path)
        tasks = read_tasks(tasks_config, source)
        backbone = Uma(read_config(model_config, source), tasks, chosen_dataset(tasks, head), torch.float32)
        backbone.has_weights = False
        return backbone
    model_config, tasks_config, state = read_checkpoint(path, trust_pickle)
    tasks = read_tasks(tasks_config, source)
    dataset = chosen_dataset(tasks, head)
    dtype = next((value.dtype for name, value in state.items() if name == "backbone.sphere_embedding.weight"), torch.float32)
    with torch.random.fork_rng(devices=[]):  # the random weights are replaced: they must not use up the caller's stream
        backbone = Uma(read_config(model_config, source), tasks, dataset, dtype)
    load_state(backbone.network, state, source)
    return backbone


def _built(toy: Toy, seed: int) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Uma(read_config(toy.model_config, "toy"), read_tasks(toy.tasks_config, "toy"), toy.dataset, torch.float64)
        toy.enliven(backbone.network)
    return backbone


def _loaded_by(path: Path, head: str | None) -> str:
    task = f', task_name="{head}"' if head else ""
    return (
        f'FAIRChemCalculator.from_model_checkpoint("{path}"{task}); in training load_inference_model("{path}", use_ema=True); for LAMMPS '
        "and all else of fairchem-core: this file is an inference checkpoint"
    )


_TOYS: dict[str, Callable[[int], Backbone]] = {name: partial(_built, toy) for name, toy in MORE_TOYS.items()}

FAMILY = Family(
    name="uma",
    load=_load,
    randomise=randomised,
    toy=partial(_built, TOY),
    recognises=recognises,
    formats={"native": UpstreamFormat(".pt", _loaded_by)},
    more_toys=_TOYS,
)
