"""Adapter files and potentials: what a file's manifest says of its base is compared with the potential before anything is attached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from adapters.adapter import Adapter, Provenance
from adapters.manifest import AdapterManifest
from adapters.state import load_into, read_adapter, write_adapter
from zoo.adapter_sources import local_adapter
from zoo.errors import ZooError
from zoo.evaluation.provenance import base_name, versions

if TYPE_CHECKING:
    from zoo.potential import Potential


def load_adapter(potential: Potential, source: str | Path, name: str) -> Adapter:
    """`zoo.potential.Potential.load_adapter`."""
    path = local_adapter(source)
    manifest, tensors = read_adapter(path)
    backbone = potential.backbone
    if manifest.base_family != backbone.family:
        raise ZooError(
            f"{path}: trained on a {manifest.base_family} model ({manifest.base_card}), and {potential.source} is a {backbone.family} "
            "model; attach it to the base it belongs to"
        )
    if manifest.head != backbone.head:
        raise ZooError(f"{path}: trained on head {manifest.head!r}, and this potential's is {backbone.head!r}; load that head for it")
    if manifest.forces == "gradient" and potential.forces == "direct":
        raise ZooError(f"{path}: trained with forces='gradient', its own force output is untrained; load the base with forces='gradient'")
    with potential.adapters.exclusive():
        active = potential.adapters.active
        adapter = load_into(potential.adapters, name, manifest, tensors)
        potential.adapters.activate(active)
    return adapter


def save_adapter(potential: Potential, name: str, path: Path) -> Path:
    """`zoo.potential.Potential.save_adapter`."""
    adapter = potential.adapters.get(name)
    scale = potential.adapters.scale_of(name)
    if scale != 1:
        raise ZooError(
            f"adapter {name!r} is scaled by {scale}, which a file does not hold; save potential.adapters.combine({{{name!r}: {scale}}}, "
            "into=...) instead, or scale it back to 1"
        )
    provenance = adapter.provenance or Provenance({}, potential.level_of_theory)
    shifts = potential.shifts_with([name])
    backbone = potential.backbone
    manifest = AdapterManifest(
        method=adapter.method.name,
        config=adapter.method.config_dict,
        base_card=base_name(potential),
        base_family=backbone.family,
        base_sha256=potential.base_sha256,
        base_elements=tuple(chemical_symbols[number] for number in backbone.elements),
        base_convention=backbone.convention,
        base_licence=potential.card.licence if potential.card else "",
        head=backbone.head,
        forces=potential.forces,
        reference_energies={chemical_symbols[number]: float(value) for number, value in enumerate(shifts) if value != 0},
        level_of_theory=provenance.level_of_theory,
        data=dict(provenance.data),
        training=dict(provenance.training),
        versions=versions(),
    )
    write_adapter(path, adapter, manifest)
    return path
