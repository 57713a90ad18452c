"""How large the deltas are by irrep, and how many of their entries are zero by parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from adapters.blocks import WeightBlock
from adapters.sparse import Sparse
from zoo.analysis.changes import Changes
from zoo.analysis.channels import Channel, parts_of


@dataclass(frozen=True)
class IrrepRow:
    """The adapted weights of one layer and role that make one irrep, in the order of the columns of ``irreps.csv``.

    Attributes:
        layer: 0 before the first interaction layer, 1 to L in them, L + 1 in the readout.
        role: of the blocks.
        irrep: ``1o``, ``l=1``, ``l=2 m=1``; ``none`` for weights that make no one degree.
        degree: l; None where there is none.
        parity: 1 or -1; None where the model has none or does not say.
        order: |m| in the frame of an edge; None elsewhere.
        blocks: how many adapted blocks have weights here.
        weights: how many adapted weights.
        delta_norm: Frobenius norm of their change.
        base_norm: Frobenius norm of the weights before.
        relative: delta_norm / base_norm; None for weights that were all zero.
    """

    layer: int
    role: str
    irrep: str
    degree: int | None
    parity: int | None
    order: int | None
    blocks: int
    weights: int
    delta_norm: float
    base_norm: float
    relative: float | None


@dataclass(frozen=True)
class SparsityRow:
    """One adapted parameter, a layer in the words of the sparse method, in the order of the columns of ``sparsity.csv``.

    Attributes:
        parameter: of the model.
        role: of its blocks.
        layer: as in `IrrepRow`.
        weights: how many it has.
        adapted: how many of them are in adapted blocks.
        zeros: how many of these the adapter leaves exactly as they were.
        sparsity: zeros / adapted.
        threshold: sigmoid(tau) of the sparse method; None of other methods.
    """

    parameter: str
    role: str
    layer: int
    weights: int
    adapted: int
    zeros: int
    sparsity: float
    threshold: float | None


def irrep_norms(changes: Changes) -> list[IrrepRow]:
    """One row a layer, role and irrep that has adapted weights, sorted so."""
    squares: dict[tuple[int, str, Channel], list[float]] = {}
    blocks: dict[tuple[int, str, Channel], int] = {}
    for change, delta in changes.adapted():
        block = change.block
        for part in parts_of(block, changes.potential.backbone):
            key = (block.layer, block.role, part.channel)
            blocks[key] = blocks.get(key, 0) + 1
            sums = squares.setdefault(key, [0.0, 0.0, 0.0])
            for base, moved in zip(part.of(change.base), part.of(delta), strict=True):
                sums[0] += moved.numel()
                sums[1] += float(moved.square().sum())
                sums[2] += float(base.square().sum())
    rows = []
    for layer, role, channel in sorted(squares, key=lambda key: (key[0], key[1], key[2].sort_key)):
        count, of_delta, of_base = squares[layer, role, channel]
        relative = math.sqrt(of_delta / of_base) if of_base > 0 else None
        irrep = (channel.irrep, channel.degree, channel.parity, channel.order)
        numbers = (int(count), math.sqrt(of_delta), math.sqrt(of_base), relative)
        rows.append(IrrepRow(layer, role, *irrep, blocks[layer, role, channel], *numbers))
    return rows


def sparsities(changes: Changes) -> list[SparsityRow]:
    """One row a parameter with a delta, in the order of the model's parameters."""
    adapted: dict[str, int] = {}
    zeros: dict[str, int] = {}
    first: dict[str, WeightBlock] = {}
    for change, delta in changes.adapted():
        name = change.block.parameter
        first.setdefault(name, change.block)
        adapted[name] = adapted.get(name, 0) + delta.numel()
        zeros[name] = zeros.get(name, 0) + delta.numel() - int(torch.count_nonzero(delta))
    thresholds = _thresholds(changes)
    sizes = changes.potential.coverage.sizes
    return [
        SparsityRow(
            name, block.role, block.layer, sizes[name], adapted[name], zeros[name], zeros[name] / adapted[name], thresholds.get(name)
        )
        for name, block in first.items()
    ]


def _thresholds(changes: Changes) -> dict[str, float]:
    """Parameter -> threshold of the sparse method; empty for other methods."""
    adapter = changes.adapter
    if not isinstance(adapter.method, Sparse):
        return {}
    taus = {block.parameter: adapter.layer_factors(position)["tau"] for position, block in enumerate(adapter.blocks)}
    return {name: float(torch.sigmoid(tau.detach().double())) for name, tau in taus.items()}
