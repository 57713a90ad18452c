"""Configurations in YAML, in the form of upstream's training files: an architecture without weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from zoo.errors import ZooError, first_line, nearest_name_hint

_MAX_BYTES = 2**20
# what upstream's training files have; of it only the model and the normalisers are read
_OF_A_RUN = frozenset(
    {"model", "model_attributes", "dataset", "val_dataset", "test_dataset", "relax_dataset", "trainer", "task", "outputs", "loss_functions"}
    | {"loss_fns", "evaluation_metrics", "eval_metrics", "optim", "logger", "includes", "hide_eval_progressbar", "amp", "gpus", "gp_gpus"}
    | {"cmd", "slurm", "identifier", "name", "checkpoint", "mode", "noddp", "is_debug", "run_dir", "seed", "cpu", "local_rank"}
)
_OF_A_DATASET = frozenset(
    {"train", "val", "test", "src", "format", "a2g_args", "key_mapping", "transforms", "lin_ref", "normalize_labels", "metadata_path"}
    | {"target_mean", "target_std", "grad_target_mean", "grad_target_std", "oc20_ref", "total_energy", "train_on_oc20_total_energies"}
    | {
        "ase_read_args",
        "connect_args",
        "select_args",
        "sample_n",
        "first_n",
        "max_atoms",
        "keep_in_memory",
        "include_relaxed_energy",
        "r_edges",
    }
)
_TRANSFORMS = frozenset({"normalizer", "element_references", "decompose_tensor"})
_NAMED = re.compile(rb"""\b(name|model)['"]?\s*:\s*['"]?equiformer_v2""")


def is_configuration(path: Path) -> bool:
    """Whether the name is a configuration's."""
    return path.suffix in (".yaml", ".yml")


def names_the_model(path: Path) -> bool:
    """Whether a YAML file names EquiformerV2 as its model; it is judged by `read_configuration`."""
    with path.open("rb") as stream:
        return _NAMED.search(stream.read(_MAX_BYTES)) is not None


def read_configuration(path: Path) -> dict[str, Any]:
    """The file's values, of which ``model`` and the ``dataset``'s normalisers are read.

    Raises:
        ZooError: for what is no YAML, or has no ``model``.
    """
    try:
        content = path.read_bytes()
        if len(content) > _MAX_BYTES:
            raise ValueError(f"{len(content)} bytes")
        settings = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise ZooError(f"{path}: no configuration of EquiformerV2 ({first_line(error)}); it has a model with its name") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict | str):
        raise ZooError(f"{path}: no configuration of EquiformerV2; it has a model with name: equiformer_v2")
    _refuse_misplaced(settings, _OF_A_RUN, str(path))
    dataset = settings.get("dataset")
    for part in (dataset, dataset.get("train")) if isinstance(dataset, dict) else ():
        if isinstance(part, dict):
            _refuse_misplaced(part, _OF_A_DATASET, f"{path}: dataset")
            if isinstance(part.get("transforms"), dict):
                _refuse_misplaced(part["transforms"], _TRANSFORMS, f"{path}: dataset.transforms")
    return settings


def _refuse_misplaced(found: dict[Any, Any], known: frozenset[str], where: str) -> None:
    """Units under a misspelt name would be left out without a word."""
    for name in found:
        if name not in known:
            raise ZooError(
                f"{where}: unknown name {str(name)[:60]!r}; {nearest_name_hint(str(name)[:60], known)} (units stand under "
                "dataset.train.transforms.normalizer)"
            )
