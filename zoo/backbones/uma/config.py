"""What a model configuration of fairchem-core's eSCN-MD family may say here: data that names classes, of which a short list is known.

Upstream imports and calls whatever class a file's configuration names. Here names are looked up in a table, settings in the signature of
the class, and nothing else of a file decides what runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fairchem.core.models.uma.escn_md import (
    Linear_Energy_Head,
    Linear_Force_Head,
    MLP_EFS_Head,
    MLP_Energy_Head,
    MLP_Stress_Head,
    eSCNMDBackbone,
)
from fairchem.core.models.uma.escn_moe import DatasetSpecificMoEWrapper, DatasetSpecificSingleHeadWrapper, eSCNMDMoeBackbone

from zoo.backbones.uma.values import plain
from zoo.errors import ZooError, nearest_name_hint

Settings = dict[str, Any]

_BACKBONES = {"escnmd_backbone": eSCNMDBackbone, "escnmd_moe_backbone": eSCNMDMoeBackbone}
_WRAPPERS = (DatasetSpecificMoEWrapper, DatasetSpecificSingleHeadWrapper)
_HEADS = (MLP_EFS_Head, MLP_Energy_Head, Linear_Energy_Head, Linear_Force_Head, MLP_Stress_Head)
_HYDRA_SETTINGS = frozenset({"backbone", "heads", "finetune_config", "otf_graph", "pass_through_head_outputs", "freeze_backbone"})
_HYDRA_SETTINGS |= {"supports_single_atoms", "model_id"}
# of the graph's construction and of how the numbers are computed, which are ours here: neither changes what the model is
_OVERRIDDEN: Settings = {"activation_checkpointing": False, "otf_graph": False, "use_quaternion_wigner": True}
_COUNTS = {
    **{"lmax": 0, "mmax": 0, "num_layers": 1, "max_num_elements": 2, "num_distance_basis": 2, "max_neighbors": -1, "num_experts": 0},
    **{"sphere_channels": 1, "hidden_channels": 1, "edge_channels": 1},
}
# far above any published model: a file that claims more would only fill the memory
_LARGEST = {"lmax": 10, "mmax": 10, "num_layers": 100, "max_num_elements": 256, "num_experts": 1024}
_LARGEST_OF_ANY = 10_000
_CHOICES = {"ff_type": ("spectral", "grid"), "act_type": ("gate", "s2")}
_FIRST_VERSION_WITHOUT_NAME = "UMA-1.1"  # the name that upstream gives to files of that generation, which carry none


@dataclass(frozen=True)
class UmaConfig:
    """A network of the family, as its file describes it.

    Attributes:
        source: names the file in errors.
        raw: ``model_config`` as the file has it, for the way back.
        backbone: the class, and its settings ready to build with.
        heads: name -> settings, ``module`` being a known class by its qualified name.
        pass_through: whether the heads' outputs are the model's, or each head's outputs stand under its name.
        model_id: the generation, on which upstream lets one detail of the experts' mixture depend.
    """

    source: str
    raw: Settings
    backbone: tuple[type[eSCNMDBackbone], Settings]
    heads: dict[str, Settings]
    pass_through: bool
    model_id: str | None

    @property
    def settings(self) -> Settings:
        """Every setting of the backbone, upstream's defaults filled in."""
        found: Settings = {}
        for kind in reversed(self.backbone[0].__mro__):
            if issubclass(kind, eSCNMDBackbone):
                signature = inspect.signature(kind.__init__)  # type: ignore[misc]
                found |= {name: one.default for name, one in signature.parameters.items() if one.default is not one.empty}
        return found | self.backbone[1]


def read_config(raw: Any, source: str) -> UmaConfig:
    """The network that ``model_config`` describes.

    Args:
        raw: ``backbone``, ``heads`` and more, as ``fairchem.core.models.base.HydraModel`` takes them.
        source: names the file in errors.

    Raises:
        ZooError: for a class or a setting that is unknown here, and for what an adapter could not work with.
    """
    config = plain(raw, source)
    if not isinstance(config, dict) or not isinstance(config.get("backbone"), dict) or not isinstance(config.get("heads"), dict):
        raise ZooError(f"{source}: its model_config has no 'backbone' and 'heads'; pass a checkpoint or configuration of fairchem-core 2.x")
    target = config.setdefault("_target_", "fairchem.core.models.base.HydraModel")
    config.pop("finetune_config", None)  # of another file that the weights once came from
    if target != "fairchem.core.models.base.HydraModel":
        raise ZooError(
            f"{source}: its model is a {target!r}, not fairchem's HydraModel of a backbone and heads; export an inference checkpoint"
        )
    _refuse_unknown(set(config) - {"_target_", "_recursive_", "_convert_"}, _HYDRA_SETTINGS, "model", source)
    kind, settings = _backbone(config["backbone"], source)
    heads = {name: _head(name, head, source) for name, head in config["heads"].items()}
    return UmaConfig(source, config, (kind, settings), heads, bool(config.get("pass_through_head_outputs")), _generation(config, source))


