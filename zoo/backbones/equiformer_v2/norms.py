"""The norms of atoms' features (arXiv:2306.12059, section 4.3 and its Table 1), under upstream's names."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from zoo.backbones.equiformer_v2.coefficients import degrees_of_all

_EPSILON = 1e-5


class _DegreeScaled(nn.Module):
    """Shared by the norms: the degree of each coefficient, and weights that give every degree the same share of a mean."""

    degrees: Tensor
    shares: Tensor

    def __init__(self, lmax: int, first_degree: int, dtype: torch.dtype) -> None:
        super().__init__()
        degrees = degrees_of_all(lmax)
        degrees = degrees[degrees >= first_degree]
        self.register_buffer("degrees", torch.as_tensor(degrees - first_degree, device="cpu"), persistent=False)
        shares = 1 / ((2 * degrees + 1) * len(np.unique(degrees)))
        self.register_buffer("shares", torch.as_tensor(shares, dtype=dtype, device="cpu"), persistent=False)

    def inverse_size(self, features: Tensor) -> Tensor:
        """(N, 1, 1) reciprocal root of the mean square over channels and, each degree alike, over coefficients."""
        mean_square = torch.einsum("nic,nic,i->n", features, features, self.shares) / features.shape[2]
        return (mean_square + _EPSILON).rsqrt()[:, None, None]


class SeparableLayerNorm(_DegreeScaled):
    """``layer_norm_sh``: a layer norm of the scalars, and one scale for all higher degrees together."""

    def __init__(self, lmax: int, channels: int, dtype: torch.dtype) -> None:
        super().__init__(lmax, 1, dtype)
        self.affine_weight = nn.Parameter(torch.ones(lmax, channels))
        self.norm_l0 = nn.LayerNorm(channels, eps=_EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        """(N, S, C) from (N, S, C)."""
        scalars, higher = features[:, :1], features[:, 1:]
        scale = self.inverse_size(higher) * self.affine_weight[self.degrees]  # (N, S - 1, C)
        return torch.cat([self.norm_l0(scalars), higher * scale], dim=1)


class RootMeanSquareNorm(_DegreeScaled):
    """``rms_norm_sh``: one scale for all degrees, after the scalars were centred over channels."""

    def __init__(self, lmax: int, channels: int, dtype: torch.dtype) -> None:
        super().__init__(lmax, 0, dtype)
        self.affine_weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.affine_bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, S, C) from (N, S, C)."""
        centred = _centred(features)
        scaled = centred * (self.inverse_size(centred) * self.affine_weight[self.degrees])
        return torch.cat([scaled[:, :1] + self.affine_bias, scaled[:, 1:]], dim=1)


class DegreewiseLayerNorm(nn.Module):
    """``layer_norm``: a scale of its own for each degree, after the scalars were centred over channels."""

    def __init__(self, lmax: int, channels: int, _: torch.dtype) -> None:
        super().__init__()
        self.lmax = lmax
        self.affine_weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.affine_bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, S, C) from (N, S, C)."""
        centred = _centred(features)
        outputs = []
        for degree in range(self.lmax + 1):
            part = centred[:, degree**2 : (degree + 1) ** 2]
            size = (part.pow(2).mean(dim=(1, 2), keepdim=True) + _EPSILON).rsqrt()
            outputs.append(part * (size * self.affine_weight[degree]))
        return torch.cat([outputs[0] + self.affine_bias, *outputs[1:]], dim=1)


_NORMS = {"layer_norm_sh": SeparableLayerNorm, "rms_norm_sh": RootMeanSquareNorm, "layer_norm": DegreewiseLayerNorm}


def create_norm(norm_type: str, lmax: int, channels: int, dtype: torch.dtype) -> nn.Module:
    """The norm of upstream's name for features (N, (lmax + 1)^2, channels)."""
    norm: nn.Module = _NORMS[norm_type](lmax, channels, dtype)
    return norm


def _centred(features: Tensor) -> Tensor:
    scalars = features[:, :1]
    return torch.cat([scalars - scalars.mean(dim=2, keepdim=True), features[:, 1:]], dim=1)
