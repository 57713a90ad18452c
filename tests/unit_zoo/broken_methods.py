"""Methods that each break one promise, for the conformance kit to find; and a sound one."""

from __future__ import annotations

from typing import ClassVar

import torch

from adapters.bottleneck import Bottleneck
from adapters.method import AdapterMethod, MethodConfig


class Sound(AdapterMethod):
    """delta = D, dense, zero at the start."""

    name = "sound"

    def initial_factors(self, block, generator, dtype):
        return {"D": torch.zeros(block.compact_shape, dtype=dtype)}

    def delta(self, factors):
        return factors["D"]


class StartsElsewhere(Sound):
    """A start of a millionth, which it does not declare."""

    name = "starts-elsewhere"

    def initial_factors(self, block, generator, dtype):
        return {"D": torch.full(block.compact_shape, 1e-6, dtype=dtype)}


class StartsAtTheBaseAfterAll(Sound):
    """It declares a start of its own and has none."""

    name = "starts-at-the-base-after-all"
    starts_at_base = False


class StartsElsewhereInTraining(Sound):
    """Where gradients are taken it adds a millionth."""

    name = "starts-elsewhere-in-training"

    def delta(self, factors):
        return factors["D"] + 1e-6 * torch.is_grad_enabled()


class NotEquivariant(Bottleneck):
    """Components of vectors are mixed, and nothing is said of it."""

    name = "not-equivariant"
    equivariant: ClassVar[bool] = True


class EquivariantAfterAll(Sound):
    """It declares to break the symmetry, and does not."""

    name = "equivariant-after-all"
    equivariant: ClassVar[bool] = False


class MovesTheBase(Sound):
    """Its step hook writes into the base."""

    name = "moves-the-base"

    def before_step(self, adapter, base, learning_rate, weight_decay):
        next(base.parameters()).mul_(1 + 1e-12)


class ForgetsANumber(Sound):
    """A gain of each object of the method, which no file holds."""

    name = "forgets-a-number"
    made = 0

    def __init__(self, config):
        super().__init__(config)
        ForgetsANumber.made += 1
        self.gain = 1 + 0.01 * ForgetsANumber.made

    def delta(self, factors):
        return self.gain * factors["D"]


class MergesOtherwise(Sound):
    """Each time that it is asked for, the delta is larger by a millionth."""

    name = "merges-otherwise"

    def __init__(self, config):
        super().__init__(config)
        self.calls = 0

    def delta(self, factors):
        self.calls += 1
        return factors["D"] * (1 + 1e-6 * self.calls)


class DeadTensor(Sound):
    """A tensor that no delta depends on."""

    name = "dead-tensor"

    def initial_factors(self, block, generator, dtype):
        return {**super().initial_factors(block, generator, dtype), "unused": torch.ones(1, dtype=dtype)}


class NotOptimised(Sound):
    """Its groups leave a tensor out."""

    name = "not-optimised"

    def param_groups(self, adapter, learning_rate, weight_decay):
        return [{"params": list(adapter.tensors.values())[1:], "lr": learning_rate, "weight_decay": weight_decay}]


class DeadStart(Sound):
    """delta = a b with both zero at the start, from where no gradient leads away."""

    name = "dead-start"

    def initial_factors(self, block, generator, dtype):
        return {name: torch.zeros(block.compact_shape, dtype=dtype) for name in "ab"}

    def delta(self, factors):
        return factors["a"] * factors["b"]


class WrongGradient(Sound):
    """Twice the gradient, as a scale that is applied in the wrong pass."""

    name = "wrong-gradient"

    def delta(self, factors):
        return 2 * factors["D"] - factors["D"].detach()


class DerivativeAfterAll(Sound):
    """It declares a surrogate gradient, and has the derivative."""

    name = "derivative-after-all"
    surrogate_gradient = True


class ForgetsItsSettings(Sound):
    """Its settings leave out which roles it is for."""

    name = "forgets-its-settings"

    @property
    def config_dict(self):
        return {key: value for key, value in super().config_dict.items() if key != "roles"}


class AnotherInFloat32(Sound):
    """In float32 it does nothing."""

    name = "another-in-float32"

    def delta(self, factors):
        return factors["D"] * (factors["D"].dtype == torch.float64)


class WrongProduct(Sound):
    """delta = u v, of which it says that it is 2 u v."""

    name = "wrong-product"
    Config = MethodConfig

    def selects(self, block):
        return block.structure == "matrix" and self.is_chosen(block)

    def initial_factors(self, block, generator, dtype):
        *stack, rows, cols = block.compact_shape
        return {"u": torch.ones((*stack, rows, 2), dtype=dtype), "v": torch.zeros((*stack, 2, cols), dtype=dtype)}

    def delta(self, factors):
        return factors["u"] @ factors["v"]

    def as_product(self, factors):
        return 2 * factors["u"], factors["v"]


BROKEN_METHODS: dict[type[AdapterMethod], tuple[str, str]] = {
    StartsElsewhere: ("start", "starts at the base"),
    StartsAtTheBaseAfterAll: ("start", "start_note says how it starts|does not start at the base"),
    StartsElsewhereInTraining: ("start in training", "starts at the base while training"),
    NotEquivariant: ("symmetry", "turn with the structure"),
    EquivariantAfterAll: ("symmetry", "by orders of magnitude"),
    MovesTheBase: ("training step", "bit for bit"),
    ForgetsANumber: ("file", "from its file it predicts the same"),
    MergesOtherwise: ("merged", "merged equals attached"),
    DeadTensor: ("training step", "a gradient reaches each tensor"),
    NotOptimised: ("training step", "each tensor is in one optimizer group"),
    DeadStart: ("learning", "lowers the loss"),
    WrongGradient: ("gradients", "gradients are derivatives"),
    DerivativeAfterAll: ("gradients", "no derivative"),
    ForgetsItsSettings: ("file", "7 tensors missing"),
    AnotherInFloat32: ("precisions", "agrees to its rounding"),
    WrongProduct: ("combination", "as_product is the delta"),
}
"""Method -> the claim that finds it, and words of what is said."""
