"""Convolutions in the edges' frames: linear maps that commute with turns about the edge (SO(2)), one for each order |m|."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.radial import RadialFunction


class Convolved(NamedTuple):
    """What a convolution gives: coefficients (E, R, C_out) by |m|, and extra scalars (E, extra)."""

    coefficients: Tensor
    scalars: Tensor


class OrderConvolution(nn.Module):
    """The map of one order m > 0, a complex matrix W_r + i W_i on the degrees m..lmax of all channels.

    Its weight is [W_r; W_i]: with p the coefficients of +m and q those of -m it gives W_r p - W_i q and W_r q + W_i p.
    """

    def __init__(self, degree_count: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_shape = (2 * degree_count, out_channels)
        self.fc = nn.Linear(degree_count * in_channels, 2 * degree_count * out_channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(E, 2n, C_out) from features (E, 2, n C_in): n degrees, +m and then -m."""
        plus, minus = features.unbind(1)  # (E, n C_in) each
        real, imaginary = self.fc.weight.chunk(2)  # (n C_out, n C_in) each
        # a complex product by three real ones
        common = functional.linear(plus + minus, real)
        products = [common - functional.linear(minus, real + imaginary), common + functional.linear(plus, imaginary - real)]
        return torch.stack(products, dim=1).view(-1, *self.out_shape)


class SO2Convolution(nn.Module):
    """One linear map for each order; that of m = 0 has a bias and may give extra scalars.

    Args:
        coefficients: of the edges' frames.
        in_channels: C_in.
        out_channels: C_out.
        extra_scalars: how many outputs precede the coefficients of m = 0.
        edge_channels: of the radial function that weights the input; None for none.
    """

    def __init__(
        self, coefficients: Coefficients, in_channels: int, out_channels: int, extra_scalars: int = 0, edge_channels: int | None = None
    ) -> None:
        super().__init__()
        self.coefficients = coefficients
        self.out_channels = out_channels
        self.extra_scalars = extra_scalars
        counts = coefficients.degree_counts
        self.fc_m0 = nn.Linear(counts[0] * in_channels, extra_scalars + counts[0] * out_channels)
        self.so2_m_conv = nn.ModuleList(OrderConvolution(count, in_channels, out_channels) for count in counts[1:])
        if edge_channels is not None:
            self.rad_func = RadialFunction(edge_channels, sum(counts) * in_channels)

    def forward(self, features: Tensor, weights: Tensor | None = None) -> Convolved:
        """Convolve.

        Args:
            features: (E, R, C_in) coefficients by |m|.
            weights: (E, n C_in), n the sum of the degree counts of m = 0..mmax, as `rad_func` gives them; they multiply the features
                first, the same for +m and -m.
        """
        counts, (edge_count, _, channels) = self.coefficients.degree_counts, features.shape
        signs = [1] + [2] * (len(counts) - 1)
        # one split, whose gradient is one concatenation; the gradient of a slice is as large as all of the features
        parts = torch.split(features, [sign * count for sign, count in zip(signs, counts, strict=True)], dim=1)
        of_order: Sequence[Tensor | None] = [None] * len(counts)
        if weights is not None:
            of_order = torch.split(weights.view(edge_count, sum(counts), channels), list(counts), dim=1)
        scalars, outputs = features.new_empty(0), []
        for order, (count, sign, part, weight) in enumerate(zip(counts, signs, parts, of_order, strict=True)):
            part = part.view(edge_count, sign, count, channels)
            if weight is not None:
                part = part * weight[:, None]
            part = part.reshape(edge_count, sign, count * channels)
            if order == 0:
                scalars, output = torch.split(self.fc_m0(part[:, 0]), [self.extra_scalars, count * self.out_channels], dim=1)
                outputs.append(output.view(edge_count, count, self.out_channels))
            else:
                outputs.append(self.so2_m_conv[order - 1](part))
        return Convolved(torch.cat(outputs, dim=1), scalars)
