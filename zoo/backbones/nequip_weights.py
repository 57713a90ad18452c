"""Whether a file's tensors are those of the network that its configuration builds: every one has its place, and none is left over."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.backbones.nequip_checkpoint import UpstreamModel
from zoo.errors import ZooError

_ROUNDING = (1e-5, 1e-6)  # relative and in itself, of constants that were written in float32


def fill(network: nn.Module, upstream: UpstreamModel, path: Path) -> None:
    """Give the network the file's weights, the averaged ones where it has some.

    Args:
        network: built from the file's configuration.
        upstream: the file.
        path: for the messages.

    Raises:
        ZooError: for tensors that are missing, left over, of another shape or precision, or not finite, and for constants (frequencies,
            cutoffs, coupling coefficients) that contradict the configuration.
    """
    parameters, state = dict(network.named_parameters()), dict(upstream.state)
    _refuse_the_left_over(network, upstream, path)
    if upstream.averaged is not None:
        if len(upstream.averaged) != len(parameters):
            raise ZooError(f"{path}: {len(upstream.averaged)} moving averages for {len(parameters)} parameters; the file is inconsistent")
        state.update(zip(parameters, upstream.averaged, strict=True))
    with torch.no_grad():
        for name, parameter in parameters.items():
            wanted, found = _described(parameter), _described(state[name]) if name in state else "nothing"
            if name not in state or state[name].shape != parameter.shape or not _is_held_by(parameter, state[name]):
                raise ZooError(f"{path}: {name}: found {found}, wanted {wanted} by its configuration; the file is inconsistent")
            if not state[name].isfinite().all():
                raise ZooError(f"{path}: {name}: some of its numbers are not finite; the training went wrong: take an earlier checkpoint")
            parameter.copy_(state[name])


def _refuse_the_left_over(network: nn.Module, upstream: UpstreamModel, path: Path) -> None:
    own = network.state_dict()
    # the constants of a package may be of another version; what they do is compared with the package's own code
    named = upstream.state if upstream.packaged is None else dict(upstream.packaged.named_parameters())
    # upstream's tensor products keep constants below this name, and have no weights; here they are computed anew
    left_over = sorted(name for name, value in named.items() if name not in own and value.numel() and ".tp_scatter." not in name)
    if left_over:
        raise ZooError(
            f"{path}: {len(left_over)} tensors have no place in the network that its configuration builds (first: {left_over[0]}); "
            "it is of another version of nequip, or was put together from two files"
        )
    constants = own.keys() - dict(network.named_parameters()).keys() if upstream.packaged is None else set[str]()
    for name in sorted(constants & upstream.state.keys()):
        if not _agree(own[name], upstream.state[name]):
            raise ZooError(f"{path}: {name} contradicts its configuration, which gives another value; the file is inconsistent")


def _agree(own: Tensor, found: Tensor) -> bool:
    return own.shape == found.shape and not found.is_complex() and torch.allclose(own.double(), found.double(), *_ROUNDING)


def _is_held_by(parameter: Tensor, value: Tensor) -> bool:
    """Whether the parameter's dtype holds the value's without rounding."""
    return torch.promote_types(value.dtype, parameter.dtype) == parameter.dtype


def _described(value: Tensor) -> str:
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
