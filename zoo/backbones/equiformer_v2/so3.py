"""The linear map of atoms' features: one matrix for each degree."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SO3Linear(nn.Module):
    """``weight[l]`` mixes the channels of every coefficient of degree l, and the bias is added to degree 0.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        lmax: highest degree.
    """

    def __init__(self, in_channels: int, out_channels: int, lmax: int) -> None:
        super().__init__()
        self.lmax = lmax
        self.weight = nn.Parameter(torch.empty(lmax + 1, out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, (lmax + 1)^2, C_out) from features (N, (lmax + 1)^2, C_in)."""
        parts = torch.split(features, [2 * degree + 1 for degree in range(self.lmax + 1)], dim=1)
        return torch.cat([self.of_degree(part, degree) for degree, part in enumerate(parts)], dim=1)

    def of_degree(self, features: Tensor, degree: int) -> Tensor:
        """(N, 2l + 1, C_out) from the coefficients (N, 2l + 1, C_in) of one degree l."""
        return functional.linear(features, self.weight[degree], self.bias if degree == 0 else None)
