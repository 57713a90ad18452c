"""A model run with its adapters: the weights they make, merging and unmerging, and what a trainer asks of them.

The model is run through `AdapterStack.call`, ``torch.func.functional_call`` on merged weights: no layer is wrapped, and the base's tensors
stay as they are until `AdapterStack.merge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adapters.activation import hooked
from adapters.adapter import Adapter
from adapters.blocks import Coverage
from adapters.named import NamedAdapters, refuse_without_delta
from adapters.randomise import randomise_factors

__all__ = ["Adapter", "AdapterStack"]


class AdapterStack(NamedAdapters):
    """The adapters of one model, and the model run with them; which adapters there are and are active is `NamedAdapters`' part.

    Threads may share a stack: each call of the model and each change of the adapters waits for the one before (`exclusive`). Only models
    of their own run in parallel.
    """

    def __init__(self, model: nn.Module, coverage: Coverage) -> None:
        """Adapters for a model, none yet.

        Args:
            model: the base; `add` freezes its parameters.
            coverage: ``find_blocks(model)``.

        Raises:
            AdapterError: where the coverage was found on another model.
        """
        super().__init__(model, coverage)
        self._places = _places_of_parameters(model)

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

    def merge(self) -> None:
        """Write the adapted weights into the model, in place; `unmerge` restores every bit.

        Raises:
            AdapterError: where they are merged already, or an active method cannot be merged.
        """
        with self.exclusive(), torch.no_grad():
            self._refuse_when_merged("merge again")
            for adapter in self.active_adapters:
                refuse_without_delta(adapter, "merged")
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
        with self.exclusive():
            self._refuse_when_merged("randomise an adapter")
            adapter = self.get(name)
            base = {block.key: float(block.view(self.model.get_parameter(block.parameter)).double().norm()) for block in adapter.blocks}
            randomise_factors(adapter, base, seed, relative)

    @property
    def state(self) -> tuple[object, ...]:
        """What decides, besides the values of tensors, what the model computes: equal states and equal tensors give equal results."""
        return tuple((name, self.scale_of(name), self.get(name).provenance) for name in self._active)


def _places_of_parameters(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Canonical name -> the names of all places that hold the tensor, one name for a module that is registered twice."""
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    places: dict[str, tuple[str, ...]] = dict.fromkeys(canonical.values(), ())
    for prefix, module in model.named_modules():  # each module once
        for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = canonical[id(parameter)]
            places[name] = (*places[name], f"{prefix}.{local}" if prefix else local)
    return places
