"""Which adapters are on a model: by name, active or not, scaled, combined; each change refused while they are merged into it."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from adapters.activation import not_weights
from adapters.adapter import Adapter
from adapters.blocks import Coverage
from adapters.combination import CombinationMethod, combined
from adapters.errors import AdapterError, nearest_name_hint
from adapters.fingerprint import RememberedFingerprint
from adapters.locks import lock_of
from adapters.method import AdapterMethod, create_method


class NamedAdapters(nn.Module):
    """The adapters of one model; `adapters.stack.AdapterStack` is what runs the model with them.

    The model is not a submodule, so ``parameters()`` and ``state_dict()`` hold the adapters alone. Deep-copying an object that holds both
    keeps the copy's adapters on the copy's model.

    Attributes:
        coverage: the model's blocks, found before the base was frozen.
        adapters: name -> `Adapter`.
        fingerprint: the base's `adapters.manifest.base_fingerprint`, computed again where the base changed.
    """

    def __init__(self, model: nn.Module, coverage: Coverage) -> None:
        """Adapters for a model, none yet.

        Args:
            model: the base; `add` freezes its parameters.
            coverage: ``find_blocks(model)``.

        Raises:
            AdapterError: where the coverage was found on another model.
        """
        super().__init__()
        self._model = (model,)  # in a tuple, so that it is not registered as a submodule
        self.coverage = coverage
        self.adapters = nn.ModuleDict()
        self._active: tuple[str, ...] = ()
        self._scales: dict[str, float] = {}
        self.fingerprint = RememberedFingerprint(model)
        self._base_values: dict[str, Tensor] | None = None
        self._check_names()

    def _check_names(self) -> None:
        """``functional_call`` silently ignores the effect of a wrong name, so names and sizes are compared once."""
        sizes = {name: parameter.numel() for name, parameter in self.model.named_parameters()}
        differing = sorted(name for name, _ in sizes.items() ^ self.coverage.sizes.items())
        if differing:
            message = f"the coverage is of another model ({len(differing)} parameters differ)"
            raise AdapterError(f"parameter {differing[0]}: {message}; pass find_blocks(model)")

    @property
    def model(self) -> nn.Module:
        """The base."""
        return self._model[0]

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """The model for this thread alone: nothing else runs it or changes its adapters meanwhile; nests."""
        with lock_of(self.model):
            yield

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all adapters, in the order they were added."""
        return tuple(self.adapters)

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the active adapters, whose deltas are added up."""
        return self._active

    def add(self, name: str, method: AdapterMethod | str, seed: int = 0) -> Adapter:
        """A fresh adapter, active besides those that were.

        Args:
            name: unique; letters, digits, ``_`` and ``-``.
            method: the method or its name.
            seed: of the initial factors.

        Raises:
            AdapterError: a name in use or of the wrong form, or settings that do not fit the model.
        """
        with self.exclusive():
            self._refuse_when_merged("add an adapter")
            self._check_new_name(name)
            adapter = self._fresh(create_method(method) if isinstance(method, str) else method, seed)
            self.adapters[name] = adapter
            self._active = (*self._active, name)
        return adapter

    def _check_new_name(self, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or (name not in self.adapters and hasattr(self.adapters, name)):
            raise AdapterError(
                f"adapter name {name!r}: wanted letters, digits, '_' and '-', and no word of torch.nn.ModuleDict; choose another"
            )
        if name in self.adapters:
            raise AdapterError(f"adapter name {name!r} is in use; delete that adapter first or choose another name")

    def _fresh(self, method: AdapterMethod, seed: int = 0) -> Adapter:
        self.model.requires_grad_(False)
        with torch.inference_mode(False):  # a tensor made in inference mode can neither be trained nor watched for changes
            return Adapter(method, self.coverage, dict(self.model.named_parameters()), seed)

    def get(self, name: str) -> Adapter:
        """The adapter of this name; raises `AdapterError` with the nearest one."""
        if name not in self.adapters:
            raise AdapterError(f"no adapter {name!r} on this model; {nearest_name_hint(name, self.names)}")
        adapter = self.adapters[name]
        assert isinstance(adapter, Adapter)
        return adapter

    def delete(self, name: str) -> None:
        """Take an adapter off the model; the base's tensors were never changed."""
        with self.exclusive():
            self._refuse_when_merged("delete an adapter")
            self.get(name)
            del self.adapters[name]
            self._scales.pop(name, None)
            self._active = tuple(active for active in self._active if active != name)

    def activate(self, names: Iterable[str]) -> None:
        """Make exactly these adapters active, in this order; none for the base.

        Warns where several bring reference energies and their scales do not add up to 1.
        """
        if isinstance(names, str):
            raise AdapterError(f"activate takes a list of names, found {names!r}; pass [{names!r}]")
        with self.exclusive():
            self._refuse_when_merged("change the active adapters")
            names = tuple(dict.fromkeys(names))
            for name in names:
                self.get(name)
            self._active = names
            self._warn_of_added_energies()

    def _warn_of_added_energies(self) -> None:
        """Energies of several zeros added up are of none; forces do not mind, so it is no error."""
        brought = {name: self.scale_of(name) for name in self._active if (own := self.get(name).provenance) and own.reference_energies}
        if len(brought) > 1 and not math.isclose(sum(brought.values()), 1):
            warnings.warn(
                f"adapters {', '.join(brought)} each bring reference energies, which add up as their deltas do: total energies are of no "
                "one's zero, forces are not concerned; scale() them to a sum of 1 before, or combine() them with such weights",
                stacklevel=3,
            )

    def deactivate(self) -> None:
        """Make no adapter active: the base."""
        self.activate([])

    def scale(self, name: str, factor: float) -> None:
        """Run with ``factor`` times the adapter's delta; 1 is the adapter as it was made, and a call replaces what another set.

        The factor belongs to the stack: the adapter's tensors and its file stay as they are.

        Raises:
            AdapterError: an unknown adapter, one whose method changes activations, or a factor that is not a finite number.
        """
        with self.exclusive():
            self._refuse_when_merged("scale an adapter")
            refuse_without_delta(self.get(name), "scaled")
            if not math.isfinite(factor):
                raise AdapterError(f"adapter {name!r}: scale {factor}, wanted a finite number; 1 is the adapter as it was made")
            self._scales[name] = float(factor)

    def scale_of(self, name: str) -> float:
        """The factor of the adapter's delta."""
        self.get(name)
        return self._scales.get(name, 1.0)

    def combine(self, weights: Mapping[str, float], into: str, method: CombinationMethod = "linear", rank: int | None = None) -> Adapter:
        """Make one adapter of several: its delta is the sum of theirs, each times its weight; not active until `activate`.

        Weights take the place of what `scale` set. ``"linear"`` is exact: an elora adapter of the ranks added up where all are elora,
        else a dense one (``full``). ``"svd"`` is an elora adapter of rank ``rank``, in each block the nearest matrix of that
        rank (the truncated singular value decomposition of the sum); blocks without low-rank form keep the sum. Of Hugging Face PEFT's
        ``add_weighted_adapter``, ``"cat"`` is this ``"linear"``; its own ``"linear"`` adds factors, which is not the sum of the deltas.

        Args:
            weights: adapter name -> its weight.
            into: name of the new adapter.
            method: ``"linear"`` or ``"svd"``.
            rank: of the result, for ``"svd"`` alone.

        Raises:
            AdapterError: unknown or unfit names, weights that are not finite, a method that changes activations, or a rank that is missing,
                superfluous or below 1.
        """
        with self.exclusive():
            self._refuse_when_merged("combine adapters")
            self._check_new_name(into)
            parts = {name: self.get(name) for name in weights}
            for adapter in parts.values():
                refuse_without_delta(adapter, "combined")
            adapter = combined(parts, weights, method, rank, self._fresh)
            self.adapters[into] = adapter
        return adapter

    @property
    def active_adapters(self) -> tuple[Adapter, ...]:
        """The active adapters."""
        return tuple(self.get(name) for name in self._active)

    @property
    def is_merged(self) -> bool:
        """Whether the model's own tensors hold the adapted weights."""
        return self._base_values is not None

    def _refuse_when_merged(self, action: str) -> None:
        if self.is_merged:
            raise AdapterError(f"cannot {action} while adapters {list(self._active)} are merged into the model; call unmerge() first")


def refuse_without_delta(adapter: Adapter, what: str) -> None:
    """Raise `AdapterError` for a method that changes activations: it cannot be merged, scaled or combined."""
    if not adapter.method.mergeable:
        raise AdapterError(not_weights(adapter.method.name, what))
