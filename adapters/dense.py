"""Dense deltas: full fine-tuning and readout-only training, as adapters like any other.

The model runs with W + D, D of W's shape and zero at the start: training D is training W, and the base stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adapters.blocks import WeightBlock
from adapters.method import AdapterMethod, register


@register
class Full(AdapterMethod):
    """A dense delta on every block: full fine-tuning."""

    name = "full"

    def initial_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """``D``, zero, of the block's shape."""
        return {"D": torch.zeros(block.compact_shape, dtype=dtype)}

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """D itself."""
        return factors["D"]


@register
class Readout(Full):
    """A dense delta on the blocks of role readout only."""

    name = "readout"

    def selects(self, block: WeightBlock) -> bool:
        """The readout's blocks."""
        return block.role == "readout" and self.is_chosen(block)
