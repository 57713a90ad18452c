"""Upstream's checkpoints: a configuration, weights under their names, their running averages as a bare list, and normalisers.

The files of 2023 have ``config["model"]`` and ``config["model_attributes"]``, later ones a nested ``config["model"]``, and those of OMat24
the hydra form of that. Nothing in them is run: they are loaded as plain values.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.backbones.equiformer_v2.config import Architecture, parse_config, parse_heads
from zoo.backbones.equiformer_v2.network import HydraNetwork, MonolithicNetwork, build_network
from zoo.backbones.equiformer_v2.normalisers import Normaliser
from zoo.backbones.torch_archive import DAMAGED_ARCHIVE, check_archive, load_archive
from zoo.errors import ZooError

_KIND = "an EquiformerV2 checkpoint"
_MODEL_NAMES = ("equiformer_v2", "equiformer_v2_backbone")
# upstream keeps its constants in the state, many times over; ours follow from the configuration
_CONSTANTS = re.compile(
    r"(^|\.)(SO3_grid|SO3_rotation|mappingReduced)\.|(^|\.)(expand_index|balance_degree_weight)$|(^|\.)distance_expansion\.offset$"
)
# of the hydra form, and without a meaning for a finished model
_IGNORED_BY_HYDRA = frozenset(
    {"name", "backbone", "heads", "otf_graph", "pass_through_head_outputs", "finetune_config", "freeze_backbone", "starting_checkpoint"}
)
_NORMALISED = {"target": "energy", "grad_target": "forces"}
# numbers that NumPy wrote, e.g. of the validation's metrics; they hold bytes and a type alone
_NUMPY_NUMBERS = (
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")),
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        architecture: of the network.
        network: with the file's weights in the file's precision, in evaluation mode.
        averaged: whether the weights are the running averages.
        normalisers: by output, of `build_network`'s; an output without one is in eV and Å.
        element_references: (highest atomic number + 1,) eV of each element to add to the energy, None where the file has none.
    """

    architecture: Architecture
    network: MonolithicNetwork | HydraNetwork
    averaged: bool
    normalisers: dict[str, Normaliser] = field(default_factory=dict)
    element_references: Tensor | None = None


def read_checkpoint(path: Path, weights: Literal["ema", "last"] = "ema", trust_pickle: bool = False) -> Checkpoint:
    """The model in an official file, monolithic or hydra.

    Args:
        path: of the file.
        weights: the running averages that upstream evaluates with, where the file has them, or the last step's weights.
        trust_pickle: load a file that would run code all the same.

    Raises:
        ZooError: another kind of file, a hyper-parameter that is not known, or weights that do not fit the configuration.
    """
    check_archive(path, _KIND)
    content = load_archive(path, _KIND, trust_pickle, _NUMPY_NUMBERS)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict) or not isinstance(content.get("config"), dict):
        raise ZooError(f"{path}: no {_KIND.split(' ', 1)[1]} (wanted a dict with state_dict and config); pass a file that fairchem wrote")
    architecture = read_architecture(content["config"], str(path))
    dtype = _precision(content["state_dict"])
    with torch.device("meta"):
        network = build_network(architecture, dtype)
    state = _weights_by_name(network, content["state_dict"], str(path))
    averages = _averages(content.get("ema"), str(path)) if weights == "ema" else None
    if averages is not None:
        state |= _averages_by_name(network, averages, str(path))
    network.load_state_dict({name: value.to(dtype) for name, value in state.items()}, assign=True)
    normalisers = _normalisers(content.get("normalizers"), str(path))
    for name in stated_normalisers(content["config"], str(path)):
        if name not in normalisers:
            raise ZooError(f"{path}: its configuration normalises {name}, and it has no normaliser of it; fetch the file again")
    return Checkpoint(
        architecture,
        network.eval(),
        averages is not None,
        normalisers,
        _element_references(content.get("elementrefs"), str(path)),
    )


def read_architecture(config: Mapping[str, Any], source: str) -> Architecture:
    """The architecture in a file's ``config``, in any of upstream's three forms.

    Args:
        config: of the file.
        source: where it is from, for messages.

    Raises:
        ZooError: another model, or a hyper-parameter that is not known.
    """
    model = config.get("model")
    settings = dict(model) if isinstance(model, Mapping) else {"name": model, **(config.get("model_attributes") or {})}
    name = settings.pop("name", None)
    if name != "hydra":
        _require_equiformer_v2(name, source)
        return Architecture(parse_config(settings, source))
    unknown = sorted(set(settings) - _IGNORED_BY_HYDRA)
    backbone, heads = settings.get("backbone"), settings.get("heads")
    if unknown or not isinstance(backbone, Mapping) or not isinstance(heads, Mapping):
        found = f"unknown {unknown[0]!r}" if unknown else f"only {', '.join(sorted(settings)) or 'its name'}"
        raise ZooError(f"{source}: wanted a hydra model of a backbone and heads, found {found}; pass a finished model's checkpoint")
    backbone = dict(backbone)
    _require_equiformer_v2(backbone.pop("model", None), source)
    return Architecture(parse_config(backbone, source), parse_heads(heads, source))


