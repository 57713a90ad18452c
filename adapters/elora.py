"""ELoRA: low-rank deltas per equivariant path.

C. Wang et al., "ELoRA: Low-Rank Adaptation for Equivariant GNNs", ICML 2025. For every path p with a weight W_p (in, out), the model runs
with W_p + (alpha / r) A_p B_p, A_p (in, r), B_p (r, out). Mixing only the multiplicities of one path commutes with rotations, so any A and
B are equivariant. The delta is added to the raw weight, before the layer's own path normalisation, as the reference code does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from adapters.blocks import Coverage, WeightBlock
from adapters.errors import AdapterError, nearest_name_hint
from adapters.method import AdapterMethod, MethodConfig, register

_UNFROZEN_BY_THE_REFERENCE = frozenset({"radial_basis", "contraction_lower"})  # roles


class EloraConfig(MethodConfig):
    """Settings of ELoRA; the defaults are the published ones.

    Attributes:
        rank: r, the inner dimension of A B.
        alpha: the delta is (alpha / rank) A B; None for alpha = rank, the reference code's choice.
        initialisation: ``"reference"`` draws A with standard deviation 1 (the reference code), ``"scaled"`` with 1/sqrt(rank). A learning
            rate belongs to an initialisation: the first moves the weights sqrt(rank) times faster at the same rate. Both are divided by the
            number of coupling paths of MACE's symmetric contraction, as the reference code does there.
        dense_substitution: ``"when_smaller"`` trains a dense delta where rank * (in + out) >= in * out; ``"off"`` is the published rule.
        extra_trainable: fnmatch patterns of parameter names that get a dense delta whatever their role or structure; ``"reference"`` for
            what the reference code unfreezes besides its deltas, where the model has it: the radial basis and the contraction's lower
            orders. Counted separately.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    initialisation: Literal["reference", "scaled"] = "reference"
    dense_substitution: Literal["off", "when_smaller"] = "off"
    extra_trainable: tuple[str, ...] | Literal["reference"] = ()


@register
class Elora(AdapterMethod):
    """Low-rank deltas per path; B = 0 at the start, so the untrained adapter is the base bit for bit."""

    name = "elora"
    Config = EloraConfig
    config: EloraConfig

    def check(self, coverage: Coverage) -> None:
        """Also refuse patterns of ``extra_trainable`` that match no adaptable parameter."""
        super().check(coverage)
        names = {block.parameter for block in coverage.blocks}
        patterns = () if self.config.extra_trainable == "reference" else self.config.extra_trainable
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise AdapterError(
                    f"adapter.extra_trainable: {pattern!r} matches no adaptable parameter of the model; {nearest_name_hint(pattern, names)}"
                )

    def selects(self, block: WeightBlock) -> bool:
        """Matrices of the chosen roles, and what ``extra_trainable`` names."""
        return self._is_extra(block) or (block.structure == "matrix" and self.is_chosen(block))

    def kind(self, block: WeightBlock) -> str:
        """``low_rank``, ``dense_substitution`` or ``extra_trainable``."""
        if self._is_extra(block):
            return "extra_trainable"
        return "dense_substitution" if self._is_substituted(block) else "low_rank"

    def initial_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """``A`` ([stack,] rows, r) normal and ``B`` ([stack,] r, cols) zero; or a zero dense ``D``."""
        if self.kind(block) != "low_rank":
            return {"D": torch.zeros(block.compact_shape, dtype=dtype)}
        *stack, rows, cols = block.compact_shape
        deviation = (1.0 if self.config.initialisation == "reference" else 1 / math.sqrt(self.config.rank)) / block.coupling_paths
        a = torch.randn((*stack, rows, self.config.rank), generator=generator, dtype=torch.float64) * deviation
        return {"A": a.to(dtype), "B": torch.zeros((*stack, self.config.rank, cols), dtype=dtype)}

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """(alpha / r) A B, or D."""
        if "D" in factors:
            return factors["D"]
        scale = (self.config.alpha or self.config.rank) / self.config.rank
        return (scale * factors["A"]) @ factors["B"]  # (B, [stack,] rows, cols)

    def as_product(self, factors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """((alpha / r) A, B); None for a dense delta."""
        if "D" in factors:
            return None
        return (self.config.alpha or self.config.rank) / self.config.rank * factors["A"], factors["B"]

    def _is_extra(self, block: WeightBlock) -> bool:
        if self.config.extra_trainable == "reference":
            return block.role in _UNFROZEN_BY_THE_REFERENCE
        return any(fnmatchcase(block.parameter, pattern) for pattern in self.config.extra_trainable)

    def _is_substituted(self, block: WeightBlock) -> bool:
        low_rank_count = self.config.rank * (block.rows + block.cols)
        return self.config.dense_substitution == "when_smaller" and low_rank_count >= block.rows * block.cols
