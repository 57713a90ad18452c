"""Random adapter weights of a stated size, for equivariance tests: a tiny delta would pass any test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from adapters.activation import ActivationMethod, layers_of
from adapters.adapter import Adapter
from adapters.errors import AdapterError

_MAX_ROUNDS = 60


@torch.no_grad()
def randomise_factors(adapter: Adapter, base_norms: Mapping[str, float], seed: int, relative: float) -> None:
    """Fill an adapter's block factors with Gaussian numbers, each block scaled until its delta has the wanted size.

    Layer factors (thresholds) keep their values. A delta need not be linear in its factors, so the scale is found by iteration. An
    activation method draws the factors of its layers itself, so that outputs change by about ``relative``.

    Args:
        adapter: changed in place.
        base_norms: block key -> Frobenius norm of the base's weights; a block of zeros counts as norm 1.
        seed: of a generator of its own, drawn in float64.
        relative: the least |dW|/|W| of every block; the result lies between it and twice it.

    Raises:
        AdapterError: where a block's delta cannot be brought to that size.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(adapter.method, ActivationMethod):
        for position, (_, features) in layers_of(adapter).items():
            drawn = adapter.method.random_factors(features, generator, relative)
            for name, tensor in adapter.layer_factors(position).items():
                tensor.copy_(drawn[name])
    own = [list(adapter.own_factors(position).values()) for position in range(len(adapter.blocks))]
    for tensor in (tensor for tensors in own for tensor in tensors):
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    searches = [_Search() for _ in own]
    for _ in range(_MAX_ROUNDS):
        deltas = zip(adapter.block_deltas(), adapter.blocks, strict=True)
        ratios = [float(delta.double().norm()) / (base_norms[block.key] or 1.0) for delta, block in deltas]
        wrong = [position for position, ratio in enumerate(ratios) if own[position] and not relative <= ratio <= 2 * relative]
        if not wrong:
            return
        for position in wrong:
            step = searches[position].step(ratios[position] / relative)
            for tensor in own[position]:
                tensor.mul_(step ** (1 / len(own[position])))
    block = adapter.blocks[wrong[0]]
    found = f"|dW|/|W| = {ratios[wrong[0]]:.3g}"
    raise AdapterError(f"{block.key}: random factors give {found}, wanted {relative} to {2 * relative}; choose another size")


@dataclass
class _Search:
    """For the scale of one block's delta; scales found too small or too large bound it, since a delta above a threshold is not linear."""

    scale: float = 1.0
    too_small: float = 0.0
    too_large: float = math.inf

    def step(self, size: float) -> float:
        """The factor to the next scale, where the delta has ``size``, wanted between 1 and 2."""
        before = self.scale
        if size < 1:
            self.too_small = before
        else:
            self.too_large = before
        if self.too_small and self.too_large < math.inf:
            # halves the interval for certain, where aiming by the last size may leap between its ends for ever
            self.scale = math.sqrt(self.too_small * self.too_large)
        else:
            # exact in one round where the delta is homogeneous in the factors; a delta that is all below a threshold is 0 and grows fast
            self.scale = before * (1.5 / size if size > 0 else 1e3)
        return self.scale / before
