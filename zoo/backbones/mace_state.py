"""Which state a MACE network takes: that of its own configuration, with coupling coefficients in any signs or basis, or a part of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo.backbones.mace_network import MaceConfig
from zoo.errors import ZooError


def check_state(config: MaceConfig, state: Mapping[str, Tensor], source: str) -> None:
    """Refuse a configuration that contradicts the numbers beside it: cutoff and elements stand in both.

    Raises:
        ZooError: naming what differs.
    """
    for name in ("r_max", "radial_embedding.cutoff_fn.r_max"):
        found = float(state[name]) if name in state else math.nan
        if not math.isclose(found, config.r_max, rel_tol=1e-6):  # a file may hold it in float32
            raise ZooError(f"{source}: r_max {config.r_max:g} in its settings, {name} {found:g} in its state; convert the original again")
    numbers = tuple(state["atomic_numbers"].tolist()) if "atomic_numbers" in state else ()
    if numbers != config.atomic_numbers:
        raise ZooError(
            f"{source}: atomic_numbers {list(config.atomic_numbers)} in its settings, {list(numbers)} in its state; convert again"
        )


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put a state into a network built from its configuration; every tensor of either must have its place in the other.

    Coupling coefficients come along, in the signs and the basis of the file, with weights of the shapes they need.

    Raises:
        ZooError: for tensors that are missing, unexpected or of another shape.
    """
    own = network.state_dict()
    flags = {name for name in own if name.endswith("_zeroed") and name not in state}  # newer than some published files
    missing, unexpected = sorted(own.keys() - state.keys() - flags), sorted(state.keys() - own.keys())
    if missing or unexpected:
        first = (missing or unexpected)[0]
        raise ZooError(
            f"{source}: {len(missing)} tensors missing, {len(unexpected)} unexpected (first: {first}); "
            "the file is of another version of mace: convert it there, or pass a published model"
        )
    for name, value in state.items():
        if own[name].shape != value.shape:
            _reshape(network, name, value, source)
    network.load_state_dict({**state, **{name: own[name] for name in flags}}, strict=True)


def _reshape(network: nn.Module, name: str, value: Tensor, source: str) -> None:
    """Make room for another basis of symmetric contractions (cuequivariance's reduced one); raises `ZooError` elsewhere."""
    owner, _, short = name.rpartition(".")
    module = network.get_submodule(owner)
    before = getattr(module, short)
    if ".contractions." not in name:
        raise ZooError(f"{source}: {name} has shape {tuple(value.shape)}, wanted {tuple(before.shape)}; the file contradicts itself")
    fresh = torch.empty(value.shape, dtype=before.dtype, device=before.device)
    if short in module._buffers:
        module._buffers[short] = fresh
    else:
        module._parameters[short] = nn.Parameter(fresh)


def weights_of_elements(weight: Tensor, path_shapes: Sequence[tuple[int, ...]], kept: list[int], total: int) -> Tensor:
    """The part of a Linear's or tensor product's weight that the elements ``kept`` of ``total`` see.

    Args:
        weight: flat, path after path, each row-major.
        path_shapes: (elements, out) of a Linear, (in, elements, out) of a tensor product.
        kept: indices of the elements.
        total: number of elements of the whole model.
    """
    scale = (len(kept) / total) ** 0.5  # e3nn divides by the square root of the number of inputs
    parts = torch.split_with_sizes(weight, [math.prod(shape) for shape in path_shapes])
    chosen = [part.reshape(shape)[..., kept, :].flatten() for part, shape in zip(parts, path_shapes, strict=True)]
    return torch.cat(chosen).mul(scale)
