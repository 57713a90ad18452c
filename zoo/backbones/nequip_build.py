"""From a configuration to a network of the NequIP framework, with nothing global left changed.

``nequip`` refuses to build before ``set_global_state()``, which reseeds every generator and sets the default dtype, e3nn's code generation
and more for the whole process: a second family in the same process would then compute in another precision. What a build needs of it is set
here for as long as the build takes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import e3nn
import torch
from ase.data import atomic_numbers
from hydra.utils import get_method
from nequip.nn import GraphModel
from nequip.utils import global_state
from torch import nn

from zoo.errors import ZooError

Config = dict[str, Any]

ALLEGRO_COMMAND = "pip install -c constraints.txt nequip-allegro"
_BUILDERS = {
    "nequip": {
        f"{module}.{name}"
        for module in ("nequip.model", "nequip.model.nequip_models")
        for name in ("NequIPGNNModel", "PresetNequIPGNNModel", "FullNequIPGNNModel")
    },
    "allegro": {f"allegro.model.{name}" for name in ("AllegroModel", "allegro_models.AllegroModel", "allegro_models.FullAllegroModel")},
}
# hydra calls whatever a nested ``_target_`` names, so a file's configuration may name these and nothing else
_PARTS = {
    "nequip.nn.pair_potential.ZBL",
    "nequip.nn.pair_potential.LennardJones",
    "allegro.nn.TwoBodyBesselScalarEmbed",
    "allegro.nn.TwoBodySplineScalarEmbed",
    "allegro.nn.scalarembed.TwoBodyBesselScalarEmbed",
    "allegro.nn.scalarembed.TwoBodySplineScalarEmbed",
}
_MODIFY = ("nequip.model.modify", "nequip.model.modify_utils.modify")
_DTYPE_NAMES = {torch.float32: "float32", torch.float64: "float64"}


@contextlib.contextmanager
def contained_global_state() -> Iterator[None]:
    """What NequIP needs of the process while it builds, put back afterwards; its random generators are its own to isolate."""
    initialised = global_state._GLOBAL_STATE_INITIALIZED
    e3nn_defaults = e3nn.get_optimization_defaults()
    default_dtype = torch.get_default_dtype()
    global_state._GLOBAL_STATE_INITIALIZED = True
    e3nn.set_optimization_defaults(specialized_code=True, optimize_einsums=True, jit_mode="eager")
    torch.set_default_dtype(torch.float64)  # the framework's data are always float64; a builder sets the network's own
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # advice on training from scratch
            yield
    finally:
        torch.set_default_dtype(default_dtype)
        e3nn.set_optimization_defaults(**e3nn_defaults)
        global_state._GLOBAL_STATE_INITIALIZED = initialised


def build_graph_model(config: Mapping[str, Any], dtype: torch.dtype) -> GraphModel:
    """Upstream's model with random weights from ``config["seed"]``, forces and stress included, in ``dtype``.

    Args:
        config: what a NequIP YAML file has under ``training_module.model``, cleaned by `clean_config`.
        dtype: of the network; its constants are computed in it.
    """
    arguments = {key: value for key, value in config.items() if key != "_target_"}
    with contained_global_state():
        model: GraphModel = get_method(config["_target_"])(**{**arguments, "model_dtype": _DTYPE_NAMES[dtype]})
    return model.eval()


def energy_network(model: GraphModel) -> nn.Module:
    """The part of upstream's model that ends with the energy, without its ``ForceStressOutput``."""
    network: nn.Module = model.model.func
    return network


def clean_config(raw: Any, source: str) -> Config:
    """The builder's own arguments, kernels for faster inference and ``torch.compile`` left out: they change no number.

    Args:
        raw: ``training_module.model`` of a run.
        source: for the messages.

    Raises:
        ZooError: for a builder this project does not know, or one whose package is missing, and for inputs an `AtomGraph` does not carry.
    """
    if not isinstance(raw, Mapping):
        raise ZooError(
            f"{source}: its model configuration is a {type(raw).__name__}, wanted a mapping with _target_; pass a file nequip wrote"
        )
    config = {str(key): _plain(value) for key, value in raw.items()}
    if config.get("_target_") in _MODIFY:
        modifiers = config.get("modifiers") or []
        unknown = [str(entry.get("modifier")) for entry in modifiers if not str(entry.get("modifier")).startswith(_HARMLESS_MODIFIERS)]
        if unknown:
            raise ZooError(f"{source}: the model modifier {unknown[0]!r} is not known here; save the model without it")
        return clean_config(_with_modified_scales(config["model"], modifiers), source)
    family_of_config(config, source)
    _check_parts(config, source)
    if config.get("categorical_graph_field_embed"):
        raise ZooError(
            f"{source}: the model reads categorical fields of each structure, which structures here do not carry; it cannot be used"
        )
    config.pop("compile_mode", None)
    config["type_names"] = [str(name) for name in config["type_names"]]
    unknown_types = [name for name in config["type_names"] if name not in atomic_numbers or name == "X"]
    if unknown_types:
        raise ZooError(f"{source}: its atom types must be chemical symbols to be matched with elements (found {unknown_types[0]!r})")
    return config


_HARMLESS_MODIFIERS = ("enable_", "disable_ForceStressOutput", "modify_PerTypeScaleShift")


def _with_modified_scales(inner: Mapping[str, Any], modifiers: list[Mapping[str, Any]]) -> Config:
    """The inner configuration with what ``modify_PerTypeScaleShift`` makes trainable; the values come with the weights."""
    config = dict(inner)
    for entry in modifiers:
        if entry["modifier"] == "modify_PerTypeScaleShift":
            for quantity in ("scales", "shifts"):
                config[f"per_type_energy_{quantity}_trainable"] = bool(entry.get(f"{quantity}_trainable", False))
    return config


def family_of_config(config: Mapping[str, Any], source: str) -> str:
    """``"nequip"`` or ``"allegro"``, from the builder's name.

    Raises:
        ZooError: for another builder, or Allegro's where its package is not installed.
    """
    target = str(config.get("_target_"))
    for family, builders in _BUILDERS.items():
        if target in builders:
            if family == "allegro" and importlib.util.find_spec("allegro") is None:
                raise ZooError(
                    f"{source}: an Allegro model needs the package 'nequip-allegro', which is not installed; run: {ALLEGRO_COMMAND}"
                )
            return family
    known = ", ".join(sorted(name for builders in _BUILDERS.values() for name in builders if name.count(".") == 2))
    raise ZooError(f"{source}: the model is built by {target}, which is not known here (known: {known}); save it as one of these")


def _check_parts(value: Any, source: str, nested: bool = False) -> None:
    if isinstance(value, Mapping):
        target = value.get("_target_")
        if nested and target is not None and target not in _PARTS:
            raise ZooError(
                f"{source}: its configuration would call {target}, which is not one of the framework's known parts; do not load it"
            )
        for entry in value.values():
            _check_parts(entry, source, nested=True)
    elif isinstance(value, list):
        for entry in value:
            _check_parts(entry, source, nested=True)


def _plain(value: Any) -> Any:
    """Mappings and sequences of whatever type as dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