def recognises(path: Path) -> bool:
    """Whether ``path`` looks like such a file: an archive of torch's whose pickle names the model."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            content = archive.read(names[0]) if names else b""
    except DAMAGED_ARCHIVE:
        return False
    return b"state_dict" in content and any(name.encode() in content for name in _MODEL_NAMES)


def _require_equiformer_v2(name: Any, source: str) -> None:
    if name not in _MODEL_NAMES:
        raise ZooError(f"{source}: found the model {name!r}, wanted {_MODEL_NAMES[0]!r}; pass a checkpoint of EquiformerV2")


def stated_normalisers(config: Mapping[str, Any], source: str) -> dict[str, Normaliser | None]:
    """What a configuration says of normalisers, by output; None for one that was fitted to the data, whose numbers are in the file.

    Args:
        config: of a file or of a training run, in any of upstream's forms.
        source: where it is from, for messages.

    Raises:
        ZooError: numbers that are none.
    """
    dataset = config.get("dataset")
    if isinstance(dataset, list):  # of parts, the training one first
        dataset = dataset[0] if dataset else None
    if isinstance(dataset, Mapping):
        dataset = dataset.get("train", dataset)
    if not isinstance(dataset, Mapping):
        return {}
    stated: dict[str, Normaliser | None] = {}
    if dataset.get("normalize_labels"):
        for name, output in _NORMALISED.items():
            if f"{name}_mean" in dataset:
                stated[output] = _normaliser(dataset[f"{name}_mean"], dataset.get(f"{name}_std"), f"{source}: dataset.{name}")
    transforms = dataset.get("transforms")
    given = transforms.get("normalizer") if isinstance(transforms, Mapping) else None
    for name, values in given.items() if isinstance(given, Mapping) else ():
        if name == "fit" and isinstance(values, Mapping):
            stated |= dict.fromkeys(values.get("targets") or ())
        elif isinstance(values, Mapping):
            scale = values.get("rmsd", values.get("stdev"))
            stated[name] = _normaliser(values.get("mean"), scale, f"{source}: the normaliser of {name}")
    return stated


def _precision(state: Mapping[str, Any]) -> torch.dtype:
    """Of a file's weights: float64 where one of them is, else float32."""
    return torch.float64 if any(isinstance(value, Tensor) and value.dtype == torch.float64 for value in state.values()) else torch.float32


def _weights_by_name(network: torch.nn.Module, state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The parameters in a file's state, without the prefixes of distributed training and without constants."""
    found = {re.sub(r"^(module\.)+", "", name): value for name, value in state.items()}
    wanted = dict(network.named_parameters())
    missing = [name for name in wanted if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ZooError(f"{source}: its configuration wants the weights {missing[0]!r}{more}, which it does not have; fetch the file again")
    for name in found:
        if name not in wanted and not _CONSTANTS.search(name):
            raise ZooError(
                f"{source}: has weights {name!r} that its configuration has no use for; pass a checkpoint of EquiformerV2 itself"
            )
    for name, parameter in wanted.items():
        _require_shape(found[name], parameter, f"{source}: {name}")
    return {name: found[name] for name in wanted}


def _averages(ema: Any, source: str) -> list[Tensor] | None:
    """The running averages in a file, None where it has none."""
    if ema is None:
        return None
    averages = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(averages, list | tuple):
        raise ZooError(f"{source}: its 'ema' has no list shadow_params; pass weights='last' to use the last step's weights")
    return list(averages)


def _averages_by_name(network: torch.nn.Module, averages: list[Tensor], source: str) -> dict[str, Tensor]:
    """Running averages under the names of the trained parameters, whose order upstream's list has."""
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if len(averages) != len(trained):
        raise ZooError(
            f"{source}: its running averages (ema) are {len(averages)}, but its model has {len(trained)} trained parameters; "
            "pass weights='last' to use the last step's weights"
        )
    for number, ((name, parameter), value) in enumerate(zip(trained.items(), averages, strict=True)):
        _require_shape(value, parameter, f"{source}: running average {number} (ema), {name}")
    return dict(zip(trained, averages, strict=True))


def _require_shape(value: Any, wanted: Tensor, what: str) -> None:
    found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if found != tuple(wanted.shape):
        raise ZooError(f"{what}: found {found}, wanted {tuple(wanted.shape)}; the weights belong to another configuration")


def _normalisers(states: Any, source: str) -> dict[str, Normaliser]:
    """By output; files of 2023 call them ``target`` and ``grad_target`` and the scale ``std``, later ones ``rmsd``."""
    normalisers = {}
    for name, state in (states or {}).items():
        values = state if isinstance(state, Mapping) else {}
        what = f"{source}: its normaliser {name!r}"
        normalisers[_NORMALISED.get(name, name)] = _normaliser(values.get("mean"), values.get("rmsd", values.get("std")), what)
    return normalisers


def _normaliser(shift: Any, scale: Any, what: str) -> Normaliser:
    """In float64: float32 energies of thousands of eV would lose tenths of meV."""
    if shift is None or scale is None:
        raise ZooError(f"{what} has no mean and rmsd (or std); fetch the file again")
    try:
        shift, scale = (torch.as_tensor(value, dtype=torch.float64).squeeze() for value in (shift, scale))
    except (TypeError, ValueError, RuntimeError):
        raise ZooError(f"{what} holds no numbers; fetch the file again") from None
    return Normaliser(shift, scale)


def _element_references(states: Any, source: str) -> Tensor | None:
    if not states:
        return None
    energy = states.get("energy") if isinstance(states, Mapping) else None
    references = energy.get("element_references") if isinstance(energy, Mapping) else None
    if not isinstance(references, Tensor):
        raise ZooError(f"{source}: its 'elementrefs' hold no element_references of the energy; fetch the file again")
    return references.to(torch.float64).flatten()
