"""Weight decay of dense deltas: towards the base or towards zero, and what is left out of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from adapters.blocks import find_blocks
from adapters.errors import AdapterError
from adapters.method import create_method
from adapters.stack import AdapterStack


class _Normed(nn.Module):
    """A linear map with a bias, and a norm: what decays and what does not."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.mix(x))


def _trained(settings: dict[str, object], decay: float, steps: int = 5) -> dict[str, torch.Tensor]:
    """Parameters W + D after some steps of AdamW on a fixed loss."""
    torch.manual_seed(0)
    model = _Normed().double()
    inputs, targets = torch.randn(2, 7, 4, dtype=torch.float64)
    stack = AdapterStack(model, find_blocks(model, {"mix.*": "readout"}))  # a name's role must not hide what is a bias
    stack.add("a", create_method({"name": "full", **settings}))
    stack.train()
    optimizer = torch.optim.AdamW(stack.param_groups(0.02, decay))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 / (1 + step)  # a schedule: the decay must follow it
        optimizer.zero_grad()
        (stack.call(inputs) - targets[:, :3]).square().sum().backward()
        stack.before_step(optimizer.param_groups[0]["lr"], decay)
        optimizer.step()
    return {name: tensor.detach() for name, tensor in stack.weights().items()}


def _trained_plainly(decay: float, undecayed: Callable[[str], bool], steps: int = 5) -> dict[str, torch.Tensor]:
    """The same by torch alone: AdamW on the weights themselves."""
    torch.manual_seed(0)
    model = _Normed().double()
    inputs, targets = torch.randn(2, 7, 4, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    groups = [[tensor for name, tensor in parameters.items() if undecayed(name) == free] for free in (False, True)]
    optimizer = torch.optim.AdamW([{"params": one, "weight_decay": decay * (not free)} for free, one in enumerate(groups) if one], lr=0.02)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 / (1 + step)
        optimizer.zero_grad()
        (model(inputs) - targets[:, :3]).square().sum().backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in model.named_parameters()}


@pytest.mark.parametrize("no_decay", [[], ["bias", "norm"]])
def test_decay_towards_zero_is_adamw_on_the_weights_themselves(no_decay):
    decay = 2.0
    found = _trained({"decay_towards": "zero", "no_decay": no_decay}, decay)
    expected = _trained_plainly(decay, lambda name: bool(no_decay) and name != "mix.weight")
    for name, tensor in found.items():
        assert (tensor - expected[name]).abs().max() < 1e-13, name
    # the controls: towards the base, and without exceptions, ends elsewhere
    other = _trained({"decay_towards": "base", "no_decay": no_decay}, decay)["mix.weight"]
    assert (other - expected["mix.weight"]).abs().max() > 0.01
    assert (
        _trained_plainly(decay, lambda name: not no_decay and name != "mix.weight")["norm.weight"] - expected["norm.weight"]
    ).norm() > 0.01


def test_decay_towards_the_base_leaves_an_untrained_model_at_it_and_towards_zero_shrinks_it():
    def after_idle_steps(towards: str) -> tuple[torch.Tensor, torch.Tensor]:
        model = nn.Linear(3, 3, bias=False).double()
        stack = AdapterStack(model, find_blocks(model))
        stack.add("a", create_method({"name": "full", "decay_towards": towards}))
        optimizer = torch.optim.AdamW(stack.param_groups(0.1, 0.5))
        for _ in range(2):
            stack.get("a").tensors["weight/weight/D"].grad = torch.zeros(3, 3, dtype=torch.float64)
            stack.before_step(0.1, 0.5)
            optimizer.step()
        return stack.weights()["weight"].detach(), model.weight.detach()

    still, base = after_idle_steps("base")
    assert torch.equal(still, base)
    shrunk, base = after_idle_steps("zero")
    assert torch.allclose(shrunk, base * (1 - 0.1 * 0.5) ** 2, rtol=1e-14, atol=0)


def test_no_decay_of_something_that_the_model_lacks_is_refused_with_the_nearest_name(stack):
    with pytest.raises(AdapterError, match="has no 'norms'"):
        stack.add("a", create_method({"name": "full", "no_decay": ["norms"]}))
