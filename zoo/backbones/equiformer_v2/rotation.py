"""Wigner matrices that turn features of atoms into the frames of the edges, where the edge points along y.

The frame of an edge is fixed but for a turn about the edge itself, the gauge. Upstream draws it at random at every call; here it follows
from the edge's direction, so that a structure has one energy. Outputs depend on the gauge through the sphere's grid alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.backbones.equiformer_v2.coefficients import Coefficients

# above this |cosine| with y, where the angle about y is badly conditioned, x and y change places first
_NEAR_POLE = 0.9


@dataclass(frozen=True)
class EdgeRotations:
    """Rotations of E edges between features of atoms (S coefficients by degree) and the edges' frames (R coefficients by |m|).

    Attributes:
        into: (E, R, S) rows of the Wigner matrices.
        out_of: (E, R, S) the same, scaled for the orders that were cut off; its transpose turns back.
    """

    into: Tensor
    out_of: Tensor


class EdgeFrames(nn.Module):
    """Builds the rotations of edges.

    Args:
        coefficients: degrees, and the orders kept in the frames.
        dtype: the matrices are computed in it.
    """

    def __init__(self, coefficients: Coefficients, dtype: torch.dtype) -> None:
        super().__init__()
        self.coefficients = coefficients
        for degree in range(1, coefficients.lmax + 1):
            self.register_buffer(f"swap_{degree}", torch.as_tensor(swap_matrix(degree), dtype=dtype, device="cpu"), persistent=False)
        self.register_buffer("placement", torch.as_tensor(self._placement(), device="cpu"), persistent=False)
        self.register_buffer("cut_scale", torch.as_tensor(coefficients.cut_scale, dtype=dtype, device="cpu"), persistent=False)

    def forward(self, directions: Tensor, gauge: Tensor | None = None) -> EdgeRotations:
        """The rotations that bring each direction onto y.

        Args:
            directions: (E, 3) unit vectors; the matrices are differentiable in them.
            gauge: (E,) further angles about y, radians; none, unless frames made elsewhere are to be met.
        """
        near_pole = directions[:, 1].abs() > _NEAR_POLE  # (E,)
        x, y, z = directions.unbind(1)
        x, y, z = torch.where(near_pole, y, x), torch.where(near_pole, x, y), torch.where(near_pole, -z, z)
        sine = torch.sqrt(x * x + z * z)
        polar = _multiples(y, sine, self.coefficients.lmax)
        azimuthal = _multiples(z / sine, x / sine, self.coefficients.lmax)
        about_edge = None if gauge is None else _multiples(gauge.cos(), gauge.sin(), self.coefficients.lmax)
        blocks = [torch.ones_like(y)[:, None]]  # degree 0
        for degree in range(1, self.coefficients.lmax + 1):
            swap = self.get_buffer(f"swap_{degree}")
            kept = min(degree, self.coefficients.mmax)
            block = _turned(swap[degree - kept : degree + kept + 1], polar, degree)  # (E, 2 kept + 1, 2 degree + 1)
            block = _turned(block @ swap, azimuthal, degree)
            block = torch.where(near_pole[:, None, None], block @ swap, block)
            if about_edge is not None:
                block = _turned(block.transpose(1, 2), about_edge, kept).transpose(1, 2)
            blocks.append(block.flatten(1))
        blocks.append(torch.zeros_like(y)[:, None])
        into = torch.cat(blocks, dim=1).index_select(1, self.placement)  # type: ignore[arg-type]
        into = into.view(-1, self.coefficients.reduced_count, self.coefficients.full_count)
        return EdgeRotations(into, into * self.cut_scale[:, None])  # type: ignore[index]

    def _placement(self) -> NDArray[np.int64]:
        """(R S,) where each entry of the rotations stands among the blocks of all degrees, one behind the other, and a zero."""
        lmax, mmax = self.coefficients.lmax, self.coefficients.mmax
        sizes = [(2 * min(degree, mmax) + 1) * (2 * degree + 1) for degree in range(lmax + 1)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        placement = np.full((self.coefficients.reduced_count, self.coefficients.full_count), starts[-1])
        for row, (degree, index) in enumerate(zip(self.coefficients.degrees, self.coefficients.index_in_full, strict=True)):
            kept = index - degree**2 - degree + min(degree, mmax)  # the row within the degree's block
            first = starts[degree] + kept * (2 * degree + 1)
            placement[row, degree**2 : (degree + 1) ** 2] = np.arange(first, first + 2 * degree + 1)
        return placement.ravel()


def unit_vectors(vectors: Tensor) -> Tensor:
    """(E, 3) directions of vectors (E, 3) that are not zero."""
    directions: Tensor = vectors / vectors.norm(dim=1, keepdim=True)
    return directions


def _multiples(cosine: Tensor, sine: Tensor, highest: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (E, 2 highest + 1) of k times the angle for k = highest, ..., 0, ..., -highest, without the angle itself."""
    cosines, sines = [torch.ones_like(cosine)], [torch.zeros_like(sine)]
    for _ in range(highest):
        last_cosine, last_sine = cosines[-1], sines[-1]
        cosines.append(last_cosine * cosine - last_sine * sine)
        sines.append(last_sine * cosine + last_cosine * sine)
    return torch.stack(cosines[::-1] + cosines[1:], 1), torch.stack(sines[::-1] + [-s for s in sines[1:]], 1)


