"""What a file or a configuration says of the units a model was trained in: normalisers and energies of elements, by output.

Files of 2023 call the normalisers ``target`` and ``grad_target`` and the scale ``std``, later ones ``rmsd``; configurations ``stdev``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.backbones.equiformer_v2.config import Architecture
from zoo.backbones.equiformer_v2.normalisers import Normaliser
from zoo.errors import ZooError

_OLD_NAMES = {"target": "energy", "grad_target": "forces"}
# how many numbers an output has for each structure or atom, where a normaliser may have one for each of them
_COMPONENTS = {"energy": 1, "forces": 1, "stress_isotropic": 1, "stress_anisotropic": 5}


def read_units(content: Mapping[str, Any], architecture: Architecture, source: str) -> tuple[dict[str, Normaliser], Tensor | None]:
    """A file's normalisers by output, and its energies of elements (highest atomic number + 1,) eV, None where it has none.

    Args:
        content: of the file.
        architecture: of its network.
        source: where it is from, for messages.

    Raises:
        ZooError: what is no normaliser, or one of an output that is not the network's; and what the configuration trained with and the
            file lacks: the outputs would be in units that nobody knows.
    """
    stored = content.get("normalizers")
    if not isinstance(stored, Mapping):
        raise ZooError(f"{source}: has no 'normalizers' (an empty one would say that its outputs are in eV and Å); fetch the file again")
    normalisers: dict[str, Normaliser] = {}
    for name, state in stored.items():
        output = _OLD_NAMES.get(name, name) if isinstance(name, str) else str(name)
        if output in normalisers:
            raise ZooError(f"{source}: has two normalisers of {output}; the file is inconsistent")
        values = state if isinstance(state, Mapping) else {}
        normalisers[output] = _normaliser(output, values.get("mean"), values.get("rmsd", values.get("std")), source)
    references = _element_references(content.get("elementrefs"), architecture.config.max_num_elements, source)
    config = content["config"]
    for name in stated_normalisers(config, source):
        if name not in normalisers:
            raise ZooError(f"{source}: its configuration normalises {name}, and it has no normaliser of it; fetch the file again")
    if references is None and not architecture.config.load_energy_lin_ref and _states_references(config):
        raise ZooError(f"{source}: trained on energies less those of the elements, which it does not hold; fetch the file again")
    if not normalisers and isinstance(_given(config), Mapping) and "file" in _given(config):
        raise ZooError(f"{source}: its configuration takes normalisers from a file, and it has none; fetch the file again")
    return normalisers, references


def stated_normalisers(config: Mapping[str, Any], source: str) -> dict[str, Normaliser | None]:
    """What a configuration says of normalisers, by output; None for one that was fitted to the data, whose numbers are in the file.

    Args:
        config: of a file or of a training run, in any of upstream's forms.
        source: where it is from, for messages.

    Raises:
        ZooError: numbers that are none, or of an output that no network has.
    """
    dataset = _dataset(config)
    stated: dict[str, Normaliser | None] = {}
    if dataset.get("normalize_labels"):
        for name, output in _OLD_NAMES.items():
            if f"{name}_mean" in dataset:
                stated[output] = _normaliser(output, dataset[f"{name}_mean"], dataset.get(f"{name}_std"), f"{source}: dataset")
    given = _given(config)
    for name, values in given.items() if isinstance(given, Mapping) else ():
        if name == "fit":
            targets = values.get("targets") if isinstance(values, Mapping) else None
            stated |= dict.fromkeys(target for target in targets if isinstance(target, str)) if isinstance(targets, Mapping | list) else {}
        elif name != "file" and isinstance(values, Mapping):
            scale = next((values[key] for key in ("rmsd", "stdev", "std") if key in values), None)
            stated[name] = _normaliser(name, values.get("mean"), scale, f"{source}: dataset.transforms")
    return stated


def _dataset(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a configuration says of the training data; upstream has it alone, first in a list, or by the name ``train``."""
    dataset = config.get("dataset")
    if isinstance(dataset, list):
        dataset = dataset[0] if dataset else None
    if isinstance(dataset, Mapping):
        dataset = dataset.get("train", dataset)
    return dataset if isinstance(dataset, Mapping) else {}


def _given(config: Mapping[str, Any]) -> Any:
    transforms = _dataset(config).get("transforms")
    return transforms.get("normalizer") if isinstance(transforms, Mapping) else None


def _states_references(config: Mapping[str, Any]) -> bool:
    dataset = _dataset(config)
    transforms = dataset.get("transforms")
    return bool(dataset.get("lin_ref") or (isinstance(transforms, Mapping) and transforms.get("element_references")))


def _normaliser(output: str, shift: Any, scale: Any, source: str) -> Normaliser:
    """In float64: float32 energies of thousands of eV would lose tenths of meV."""
    what = f"{source}: its normaliser of {output[:60]!r}"
    if output not in _COMPONENTS:
        raise ZooError(
            f"{what}: the network has no such output (it has {', '.join(_COMPONENTS)}); pass a checkpoint of EquiformerV2 itself"
        )
    if shift is None or scale is None:
        raise ZooError(f"{what} has no mean and rmsd (or std, stdev); give both, or fetch the file again")
    try:
        if any(isinstance(value, Tensor) and value.is_complex() for value in (shift, scale)):
            raise TypeError
        mean, rmsd = (torch.as_tensor(value, dtype=torch.float64, device="cpu").detach().squeeze() for value in (shift, scale))
    except (TypeError, ValueError, RuntimeError):
        raise ZooError(f"{what} holds no numbers; fetch the file again") from None
    if any(value.shape not in ((), (_COMPONENTS[output],)) for value in (mean, rmsd)):
        raise ZooError(f"{what} has {tuple(mean.shape)} and {tuple(rmsd.shape)} numbers, wanted one of each; fetch the file again")
    if not bool(torch.isfinite(mean).all() and torch.isfinite(rmsd).all() and (rmsd > 0).all()):
        raise ZooError(f"{what} has the mean {mean.tolist()} and the scale {rmsd.tolist()}, wanted finite numbers and a scale above 0")
    return Normaliser(mean, rmsd)


def _element_references(states: Any, rows: int, source: str) -> Tensor | None:
    if not states:
        return None
    energy = states.get("energy") if isinstance(states, Mapping) else None
    references = energy.get("element_references") if isinstance(energy, Mapping) else None
    if not isinstance(references, Tensor) or not references.is_floating_point():
        raise ZooError(f"{source}: its 'elementrefs' hold no element_references of the energy; fetch the file again")
    if references.squeeze().dim() != 1 or references.numel() < rows:
        raise ZooError(
            f"{source}: its element references are {tuple(references.shape)}, wanted one for each of {rows} rows; fetch the file again"
        )
    found = references.detach().to("cpu", torch.float64).flatten()
    if not bool(torch.isfinite(found[1:rows]).all()):
        raise ZooError(f"{source}: its element references hold numbers that are not finite; fetch the file again")
    return found
