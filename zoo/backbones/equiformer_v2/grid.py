"""The grid of points on the sphere on which features become functions, and the two matrices between them and their coefficients."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.backbones.equiformer_v2.coefficients import Coefficients, degrees_of_all
from zoo.backbones.equiformer_v2.harmonics import solid_harmonics


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

    def values(self, features: Tensor) -> Tensor:
        """(B, P, C) on the grid, from coefficients (B, R, C)."""
        return torch.matmul(self.to_grid, features)

    def features(self, values: Tensor) -> Tensor:
        """(B, R, C) coefficients of values (B, P, C) on the grid."""
        return torch.matmul(self.from_grid.T, values)


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
