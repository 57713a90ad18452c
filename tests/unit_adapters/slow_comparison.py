"""A layer with an adapter on it beside its slow reference: values, and the gradients of the adapter's tensors and of the layer's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adapters.blocks import find_blocks
from adapters.method import create_method
from adapters.stack import AdapterStack
from tests.unit_adapters.slow_references import Changes

Spec = Mapping[str, Any]
LOW_RANK: Spec = {"name": "elora", "rank": 2, "alpha": 3.0}
SPARSE: Spec = {"name": "sparse", "setting": "every", "threshold_start": 0.4}
FULL: Spec = {"name": "full"}
TOLERANCE = 1e-12


def difference(found: Tensor, wanted: Tensor, what: str) -> list[str]:
    """What is wrong in one line; nothing where the two are equal to `TOLERANCE`."""
    if found.shape != wanted.shape:
        return [f"{what}: shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}"]
    error, scale = ((found - wanted).abs().max().item(), wanted.abs().max().item())
    return [] if error <= TOLERANCE * max(scale, 1e-3) else [f"{what}: differs by {error:.3g} of {scale:.3g}"]


def differences(
    layer: nn.Module,
    reference: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    *,
    others: Sequence[Any] = (),
    specs: Sequence[Spec] = (LOW_RANK, SPARSE, FULL),
    call: Callable[[AdapterStack, Sequence[Tensor]], Tensor] | None = None,
) -> list[str]:
    """What distinguishes the layer with each adapter on it from ``reference(base, changes, *inputs)``: values, gradients, or no effect.

    ``others`` go to the layer behind the inputs; ``call`` takes the place of the layer's own call.
    """
    randomise_base(layer)
    base = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    coverage = find_blocks(layer)
    found: list[str] = []
    for seed, spec in enumerate(specs):
        stack = AdapterStack(layer, coverage).train()
        adapter = stack.add("a", create_method(spec))
        stack.randomise("a", seed, relative=0.7)
        run = call or (lambda stack, tensors: stack.call(*tensors, *others))
        fast_inputs = [tensor.clone().requires_grad_() for tensor in inputs]
        fast = run(stack, fast_inputs)
        slow_inputs = [tensor.clone().requires_grad_() for tensor in inputs]
        tensors = {key: tensor.detach().clone().requires_grad_() for key, tensor in adapter.tensors.items()}
        wanted = reference(base, Changes(spec, tensors), *slow_inputs)
        what = f"{spec['name']} on {layer}"
        found += difference(fast, wanted, what)
        with stack.exclusive():
            stack.deactivate()
            if (run(stack, list(inputs)) - wanted).abs().max().item() <= 1e-3 * wanted.abs().max().item():
                found.append(f"{what}: changes nothing")
        direction = torch.randn(wanted.shape)
        fast_of = [*adapter.tensors.values(), *fast_inputs]
        slow_of = [*tensors.values(), *slow_inputs]
        fast_gradients = torch.autograd.grad(fast, fast_of, direction, allow_unused=True)
        slow_gradients = torch.autograd.grad(wanted, slow_of, direction, allow_unused=True)
        names = [*adapter.tensors, *(f"input {number}" for number in range(len(inputs)))]
        moved = []
        for name, one, other, of in zip(names, fast_gradients, slow_gradients, slow_of, strict=True):
            one, other = (torch.zeros_like(of) if gradient is None else gradient for gradient in (one, other))
            found += difference(one, other, f"{what}: gradient of {name}")
            moved.append(bool(other.any()))
        if not any(moved[: len(tensors)]):
            found.append(f"{what}: no tensor of the adapter has a gradient")
    return found


@torch.no_grad()
def randomise_base(layer: nn.Module) -> None:
    """Biases and norms too, which start at zero and one."""
    for parameter in layer.parameters():
        if parameter.requires_grad:
            parameter.normal_()
