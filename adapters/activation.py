"""Methods that change a layer's output instead of its weights, by one forward hook a layer.

The change depends on the structure, so it is no change of weights: it cannot be merged, or exported to another package's file, and stays
attached. The hooks are on the modules for as long as a forward pass takes and leave nothing behind.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from adapters.blocks import WeightBlock
from adapters.errors import AdapterError
from adapters.features import LayerFeatures
from adapters.method import AdapterMethod, MethodConfig

if TYPE_CHECKING:
    from adapters.adapter import Adapter


class ActivationMethod(AdapterMethod):
    """One way to change what layers return. Its factors belong to layers: those of a layer whose blocks are chosen, or some of them."""

    mergeable: ClassVar[bool] = False

    def selects(self, block: WeightBlock) -> bool:
        """Blocks of layers whose features are known, but no SO(3) linear of a readout: that is asked for single degrees, past any hook."""
        asked_in_parts = block.features is not None and block.features.layout == "degrees" and block.role == "readout"
        return block.features is not None and not asked_in_parts and self.is_chosen(block)

    def initial_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """None: a block has no factors of its own."""
        return {}

    def layer_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """The factors of the block's layer."""
        assert block.features is not None
        return {name: tensor.to(dtype) for name, tensor in self.factors_of_layer(block.features, generator).items()}

    @abstractmethod
    def factors_of_layer(self, features: LayerFeatures, generator: torch.Generator) -> dict[str, Tensor]:
        """Factor name -> tensor in float64, for a layer with these features."""

    @abstractmethod
    def changed(self, features: LayerFeatures, factors: Mapping[str, Tensor], inputs: Tensor, outputs: Tensor) -> Tensor:
        """What the layer returns instead of ``outputs``.

        Args:
            features: of the layer, with the layout of both tensors.
            factors: as in `factors_of_layer`.
            inputs: the layer's first argument.
            outputs: what it returned, or another adapter made of it.
        """

    @abstractmethod
    def random_factors(self, features: LayerFeatures, generator: torch.Generator, relative: float) -> dict[str, Tensor]:
        """Random factors that change outputs by about ``relative`` of their size: for tests of equivariance."""

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Refused: there is no change of weights."""
        raise AdapterError(not_weights(self.name))


class BottleneckConfig(MethodConfig):
    """Settings of a method with a two-layer network of its own at each layer.

    Attributes:
        rank: r, the width of the network.
    """

    rank: int = Field(default=16, ge=1)


class BottleneckMethod(ActivationMethod):
    """An activation method whose change comes out of W_up SiLU(W_down x + b_down) + b_up, a network of width r at each layer."""

    Config: ClassVar[type[MethodConfig]] = BottleneckConfig
    config: BottleneckConfig

    @abstractmethod
    def widths(self, features: LayerFeatures) -> tuple[int, int]:
        """How many numbers go into the network and come out of it."""

    def factors_of_layer(self, features: LayerFeatures, generator: torch.Generator) -> dict[str, Tensor]:
        """``down`` (in, r) uniform within 1/sqrt(in), ``down_bias`` (r,), ``up`` (r, out) and ``up_bias`` (out,) zero."""
        (inputs, outputs), rank = self.widths(features), self.config.rank
        down = (2 * torch.rand((inputs, rank), generator=generator, dtype=torch.float64) - 1) / math.sqrt(inputs)
        return {"down": down, "down_bias": down.new_zeros(rank), "up": down.new_zeros((rank, outputs)), "up_bias": down.new_zeros(outputs)}

    def random_factors(self, features: LayerFeatures, generator: torch.Generator, relative: float) -> dict[str, Tensor]:
        """Normal, so that the network returns numbers of about ``relative`` for inputs of about 1."""
        scales = {"down": 1 / math.sqrt(self.widths(features)[0]), "down_bias": 1, "up": relative / math.sqrt(self.config.rank)}
        return {
            name: scales.get(name, relative) * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            for name, tensor in self.factors_of_layer(features, generator).items()
        }


def network(factors: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
    """(..., out) of (..., in): the network of `BottleneckMethod`."""
    hidden = torch.nn.functional.silu(numbers @ factors["down"] + factors["down_bias"])  # (..., r)
    return hidden @ factors["up"] + factors["up_bias"]


def not_weights(method: str, action: str = "merged") -> str:
    """Why an activation method's adapter cannot be merged, scaled or combined, in one line."""
    return f"adapter method {method} changes activations, which no change of weights can stand for: it cannot be {action}; keep it attached"


@contextmanager
def hooked(adapters: tuple[Adapter, ...], model: nn.Module, trains: bool) -> Iterator[None]:
    """The activation adapters' hooks on the model's layers, in the adapters' order, for as long as the context lasts.

    Args:
        adapters: the active ones, of whatever method.
        model: the base.
        trains: whether gradients are to reach the adapters' factors.
    """
    handles = []
    try:
        for adapter in adapters:
            if isinstance(adapter.method, ActivationMethod):
                for position, (parameter, features) in layers_of(adapter).items():
                    layer = model.get_submodule(parameter.rpartition(".")[0])
                    factors = {name: tensor if trains else tensor.detach() for name, tensor in adapter.layer_factors(position).items()}
                    handles.append(layer.register_forward_hook(_hook(adapter.method, features, factors)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def layers_of(adapter: Adapter) -> dict[int, tuple[str, LayerFeatures]]:
    """The layers that an activation adapter changes: position of the first of its blocks -> its parameter and its features."""
    layers: dict[int, tuple[str, LayerFeatures]] = {}
    for position, block in enumerate(adapter.blocks):
        gated = block.features is not None and not adapter.changes_weights(position)
        if gated and all(block.parameter != parameter for parameter, _ in layers.values()):
            assert block.features is not None
            layers[position] = (block.parameter, block.features)
    return layers


def _hook(method: ActivationMethod, features: LayerFeatures, factors: Mapping[str, Tensor]) -> Callable[..., Tensor]:
    def change(layer: nn.Module, arguments: tuple[Any, ...], outputs: Tensor) -> Tensor:
        return method.changed(features, factors, arguments[0], outputs)

    return change
