"""Random adapter weights of a stated size, for equivariance tests: a tiny delta would pass any test."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from adapters.adapter import Adapter
from adapters.errors import AdapterError

_MAX_ROUNDS = 60


@torch.no_grad()
def randomise_factors(adapter: Adapter, base_norms: Mapping[str, float], seed: int, relative: float) -> None:
    """Fill an adapter's block factors with Gaussian numbers, each block scaled until its delta has the wanted size.

    Layer factors (thresholds) keep their values. A delta need not be linear in its factors, so the scale is found by iteration.

    Args:
        adapter: changed in place.
        base_norms: block key -> Frobenius norm of the base's weights; a block of zeros counts as norm 1.
        seed: of a generator of its own, drawn in float64.
        relative: the least |dW|/|W| of every block; the result lies between it and twice it.

    Raises:
        AdapterError: where a block's delta cannot be brought to that size.
    """
    generator = torch.Generator().manual_seed(seed)
    own = [list(adapter.own_factors(position).values()) for position in range(len(adapter.blocks))]
    for tensor in (tensor for tensors in own for tensor in tensors):
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    for _ in range(_MAX_ROUNDS):
        deltas = zip(adapter.block_deltas(), adapter.blocks, strict=True)
        ratios = [float(delta.double().norm()) / (base_norms[block.key] or 1.0) for delta, block in deltas]
        wrong = [position for position, ratio in enumerate(ratios) if not relative <= ratio <= 2 * relative]
        if not wrong:
            return
        for position in wrong:
            # exact in one round where the delta is homogeneous in the factors; a delta that is all below a threshold is 0 and grows fast
            step = 1.5 * relative / ratios[position] if ratios[position] > 0 else 1e3
            for tensor in own[position]:
                tensor.mul_(step ** (1 / len(own[position])))
    block = adapter.blocks[wrong[0]]
    found = f"|dW|/|W| = {ratios[wrong[0]]:.3g}"
    raise AdapterError(f"{block.key}: random factors give {found}, wanted {relative} to {2 * relative}; choose another size")
