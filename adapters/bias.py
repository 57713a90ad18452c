"""Biases and norms alone, after BitFit (E. Ben Zaken et al., ACL 2022): b + d for every bias and every scale and shift of a norm.

These vectors multiply whole channels or are added to scalars, so any d is equivariant. Networks without biases and norms (SevenNet, most of
MACE and NequIP) have nothing to train here, and the method says so.
"""

from __future__ import annotations

from adapters.blocks import WeightBlock
from adapters.dense import Full
from adapters.method import register

_ROLES = frozenset({"bias", "norm"})


@register
class Bias(Full):
    """A dense delta on biases and norms, those of the readout too."""

    name = "bias"

    def selects(self, block: WeightBlock) -> bool:
        """By the role that the layer's rule gives."""
        return block.layer_role in _ROLES and self.is_chosen(block)