def _backbone(given: Settings, source: str) -> tuple[type[eSCNMDBackbone], Settings]:
    kind = _class_named(given.get("model"), _BACKBONES.values(), "backbone", source, _BACKBONES)
    settings = {name: value for name, value in given.items() if name != "model"}
    known = _settings_of(kind) | (_settings_of(eSCNMDBackbone) if kind is eSCNMDMoeBackbone else frozenset())
    _refuse_unknown(set(settings), known, "backbone", source)
    refuse_cached_weights(settings.get("execution_mode") or "general", source)
    for name, smallest in _COUNTS.items():
        value = settings.get(name, smallest)
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            raise ZooError(f"{source}: its backbone has {name} {value!r}, wanted a whole number of at least {smallest}")
        if value > (largest := _LARGEST.get(name, _LARGEST_OF_ANY)):
            raise ZooError(f"{source}: its backbone has {name} above {largest}, which no published model comes near")
    for name, choices in _CHOICES.items():
        if name in settings and settings[name] not in choices:
            raise ZooError(f"{source}: its backbone has {name} {settings[name]!r}, wanted {' or '.join(map(repr, choices))}")
    cutoff = settings.get("cutoff", 5.0)
    if isinstance(cutoff, bool) or not isinstance(cutoff, int | float) or not 0 < cutoff <= 100:
        raise ZooError(f"{source}: its backbone has cutoff {str(cutoff)[:20]!r}, wanted a length in Å up to 100")
    if settings.get("chg_spin_emb_type", "pos_emb") == "lin_emb":
        raise ZooError(f"{source}: chg_spin_emb_type 'lin_emb' computes in float32 whatever the model's precision; train with 'rand_emb'")
    if settings.get("moe_type", "so2") not in ("so2", "so2m0"):
        raise ZooError(f"{source}: moe_type {settings['moe_type']!r} counts edges in layers that have atoms; wanted 'so2' or 'so2m0'")
    if kind is eSCNMDMoeBackbone:
        settings["moe_layer_type"] = "pytorch"  # the same weights and numbers as in the compiled layers
    _as_mapping(settings, "dataset_list", "dataset_mapping")
    settings.pop("execution_mode", None)
    return kind, {**settings, **_OVERRIDDEN}


def refuse_cached_weights(execution_mode: str, source: str) -> None:
    """Refuse ways of computing that copy weights when they are prepared: later changes of the weights, an adapter's, would not be seen.

    Raises:
        ZooError: for every mode but "general".
    """
    if execution_mode != "general":
        raise ZooError(
            f"{source}: execution mode {str(execution_mode)!r} computes with copies of the weights, which no adapter reaches; use "
            "'general' (a merged model exported with zoo export runs in every mode of fairchem)"
        )


def _head(name: str, given: Any, source: str) -> Settings:
    if not isinstance(given, dict):
        raise ZooError(f"{source}: head {name!r} is {given!r}, wanted settings with a 'module'")
    kind = _class_named(given.get("module"), (*_HEADS, *_WRAPPERS), f"head {name!r}", source)
    settings = {key: value for key, value in given.items() if key != "module"}
    _refuse_unknown(set(settings), _settings_of(kind), f"head {name!r}", source)
    if kind in _WRAPPERS:
        inner = _class_named(settings.get("head_cls"), _HEADS, f"head {name!r}", source)
        own = settings.get("head_kwargs") or {}
        _refuse_unknown(set(own), _settings_of(inner), f"head {name!r}", source)
        settings |= {"head_cls": _qualified(inner), "head_kwargs": own}
    if kind is DatasetSpecificMoEWrapper:
        _as_mapping(settings, "dataset_names", "dataset_mapping")
    return {**settings, "module": _qualified(kind)}


def _generation(config: Settings, source: str) -> str | None:
    """``model_id``, as upstream finds it: the mixture of experts differs by a detail in one generation."""
    model_id, backbone = config.get("model_id"), config["backbone"]
    if not str(backbone.get("model")).endswith(("escnmd_moe_backbone", "eSCNMDMoeBackbone")) or not backbone.get("num_experts", 8):
        return model_id if isinstance(model_id, str) else None
    if isinstance(model_id, str) and model_id.strip():
        return model_id
    if str(backbone.get("model_version")) == "1.1":
        return _FIRST_VERSION_WITHOUT_NAME
    raise ZooError(
        f"{source}: a UMA model with neither a model_id nor model_version 1.1, as UMA 1.0, which fairchem-core dropped after 2.21; take a "
        "later one (uma-s-1p1), or add model_id to your own"
    )


def _class_named(name: Any, kinds: Iterable[type], what: str, source: str, short: Mapping[str, type] | None = None) -> Any:
    """The class of a qualified name, or of one of the few short ones that upstream knows."""
    known = {**(short or {}), **{_qualified(kind): kind for kind in kinds}}
    if not isinstance(name, str) or name not in known:
        raise ZooError(f"{source}: its {what} is a {name!r}, which is not of the eSCN-MD family; known: {', '.join(known)}")
    return known[name]


def _qualified(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _settings_of(kind: type) -> frozenset[str]:
    names = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    return frozenset(names) - {"self", "kwargs", "backbone", "act"}


def _refuse_unknown(found: set[str], known: frozenset[str], what: str, source: str) -> None:
    unknown = sorted(found - known)
    if unknown:
        hint = nearest_name_hint(unknown[0], known)
        raise ZooError(f"{source}: its {what} has the setting {unknown[0]!r}, which fairchem-core 2.24 does not know ({hint})")


def _as_mapping(settings: Settings, deprecated: str, mapping: str) -> None:
    """Upstream's older form, a list of names, as the mapping of each to itself that it means."""
    names = settings.pop(deprecated, None)
    if names is not None:
        settings[mapping] = {name: name for name in names}
