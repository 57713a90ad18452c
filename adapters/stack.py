"""Named adapters on one model: which are active, the weights they make, merging and detaching.

The model is run through `AdapterStack.call`, ``torch.func.functional_call`` on merged weights: no layer is wrapped, and the base's tensors
stay as they are until `AdapterStack.merge`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adapters.activation import hooked, not_weights
from adapters.adapter import Adapter
from adapters.blocks import Coverage
from adapters.combination import CombinationMethod, combined
from adapters.errors import AdapterError, nearest_name_hint
from adapters.fingerprint import RememberedFingerprint
from adapters.locks import lock_of
from adapters.method import AdapterMethod, create_method
from adapters.randomise import randomise_factors

__all__ = ["Adapter", "AdapterStack"]


class AdapterStack(nn.Module):
    """The adapters of one model.

    The model is not a submodule, so ``stack.parameters()`` and ``stack.state_dict()`` hold the adapters alone. Deep-copying an object that
    holds both keeps the copy's stack on the copy's model.

    Threads may share a stack: each call of the model and each change of the adapters waits for the one before (`exclusive`). Only models
    of their own run in parallel.

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
        self._places = _places_of_parameters(model)

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
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict, name):
            raise AdapterError(
                f"adapter name {name!r}: wanted letters, digits, '_' and '-', and no word of torch.nn.ModuleDict; choose another"
            )
        if name in self.adapters:
            raise AdapterError(f"adapter name {name!r} is in use; delete that adapter first or choose another name")

    def _fresh(self, method: AdapterMethod, seed: int = 0) -> Adapter:
        self.model.requires_grad_(False)
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
        """Make exactly these adapters active, in this order; none for the base."""
        if isinstance(names, str):
            raise AdapterError(f"activate takes a list of names, found {names!r}; pass [{names!r}]")
        with self.exclusive():
            self._refuse_when_merged("change the active adapters")
            names = tuple(dict.fromkeys(names))
            for name in names:
                self.get(name)
            self._active = names

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
            _refuse_without_delta(self.get(name), "scaled")
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
                _refuse_without_delta(adapter, "combined")
            adapter = combined(parts, weights, method, rank, self._fresh)
            self.adapters[into] = adapter
        return adapter

    @property
    def active_adapters(self) -> tuple[Adapter, ...]:
        """The active adapters."""
        return tuple(self.get(name) for name in self._active)

    def weights(self) -> dict[str, Tensor]:
        """Parameter name -> W + sum of the active deltas, differentiable in the adapters' factors.

        Only changed parameters are listed: none where no adapter is active, or where they are merged.
        """
        return {} if self.is_merged else self.weights_with(self._active)

    def weights_with(self, names: Iterable[str]) -> dict[str, Tensor]:
        """`weights` as they would be with exactly these adapters active."""
        weights: dict[str, Tensor] = {}
        for adapter_name in names:
            scale = self.scale_of(adapter_name)
            for name, delta in self.get(adapter_name).deltas().items():
                change = delta if scale == 1 else scale * delta
                weights[name] = (weights[name] if name in weights else self.model.get_parameter(name)) + change
        return weights

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with the adapted weights: ``model(*args, **kwargs)``; differentiable in the adapters in ``train()`` mode only.

        Each place that holds a changed tensor is set by name with ``tie_weights=False``: for a module that is registered twice, torch's own
        tying (2.13) restores the substituted tensor in place of the parameter afterwards.
        """
        with self.exclusive():
            # outside training no graph to the adapters: faster, and the same arithmetic as the bare base, bit for bit
            trains = self.training and torch.is_grad_enabled()
            with torch.set_grad_enabled(trains):
                weights = self.weights()
            with hooked(self.active_adapters, self.model, trains):
                return self.call_with(weights, *args, **kwargs)

    def call_with(self, weights: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Run the model with these tensors, by parameter name, in the place of its own."""
        placed = {place: weight for name, weight in weights.items() for place in self._places[name]}
        with self.exclusive():
            return functional_call(self.model, placed, args, kwargs, tie_weights=False)

    @property
    def is_merged(self) -> bool:
        """Whether the model's own tensors hold the adapted weights."""
        return self._base_values is not None

    def merge(self) -> None:
        """Write the adapted weights into the model, in place; `unmerge` restores every bit.

        Raises:
            AdapterError: where they are merged already, or an active method cannot be merged.
        """
        with self.exclusive(), torch.no_grad():
            self._refuse_when_merged("merge again")
            for adapter in self.active_adapters:
                _refuse_without_delta(adapter, "merged")
            weights = self.weights()
            base = {name: self.model.get_parameter(name) for name in weights}
            # (W + d) - d is not W in floating point: the base's values are kept, not computed back
            self._base_values = {name: parameter.detach().clone() for name, parameter in base.items()}
            for name, parameter in base.items():
                parameter.copy_(weights[name])

    def unmerge(self) -> None:
        """Restore the base's values, bit for bit; nothing to do where nothing is merged."""
        with self.exclusive(), torch.no_grad():
            for name, value in (self._base_values or {}).items():
                self.model.get_parameter(name).copy_(value)
            self._base_values = None

    def param_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer parameter groups of the active adapters."""
        groups: list[dict[str, Any]] = []
        for adapter in self.active_adapters:
            groups.extend(adapter.param_groups(learning_rate, weight_decay))
        return groups

    def before_forward(self) -> None:
        """To be called before each training forward."""
        for adapter in self.active_adapters:
            adapter.method.before_forward(adapter)

    @torch.no_grad()
    def before_step(self, learning_rate: float, weight_decay: float) -> None:
        """To be called right before each optimizer step, with the rate of that step and the run's weight decay."""
        for adapter in self.active_adapters:
            adapter.method.before_step(adapter, self.model, learning_rate, weight_decay)

    def after_step(self) -> None:
        """To be called after each optimizer step."""
        for adapter in self.active_adapters:
            adapter.method.after_step(adapter)

    def report(self) -> dict[str, float]:
        """Statistics of the active adapters; keys carry the adapter's name where several are active."""
        if len(self._active) == 1:
            return self.active_adapters[0].method.report(self.active_adapters[0])
        return {f"{name}/{key}": value for name in self._active for key, value in self.get(name).method.report(self.get(name)).items()}

    @property
    def trainable_count(self) -> int:
        """Trainable numbers of the active adapters."""
        return sum(adapter.trainable_count for adapter in self.active_adapters)

    @property
    def starts_at_base(self) -> bool:
        """Whether the active adapters, untrained, change nothing."""
        return all(adapter.method.starts_at_base for adapter in self.active_adapters)

    @property
    def requires_decoupled_weight_decay(self) -> bool:
        """Whether an active method needs an AdamW-like optimizer."""
        return any(adapter.method.requires_decoupled_weight_decay for adapter in self.active_adapters)

    def randomise(self, name: str, seed: int, relative: float = 0.1) -> None:
        """Fill an adapter with random factors, norm(dW)/norm(W) >= ``relative`` (Frobenius) in each block: for equivariance tests."""
        self._refuse_when_merged("randomise an adapter")
        adapter = self.get(name)
        base = {block.key: float(block.view(self.model.get_parameter(block.parameter)).double().norm()) for block in adapter.blocks}
        randomise_factors(adapter, base, seed, relative)

    @property
    def state(self) -> tuple[object, ...]:
        """What decides, besides the values of tensors, what the model computes: equal states and equal tensors give equal results."""
        return tuple((name, self.scale_of(name), self.get(name).provenance) for name in self._active)

    def _refuse_when_merged(self, action: str) -> None:
        if self.is_merged:
            raise AdapterError(f"cannot {action} while adapters {list(self._active)} are merged into the model; call unmerge() first")


def _refuse_without_delta(adapter: Adapter, what: str) -> None:
    if not adapter.method.mergeable:
        raise AdapterError(not_weights(adapter.method.name, what))


def _places_of_parameters(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Canonical name -> the names of all places that hold the tensor, one name for a module that is registered twice."""
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    places: dict[str, tuple[str, ...]] = dict.fromkeys(canonical.values(), ())
    for prefix, module in model.named_modules():  # each module once
        for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = canonical[id(parameter)]
            places[name] = (*places[name], f"{prefix}.{local}" if prefix else local)
    return places