def _turned(matrix: Tensor, multiples: tuple[Tensor, Tensor], degree: int) -> Tensor:
    """``matrix`` (..., 2 degree + 1) times the turn about y by minus the angle whose multiples are given: (E, rows, 2 degree + 1).

    That turn mixes the coefficients m and -m alone: Z(t)[i, i] = cos(k t), Z(t)[i, 2l - i] = sin(k t) with k = l - i.
    """
    middle = (multiples[0].shape[1] - 1) // 2
    cosines, sines = (values[:, None, middle - degree : middle + degree + 1] for values in multiples)
    return matrix * cosines + matrix.flip(-1) * sines


@lru_cache(maxsize=16)
def swap_matrix(degree: int) -> NDArray[np.float64]:
    """(2l + 1, 2l + 1) how harmonics of that degree change when (x, y, z) becomes (y, x, -z); symmetric, and its own inverse.

    With it a turn about x is one about y between two swaps. It is a quarter turn about x between two about y; the quarter turn is Wigner's
    d(pi/2), whose sums are of integers and so exact.
    """
    orders = range(-degree, degree + 1)
    quarter = np.array([[_wigner_d_quarter(degree, row, column) for column in orders] for row in orders])
    to_real = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=complex)
    to_real[degree, degree] = 1
    for order in range(1, degree + 1):
        sign, root = (-1) ** order, math.sqrt(0.5)
        to_real[degree + order, [degree + order, degree - order]] = sign * root, root
        to_real[degree - order, [degree + order, degree - order]] = -1j * sign * root, 1j * root
    about_x = (to_real @ quarter @ to_real.conj().T).real
    turn = np.zeros_like(about_x)
    for row in range(2 * degree + 1):
        frequency = degree - row
        turn[row, row] = round(math.cos(frequency * math.pi / 2))
        if frequency:
            turn[row, 2 * degree - row] = round(math.sin(frequency * math.pi / 2))
    swap: NDArray[np.float64] = turn @ about_x @ turn
    return swap


def _wigner_d_quarter(degree: int, row: int, column: int) -> float:
    """d^l_{row, column}(pi/2)."""
    factorial = math.factorial
    total = sum(
        (-1) ** (row - column + step) * math.comb(degree + column, step) * math.comb(degree - column, degree - row - step)
        for step in range(max(0, column - row), min(degree + column, degree - row) + 1)
    )
    ratio = factorial(degree + row) * factorial(degree - row) / (factorial(degree + column) * factorial(degree - column))
    return float(total * math.sqrt(ratio) / 2.0**degree)
