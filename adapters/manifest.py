"""What an adapter file says about itself, and the fingerprint of the base it belongs to."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, JsonValue
from torch import nn

from adapters.adapter import Adapter

FORMAT_VERSION = 1


class BlockEntry(BaseModel):
    """One adapted block, so that a reader needs no model to know what the tensors are.

    Attributes:
        key: ``<parameter>/<label>``, the beginning of its tensors' names.
        parameter: name in the base's ``named_parameters()``.
        label: of the block within the parameter.
        role: of the layer.
        path: in the field's notation (``"1o x 0e -> 1o"``).
        shape: (stack, in, out).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    parameter: str
    label: str
    role: str
    path: str
    shape: tuple[int, int, int]


class AdapterManifest(BaseModel):
    """What an adapter file says about itself.

    Attributes:
        format_version: of the file.
        method: adapter method's name.
        config: its settings.
        base_card: the base's card, or the local checkpoint's name.
        base_family: the base's model family.
        base_sha256: `base_fingerprint` of the base.
        base_elements: symbols of the elements that the base knows; a base cut down to some is loaded so again.
        base_convention: the signs of the base's Clebsch-Gordan coefficients, empty where they are no part of its state.
        base_licence: SPDX identifier or name; the adapter is derived from the base.
        head: the base's output head, None for a single-head model.
        forces: the forces it was trained on: ``gradient`` of the energy, or ``direct``, an output of the base; None in older files.
        blocks: the adapted blocks; filled in by `adapters.state.write_adapter`.
        reference_energies: element symbol -> eV per atom, added to the model's energy.
        units: quantity -> unit of the labels.
        level_of_theory: of the labels.
        data: data set's name and split hashes.
        training: summary of the run.
        versions: package -> version.
        trainable_count: numbers in the file; filled in by `adapters.state.write_adapter`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    method: str
    config: dict[str, JsonValue] = {}
    base_card: str
    base_family: str
    base_sha256: str
    base_elements: tuple[str, ...] = ()
    base_convention: str = ""
    base_licence: str = ""
    head: str | None = None
    forces: Literal["gradient", "direct"] | None = None
    blocks: tuple[BlockEntry, ...] = ()
    reference_energies: dict[str, float] = {}
    units: dict[str, str] = {"energy": "eV", "length": "Angstrom"}
    level_of_theory: str = ""
    data: dict[str, JsonValue] = {}
    training: dict[str, JsonValue] = {}
    versions: dict[str, str] = {}
    trainable_count: int = 0


def base_fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's parameter values: names sorted, shapes, and values as float32 little-endian bytes.

    A float64 copy of a float32 model has the same fingerprint. Buffers are left out: they hold constants and statistics that packages move
    about. What a model says of its constants (`convention_of`) counts: the same values mean another model in other signs.
    """
    digest = hashlib.sha256(convention_of(model).encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def convention_of(model: nn.Module) -> str:
    """The name of the signs of the model's Clebsch-Gordan coefficients: its attribute ``convention``, empty where it has none."""
    return str(getattr(model, "convention", ""))


def completed(manifest: AdapterManifest, adapter: Adapter) -> AdapterManifest:
    """The manifest with the block table and the count of the adapter that it is written with."""
    entries = tuple(
        BlockEntry(key=block.key, parameter=block.parameter, label=block.label, role=block.role, path=block.path, shape=block.shape)
        for block in adapter.blocks
    )
    return manifest.model_copy(update={"blocks": entries, "trainable_count": adapter.trainable_count})
