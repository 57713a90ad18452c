"""Adapter files and potentials: what a file's manifest says of its base is compared with the potential before anything is attached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from adapters.adapter import Adapter, Provenance
from adapters.errors import AdapterError
from adapters.manifest import AdapterManifest
from adapters.state import load_into, read_adapter, write_adapter
from zoo.adapter_sources import local_adapter
from zoo.errors import ZooError
from zoo.evaluation.provenance import base_name, versions

if TYPE_CHECKING:
    from zoo.potential import Potential


def read_trained(path: Path) -> tuple[AdapterManifest, dict[str, Tensor]]:
    """What `adapters.state.read_adapter` reads, whose elements are elements.

    Raises:
        ZooError: for a symbol that is none.
        AdapterError: a file that is damaged or of another format.
    """
    manifest, tensors = read_adapter(path)
    fields: tuple[tuple[str, Iterable[str]], ...] = (
        ("base_elements", manifest.base_elements),
        ("reference_energies", manifest.reference_energies),
    )
    for field, symbols in fields:
        unknown = [symbol for symbol in symbols if not atomic_numbers.get(symbol)]
        if unknown:
            raise ZooError(f"{path}: manifest field {field}: {unknown[0]!r} is no element; take the adapter from its run again")
    return manifest, tensors


def attach(potential: Potential, path: Path, name: str, manifest: AdapterManifest, tensors: dict[str, Tensor]) -> Adapter:
    """`adapters.state.load_into` the potential's adapters; what it refuses names the file."""
    try:
        return load_into(potential.adapters, name, manifest, tensors)
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from None


def load_adapter(potential: Potential, source: str | Path, name: str) -> Adapter:
    """`zoo.potential.Potential.load_adapter`."""
    path = local_adapter(source)
    manifest, tensors = read_trained(path)
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
    if manifest.reference_energies and bool(potential.reference_shifts.any()):
        raise ZooError(
            f"{path}: brings reference energies, and this potential adds some whatever is active, so that both would count; call "
            "potential.set_reference_shifts({}) with no adapter active first"
        )
    with potential.adapters.exclusive():
        active = potential.adapters.active
        adapter = attach(potential, path, name, manifest, tensors)
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
    own = adapter.provenance or Provenance({}, potential.level_of_theory)
    shifts = potential.shifts_with([name])
    energies = {number: float(value) for number, value in enumerate(shifts) if value != 0}
    write_adapter(path, adapter, manifest_of(potential, adapter, energies, own.level_of_theory, own.data, own.training))
    return path


def manifest_of(
    potential: Potential,
    adapter: Adapter,
    reference_energies_ev: Mapping[int, float],
    level_of_theory: str = "",
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> AdapterManifest:
    """What the file of an adapter says of its base, its method and where it came from.

    Args:
        potential: whose adapter it is.
        adapter: to be written.
        reference_energies_ev: atomic number -> eV per atom that its energies want added.
        level_of_theory: of the labels.
        data: data set's name and split hashes.
        training: summary of the run.
    """
    backbone = potential.backbone
    return AdapterManifest(
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
        reference_energies={chemical_symbols[number]: value for number, value in reference_energies_ev.items()},
        level_of_theory=level_of_theory,
        data=dict(data or {}),
        training=dict(training or {}),
        versions=versions(),
    )
