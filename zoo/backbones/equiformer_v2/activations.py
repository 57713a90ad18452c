"""Activations of equivariant features: on the sphere, with the scalars apart from it, or by gates (arXiv:2306.12059, section 4.2)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zoo.backbones.equiformer_v2.grid import SphereGrid


def smooth_leaky_relu(values: Tensor) -> Tensor:
    """A smooth leaky ReLU with slope 0.2 below zero: ``0.6 v + 0.4 v (2 sigmoid(v) - 1)``."""
    return 0.2 * values + 0.8 * functional.silu(values)


class SphereActivation(nn.Module):
    """SiLU of the function on the sphere that the coefficients stand for."""

    def __init__(self, grid: SphereGrid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, features: Tensor, _: Tensor) -> Tensor:
        """(B, R, C) from (B, R, C)."""
        return self.grid.silu(features)


class SeparableSphereActivation(SphereActivation):
    """The same for the degrees above 0; the scalars are SiLU of numbers of their own."""

    def forward(self, features: Tensor, gates: Tensor) -> Tensor:
        """(B, R, C) from (B, R, C) and the scalars' numbers (B, C)."""
        activated = super().forward(features, gates)
        return torch.cat([functional.silu(gates)[:, None], activated[:, 1:]], dim=1)


class GateActivation(nn.Module):
    """Scalars pass SiLU, higher degrees are multiplied by the sigmoid of a number for each degree and channel.

    Args:
        degrees: (R,) of the coefficients, the first of them 0.
        channels: C.
    """

    degrees: Tensor

    def __init__(self, degrees: NDArray[np.int64], channels: int) -> None:
        super().__init__()
        self.shape = (int(degrees.max()), channels)
        self.register_buffer("degrees", torch.as_tensor(degrees[1:] - 1, device="cpu"), persistent=False)

    def forward(self, features: Tensor, gates: Tensor) -> Tensor:
        """(B, R, C) from (B, R, C) and gates (B, lmax C)."""
        factors = torch.sigmoid(gates).view(len(features), *self.shape)[:, self.degrees]  # (B, R - 1, C)
        return torch.cat([functional.silu(features[:, :1]), features[:, 1:] * factors], dim=1)
