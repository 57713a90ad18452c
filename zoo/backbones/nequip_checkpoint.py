"""Files of the NequIP framework: checkpoints (``.ckpt``), read as values, and packages (``.nequip.zip``), which run code."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from zoo.backbones.nequip_build import contained_global_state, energy_network
from zoo.backbones.nequip_config import Config, clean_config
from zoo.backbones.nequip_recover import recovered_config
from zoo.backbones.nequip_yaml import is_configuration
from zoo.backbones.torch_archive import check_archive, load_archive, names_in_archive, searchable_pickle
from zoo.errors import ZooError, first_line, first_problem

_SOLE_MODEL = "sole_model"
_MODEL_PREFIX = f"model.{_SOLE_MODEL}."
_NETWORK_PREFIX = "model.func."
_EMA_PREFIX = "ema.ema_weight_"


@dataclass(frozen=True)
class UpstreamModel:
    """What a file holds: the builder's configuration, and the energy network's tensors under its own names.

    Attributes:
        config: cleaned (`zoo.backbones.nequip_config.clean_config`).
        state: parameter and buffer names to tensors.
        averaged: moving averages of the parameters in the model's order, which upstream evaluates with; None where the run kept none.
        packaged: the energy network of a package, made by the package's own code.
    """

    config: Config
    state: dict[str, Tensor]
    averaged: list[Tensor] | None = None
    packaged: nn.Module | None = None


def read_model(path: Path, trust_pickle: bool) -> UpstreamModel:
    """A checkpoint or a package.

    Args:
        path: of the file.
        trust_pickle: allow what runs code from the file: every package, and a checkpoint with more in it than plain values.

    Raises:
        ZooError: a damaged file, one that would run code, or one that this project cannot rebuild.
    """
    check_archive(path, "a file of the NequIP framework")
    return _read_package(path, trust_pickle) if is_package(path) else _read_checkpoint(path, trust_pickle)


class _HyperParameters(BaseModel):
    model: Any


class _Payload(BaseModel):
    """What of a checkpoint is read."""

    state_dict: dict[str, Any]  # tensors, and what modules keep besides them
    hyper_parameters: _HyperParameters


def _read_checkpoint(path: Path, trust_pickle: bool) -> UpstreamModel:
    try:
        payload = _Payload.model_validate(load_archive(path, "a NequIP checkpoint", trust_pickle))
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(
            f"{path}: a NequIP checkpoint holds 'state_dict' and 'hyper_parameters' ({first.key}: {first.message}); "
            "pass the file that nequip-train wrote"
        ) from None
    of_models = ("model.", _EMA_PREFIX)
    tensors = {name: value for name, value in payload.state_dict.items() if name.startswith(of_models)}
    others = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if others:
        raise ZooError(f"{path}: {others[0]}: a {type(tensors[others[0]]).__name__} where a tensor is wanted; the file is inconsistent")
    models = sorted({name.split(".")[1] for name in tensors if name.startswith("model.")})
    if models != [_SOLE_MODEL]:
        raise ZooError(f"{path}: holds the models {', '.join(models)}; only checkpoints of a single model are read")
    state = _network_state({name.removeprefix(_MODEL_PREFIX): value for name, value in tensors.items() if name.startswith(_MODEL_PREFIX)})
    averaged = [name for name in tensors if name.startswith(_EMA_PREFIX)]
    in_order = [f"{_EMA_PREFIX}{index}" for index in range(len(averaged))]
    if set(averaged) != set(in_order):
        raise ZooError(f"{path}: its moving averages are not numbered from 0 to {len(averaged) - 1}; the file is inconsistent")
    config = clean_config(payload.hyper_parameters.model, str(path))
    return UpstreamModel(config, state, [tensors[name] for name in in_order] or None)


def _read_package(path: Path, trust_pickle: bool) -> UpstreamModel:
    if not trust_pickle:
        raise ZooError(
            f"{path}: a NequIP package carries its own code and runs it when loaded; "
            "if you trust where it comes from, pass trust_pickle=True (backbone.trust_pickle=true)"
        )
    from nequip.model import ModelFromPackage

    try:
        with contained_global_state():
            model = ModelFromPackage(str(path))[_SOLE_MODEL]
        packaged, state = energy_network(model), _network_state(model.state_dict())
        raw = _packaged_config(path)
    except Exception as error:  # the package's own code runs here
        raise ZooError(f"{path}: nequip cannot read this package ({first_line(error)}); name it *.nequip.zip, or fetch it again") from None
    # the configuration of a fine-tuned model names only the file that it began with
    is_fine_tuned = str(raw.get("_target_")).rpartition(".")[2].startswith("ModelFrom")
    config = clean_config(recovered_config(model, str(path)) if is_fine_tuned else raw, str(path))
    return UpstreamModel(config, state, packaged=packaged)


def _packaged_config(path: Path) -> Mapping[str, Any]:
    with zipfile.ZipFile(path) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith("/model/config.yaml"))
        config = yaml.safe_load(archive.read(name))
    model: Mapping[str, Any] = config["training_module"]["model"]
    return model


def _network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_NETWORK_PREFIX): value for name, value in state.items() if name.startswith(_NETWORK_PREFIX)}


def checkpoint_payload(config: Config, model_state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What ``torch.save`` writes so that ``nequip-compile``, ``nequip-package`` and `nequip.model.ModelFromCheckpoint` take the file.

    Args:
        config: of the model.
        model_state: upstream's ``state_dict`` of the whole model.
    """
    import lightning
    from nequip import __version__ as nequip_version

    versions = {"nequip": nequip_version}
    module = {
        "_target_": "nequip.train.NequIPLightningModule",
        "model": config,
        "num_datasets": {"train": 1, "val": 0, "test": 0, "predict": 0},
    }
    hyper_parameters = {
        "model": config,
        "num_datasets": module["num_datasets"],
        **dict.fromkeys(("optimizer", "lr_scheduler", "loss", "train_metrics", "val_metrics", "test_metrics")),
        "info_dict": {"versions": versions, "data": _example_data(config), "training_module": module, "run_index": 0, "runs": ["train"]},
    }
    state = {f"{_MODEL_PREFIX}{name}": value for name, value in model_state.items()}
    state["run_stage"] = torch.zeros(1, dtype=torch.long)
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": state,
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters,
    }


