"""The MACE codebase's own LoRA (``mace_run_train --lora``), as mace 0.3.16 computes it: results compare, and adapters can be moved.

Beside an ``o3.Linear`` y = Linear(x) runs y + (alpha / r) Linear_B(Linear_A(x)), where Linear_A maps into r copies of each irrep that goes
in and comes out, and Linear_B maps back. e3nn divides Linear_B by the square root of what goes into it, r, and Linear_A as it divides the
base, so that the weights W_p (in, out) of a path become

    W_p + (alpha / r^(3/2)) A_p B_p,        A_p (in, r) ~ N(0, 1),  B_p (r, out) = 0 at the start.

Layers without such a norm, radial networks and ``torch.nn.Linear``, run with W + (alpha / r) A B, A ~ N(0, 0.001^2). The intended 0.001
never applies to A_p, because e3nn's weights are flat. Tensor products and contractions are left out. Where an irrep comes twice, not side
by side, upstream shares one bottleneck between the paths, and here each has its own; no published model has such a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from adapters.blocks import WeightBlock
from adapters.method import AdapterMethod, MethodConfig, register
from adapters.rules import E3NN_LINEAR
from adapters.rules_so2_so3 import FEED_FORWARDS, RADIAL_FUNCTIONS, SO3_LINEARS

_NORMALISED = frozenset({E3NN_LINEAR})
_PLAIN = frozenset(
    {
        "torch.nn.modules.linear.Linear",
        "e3nn.nn._fc._Layer",
        # what other families have instead of these
        "nequip.nn.mlp.ScalarLinearLayer",
        *SO3_LINEARS,
        *RADIAL_FUNCTIONS,
        *FEED_FORWARDS,
    }
)
_PLAIN_DEVIATION = 1e-3


class LoraMaceConfig(MethodConfig):
    """Settings of MACE's LoRA; the defaults are upstream's.

    Attributes:
        rank: r.
        alpha: the numerator of the scale.
    """

    rank: int = Field(default=4, ge=1)
    alpha: float = Field(default=1.0, gt=0)


@register
class LoraMace(AdapterMethod):
    """Low-rank deltas on linear layers, at upstream's scale."""

    name = "lora-mace"
    Config = LoraMaceConfig
    config: LoraMaceConfig

    def selects(self, block: WeightBlock) -> bool:
        """Matrices of the layers that upstream wraps, and of their like in other families."""
        return block.structure == "matrix" and block.layer_type in _NORMALISED | _PLAIN and self.is_chosen(block)

    def kind(self, block: WeightBlock) -> str:
        """``equivariant`` or ``dense``, upstream's words for the two kinds of layers."""
        return "equivariant" if block.layer_type in _NORMALISED else "dense"

    def initial_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """``A`` ([stack,] rows, r) and ``B`` ([stack,] r, cols); of a layer without e3nn's norm ``A_plain`` and ``B_plain``."""
        *stack, rows, cols = block.compact_shape
        a = torch.randn((*stack, rows, self.config.rank), generator=generator, dtype=torch.float64)
        b = torch.zeros((*stack, self.config.rank, cols), dtype=dtype)
        if self.kind(block) == "equivariant":
            return {"A": a.to(dtype), "B": b}
        return {"A_plain": (a * _PLAIN_DEVIATION).to(dtype), "B_plain": b}

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """(alpha / r^(3/2)) A B, or (alpha / r) A B."""
        scale = self.config.alpha / self.config.rank
        if "A_plain" in factors:
            return (scale * factors["A_plain"]) @ factors["B_plain"]  # (B, [stack,] rows, cols)
        return (scale / math.sqrt(self.config.rank) * factors["A"]) @ factors["B"]
