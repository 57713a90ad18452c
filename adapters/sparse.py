"""Sparse deltas with a learned threshold per layer.

"Sparsity-promoting fine-tuning for equivariant materials foundation models", Eqs. 2-4, after STR (A. Kusupati et al., ICML 2020). The model
runs with W + S(D, delta),

    S(D, delta) = sign(D) relu(|D| - delta),    delta = sigmoid(tau),    one tau a layer,

delta = 0.001 and D ~ N(0, 0.01^2) at the start; tau has a learning rate and a decoupled weight decay of its own (Eq. 4), and the decay,
which pulls tau to 0 and so delta to 0.5, is what drives the sparsity. Soft thresholding acts element by element on path weights, so every
delta is equivariant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from adapters.blocks import WeightBlock
from adapters.method import AdapterMethod, MethodConfig, register
from adapters.rules import ALLEGRO_TENSOR_PRODUCT, E3NN_LINEAR, FULLY_CONNECTED_TENSOR_PRODUCT, MACE_CONTRACTION, MACE_LOWER_ORDERS
from adapters.rules_so2_so3 import ORDER_CONVOLUTIONS, SO2_CONVOLUTIONS, SO3_LINEARS

if TYPE_CHECKING:
    from adapters.adapter import Adapter

_LINEARS = {E3NN_LINEAR, *SO3_LINEARS}
# in an edge's frame a tensor product with the edge's harmonics is an SO(2) convolution (Passaro and Zitnick, ICML 2023)
_TENSOR_PRODUCTS = {FULLY_CONNECTED_TENSOR_PRODUCT, ALLEGRO_TENSOR_PRODUCT, *SO2_CONVOLUTIONS, *ORDER_CONVOLUTIONS}
_LAYER_TYPES = {
    "linear": _LINEARS,
    "fctp": _TENSOR_PRODUCTS,
    "all": _LINEARS | _TENSOR_PRODUCTS,
    "contraction": {MACE_CONTRACTION, MACE_LOWER_ORDERS},
}


class SparseConfig(MethodConfig):
    """Settings of the sparse method.

    Attributes:
        form: ``"str"`` keeps the raw D and thresholds on the fly, as STR does; ``"printed"`` follows the paper's Eq. 2 to the letter: S(D)
            replaces D at the start and after each optimizer step, and so before each forward; survivors shrink by delta at every step, and
            the gradient of pruned entries is masked (Eq. 3). The default is ``"str"``: its deltas do not depend on how many forwards were
            run, and a pruned entry returns when the threshold falls.
        start: ``"random"``, the paper's D ~ N(0, sigma^2), differs from the base at step 0; ``"base"`` starts at D = 0, inside the
            threshold, where the true gradient is zero, so pruned entries get a straight-through gradient. Only for the form ``"str"``.
        setting: which layers, in the paper's words: ``"linear"`` (o3.Linear), ``"fctp"`` (fully connected tensor products; in
            Allegro, which has neither, its weighted paths; in EquiformerV2 SO(3) linears are the former, SO(2) convolutions the latter),
            ``"all"`` (both). Beyond the paper, ``"contraction"`` is MACE's symmetric contractions of all orders, and ``"every"`` is every
            block of the model, radial networks too.
        sigma: standard deviation of the start ``"random"``.
        threshold_start: delta at the start.
        tau_learning_rate: eta_tau, which the paper never states.
        tau_weight_decay: lambda_tau; the paper's low-sparsity value is 0.01, its high-sparsity value 0.3, both bound to its number of
            steps.
        threshold_end: where the decay alone takes delta within ``steps`` steps at a constant rate; lambda_tau is then found from it
            (`decay_for`), so that one value means the same pull in runs of any length. None for ``tau_weight_decay`` as it stands.
        steps: of the run, with ``threshold_end``.
    """

    form: Literal["str", "printed"] = "str"
    start: Literal["random", "base"] = "random"
    setting: Literal["linear", "fctp", "all", "contraction", "every"] = "all"
    sigma: float = Field(default=0.01, gt=0)
    threshold_start: float = Field(default=0.001, gt=0, lt=1)
    tau_learning_rate: float = Field(default=1e-2, ge=0)
    tau_weight_decay: float = Field(default=0.01, ge=0)
    threshold_end: float | None = Field(default=None, gt=0, lt=0.5)
    steps: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _printed_needs_random_start(self) -> SparseConfig:
        if self.form == "printed" and self.start == "base":
            raise ValueError("form='printed' masks the gradient of zeros, so start='base' would never move; set form=str or start=random")
        return self

    @model_validator(mode="after")
    def _end_is_reached_by_decay(self) -> SparseConfig:
        if (self.threshold_end is None) != (self.steps is None):
            raise ValueError("threshold_end and steps belong together: the decay is found from both; give both or neither")
        if self.threshold_end is not None and not (self.threshold_end > self.threshold_start and self.tau_learning_rate > 0):
            raise ValueError(
                "a decay raises the threshold, at a rate above 0; choose threshold_end > threshold_start, tau_learning_rate > 0"
            )
        return self

    @property
    def decay(self) -> float:
        """lambda_tau: as given, or found from ``threshold_end`` and ``steps``."""
        if self.threshold_end is None or self.steps is None:
            return self.tau_weight_decay
        return decay_for(self.threshold_start, self.threshold_end, self.steps, self.tau_learning_rate)


@register
class Sparse(AdapterMethod):
    """Soft-thresholded dense deltas with one learned threshold a layer."""

    name = "sparse"
    Config = SparseConfig
    config: SparseConfig
    requires_decoupled_weight_decay = True

    @property
    def starts_at_base(self) -> bool:
        """Only with ``start="base"``."""
        return self.config.start == "base"

    @property
    def start_note(self) -> str:
        """How D starts, and with which gradient."""
        if self.starts_at_base:
            return "starts at the base: D = 0 inside the threshold, pruned entries get a straight-through gradient"
        return f"does not start at the base: D ~ N(0, {self.config.sigma}^2), threshold {self.config.threshold_start}"

    def selects(self, block: WeightBlock) -> bool:
        """Blocks of the chosen roles in the layers of ``setting``."""
        chosen = self.config.setting == "every" or block.layer_type in _LAYER_TYPES[self.config.setting]
        return chosen and self.is_chosen(block)

    def initial_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """``D`` of the block's shape; thresholded in the printed form."""
        if self.starts_at_base:
            return {"D": torch.zeros(block.compact_shape, dtype=dtype)}
        raw = torch.randn(block.compact_shape, generator=generator, dtype=torch.float64) * self.config.sigma
        if self.config.form == "printed":
            raw = soft_threshold(raw, torch.tensor(self.config.threshold_start, dtype=torch.float64))
        return {"D": raw.to(dtype)}

    @property
    def why_not_averaged(self) -> str | None:
        """The printed form: an average of thresholded D has almost no zeros, and thresholding it again shrinks it twice."""
        return "form='printed' has its zeros in D itself, which an average fills" if self.config.form == "printed" else None

    def layer_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """``tau``, the logit of the layer's threshold."""
        return {"tau": torch.tensor(_logit(self.config.threshold_start), dtype=dtype)}

    @property
    def surrogate_gradient(self) -> bool:
        """The printed form's gradient of the threshold (Eqs. 2, 3) and the straight-through one of ``start="base"``."""
        return self.config.form == "printed" or self.starts_at_base

    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """S(D, sigmoid(tau)), (B, ...); in the printed form D, which is thresholded already, with the gradient of S."""
        raw = factors["D"]
        threshold = torch.sigmoid(factors["tau"]).reshape(-1, *[1] * (raw.ndim - 1))  # (B, 1, ...)
        if self.config.form == "printed":
            alive = (raw != 0).to(raw.dtype)
            # value D, gradient of D masked (Eq. 3), gradient of tau that of Eq. 2: -sign(D) where alive
            return raw * alive - torch.sign(raw.detach()) * (threshold - threshold.detach())
        shrunk = soft_threshold(raw, threshold)
        if self.config.start == "random":
            return shrunk
        pruned = (raw.detach().abs() <= threshold.detach()).to(raw.dtype)
        return shrunk + pruned * (raw - raw.detach())  # adds exactly 0, and a gradient of 1 to pruned entries

    def param_groups(self, adapter: Adapter, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """D with the run's rate and decay, tau with its own."""
        taus = [tensor for key, tensor in adapter.tensors.items() if key.endswith("/*/tau")]
        entries = [tensor for key, tensor in adapter.tensors.items() if not key.endswith("/*/tau")]
        return [
            {"params": entries, "lr": learning_rate, "weight_decay": weight_decay},
            {"params": taus, "lr": self.config.tau_learning_rate, "weight_decay": self.config.decay},
        ]

    @torch.no_grad()
    def after_step(self, adapter: Adapter) -> None:
        """In the printed form, Eq. 2: D <- S(D, delta), in place."""
        if self.config.form == "str":
            return
        for position in range(len(adapter.blocks)):
            raw = adapter.own_factors(position)["D"]
            raw.copy_(soft_threshold(raw, torch.sigmoid(adapter.layer_factors(position)["tau"])))

    @torch.no_grad()
    def report(self, adapter: Adapter) -> dict[str, float]:
        """Sparsity in the paper's two senses, and the range of the thresholds.

        ``sparsity_layerwise`` is the share of zeros within the adapted weights, ``sparsity_total`` the share of the base's trainable
        weights that are unchanged; ``threshold_min`` and ``threshold_max`` are over layers.
        """
        changed = sum(int(torch.count_nonzero(delta)) for delta in adapter.block_deltas())
        adapted = sum(block.numel for block in adapter.blocks)
        thresholds = [float(torch.sigmoid(tensor)) for key, tensor in adapter.tensors.items() if key.endswith("/*/tau")]
        return {
            "sparsity_layerwise": 1 - changed / adapted,
            "sparsity_total": 1 - changed / adapter.coverage.trainable_count,
            "threshold_min": min(thresholds),
            "threshold_max": max(thresholds),
        }


def decay_for(threshold_start: float, threshold_end: float, steps: int, learning_rate: float) -> float:
    """The lambda_tau whose decay alone, tau <- (1 - eta_tau lambda_tau) tau (Eq. 4), takes delta from start to end in ``steps`` steps."""
    return (1 - math.pow(_logit(threshold_end) / _logit(threshold_start), 1 / steps)) / learning_rate


def threshold_after(threshold_start: float, decay: float, steps: int, learning_rate: float) -> float:
    """The delta after ``steps`` steps of decay alone: the inverse of `decay_for`."""
    return 1 / (1 + math.exp(-_logit(threshold_start) * (1 - learning_rate * decay) ** steps))


def _logit(value: float) -> float:
    return math.log(value / (1 - value))


def soft_threshold(values: Tensor, threshold: Tensor) -> Tensor:
    """S(D, delta) = sign(D) relu(|D| - delta), Eq. 2; ``threshold`` broadcasts against ``values``."""
    return torch.sign(values) * torch.relu(values.abs() - threshold)
