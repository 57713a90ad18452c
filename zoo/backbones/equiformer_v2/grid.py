"""The grid of points on the sphere on which features become functions, and the two matrices between them and their coefficients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zoo.backbones.equiformer_v2.coefficients import Coefficients, degrees_of_all
from zoo.backbones.equiformer_v2.harmonics import solid_harmonics

_VALUES_IN_CACHE = 2**19
_VALUES_ON_DEVICE = 2**28


class SphereGrid(nn.Module):
    """Values on the sphere of coefficients, and back, for degrees up to lmax with orders up to mmax.

    Args:
        coefficients: which there are.
        order: of their columns: by degree, as on atoms, or by |m|, as in the edges' frames.
        resolution: of the configuration.
        dtype: of the matrices.

    Attributes:
        to_grid: (P, R) values at the P points of unit coefficients, all latitudes (angle from y) one after the other.
        from_grid: (P, R) the weights with which values at the points make up the coefficients.
    """

    to_grid: Tensor
    from_grid: Tensor

    def __init__(self, coefficients: Coefficients, order: Literal["degree", "|m|"], resolution: int | None, dtype: torch.dtype) -> None:
        super().__init__()
        columns = np.argsort(coefficients.index_in_full) if order == "degree" else slice(None)
        to_grid, from_grid = (matrix[:, columns] for matrix in grid_matrices(coefficients, resolution))
        # not persistent: they follow from the configuration, and must be computed anew for another precision
        self.register_buffer("to_grid", torch.as_tensor(to_grid, dtype=dtype, device="cpu"), persistent=False)
        self.register_buffer("from_grid", torch.as_tensor(from_grid, dtype=dtype, device="cpu"), persistent=False)

    def forward(self, features: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, R, C) coefficients of a function of the values at each point, from coefficients (B, R, C).

        Args:
            features: the coefficients.
            function: (b, P, C) from values (b, P, C) of some of the B.
        """
        parts = [torch.matmul(self.from_grid.T, function(torch.matmul(self.to_grid, part))) for part in in_parts(features, self.to_grid)]
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def silu(self, features: Tensor) -> Tensor:
        """(B, R, C) coefficients of SiLU of the values, from coefficients (B, R, C); no values are kept for the gradient."""
        activated: Tensor = _SphereSiLU.apply(features, self.to_grid, self.from_grid)  # type: ignore[no-untyped-call]
        return activated


def in_parts(features: Tensor, to_grid: Tensor) -> Sequence[Tensor]:
    """(B, R, C) in parts whose values on the grid stay in a processor's cache: written to memory, they would cost more than the rest."""
    budget = _VALUES_IN_CACHE if features.device.type == "cpu" else _VALUES_ON_DEVICE
    rows = max(1, budget // (to_grid.shape[0] * features.shape[2]))
    return features.split(rows)  # type: ignore[no-untyped-call,no-any-return]


class _SphereSiLU(torch.autograd.Function):
    """SiLU on the grid. The values at the points are 17 times the coefficients, so that they are worked out again for the gradient."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
        ctx.save_for_backward(features, to_grid, from_grid)
        activated = torch.empty_like(features, memory_format=torch.contiguous_format)
        parts = in_parts(features, to_grid)
        buffer = _values_of(parts[0], to_grid)
        for part, out in zip(parts, in_parts(activated, to_grid), strict=True):
            values = torch.matmul(to_grid, part, out=buffer[: len(part)])
            torch.matmul(from_grid.T, functional.silu(values, inplace=True), out=out)
        return activated

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        features, to_grid, from_grid = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated itself, as in training on forces that are gradients
            values = torch.matmul(to_grid, features)
            sigmoid = torch.sigmoid(values)
            slope = sigmoid * (1 + values * (1 - sigmoid))
            return torch.matmul(to_grid.T, slope * torch.matmul(from_grid, gradients[0])), None, None
        result = torch.empty_like(features, memory_format=torch.contiguous_format)
        parts = in_parts(features, to_grid)
        values_buffer, gradient_buffer = _values_of(parts[0], to_grid), _values_of(parts[0], to_grid)
        for part, gradient, out in zip(parts, in_parts(gradients[0], to_grid), in_parts(result, to_grid), strict=True):
            values = torch.matmul(to_grid, part, out=values_buffer[: len(part)])
            gradient = torch.matmul(from_grid, gradient, out=gradient_buffer[: len(part)])
            torch.ops.aten.silu_backward(gradient, values, grad_input=gradient)
            torch.matmul(to_grid.T, gradient, out=out)
        return result, None, None


def _values_of(part: Tensor, to_grid: Tensor) -> Tensor:
    """Room for the values (b, P, C) of a part (b, R, C)."""
    return part.new_empty(part.shape[0], to_grid.shape[0], part.shape[2])


@lru_cache(maxsize=32)
def grid_matrices(coefficients: Coefficients, resolution: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two matrices (P, R) in component normalisation, coefficients ordered by |m|.

    Where orders are cut off (mmax < lmax), degrees above mmax are scaled in both, as upstream does; else the second inverts the first.
    """
    lmax, mmax = coefficients.lmax, coefficients.mmax
    latitudes = resolution or 2 * (lmax + 1)
    longitudes = resolution or (2 * (mmax + 1) + 1 if lmax == mmax else 2 * mmax + 1)
    beta = (np.arange(latitudes) + 0.5) * np.pi / latitudes
    alpha = np.arange(longitudes) * 2 * np.pi / longitudes
    y, angle = (grid.ravel() for grid in np.meshgrid(np.cos(beta), alpha, indexing="ij"))  # (P,) each
    radius = np.repeat(np.sin(beta), longitudes)
    harmonics = np.stack(solid_harmonics(radius * np.sin(angle), y, radius * np.cos(angle), lmax), axis=1)  # (P, (lmax + 1)^2)
    scale = np.sqrt(4 * np.pi * (2 * degrees_of_all(lmax) + 1) * (lmax + 1))
    weights = np.repeat(_latitude_weights(latitudes) * latitudes**2 / longitudes, longitudes)  # (P,)
    to_grid = harmonics * (4 * np.pi / scale)
    from_grid = harmonics * scale * weights[:, None]
    chosen = coefficients.index_in_full
    return to_grid[:, chosen] * coefficients.cut_scale, from_grid[:, chosen] * coefficients.cut_scale


def _latitude_weights(count: int) -> NDArray[np.float64]:
    """Quadrature weights of latitudes (b + 1/2) pi/count for even counts (Kostelec and Rockmore, 2008)."""
    half = count // 2
    odd = 2 * np.arange(count) + 1
    sines = np.sin(np.outer(odd, 2 * np.arange(half) + 1) * np.pi / (4 * half)) / (2 * np.arange(half) + 1)
    weights: NDArray[np.float64] = (2 / half) * np.sin(np.pi * odd / (4 * half)) * sines.sum(axis=1) / (2 * (2 * half) ** 2)
    return weights
