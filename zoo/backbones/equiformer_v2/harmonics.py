"""Real spherical harmonics with y as the polar axis, orthonormal and without the Condon-Shortley sign (e3nn's), of arrays or tensors."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Numbers = TypeVar("Numbers", NDArray[np.float64], Tensor)


def solid_harmonics(x: Numbers, y: Numbers, z: Numbers, lmax: int) -> list[Numbers]:
    """``r^l Y_lm`` for degrees 0..lmax, in the order ``l^2 + l + m``; for l = 1 that is sqrt(3/(4 pi)) (x, y, z).

    Args:
        x: any shape.
        y: the same shape, along the polar axis.
        z: the same shape.
        lmax: highest degree.

    Returns:
        ``(lmax + 1)^2`` of that shape, polynomials in x, y and z and so smooth everywhere.
    """
    squared = x * x + y * y + z * z
    one = squared * 0 + 1
    azimuthal = [(one, squared * 0)]  # r^m sin^m(beta) (cos(m alpha), sin(m alpha)), the powers of z + i x
    for _ in range(lmax):
        cosine, sine = azimuthal[-1]
        azimuthal.append((z * cosine - x * sine, z * sine + x * cosine))
    harmonics = [one] * (lmax + 1) ** 2
    for order, (cosine, sine) in enumerate(azimuthal):
        legendre = _legendre(y, squared, one, order, lmax)
        for degree in range(order, lmax + 1):
            norm = math.sqrt((2 * degree + 1) / (4 * math.pi) * math.factorial(degree - order) / math.factorial(degree + order))
            factor = norm * legendre[degree - order]
            middle = degree**2 + degree
            if order == 0:
                harmonics[middle] = factor
            else:
                harmonics[middle + order] = math.sqrt(2) * factor * cosine
                harmonics[middle - order] = math.sqrt(2) * factor * sine
    return harmonics


def _legendre(y: Numbers, squared: Numbers, one: Numbers, order: int, lmax: int) -> list[Numbers]:
    """Associated Legendre polynomials of that order for degrees order..lmax, without sin^m, times r^(l - m)."""
    values = [one * math.prod(range(1, 2 * order, 2))]  # (2m - 1)!!
    for degree in range(order + 1, lmax + 1):
        following = (2 * degree - 1) * y * values[-1]
        if degree > order + 1:
            following = following - (degree + order - 1) * squared * values[-2]
        values.append(following / (degree - order))
    return values
