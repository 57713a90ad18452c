"""ELoRA: low-rank deltas per equivariant path.

C. Wang et al., "ELoRA: Low-Rank Adaptation for Equivariant GNNs", ICML 2025. For every path p with a weight W_p (in, out), the model runs
with W_p + (alpha / r) A_p B_p, A_p (in, r), B_p (r, out). Mixing only the multiplicities of one path commutes with rotations, so any A and
B are equivariant. The delta is added to the raw weight, before the layer's own path normalisation, as the reference code does.

With ``magnitude`` the direction and the length of each column o of W_p, one channel of the path's output, are trained apart, after DoRA
(S.-Y. Liu et al., ICML 2024, Eq. 5): with V = W_p + (alpha / r) A_p B_p the model runs with (1 + g_o) |W_po| V_o / |V_o|. g is zero at the
start, where V = W_p, so that the delta is exactly zero there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from adapters.blocks import Coverage, WeightBlock
from adapters.errors import AdapterError, nearest_name_hint
from adapters.method import AdapterMethod, MethodConfig, check_patterns, register

_UNFROZEN_BY_THE_REFERENCE = frozenset({"radial_basis", "contraction_lower"})  # roles


class EloraConfig(MethodConfig):
    """Settings of ELoRA; the defaults are the published ones.

    Attributes:
        rank: r, the inner dimension of A B.
        ranks: another r for some blocks: role, or fnmatch pattern of ``<parameter>/<path label>`` (``"*/1o"``), which goes before a
            role, -> r.
        alpha: the delta is (alpha / r) A B; None for alpha = r, the reference code's choice.
        initialisation: of A, whose entries have the standard deviation 1 (``"reference"``, as in the reference code) or 1/sqrt(r)
            (``"scaled"``), are uniform within 1/sqrt(in) (``"kaiming"``, as PEFT draws them), or make orthonormal columns
            (``"orthogonal"``). A learning rate belongs to an initialisation: larger entries move the weights faster at the same rate.
            Each is divided by the number of coupling paths of MACE's symmetric contraction, as the reference code does there.
        magnitude: train the length of each column apart from its direction.
        dense_substitution: ``"when_smaller"`` trains a dense delta where r * (in + out) >= in * out; ``"off"`` is the published rule.
        extra_trainable: fnmatch patterns of parameter names that get a dense delta whatever their role or structure; ``"reference"`` for
            what the reference code unfreezes besides its deltas, where the model has it: the radial basis and the contraction's lower
            orders. Counted separately.
    """

    rank: int = Field(default=16, ge=1)
    ranks: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    alpha: float | None = Field(default=None, gt=0)
    initialisation: Literal["reference", "scaled", "kaiming", "orthogonal"] = "reference"
    magnitude: bool = False
    dense_substitution: Literal["off", "when_smaller"] = "off"
    extra_trainable: tuple[str, ...] | Literal["reference"] = ()


@register
class Elora(AdapterMethod):
    """Low-rank deltas per path."""

    name = "elora"
    Config = EloraConfig
    config: EloraConfig

    @property
    def needs_base(self) -> bool:
        """With ``magnitude``: the lengths of W's columns."""
        return self.config.magnitude

    def check(self, coverage: Coverage) -> None:
        """Also refuse patterns of ``extra_trainable`` and ``ranks`` that match nothing of the model."""
        super().check(coverage)
        patterns = () if self.config.extra_trainable == "reference" else self.config.extra_trainable
        check_patterns("extra_trainable", patterns, {block.parameter for block in coverage.blocks})
        matrices = [block for block in coverage.blocks if block.structure == "matrix"]
        known = {block.role for block in matrices} | {block.key for block in matrices}
        for key in self.config.ranks:
            if key not in known and not any(fnmatchcase(block.key, key) for block in matrices):
                raise AdapterError(f"adapter.ranks: {key!r} is no role and matches no path of the model; {nearest_name_hint(key, known)}")
        for block in matrices:
            if len(self._ranks_by_path(block)) > 1:
                raise AdapterError(f"adapter.ranks: {block.key} gets the ranks {sorted(self._ranks_by_path(block))}; narrow the patterns")

    def selects(self, block: WeightBlock) -> bool:
        """Matrices of the chosen roles, and what ``extra_trainable`` names."""
        return self._is_extra(block) or (block.structure == "matrix" and self.is_chosen(block))

    def kind(self, block: WeightBlock) -> str:
        """``low_rank``, ``dense_substitution`` or ``extra_trainable``."""
        if self._is_extra(block):
            return "extra_trainable"
        return "dense_substitution" if self._is_substituted(block) else "low_rank"

    def rank_of(self, block: WeightBlock) -> int:
        """The block's r."""
        by_path = self._ranks_by_path(block)
        return min(by_path) if by_path else self.config.ranks.get(block.role, self.config.rank)

    def _ranks_by_path(self, block: WeightBlock) -> set[int]:
        return {rank for pattern, rank in self.config.ranks.items() if fnmatchcase(block.key, pattern)}

    def initial_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """``A`` ([stack,] rows, r) random and ``B`` ([stack,] r, cols) zero, with ``magnitude`` ``g`` ([stack,] 1, cols) zero; or ``D``."""
        if self.kind(block) != "low_rank":
            return {"D": torch.zeros(block.compact_shape, dtype=dtype)}
        *stack, rows, cols = block.compact_shape
        rank = self.rank_of(block)
        a = self._draw((*stack, rows, rank), generator) / block.coupling_paths
        factors = {"A": a.to(dtype), "B": torch.zeros((*stack, rank, cols), dtype=dtype)}
        return {**factors, "g": torch.zeros((*stack, 1, cols), dtype=dtype)} if self.config.magnitude else factors

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """(alpha / r) A B, with ``magnitude`` the change to (1 + g) |W| V / |V|; or D."""
        if "D" in factors:
            return factors["D"]
        rank = int(factors["A"].shape[-1])
        low_rank: Tensor = ((self.config.alpha or rank) / rank * factors["A"]) @ factors["B"]  # (B, [stack,] rows, cols)
        if not self.config.magnitude:
            return low_rank
        weights = factors["W"]
        direction = weights + low_rank
        squares = direction.square().sum(-2, keepdim=True)  # (B, [stack,] 1, cols)
        base_squares = weights.square().sum(-2, keepdim=True)
        known = (squares > 0) & (base_squares > 0)  # a column of zeros has no direction: its length is that of V
        ratio: Tensor = torch.where(known, base_squares / torch.where(known, squares, 1), 1).sqrt()
        return (1 + factors["g"]) * ratio * direction - weights

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """A of unit coupling, in float64."""
        rows, rank = shape[-2:]
        if self.config.initialisation == "kaiming":
            return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) / math.sqrt(rows)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        if self.config.initialisation == "orthogonal":
            wide = rows < rank  # then the rows are orthonormal
            basis: Tensor = torch.linalg.qr(normal.transpose(-1, -2) if wide else normal)[0]
            return basis.transpose(-1, -2) if wide else basis
        return normal if self.config.initialisation == "reference" else normal / math.sqrt(rank)

    def as_product(self, factors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """((alpha / r) A, B) with the block's own r; None for a dense delta, and with ``magnitude``, which is no product."""
        if "D" in factors or self.config.magnitude:
            return None
        rank = int(factors["A"].shape[-1])
        return (self.config.alpha or rank) / rank * factors["A"], factors["B"]

    def _is_extra(self, block: WeightBlock) -> bool:
        if self.config.extra_trainable == "reference":
            return block.role in _UNFROZEN_BY_THE_REFERENCE
        return any(fnmatchcase(block.parameter, pattern) for pattern in self.config.extra_trainable)

    def _is_substituted(self, block: WeightBlock) -> bool:
        low_rank_count = self.rank_of(block) * (block.rows + block.cols)
        return self.config.dense_substitution == "when_smaller" and low_rank_count >= block.rows * block.cols
