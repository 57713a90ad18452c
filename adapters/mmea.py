"""MMEA: gates on the magnitude of each channel, made of the layer's invariant inputs.

D. Jin, Y. Yuan and X. Tao, "Magnitude-Modulated Equivariant Adapter for Parameter-Efficient Fine-Tuning of Equivariant Graph Neural
Networks", AAAI 2026. With h the scalars (0e) that go into an equivariant linear layer,

    z = SiLU(W_down h + b_down),    gamma = W_up z + b_up,

one gamma for each channel that comes out. A scalar becomes h' = h' + gamma, a channel of another irrep h' = exp(gamma) h', or with
``scaling="residual"`` (1 + gamma) h'. The gammas are invariant and multiply whole irreps, so any weights are equivariant. W_up and b_up are
zero at the start: step 0 is the base, where the reference code starts with random gammas of the scalars.

Pseudoscalars (0o) are scaled as vectors are: gamma does not change sign under inversion as they do. Features of edges are scaled alone, for
a sum would not vanish at the cutoff.

The reference code trains ELoRA's deltas besides, on all that is no such layer: ``elsewhere="elora"``. The published counts are of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from adapters.activation import BottleneckConfig, BottleneckMethod, network
from adapters.blocks import WeightBlock
from adapters.elora import Elora, EloraConfig
from adapters.features import LayerFeatures, joined, split
from adapters.method import MethodConfig, register


class MmeaConfig(BottleneckConfig):
    """Settings of MMEA.

    Attributes:
        scaling: of channels that are no scalars: ``"exponential"``, exp(gamma), or ``"residual"``, 1 + gamma.
        elsewhere: what trains on weights that have no gates behind them: ``"nothing"``, or ``"elora"``, low-rank deltas and what ELoRA's
            reference code trains besides (`adapters.elora`, ``extra_trainable="reference"``).
        elsewhere_rank: r of these deltas.
    """

    scaling: Literal["exponential", "residual"] = "exponential"
    elsewhere: Literal["nothing", "elora"] = "nothing"
    elsewhere_rank: int = Field(default=16, ge=1)


@register
class Mmea(BottleneckMethod):
    """Invariant gates on the outputs of equivariant linear layers, in Allegro of its tensor products, in UMA of its norms too."""

    name = "mmea"
    Config = MmeaConfig
    config: MmeaConfig

    def __init__(self, config: MmeaConfig) -> None:
        super().__init__(config)
        common = {key: getattr(config, key) for key in MethodConfig.model_fields}
        self._elsewhere = Elora(EloraConfig(rank=config.elsewhere_rank, extra_trainable="reference", **common))

    def selects(self, block: WeightBlock) -> bool:
        """Blocks of layers into which scalars go, and of the others what trains ``elsewhere``."""
        return self._is_gated(block) or (self.config.elsewhere == "elora" and self._elsewhere.selects(block))

    def kind(self, block: WeightBlock) -> str:
        """``mmea``, which has its numbers in the layer, or ELoRA's kinds."""
        return super().kind(block) if self._is_gated(block) else self._elsewhere.kind(block)

    def initial_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """ELoRA's where there is no gate."""
        return {} if self._is_gated(block) else self._elsewhere.initial_factors(block, generator, dtype)

    def layer_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """The gates' where there are any."""
        return super().layer_factors(block, generator, dtype) if self._is_gated(block) else {}

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """ELoRA's, of blocks without gates."""
        return self._elsewhere.delta(factors)

    def _is_gated(self, block: WeightBlock) -> bool:
        return super().selects(block) and block.features is not None and block.features.scalar_count > 0

    def widths(self, features: LayerFeatures) -> tuple[int, int]:
        """The scalars that go into the layer, and the channels that come out, each once whatever its degree."""
        return features.scalar_count, sum(multiplicity for multiplicity, _, _ in features.outputs)

    def changed(self, features: LayerFeatures, factors: Mapping[str, Tensor], inputs: Tensor, outputs: Tensor) -> Tensor:
        """Each channel plus its gamma, or times what its gamma makes."""
        gammas = torch.split(network(factors, features.scalars_in(inputs)), [group[0] for group in features.outputs], dim=-1)
        parts = []
        for part, gamma, (_, degree, parity) in zip(
            split(outputs, features.outputs, features.layout), gammas, features.outputs, strict=True
        ):
            gate = gamma[..., None]  # (..., multiplicity, 1)
            if (degree, parity) == (0, 1) and not features.on_edges:
                parts.append(part + gate)
            else:
                parts.append(part * (gate.exp() if self.config.scaling == "exponential" else 1 + gate))
        return joined(parts, features.layout)
