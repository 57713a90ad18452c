"""Inference checkpoints of fairchem-core 2.x, read and written without running anything from them.

A file is one pickled record of four fields: the model's configuration, its weights, their moving average, which upstream predicts with, and
the tasks. Its numbers and texts are all that is read; the record's own class is not needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from zoo.backbones.torch_archive import check_archive, load_archive, searchable_pickle
from zoo.backbones.uma.values import Record
from zoo.errors import ZooError, first_line

_KIND = "an inference checkpoint of fairchem-core"
_RECORD = "MLIPInferenceCheckpoint"
_RECORD_PLACE = f"fairchem.core.units.mlip_unit.api.inference.{_RECORD}"
_FIELDS = ("model_config", "model_state_dict", "ema_state_dict", "tasks_config")


# upstream keeps configurations as dictionaries, or as OmegaConf's containers of nodes; these name a few types besides
_ALLOWED: list[Any] = [
    *((Record, place) for place in (_RECORD_PLACE, "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig")),
    *((Record, f"omegaconf.nodes.{kind}Node") for kind in ("Any", "String", "Integer", "Float", "Boolean")),
    *((Record, f"omegaconf.base.{kind}") for kind in ("Metadata", "ContainerMetadata")),
    (Record, "typing.Any"),
    *((kind, f"{module}.{kind.__name__}") for kind in (dict, list, int, str, float, bool) for module in ("builtins", "__builtin__")),
    (int, "__builtin__.long"),
    defaultdict,
]


def recognises(path: Path) -> bool:
    """Whether a file looks like one of the family's checkpoints or configurations; nothing is unpickled."""
    if path.suffix in (".yaml", ".yml"):
        try:
            whole = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, OSError, ValueError, RecursionError):
            return False
        return isinstance(whole, dict) and {"model_config", "tasks_config"} <= set(whole)
    return _RECORD.encode() in searchable_pickle(path)


def read_configuration(path: Path) -> tuple[Any, Any]:
    """``model_config`` and ``tasks_config`` of a YAML file."""
    try:
        whole = yaml.safe_load(path.read_bytes())
        return whole["model_config"], whole["tasks_config"]
    except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ZooError(f"{path}: no configuration of a UMA model ({first_line(error)}); it has a model_config and a tasks_config") from None


def read_checkpoint(path: Path, trust_pickle: bool) -> tuple[Any, Any, dict[str, Tensor]]:
    """``model_config``, ``tasks_config`` (see `zoo.backbones.uma.values.plain`) and the averaged weights, named as in ``state_dict``.

    Args:
        path: of the file.
        trust_pickle: read a file that would run code all the same.

    Raises:
        ZooError: a damaged file, one that would run code, or one that is no inference checkpoint.
    """
    check_archive(path, _KIND)
    record = load_archive(path, _KIND, trust_pickle, _ALLOWED)
    fields = vars(record) if hasattr(record, "__dict__") else {}
    missing = [name for name in _FIELDS if name not in fields]
    if missing:
        raise ZooError(
            f"{path}: not {_KIND}: it lacks {', '.join(missing)}; pass an inference_ckpt.pt, not what a training run resumes from"
        )
    return fields["model_config"], fields["tasks_config"], _averaged(fields["ema_state_dict"], path)


def _averaged(state: Any, path: Path) -> dict[str, Tensor]:
    """The moving average's tensors without the ``module.`` of the wrappers they were in."""
    if not isinstance(state, Mapping) or not state:
        raise ZooError(f"{path}: its ema_state_dict, the weights to predict with, is empty; convert the training checkpoint again")
    found = {}
    for name, value in state.items():
        if name == "n_averaged":
            continue
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ZooError(f"{path}: its ema_state_dict holds {type(value).__name__} {str(name)[:60]!r}, wanted named tensors")
        while name.startswith("module."):
            name = name.removeprefix("module.")
        found[name] = value
    return found


def load_state(network: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy every tensor of ``state`` into the network.

    Raises:
        ZooError: for tensors that are missing, too many, of another shape, or not finite.
    """
    wanted = network.state_dict()
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        what = ", ".join([*(f"no {name}" for name in missing[:2]), *(f"{name} that the model lacks" for name in unknown[:2])])
        raise ZooError(
            f"{source}: its weights do not fit its configuration: {len(missing)} missing, {len(unknown)} too many ({what}); fetch it again"
        )
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            found, shape = tuple(value.shape), tuple(wanted[name].shape)
            raise ZooError(f"{source}: {name} has shape {found}, wanted {shape} by its configuration; fetch the file again")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ZooError(f"{source}: {name} holds numbers that are not finite; fetch the file again")
    network.load_state_dict(dict(state))


def checkpoint_record(model_config: Any, tasks_config: Any, state: Mapping[str, Tensor]) -> Any:
    """Upstream's own record, with one set of weights as the model's and as their average."""
    from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint

    averaged = {f"module.{name}": value for name, value in state.items()}
    return MLIPInferenceCheckpoint(
        model_config=model_config,
        model_state_dict=dict(state),
        ema_state_dict={"n_averaged": torch.tensor(1), **averaged},
        tasks_config=tasks_config,
    )
