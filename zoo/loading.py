"""zoo.load: the one place that joins card, weights, backbone, adapter and reference energies."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from adapters.method import create_method
from adapters.state import AdapterManifest
from zoo.adapter_files import attach, read_trained
from zoo.adapter_sources import is_address, local_adapter
from zoo.backbones import family_of_checkpoint, load_family
from zoo.backbones.base import Backbone, ForceMode, choose_head
from zoo.errors import ZooError, nearest_name_hint
from zoo.potential import Potential
from zoo.registry import Card, describe, list_models
from zoo.weights import forget_first_use, is_first_use, local_weights

AdapterSpec = str | Path | Mapping[str, Any] | None
_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_CHECKPOINT_SUFFIXES = {".pt", ".pth", ".model", ".ckpt", ".zip", ".nqx", ".safetensors", ".yaml", ".yml"}


@torch.inference_mode(False)  # its tensors may be trained, and are watched for changes
def load(  # noqa: PLR0913 - the signature is fixed by the project's users
    name_or_path: str | Path,
    adapter: AdapterSpec = None,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    weights: Literal["card"] | None = "card",
    head: str | None = None,
    elements: Collection[str | int] | None = None,
    forces: ForceMode | None = None,
    trust_pickle: bool = False,
) -> Potential:
    """A pretrained potential, with an adapter if one is asked for.

    Args:
        name_or_path: a card's name (`zoo.list_models`), a checkpoint of any known family, or a ``nequip-train`` configuration
            (``weights=None``).
        adapter: a method's name (``"elora"``) or configuration (``{"name": "elora", "rank": 4}``) for a fresh adapter, or the path of a
            trained one (``"runs/quickstart/adapter.safetensors"``) or its address (``"hf://owner/name"``, `zoo.adapter_sources`), whose
            reference energies then apply too. A fresh adapter is drawn with seed 0; for another start add it yourself:
            ``potential.adapters.add("elora", "elora", seed=1)``.
        dtype: ``"float32"`` or ``"float64"``; None keeps the checkpoint's.
        device: None for the CPU.
        weights: ``"card"`` for the trained weights, None for the architecture with random ones (drawn from torch's global generator).
        head: level of theory of a multi-head model; never chosen silently, but a trained adapter brings its own.
        elements: symbols or atomic numbers; cut the model down to these, with the same energies on them and fewer weights (MACE). A trained
            adapter brings those of its base.
        forces: None for the model's own way, or that of a trained adapter; ``"gradient"`` derives forces and stress from the energy also
            where the model has a force output of its own, ``"direct"`` takes that output. Refused where the model has no such way.
        trust_pickle: allow a checkpoint that can only be read by running code from it.

    Returns:
        The potential, in ``eval()`` mode.

    Raises:
        ZooError: unknown names (with the nearest), missing packages (with the command), unreadable, corrupt or hostile files.
        adapters.errors.AdapterError: a wrong adapter configuration, or an adapter file made for another base.
    """
    if weights not in ("card", None):
        raise ZooError(f"weights={weights!r} is not a choice; pass 'card' for the trained weights or None for random ones")
    trained = _trained_adapter(adapter)
    card, backbone = _load_backbone(name_or_path, head if trained is None else trained.head(head), trust_pickle, weights)
    if trained is not None:
        trained.check_family(backbone, name_or_path)
    backbone = _cut_to(backbone, elements if trained is None else trained.elements(elements))
    forces = forces if trained is None else trained.forces(forces)
    level_of_theory = _level_of_theory(card, backbone.head)
    potential = Potential(backbone, card=card, source=str(name_or_path), level_of_theory=level_of_theory, forces=forces)
    if dtype is not None and _torch_dtype(dtype) != potential.dtype:
        potential = potential.to_dtype(_torch_dtype(dtype))
    if device is not None:
        potential = potential.to(_torch_device(device))
    if trained is not None:
        trained.attach(potential)
    elif adapter is not None:
        assert not isinstance(adapter, Path)
        method = create_method(adapter)
        potential.adapters.add(method.name, method)
    return potential


@dataclass(frozen=True)
class _TrainedAdapter:
    """An adapter file, which says what its base has to be."""

    path: Path
    manifest: AdapterManifest
    tensors: dict[str, Tensor]

    def head(self, asked: str | None) -> str | None:
        own = self.manifest.head
        if asked is not None and own is not None and asked.lower() != own.lower():
            raise ZooError(f"{self.path}: trained on head {own!r}, but head={asked!r} was asked for; leave head out")
        return asked or own

    def elements(self, asked: Collection[str | int] | None) -> Collection[str | int] | None:
        own = self.manifest.base_elements
        if asked is not None and own and _atomic_numbers(asked) != _atomic_numbers(own):
            raise ZooError(f"{self.path}: trained on a base with {len(own)} elements, not on elements={list(asked)}; leave elements out")
        return own or asked

    def forces(self, asked: ForceMode | None) -> ForceMode | None:
        """As it was trained, unless the user asks for the gradient of an energy that was trained beside direct forces."""
        own = self.manifest.forces
        if asked == "direct" and own == "gradient":
            raise ZooError(f"{self.path}: trained with forces='gradient', its own force output is untrained; leave forces='direct' out")
        return asked or own

    def check_family(self, backbone: Backbone, name: str | Path) -> None:
        if self.manifest.base_family != backbone.family:
            raise ZooError(
                f"{self.path}: trained on a {self.manifest.base_family} model ({self.manifest.base_card}), and {name} is a "
                f"{backbone.family} model; pass the base it belongs to"
            )

    def attach(self, potential: Potential) -> None:
        attach(potential, self.path, self.manifest.method, self.manifest, self.tensors)


def _trained_adapter(adapter: AdapterSpec) -> _TrainedAdapter | None:
    path = _adapter_file(adapter)
    return None if path is None else _TrainedAdapter(path, *read_trained(path))


def _cut_to(backbone: Backbone, elements: Collection[str | int] | None) -> Backbone:
    numbers = backbone.elements if elements is None else tuple(_atomic_numbers(elements))
    return backbone if numbers == backbone.elements else backbone.restricted_to(numbers)


def _with_weights(backbone: Backbone, weights: str | None, name: str | Path) -> Backbone:
    if weights == "card" and not backbone.has_weights:
        raise ZooError(f"{name}: a configuration without weights; pass weights=None (strategy=scratch) to train from random ones")
    return backbone if weights == "card" else load_family(backbone.family).randomise(backbone)


def _load_backbone(name_or_path: str | Path, head: str | None, trust_pickle: bool, weights: str | None) -> tuple[Card | None, Backbone]:
    path = Path(name_or_path)
    if path.is_file():
        return None, _with_weights(family_of_checkpoint(path).load(path, head, trust_pickle), weights, name_or_path)
    if path.suffix in _CHECKPOINT_SUFFIXES or path.parent != Path():
        raise ZooError(
            f"{name_or_path}: no such file; pass an existing checkpoint or a card's name ({nearest_name_hint(path.stem, list_models())})"
        )
    try:
        card = describe(str(name_or_path))
    except ZooError as error:
        raise ZooError(f"{error} (a checkpoint's path is also accepted)") from None
    build = load_family(card.family).build
    if weights is None and build is not None and card.architecture is not None:
        choose_head(card.heads, head, card.name)
        return card, build(card.architecture, card.name)
    try:
        return card, _with_weights(_backbone_of_file(card, head, trust_pickle), weights, name_or_path)
    except ZooError as error:
        if weights is None:  # nobody would expect to need the weights
            raise ZooError(f"{error} (weights=None needs the file too, which alone holds the architecture of {card.name})") from None
        raise


def _backbone_of_file(card: Card, head: str | None, trust_pickle: bool) -> Backbone:
    """With the trained weights, fetched where they are not here yet."""
    if card.heads and head is None:
        raise ZooError(f"{card.name} has several heads and none was chosen; pass head= (backbone.head=) one of: {', '.join(card.heads)}")
    if card.runs_code and not trust_pickle and card.file.sha256 is None:
        raise ZooError(
            f"{card.name}: its file carries its own code and runs it when loaded; if you trust {card.file.url}, pass trust_pickle=True "
            "(backbone.trust_pickle=true)"
        )
    first_use = is_first_use(card)
    path = local_weights(card)
    try:
        # a file whose SHA-256 the card names has just been checked against it, so it is the one its authors published
        backbone = load_family(card.family).load(path, head, trust_pickle or card.file.sha256 is not None)
        return _as_card_says(backbone, card, str(path))
    except ZooError:
        if first_use:
            forget_first_use(card)
        raise


def _as_card_says(backbone: Backbone, card: Card, source: str) -> Backbone:
    """With the elements that the card names; refused where it is not the card's model and nobody has verified a SHA-256."""
    if card.elements:
        backbone = backbone.restricted_to(_atomic_numbers(card.elements))
    if card.file.sha256 is None:
        _check_against_card(backbone, card, source)
    return backbone


def _check_against_card(backbone: Backbone, card: Card, source: str) -> None:
    """Refuse a file that is not the card's model: without a SHA-256, another model's file could take its place."""
    count = sum(parameter.numel() for parameter in backbone.parameters() if parameter.requires_grad)
    found = (len(backbone.elements), backbone.cutoff, count)
    wanted = (card.element_count or len(backbone.elements), card.cutoff_angstrom or backbone.cutoff, card.parameter_count or count)
    if found != wanted:
        differences = ", ".join(
            f"{one:,g} {what}, where {card.name} has {other:,g}"
            for one, other, what in zip(found, wanted, ("elements", "Å of cutoff", "weights"), strict=True)
            if one != other
        )
        raise ZooError(f"{source}: has {differences}; it is another model: remove the file, or mend the card")
    build = load_family(card.family).build
    if build is None or card.architecture is None:
        return
    with torch.device("meta"):
        expected = build(card.architecture, card.name)
    own, others = ({name: tuple(value.shape) for name, value in model.named_parameters()} for model in (backbone, expected))
    different = sorted(set(own.items()) ^ set(others.items()))
    if different or backbone.graph_recipe != expected.graph_recipe:
        what = f"the weights {different[0][0]}" if different else f"the neighbours {backbone.graph_recipe}"
        raise ZooError(f"{source}: {what} differ from those of {card.name}; it is another model: remove the file, or mend the card")


def _adapter_file(adapter: AdapterSpec) -> Path | None:
    """The path of an adapter file, or None where ``adapter`` is a method's name or configuration."""
    if isinstance(adapter, Path):
        return adapter
    if isinstance(adapter, str) and is_address(adapter):
        return local_adapter(adapter)
    if isinstance(adapter, str) and (adapter.endswith(".safetensors") or "/" in adapter or Path(adapter).is_file()):
        return Path(adapter)
    return None


def _atomic_numbers(elements: Collection[str | int]) -> list[int]:
    """Ascending, each once; raises `ZooError` for what is no element."""
    if isinstance(elements, str):
        raise ZooError(f"elements={elements!r} is not a list; pass elements={re.findall('[A-Z][a-z]?', elements)}")
    found = set()
    for one in elements:
        number = atomic_numbers.get(one, 0) if isinstance(one, str) else 0 if isinstance(one, bool | float) else operator.index(one)
        if not 0 < number < len(chemical_symbols):
            raise ZooError(f"elements: {one!r} is no element; pass symbols such as 'Cu', or atomic numbers")
        found.add(number)
    return sorted(found)


def _torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    if str(dtype) not in _DTYPES:
        raise ZooError(f"dtype={str(dtype)!r} is not a choice; {nearest_name_hint(str(dtype), _DTYPES)}")
    return _DTYPES[str(dtype)]


def _torch_device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ZooError(f"device={str(device)!r} is not a device; pass 'cpu', 'cuda' or 'cuda:N'") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ZooError(f"device={str(device)!r}: this machine has {torch.cuda.device_count()} CUDA devices; pass 'cpu'")
    return chosen


def _level_of_theory(card: Card | None, head: str | None) -> str:
    if card is None:
        return ""
    return card.level_of_theory_of_head.get(head or "", card.level_of_theory)
