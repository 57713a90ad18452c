"""A method's adapter on a bare potential for as long as one claim takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from adapters.adapter import Adapter
from adapters.blocks import Coverage
from adapters.method import AdapterMethod, create_method
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.evaluation.probes import probe_frames
from zoo.potential import Potential

Spec = str | Mapping[str, Any] | AdapterMethod
"""A method by its name, by its name and settings, or as an object."""

NAME = "tested"
"""What the kit calls the adapter that it tests."""

SEED = 7
RELATIVE = 0.1
"""The size of random deltas where a claim asks for no other."""


def method_of(spec: Spec) -> AdapterMethod:
    """The method; raises `AdapterError` for an unknown name or setting."""
    return spec if isinstance(spec, AdapterMethod) else create_method(spec)


def spec_label(spec: Spec) -> str:
    """``"elora rank=2"``: name and given settings."""
    if isinstance(spec, AdapterMethod):
        return spec.name
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    return " ".join([str(given["name"]), *(f"{key}={value}" for key, value in given.items() if key != "name")])


def has_weights_for(method: AdapterMethod, coverage: Coverage) -> bool:
    """Whether the method selects any of a model's blocks; adding it is refused elsewhere, and there is nothing else to ask."""
    return any(method.selects(block) for block in coverage.blocks)


def method_frames(potential: Potential) -> list[Frame]:
    """A molecule and a sheared crystal of elements that the potential knows: no method depends on which directions repeat."""
    return probe_frames(potential.backbone.elements)[::3]


@contextmanager
def attached(potential: Potential, spec: Spec, relative: float | None = RELATIVE) -> Iterator[Adapter]:
    """The method's adapter on the potential, alone; afterwards the potential is bare again.

    Args:
        potential: without adapters, in float64.
        spec: the method.
        relative: size of its random weights (`AdapterStack.randomise`), None for an untrained adapter.

    Raises:
        ZooError: for a potential with adapters, or in another precision.
        AdapterError: where the method selects none of the model's weights.
    """
    if potential.dtype != torch.float64 or potential.adapters.names:
        found = f"{potential.dtype} with adapters {list(potential.adapters.names)}"
        raise ZooError(f"contract claims: found a potential in {found}, wanted one in float64 without adapters; pass Potential(toy)")
    stack = potential.adapters
    try:
        adapter = stack.add(NAME, method_of(spec))
        if relative is not None:
            stack.randomise(NAME, SEED, relative)
        yield adapter
    finally:
        stack.unmerge()
        for name in stack.names:
            stack.delete(name)
        potential.eval()
        potential.zero_grad()


def frames_or_probes(potential: Potential, frames: Sequence[Frame] | None) -> Sequence[Frame]:
    """The given frames, or `method_frames`."""
    return method_frames(potential) if frames is None else frames
