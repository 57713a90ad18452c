"""Layer freezing: a dense delta on the weights behind the first layers of the network, and slower rates as the soft form.

The model runs with W + D where a block trains, D zero at the start; a frozen block has no D. ``mace_run_train`` has both forms,
``--freeze`` and ``--lr_params_factors``; rates that fall by a factor a layer are those of J. Howard and S. Ruder, ACL 2018, section 3.2.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

from pydantic import Field, field_validator, model_validator

from adapters.blocks import Coverage, WeightBlock
from adapters.dense import DenseConfig, Full
from adapters.errors import AdapterError
from adapters.method import check_patterns, register


class FreezeConfig(DenseConfig):
    """Settings of layer freezing.

    Attributes:
        up_to: blocks of layers 0 to ``up_to`` stay as they are: 0 what comes before the first interaction layer (embeddings), 1 to L the
            interaction layers, L + 1 the readout.
        frozen: fnmatch patterns of parameter names that stay as they are, too.
        layer_decay: a block of layer j trains at the run's rate times ``layer_decay`` to the power (L + 1 - j).
        rate_factors: fnmatch pattern of parameter names -> factor on the rate; those of all patterns that match are multiplied.
    """

    up_to: int = Field(default=0, ge=0)
    frozen: tuple[str, ...] = ()
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    rate_factors: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _a_decay_towards_zero_has_one_rate(self) -> FreezeConfig:
        if self.decay_towards == "zero" and (self.rate_factors or self.layer_decay != 1):
            raise ValueError("decay_towards=zero decays all weights at the run's rate; leave it out, or layer_decay and rate_factors")
        return self

    @field_validator("rate_factors")
    @classmethod
    def _positive(cls, factors: dict[str, float]) -> dict[str, float]:
        for pattern, factor in factors.items():
            if not factor > 0:
                raise ValueError(f"a factor of {factor} on {pattern!r} trains nothing; name it in adapter.frozen instead")
        return factors


@register
class Freeze(Full):
    """A dense delta on every block but those of the first layers."""

    name = "freeze"
    Config = FreezeConfig
    config: FreezeConfig

    def check(self, coverage: Coverage) -> None:
        """Also refuse a layer that the model does not have, and patterns that match nothing."""
        super().check(coverage)
        last = coverage.last_layer
        if self.config.up_to >= last:
            raise AdapterError(
                f"adapter.up_to: {self.config.up_to} freezes all of the model's layers, which are 0 (embedding), 1 to {last - 1} "
                f"(interaction) and {last} (readout); choose at most {last - 1}"
            )
        names = {block.parameter for block in coverage.blocks}
        check_patterns("frozen", self.config.frozen, names)
        check_patterns("rate_factors", self.config.rate_factors, names)

    def selects(self, block: WeightBlock) -> bool:
        """The blocks behind the frozen ones."""
        frozen = block.layer <= self.config.up_to or any(fnmatchcase(block.parameter, pattern) for pattern in self.config.frozen)
        return not frozen and self.is_chosen(block)

    def rate_factor(self, block: WeightBlock, coverage: Coverage) -> float:
        """Smaller the further from the readout, times what ``rate_factors`` says of the parameter."""
        named = [factor for pattern, factor in self.config.rate_factors.items() if fnmatchcase(block.parameter, pattern)]
        return math.prod([self.config.layer_decay ** (coverage.last_layer - block.layer), *sorted(named)])
