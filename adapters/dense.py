"""Dense deltas: full fine-tuning and readout-only training, as adapters like any other.

The model runs with W + D, D of W's shape and zero at the start: training D is training W, and the base stays as it was. Only weight decay
tells the two apart. At a step with rate eta and decay lambda, decoupled as in AdamW,

    decay_towards="base":  D <- D - eta lambda D          pulls the model back to the base: for fine-tuning,
    decay_towards="zero":  D <- D - eta lambda (W + D)    is W + D <- (1 - eta lambda) (W + D): for training from scratch, where the base is
                                                          random and nothing to go back to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from adapters.blocks import Coverage, WeightBlock
from adapters.errors import AdapterError, nearest_name_hint
from adapters.method import AdapterMethod, MethodConfig, register

if TYPE_CHECKING:
    from adapters.adapter import Adapter


class DenseConfig(MethodConfig):
    """Settings of dense deltas.

    Attributes:
        decay_towards: what weight decay pulls to, see the module.
        no_decay: blocks without weight decay, by what their layers call them (``bias``, ``norm``) whatever role the model gives them.
    """

    decay_towards: Literal["base", "zero"] = "base"
    no_decay: tuple[str, ...] = ()


@register
class Full(AdapterMethod):
    """A dense delta on every block: full fine-tuning."""

    name = "full"
    Config = DenseConfig
    config: DenseConfig

    @property
    def decays_by_itself(self) -> bool:
        """Towards zero: an optimizer knows D alone."""
        return self.config.decay_towards == "zero"

    def check(self, coverage: Coverage) -> None:
        """As for all methods, and that ``no_decay`` names what the model has."""
        super().check(coverage)
        known = sorted({block.layer_role for block in coverage.blocks})
        for role in self.config.no_decay:
            if role not in known:
                raise AdapterError(f"adapter {self.name}: no_decay: the model has no {role!r}; {nearest_name_hint(role, known)}")

    def initial_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """``D``, zero, of the block's shape."""
        return {"D": torch.zeros(block.compact_shape, dtype=dtype)}

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """D itself."""
        return factors["D"]

    def param_groups(self, adapter: Adapter, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Those that decay, and those that do not where there are any; what `before_step` decays has no decay of the optimizer's."""
        decaying, others = self._by_decay(adapter)
        decay = 0.0 if self.decays_by_itself else weight_decay
        groups = [(list(decaying.values()), decay), (list(others.values()), 0.0)]
        return [{"params": tensors, "lr": learning_rate, "weight_decay": decay} for tensors, decay in groups if tensors]

    @torch.no_grad()
    def before_step(self, adapter: Adapter, base: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """Towards zero, the module's second formula."""
        if not (self.decays_by_itself and weight_decay > 0):
            return
        for block, delta in self._by_decay(adapter)[0].items():
            weight = block.view(base.get_parameter(block.parameter)).reshape(delta.shape)
            delta.sub_(weight + delta, alpha=learning_rate * weight_decay)

    def _by_decay(self, adapter: Adapter) -> tuple[dict[WeightBlock, nn.Parameter], dict[WeightBlock, nn.Parameter]]:
        """Block -> D, of the blocks that decay and of those that do not."""
        all_of_them = {block: adapter.own_factors(position)["D"] for position, block in enumerate(adapter.blocks)}
        kept = {block: delta for block, delta in all_of_them.items() if block.layer_role in self.config.no_decay}
        return {block: delta for block, delta in all_of_them.items() if block not in kept}, kept


@register
class Readout(Full):
    """A dense delta on the blocks of role readout only."""

    name = "readout"

    def selects(self, block: WeightBlock) -> bool:
        """The readout's blocks."""
        return block.role == "readout" and self.is_chosen(block)
