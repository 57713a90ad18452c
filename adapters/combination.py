"""One adapter of several: the weighted sum of their deltas, kept exactly or compressed to a rank, as an ordinary adapter."""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from adapters.adapter import Adapter, Provenance
from adapters.blocks import WeightBlock
from adapters.errors import AdapterError, nearest_name_hint
from adapters.method import AdapterMethod, create_method

CombinationMethod = Literal["linear", "svd"]
_METHODS = ("linear", "svd")
_Factors = tuple[Tensor, Tensor]  # (stack, rows, r) and (stack, r, cols)


@torch.no_grad()
def combined(
    parts: Mapping[str, Adapter],
    weights: Mapping[str, float],
    method: CombinationMethod,
    rank: int | None,
    fresh: Callable[[AdapterMethod], Adapter],
) -> Adapter:
    """The adapter whose delta is the sum over the parts of weight times delta.

    Args:
        parts: name -> adapter, all on one model.
        weights: name -> weight.
        method: ``"linear"`` or ``"svd"``, as in `adapters.stack.AdapterStack.combine`.
        rank: of the result of ``"svd"``.
        fresh: makes an adapter of a method on the model.

    Raises:
        AdapterError: settings that do not fit together.
    """
    _check(weights, method, rank)
    adapters = [(weights[name], adapter) for name, adapter in parts.items()]
    deltas = _summed_deltas(adapters)
    if method == "svd":
        assert rank is not None
        factors = {block: _truncated(delta, rank) for block, delta in deltas.items() if block.structure == "matrix"}
        result = _low_rank(adapters, deltas, factors, rank, fresh)
    elif all(adapter.method.name == "elora" for _, adapter in adapters):
        factors = _joined_factors(adapters)
        total = max((left.shape[2] for left, _ in factors.values()), default=1)
        result = _low_rank(adapters, deltas, factors, total, fresh)
    else:
        result = fresh(_chosen_alike("full", {}, adapters, deltas))
        _fill(result, deltas, {})
    result.provenance = _joined_provenance(parts, weights, method, rank)
    return result


def _check(weights: Mapping[str, float], method: str, rank: int | None) -> None:
    if not weights:
        raise AdapterError("combine: no adapters to combine; pass their names with a weight each, such as {'a': 0.5, 'b': 0.5}")
    for name, weight in weights.items():
        if not math.isfinite(weight):
            raise AdapterError(f"combine: adapter {name!r} has the weight {weight}, wanted a finite number")
    if method not in _METHODS:
        raise AdapterError(f"combine: unknown method {method!r}; {nearest_name_hint(method, _METHODS)}")
    if method == "linear" and rank is not None:
        raise AdapterError(f"combine: rank={rank} is for method='svd' alone, the sum of 'linear' is exact; leave rank out")
    if method == "svd" and (rank is None or rank < 1):
        raise AdapterError(f"combine: method='svd' compresses to a rank, found rank={rank}; pass rank=1 or more")


def _summed_deltas(adapters: Sequence[tuple[float, Adapter]]) -> dict[WeightBlock, Tensor]:
    """Block -> weighted sum of the deltas, (stack, rows, cols) float64."""
    sums: dict[WeightBlock, Tensor] = {}
    for weight, adapter in adapters:
        for block, delta in zip(adapter.blocks, adapter.block_deltas(), strict=True):
            change = weight * delta.double().reshape(block.shape)
            sums[block] = sums[block] + change if block in sums else change
    return sums


def _truncated(delta: Tensor, rank: int) -> _Factors:
    """The nearest matrices of that rank, as a product (Eckart and Young, Psychometrika 1936, 1, 211); singular values shared alike."""
    left, values, right = torch.linalg.svd(delta, full_matrices=False)  # (stack, rows, k), (stack, k), (stack, k, cols)
    root = values[:, :rank].sqrt()
    return left[:, :, :rank] * root[:, None, :], root[:, :, None] * right[:, :rank]


def _joined_factors(adapters: Sequence[tuple[float, Adapter]]) -> dict[WeightBlock, _Factors]:
    """Factors side by side, whose product is the weighted sum: of the blocks that are products in each adapter that has them."""
    found: dict[WeightBlock, list[_Factors]] = {}
    dense: set[WeightBlock] = set()
    for weight, adapter in adapters:
        for position, block in enumerate(adapter.blocks):
            factors = adapter.method.as_product(adapter.own_factors(position))
            if factors is None:
                dense.add(block)
                continue
            left, right = (tensor.double().reshape(block.stack, *tensor.shape[-2:]) for tensor in factors)
            found.setdefault(block, []).append((left, weight * right))
    return {
        block: (torch.cat([left for left, _ in pairs], dim=2), torch.cat([right for _, right in pairs], dim=1))
        for block, pairs in found.items()
        if block not in dense
    }


def _low_rank(
    adapters: Sequence[tuple[float, Adapter]],
    deltas: Mapping[WeightBlock, Tensor],
    factors: Mapping[WeightBlock, _Factors],
    rank: int,
    fresh: Callable[[AdapterMethod], Adapter],
) -> Adapter:
    """An elora adapter with these factors, dense where there are none."""
    dense = sorted({glob.escape(block.parameter) for block in deltas if block not in factors})
    result = fresh(_chosen_alike("elora", {"rank": rank, "extra_trainable": dense}, adapters, deltas))
    _fill(result, deltas, factors)
    return result


def _chosen_alike(
    name: str, settings: Mapping[str, Any], adapters: Sequence[tuple[float, Adapter]], deltas: Mapping[WeightBlock, Tensor]
) -> AdapterMethod:
    """The method on the blocks that the parts chose; where they chose differently, on all blocks of the roles that they have."""
    choices = [{key: getattr(adapter.method.config, key) for key in ("roles", "exclude_roles", "select")} for _, adapter in adapters]
    if all(choice == choices[0] for choice in choices):
        method = create_method({"name": name, **settings, **choices[0]})
        if all(method.selects(block) for block in deltas):
            return method
    return create_method({"name": name, **settings, "roles": sorted({block.role for block in deltas})})


def _fill(result: Adapter, deltas: Mapping[WeightBlock, Tensor], factors: Mapping[WeightBlock, _Factors]) -> None:
    """Write factors and dense deltas into a fresh adapter; zero where there is nothing."""
    for position, block in enumerate(result.blocks):
        own = result.own_factors(position)
        for tensor in own.values():
            tensor.zero_()
        if "D" in own and block in deltas:
            own["D"].copy_(deltas[block].reshape(own["D"].shape))
        elif block in factors:
            left, right = factors[block]
            rank = left.shape[2]
            own["A"][..., :rank].copy_(left.reshape(*own["A"].shape[:-1], rank))
            own["B"][..., :rank, :].copy_(right.reshape(*own["B"].shape[:-2], rank, block.cols))


def _joined_provenance(
    parts: Mapping[str, Adapter], weights: Mapping[str, float], method: CombinationMethod, rank: int | None
) -> Provenance | None:
    """Reference energies add up as the deltas do; None where no part has any."""
    known = {name: adapter.provenance for name, adapter in parts.items() if adapter.provenance is not None}
    if not known:
        return None
    energies: dict[str, float] = {}
    for name, provenance in known.items():
        for symbol, value in provenance.reference_energies.items():
            energies[symbol] = energies.get(symbol, 0.0) + weights[name] * value
    theories = dict.fromkeys(provenance.level_of_theory for provenance in known.values())
    made = {"combined": {name: float(weight) for name, weight in weights.items()}, "combination": method}
    return Provenance(energies, " + ".join(filter(None, theories)), training=made if rank is None else {**made, "rank": rank})
