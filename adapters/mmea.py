"""MMEA: gates on the magnitude of each channel, made of the layer's invariant inputs.

D. Jin, Y. Yuan and X. Tao, "Magnitude-Modulated Equivariant Adapter for Parameter-Efficient Fine-Tuning of Equivariant Graph Neural
Networks", AAAI 2026. With h the scalars (0e) that go into an equivariant linear layer,

    z = SiLU(W_down h + b_down),    gamma = W_up z + b_up,

one gamma for each channel that comes out. A scalar becomes h' = h' + gamma, a channel of another irrep h' = exp(gamma) h', or with
``scaling="residual"`` (1 + gamma) h'. The gammas are invariant and multiply whole irreps, so any weights are equivariant. W_up and b_up are
zero at the start: step 0 is the base, where the reference code starts with random gammas of the scalars.

Pseudoscalars (0o) are scaled as vectors are: gamma does not change sign under inversion as they do. Features of edges are scaled alone, for
a sum would not vanish at the cutoff. The paper's figures are of these gates and ELoRA deltas on tensor products together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from adapters.activation import BottleneckConfig, BottleneckMethod, network
from adapters.blocks import WeightBlock
from adapters.features import LayerFeatures, joined, split
from adapters.method import register


class MmeaConfig(BottleneckConfig):
    """Settings of MMEA.

    Attributes:
        scaling: of channels that are no scalars: ``"exponential"``, exp(gamma), or ``"residual"``, 1 + gamma.
    """

    scaling: Literal["exponential", "residual"] = "exponential"


@register
class Mmea(BottleneckMethod):
    """Invariant gates on the outputs of equivariant linear layers, in Allegro of its tensor products."""

    name = "mmea"
    Config = MmeaConfig
    config: MmeaConfig

    def selects(self, block: WeightBlock) -> bool:
        """Blocks of layers into which scalars go."""
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
