"""What a run needs before its first step, built and checked while nothing has been written yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from ase.data import chemical_symbols

from adapters.method import AdapterMethod, create_method
from zoo.adapter_sources import local_adapter
from zoo.backbones.base import DropoutRates
from zoo.data.batches import BatchPlan
from zoo.data.loader import Graphs, check_edges, make_graphs
from zoo.data.parts import DataSplits
from zoo.data.source import load_splits
from zoo.data.splits import sequence_sha256
from zoo.errors import ZooError
from zoo.evaluation.predictions import predict_frames
from zoo.evaluation.reference import Estimate, set_reference_energies
from zoo.evaluation.unit_hints import unit_hints
from zoo.graph import collate
from zoo.loading import load
from zoo.potential import Potential
from zoo.training import sanity
from zoo.training.checkpoints import AtomicCheckpointIO
from zoo.training.config import RunConfig
from zoo.training.plan import Plan
from zoo.training.sanity import Say
from zoo.training.trainer import check_loggers

_ORDER = "order of the training frames"


@dataclass(frozen=True)
class Material:
    """A checked model and its data.

    Attributes:
        potential: base, active adapter and reference energies as training starts from them.
        splits: the frames.
        train, valid: their graphs.
        plan: how long the run is.
        first_step: 0, or the step of the checkpoint that the run continues from.
        identity: name to SHA-256 of base, adapter file and every part of the data, which a resumed run must find unchanged.
    """

    potential: Potential
    splits: DataSplits
    train: Graphs
    valid: Graphs
    plan: Plan
    first_step: int
    identity: dict[str, str]


def prepare(config: RunConfig, checkpoint: Path | None, tell: Say) -> Material:
    """Build and check everything that can be wrong before the first step; writes nothing.

    Args:
        config: of the run.
        checkpoint: the one that the run continues from, None for a run from the start.
        tell: receives what people should read.

    Raises:
        ZooError: for anything wrong with loggers, checkpoint, model or data.
        adapters.errors.AdapterError: a wrong adapter configuration or file.
    """
    check_loggers(config)
    saved = None if checkpoint is None else AtomicCheckpointIO().load_checkpoint(checkpoint)
    first_step = 0 if saved is None else int(saved["global_step"])
    splits = load_splits(config.data, sanity.labels_of_every_frame(config.training.loss))
    potential = build_potential(config, splits)
    potential.backbone.set_dropout(DropoutRates(config.training.dropout, config.training.stochastic_depth))
    identity = _identity(config, potential, splits)
    if saved is not None:
        _check_identity(saved["equizoo"]["identity"], identity, config.run.folder)
    sanity.describe_data(splits, tell)
    sanity.check_labels(splits, config.training.loss)
    sanity.check_model_knows(potential, splits)
    sanity.check_outputs(potential, config.training.loss, tell)
    recipe, choice = potential.backbone.graph_recipe, config.data.cache_choice
    train, valid = (make_graphs(frames, recipe, choice) for frames in (splits.train, splits.valid))
    for frames in splits.tests.values():
        check_edges(frames, recipe, choice)
    tell(
        f"base: {potential.source}, parameter values SHA-256 {potential.base_sha256[:16]}..., {str(potential.dtype).removeprefix('torch.')}"
    )
    if config.backbone.elements is not None:
        kept = ", ".join(chemical_symbols[number] for number in potential.backbone.elements)
        tell(f"the base is cut to {kept}; the trained model knows no others")
    if config.strategy.weights == "random" and any(adapter.method.name != "full" for adapter in potential.adapters.active_adapters):
        tell("warning: the base has random weights, and the adapter trains beside them, not them; adapter=full trains every weight")
    plan = Plan.of(config.training, BatchPlan(train, config.training.batch_limits, config.training.seed))
    tell(f"training: {plan}")
    if config.strategy.weights == "random":
        sanity.check_decay(potential, config.training.optimizer, plan, tell)
    sanity.describe_dropout(potential, tell)
    sanity.describe_adapter(potential.adapters, config.training.optimizer.learning_rate, tell)
    sanity.describe_idle(potential, tell)
    if checkpoint is None:
        _set_reference(config, potential, splits, tell)
        if config.adapter.get("path") is None:
            sanity.check_start(potential, collate([train[0]]).to(str(potential.device)), tell)
        else:
            tell(f"step 0 is where {config.adapter['path']} ended")
    else:
        tell(f"continues after step {first_step}")
    return Material(potential, splits, train, valid, plan, first_step, identity)


def build_potential(config: RunConfig, splits: DataSplits) -> Potential:
    """Base and fresh (or given) adapter as the config names them, on the device it names; the data say which elements it may be cut to."""
    torch.manual_seed(config.training.seed)
    backbone = config.backbone
    given_file = config.adapter.get("path")
    potential = load(
        backbone.name,
        adapter=local_adapter(given_file) if given_file is not None else None,
        dtype=backbone.dtype,
        device=backbone.torch_device,
        weights="card" if config.strategy.weights == "card" else None,
        head=backbone.head,
        elements=splits.elements() if backbone.elements == "data" else backbone.elements,
        forces=backbone.forces,
        trust_pickle=backbone.trust_pickle,
    )
    if given_file is not None and len(config.adapter) > 1:
        ignored = ", ".join(f"adapter.{key}" for key in config.adapter if key != "path")
        raise ZooError(f"{given_file}: the adapter file brings its own method and settings; leave {ignored} out")
    if given_file is None:
        method = create_method(config.adapter)
        potential.adapters.add(method.name, method, seed=config.training.seed)
    for adapter in potential.adapters.active_adapters:
        _check_method(adapter.method, config)
    return potential


def _check_method(method: AdapterMethod, config: RunConfig) -> None:
    """Refuse an optimisation under which the method's settings do not mean what they say, and a run whose model could not be written."""
    training = config.training
    optimizer = training.optimizer.name
    if config.strategy.weights == "random" and not method.mergeable:
        raise ZooError(
            f"adapter {method.name!r} changes activations, and a run from random weights leaves its whole model as one file, which cannot "
            "hold them; choose adapter=full"
        )
    if method.decays_by_itself and optimizer != "adamw" and training.optimizer.weight_decay > 0:
        raise ZooError(
            f"adapter {method.name!r} decays its weights as AdamW does, which {optimizer} does otherwise; set "
            "training.optimizer.name=adamw, training.optimizer.weight_decay=0 or adapter.decay_towards=base"
        )
    if method.requires_decoupled_weight_decay and optimizer in ("adam", "amsgrad"):
        raise ZooError(
            f"adapter {method.name!r} needs decoupled weight decay, which {optimizer} has not; set training.optimizer.name=adamw "
            "or schedule_free_adamw"
        )
    if method.why_not_averaged is not None and training.ema_decay is not None:
        raise ZooError(f"adapter {method.name!r}: {method.why_not_averaged}; set training.ema_decay=null")


