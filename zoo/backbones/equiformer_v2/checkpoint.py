"""Upstream's checkpoints: a configuration, weights under their names, their running averages as a bare list, and normalisers.

The files of 2023 have ``config["model"]`` and ``config["model_attributes"]``, later ones a nested ``config["model"]``, and those of OMat24
the hydra form of that. Nothing in them is run: they are loaded as plain values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.backbones.equiformer_v2.config import Architecture, parse_config, parse_heads
from zoo.backbones.equiformer_v2.network import HydraNetwork, MonolithicNetwork, build_network
from zoo.backbones.equiformer_v2.normalisers import Normaliser
from zoo.backbones.equiformer_v2.units import read_units
from zoo.backbones.torch_archive import check_archive, load_archive, searchable_pickle
from zoo.errors import ZooError

_KIND = "an EquiformerV2 checkpoint"
_MODEL_NAMES = ("equiformer_v2", "equiformer_v2_backbone")
# upstream keeps its constants in the state, many times over; ours follow from the configuration
_CONSTANTS = re.compile(
    r"(^|\.)(SO3_grid|SO3_rotation|mappingReduced)\.|(^|\.)(expand_index|balance_degree_weight)$|(^|\.)distance_expansion\.offset$"
)
_PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")
_BLOCK = re.compile(r"(?:backbone\.)?blocks\.(\d+)\.")
_REFERENCES = "energy_lin_ref"
# of the hydra form, and without a meaning for a finished model
_IGNORED_BY_HYDRA = frozenset(
    {"name", "backbone", "heads", "otf_graph", "pass_through_head_outputs", "finetune_config", "freeze_backbone", "starting_checkpoint"}
)
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


def read_checkpoint(path: Path, trust_pickle: bool = False) -> Checkpoint:
    """The model in an official file, monolithic or hydra, with the running averages that upstream evaluates with where it has them.

    Args:
        path: of the file.
        trust_pickle: load a file that would run code all the same.

    Raises:
        ZooError: another kind of file, a hyper-parameter that is not known, or weights that do not fit the configuration.
    """
    check_archive(path, _KIND)
    content = load_archive(path, _KIND, trust_pickle, _NUMPY_NUMBERS)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict) or not isinstance(content.get("config"), dict):
        raise ZooError(f"{path}: no {_KIND.split(' ', 1)[1]} (wanted a dict with state_dict and config); pass a file that fairchem wrote")
    config, state = content["config"], _named_tensors(content["state_dict"], str(path))
    architecture = _with_stored_references(read_architecture(config, str(path)), state)
    _require_blocks(architecture, state, str(path))
    with torch.device("meta"):
        network = build_network(architecture, torch.float32)
    taken = _weights_by_name(network, state, str(path))
    averages = _averages(content.get("ema"), str(path))
    if averages is not None:
        taken |= _averages_by_name(network, averages, bool(_model_settings(config).get("freeze_backbone")), str(path))
    dtype = torch.float64 if any(value.dtype == torch.float64 for value in taken.values()) else torch.float32
    if dtype != torch.float32:
        with torch.device("meta"):
            network = build_network(architecture, dtype)
    network.load_state_dict({name: value.to(dtype) for name, value in taken.items()}, assign=True)
    normalisers, references = read_units(content, architecture, str(path))
    return Checkpoint(architecture, network.eval(), averages is not None, normalisers, references)


def read_architecture(config: Mapping[str, Any], source: str) -> Architecture:
    """The architecture in a file's ``config``, in any of upstream's three forms.

    Args:
        config: of the file.
        source: where it is from, for messages.

    Raises:
        ZooError: another model, or a hyper-parameter that is not known.
    """
    settings = _model_settings(config)
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
    content = searchable_pickle(path)
    return b"state_dict" in content and any(name.encode() in content for name in _MODEL_NAMES)


def _require_equiformer_v2(name: Any, source: str) -> None:
    if not isinstance(name, str) or name not in _MODEL_NAMES:
        found = repr(name[:60]) if isinstance(name, str) else f"of type {type(name).__name__}"
        raise ZooError(f"{source}: found the model {found}, wanted {_MODEL_NAMES[0]!r}; pass a checkpoint of EquiformerV2")


def _model_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """``model`` with its name among the settings, in any of upstream's forms."""
    model, attributes = config.get("model"), config.get("model_attributes")
    if isinstance(model, Mapping):
        return dict(model)
    return {**(attributes if isinstance(attributes, Mapping) else {}), "name": model}


def _named_tensors(state: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """A file's state without the prefixes of distributed training and of compilation."""
    found: dict[str, Any] = {}
    for key, value in state.items():
        name = _PREFIXES.sub("", key) if isinstance(key, str) else ""
        if not name or name in found:
            raise ZooError(
                f"{source}: its weights have the name {str(key)[:80]!r} {'twice' if name else 'which is none'}; the file is damaged"
            )
        found[name] = value
    return found


def _with_stored_references(architecture: Architecture, state: Mapping[str, Any]) -> Architecture:
    """With the linear references of OC22 switched on where the file holds them: its training adds them to the labels instead."""
    config = architecture.config
    if _REFERENCES not in state or config.load_energy_lin_ref:
        return architecture
    return replace(architecture, config=config.model_copy(update={"load_energy_lin_ref": True, "use_energy_lin_ref": True}))


def _require_blocks(architecture: Architecture, state: Mapping[str, Any], source: str) -> None:
    """Refuse more blocks than a file has, before any are built."""
    count = len({match[1] for name in state if (match := _BLOCK.match(name))})
    if count != architecture.config.num_layers:
        raise ZooError(f"{source}: has {count} blocks, but its configuration wants {architecture.config.num_layers}; fetch the file again")


def _weights_by_name(network: torch.nn.Module, found: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The parameters in a file's state, without constants."""
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
        _require_weights(found[name], parameter, f"{source}: {name}")
    return {name: found[name] for name in wanted}


def _averages(ema: Any, source: str) -> list[Tensor] | None:
    """The running averages in a file, None where it has none."""
    if ema is None:
        return None
    averages = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(averages, list | tuple):
        raise ZooError(f"{source}: its 'ema' has no list shadow_params; fetch the file again")
    return list(averages)


def _averages_by_name(network: torch.nn.Module, averages: list[Any], frozen_backbone: bool, source: str) -> dict[str, Tensor]:
    """Running averages under the names of the trained parameters, whose order upstream's list has."""
    trained = {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and not (frozen_backbone and name.startswith("backbone."))
    }
    if len(averages) != len(trained):
        raise ZooError(
            f"{source}: its running averages (ema) are {len(averages)}, but its model has {len(trained)} trained parameters; "
            "which is whose cannot be told: fetch the file again"
        )
    for number, ((name, parameter), value) in enumerate(zip(trained.items(), averages, strict=True)):
        _require_weights(value, parameter, f"{source}: running average {number} (ema), {name}")
    return dict(zip(trained, averages, strict=True))


def _require_weights(value: Any, wanted: Tensor, what: str) -> None:
    if not isinstance(value, Tensor):
        raise ZooError(f"{what}: found {type(value).__name__}, wanted a tensor; the file is damaged")
    if value.layout != torch.strided or value.is_meta or not value.is_floating_point():
        raise ZooError(
            f"{what}: found a tensor of {value.dtype} ({value.layout}), wanted plain floating-point numbers; the file is damaged"
        )
    if value.shape != wanted.shape:
        raise ZooError(f"{what}: found {tuple(value.shape)}, wanted {tuple(wanted.shape)}; the weights belong to another configuration")
