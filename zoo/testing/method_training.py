"""What every adapter method promises of training: what moves, what learns, and that gradients are those of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zoo.data.frame import Frame
from zoo.potential import Potential
from zoo.testing.claims import Figure, hold
from zoo.testing.measures import assert_same_state, is_idle, state_of, training_loss
from zoo.testing.trial import NAME, RELATIVE, SEED, Spec, attached, frames_or_probes

DERIVATIVE_TOLERANCE = 1e-5
"""Relative, of a directional derivative against a central difference."""


def check_training_step(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """One step moves each tensor that the adapter declares, and nothing of the base; the note counts the tensors.

    Tensors of blocks that the backbone declares idle get no gradient, and no others.
    """
    frames = frames_or_probes(potential, frames)
    before = state_of(potential.backbone)
    with attached(potential, spec) as adapter:
        stack, tensors = potential.adapters, adapter.tensors
        starts = {key: tensor.detach().clone() for key, tensor in tensors.items()}
        declared = {id(tensor) for tensor in tensors.values()}
        training = {id(parameter) for parameter in potential.parameters() if parameter.requires_grad}
        hold(training == declared, "only declared tensors train", f"{len(training)} tensors", f"the {len(declared)} of the adapter")
        groups = stack.param_groups(1e-3, 0.0)
        optimised = sorted(id(parameter) for group in groups for parameter in group["params"])
        wanted = f"the {len(declared)} tensors, each once"
        hold(optimised == sorted(declared), "each tensor is in one optimizer group", f"{len(optimised)} entries", wanted)
        optimizer = torch.optim.AdamW(groups)
        stack.before_forward()
        training_loss(potential, frames).backward()  # type: ignore[no-untyped-call]
        dead = sorted(key for key, tensor in tensors.items() if tensor.grad is None or not tensor.grad.abs().max() > 0)
        idle = sorted(key for key in tensors if is_idle(potential.backbone, key.rpartition("/")[0]))
        hold(dead == idle, "a gradient reaches each tensor that is not idle", f"none at {_few(dead)}", f"none at {_few(idle)}")
        stack.before_step(1e-3, 0.0)
        optimizer.step()
        stack.after_step()
        still = [key for key, tensor in tensors.items() if torch.equal(tensor, starts[key]) and key not in idle]
        hold(not still, "each declared tensor moves", f"{_few(still)} at rest", "none at rest")
        reached = [name for name, parameter in potential.backbone.named_parameters() if parameter.grad is not None]
        hold(not reached, "no gradient is kept at the base", _few(reached), "none")
        assert_same_state(state_of(potential.backbone), before)
        return Figure(None, f"{len(tensors) - len(idle)} of {len(tensors)}")


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])})" if names else "none"


def check_learning(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """Ten steps from the start lower the loss (a start from which nothing can be learnt is a dead adapter); the figure is their ratio."""
    frames = frames_or_probes(potential, frames)
    with attached(potential, spec, None):
        stack = potential.adapters
        optimizer = torch.optim.AdamW(stack.param_groups(2e-3, 0.0))
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            stack.before_forward()
            loss = training_loss(potential, frames)
            loss.backward()  # type: ignore[no-untyped-call]
            stack.before_step(2e-3, 0.0)
            optimizer.step()
            stack.after_step()
            losses.append(loss.item())
        hold(losses[-1] < losses[0], "training from the start lowers the loss", f"{losses[0]:.6g} -> {losses[-1]:.6g}", "a lower one")
        return Figure(losses[-1] / losses[0])


def check_gradients(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """Its gradients are derivatives of the loss, in each way to forces, also through a double backward pass; or it says otherwise."""
    frames = frames_or_probes(potential, frames)
    own_way, largest = potential.forces, 0.0
    try:
        for forces in potential.backbone.force_modes:
            potential.forces = forces
            with attached(potential, spec, None) as adapter:
                declared = adapter.method.surrogate_gradient
                # small where a gradient is a surrogate: many numbers then lie within their threshold
                potential.adapters.randomise(NAME, SEED, relative=0.01 if declared else RELATIVE)
                found, expected = _directional_derivatives(potential, adapter.tensors, frames)
            residual = abs(found - expected) / abs(expected) if expected else float("inf")
            if declared:
                hold(residual > DERIVATIVE_TOLERANCE, "the gradient is no derivative", f"{residual:.1e}", "surrogate_gradient = False")
            else:
                hold(residual < DERIVATIVE_TOLERANCE, f"gradients are derivatives (forces={forces!r})", f"{residual:.1e}", "below 1e-5")
            largest = max(largest, residual)
    finally:
        potential.forces = own_way
    return Figure(largest, "surrogate" if declared else "")


def _directional_derivatives(potential: Potential, tensors: Mapping[str, Tensor], frames: Sequence[Frame]) -> tuple[float, float]:
    """Of the training loss along a random change of an adapter: by a difference, and by the gradient."""
    potential.zero_grad()
    training_loss(potential, frames).backward()  # type: ignore[no-untyped-call]
    generator = torch.Generator().manual_seed(3)
    direction = {
        key: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * tensor.detach().abs().mean()
        for key, tensor in tensors.items()
    }
    expected = sum(float((tensor.grad * direction[key]).sum()) for key, tensor in tensors.items() if tensor.grad is not None)
    step, losses = 1e-6, []
    for sign in (1, -2):  # to +step, then to -step
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor += sign * step * direction[key]
        losses.append(training_loss(potential, frames).item())
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor += step * direction[key]
    return (losses[0] - losses[1]) / (2 * step), expected