def _identity(config: RunConfig, potential: Potential, splits: DataSplits) -> dict[str, str]:
    given_file = config.adapter.get("path")
    file = {} if given_file is None else {"adapter file": hashlib.sha256(local_adapter(given_file).read_bytes()).hexdigest()}
    data = {f"data ({name})": sha256 for name, sha256 in splits.hashes.items()}
    return {"base": potential.base_sha256, **file, **data, _ORDER: sequence_sha256(splits.train)}


def _check_identity(saved: Mapping[str, str], found: Mapping[str, str], folder: str) -> None:
    for name in sorted(set(saved) | set(found)):
        if name == _ORDER and name not in saved:
            continue  # a run from before it was kept
        if saved.get(name) != found.get(name):
            old, new = (str(hashes.get(name))[:16] for hashes in (saved, found))
            raise ZooError(
                f"{folder}: the run's {name} has changed (SHA-256 {old}... then, {new}... now); put it back to resume, or start "
                "another run.name=..."
            )


def _set_reference(config: RunConfig, potential: Potential, splits: DataSplits, tell: Say) -> None:
    sample = splits.train[: min(8, len(splits.train))]
    if config.strategy.weights == "card":
        predictions = predict_frames(potential, sample, batch_size=config.evaluation.batch_size)
        for hint in unit_hints(predictions, sample, config.data.given_units[1]):
            tell(f"warning: {hint}")
    estimate = estimate_reference(config, potential, splits)
    if estimate.note:
        tell(estimate.note)
    if estimate.own_error is not None:
        sanity.check_reference(splits.train, estimate.own_error.rms_after_ev, tell)


def estimate_reference(config: RunConfig, potential: Potential, splits: DataSplits) -> Estimate:
    """Set the potential's reference energies as ``strategy.reference_energies_before`` says."""
    return set_reference_energies(config.strategy.reference_energies_before, potential, splits, config.evaluation.batch_size)