def _example_data(config: Config) -> dict[str, Any]:
    """A data module that needs no file: upstream traces the model on a structure of it. Its copper stands for the model's first type."""
    transforms = [
        {
            "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
            "model_type_names": list(config["type_names"]),
            "chemical_species_to_atom_type_map": {"Cu": config["type_names"][0]},
        },
        {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": float(config["r_max"])},
    ]
    dataset = {"_target_": "nequip.data.dataset.EMTTestDataset", "supercell": [2, 2, 2], "num_frames": 1, "transforms": transforms}
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": 1}
    return {
        "_target_": "nequip.data.datamodule.NequIPDataModule",
        "seed": 0,
        "train_dataset": dataset,
        "val_dataset": dataset,
        "train_dataloader": loader,
    }


def is_package(path: Path) -> bool:
    """Whether the archive has what ``nequip-package`` writes."""
    return any(name.endswith("/model/package_metadata.txt") for name in names_in_archive(path))


def recognises(path: Path, family: str) -> bool:
    """Whether ``path`` is a file of ``family``; NequIP takes Allegro's where that package is missing, to say what to install."""
    found = _family_of_file(path)
    return found == family or (found == "allegro" and family == "nequip" and importlib.util.find_spec("allegro") is None)


def _family_of_file(path: Path) -> str | None:
    """``"nequip"``, ``"allegro"`` or None, from the names in the archive and the bytes of its pickle, which is not loaded."""
    if is_configuration(path):
        text = path.read_text(encoding="utf-8", errors="replace")
        return ("allegro" if "allegro.model" in text else "nequip") if "training_module" in text else None
    if is_package(path):
        return "allegro" if any("/allegro/nn/" in name for name in names_in_archive(path)) else "nequip"
    content = searchable_pickle(path)
    if b"hyper_parameters" not in content or b"pytorch-lightning_version" not in content or b"nequip" not in content:
        return None
    return "allegro" if b"allegro.model" in content else "nequip"
