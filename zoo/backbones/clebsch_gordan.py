"""In which signs a network's Clebsch-Gordan coefficients are, and how to have them in another precision without losing the signs.

Libraries differ in the sign of coupling coefficients: e3nn 0.5 changed 44 of the 203 sorted triples (l1, l2, l3) up to l = 11. A network
couples through columns of MACE's U matrices and through Wigner 3j tensors, both saved as buffers, and each may have either sign. Weights
are only meaningful together with the signs they were trained with: copied into a network of other signs they are wrong by up to 1e-3 eV/Å.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

import torch
from torch import Tensor

_COUPLING = re.compile(r"(^|\.)(U_matrix_\d+|_w3j_\d+_\d+_\d+)$")
_AGREEMENT = 1e-4  # relative: float32's rounding, and far from any other value than a sign


def is_coupling(buffer_name: str) -> bool:
    """Whether a buffer holds coupling coefficients (``...U_matrix_3``, ``..._w3j_1_2_1``)."""
    return _COUPLING.search(buffer_name) is not None


def signs_of(buffer_name: str, own: Tensor, native: Tensor) -> Tensor | None:
    """+1 or -1 for each column of a U matrix, or one for a whole 3j tensor: ``own = signs * native``.

    Args:
        buffer_name: tells U matrices from 3j tensors.
        own: the network's coefficients.
        native: those of the installed e3nn, of the same shape.

    Returns:
        ``(columns,)`` or ``(1,)`` float64; None where they differ by more than signs (another basis).
    """
    if own.shape != native.shape:
        return None
    per_column = "U_matrix" in buffer_name
    one, two = (tensor.detach().to("cpu", torch.float64) for tensor in (own, native))
    columns = (one.reshape(-1, one.shape[-1]), two.reshape(-1, two.shape[-1])) if per_column else (one.reshape(-1, 1), two.reshape(-1, 1))
    products = (columns[0] * columns[1]).sum(0)  # (columns,)
    signs = torch.where(products < 0, -1.0, 1.0).to(torch.float64)
    scale = max(float(columns[1].abs().max()), 1e-300) if columns[1].numel() else 1.0
    return signs if float((columns[0] - signs * columns[1]).abs().max() if columns[0].numel() else 0.0) <= _AGREEMENT * scale else None


def convention(own: Mapping[str, Tensor], native: Mapping[str, Tensor]) -> str:
    """The name of the signs in ``own``: ``"e3nn-0.6"`` where they are the installed e3nn's, else a hash of what differs.

    Args:
        own: buffers of the network, by name.
        native: buffers of the same network built by the installed e3nn.
    """
    differing: dict[str, list[int] | str] = {}
    for name in sorted(filter(is_coupling, own)):
        signs = signs_of(name, own[name], native[name])
        if signs is None:
            differing[name] = f"basis {tuple(own[name].shape)}"
        elif bool((signs < 0).any()):
            differing[name] = torch.nonzero(signs < 0).flatten().tolist()
    if not differing:
        return "e3nn-0.6"
    return "signs-" + hashlib.sha256(json.dumps(differing, sort_keys=True).encode()).hexdigest()[:12]


def in_signs_of(buffer_name: str, own: Tensor, native: Tensor) -> Tensor:
    """The ``native`` coefficients, exact in their precision, with the signs of ``own``; a cast of ``own`` where the basis is another."""
    signs = signs_of(buffer_name, own, native)
    return own.to(native.dtype) if signs is None else native * signs.to(native.dtype).to(native.device)
