"""Singular values of each block's delta, and its stable rank.

The stable rank of a matrix is ||dW||_F^2 / ||dW||_2^2, the sum of the squared singular values over the largest one squared: between 1 and
the rank, without a threshold (C. Wang et al., "ELoRA", ICML 2025, Lemma D.5; Fig. 6 shows it for the deltas of each layer).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.blocks import WeightBlock
from zoo.analysis.changes import BlockChange, Changes


@dataclass(frozen=True)
class StableRankRow:
    """One block's delta, in the order of the columns of ``stable_rank.csv``; of blocks that are matrices.

    Attributes:
        parameter: of the model.
        block: label within the parameter.
        role: of the block.
        path: in the field's notation.
        layer: 0 before the first interaction layer, 1 to L in them, L + 1 in the readout.
        stack: how many matrices the block has.
        rows: inputs of each.
        cols: outputs of each.
        frobenius_norm: of the delta, all matrices together.
        spectral_norm: the largest singular value of all matrices.
        rank: singular values above the largest times machine epsilon times max(rows, cols), the most of any matrix.
        stable_rank: the mean over the matrices that are not zero; 0 where all are.
    """

    parameter: str
    block: str
    role: str
    path: str
    layer: int
    stack: int
    rows: int
    cols: int
    frobenius_norm: float
    spectral_norm: float
    rank: int
    stable_rank: float


@dataclass(frozen=True)
class SingularValueRow:
    """One singular value, in the order of the columns of ``singular_values.csv``; zeros behind the last that is none are left out.

    Attributes:
        parameter: of the model.
        block: label within the parameter.
        role: of the block.
        layer: as in `StableRankRow`.
        matrix: which matrix of the block's stack, from 0.
        index: from 1, the largest first.
        singular_value: of the matrix.
        normalised: over the matrix's largest.
    """

    parameter: str
    block: str
    role: str
    layer: int
    matrix: int
    index: int
    singular_value: float
    normalised: float


def spectra(changes: Changes) -> tuple[list[StableRankRow], list[SingularValueRow]]:
    """Both tables, in the order of the model's blocks; blocks that are no matrices (biases, norms) have no place in them."""
    ranks: list[StableRankRow] = []
    values: list[SingularValueRow] = []
    for change, delta in changes.adapted():
        if change.block.structure == "matrix":
            found = singular_values(change, delta)
            ranks.append(_rank_row(change.block, found))
            values.extend(_value_rows(change.block, found))
    return ranks, values


def singular_values(change: BlockChange, delta: Tensor) -> Tensor:
    """(stack, k) float64, descending; of a product A B those of R_A R_B^T, from the factors' QR decompositions, so that k is its r."""
    if change.product is None or change.product[0].shape[2] >= min(change.block.rows, change.block.cols):
        dense: Tensor = torch.linalg.svdvals(delta)
        return dense
    left, right = change.product
    found: Tensor = torch.linalg.svdvals(torch.linalg.qr(left).R @ torch.linalg.qr(right.transpose(1, 2)).R.transpose(1, 2))
    return found


def stable_rank_of(values: Tensor) -> float:
    """Of singular values (stack, k), descending: the mean over the matrices that are not zero."""
    there = values[:, 0] > 0
    ratios = (values[there] / values[there, :1]).square().sum(dim=1)
    return float(ratios.mean()) if bool(there.any()) else 0.0


def _rank_row(block: WeightBlock, values: Tensor) -> StableRankRow:
    tolerance = values[:, :1] * max(block.rows, block.cols) * torch.finfo(torch.float64).eps
    rank = int((values > tolerance).sum(dim=1).max())
    norms = float(values.norm()), float(values.max())
    place = (block.parameter, block.label, block.role, block.path, block.layer)
    return StableRankRow(*place, *block.shape, *norms, rank, stable_rank_of(values))


def _value_rows(block: WeightBlock, values: Tensor) -> list[SingularValueRow]:
    place = (block.parameter, block.label, block.role, block.layer)
    rows = []
    for matrix, of_matrix in enumerate(values.tolist()):
        for index, value in enumerate(of_matrix, start=1):
            if value > 0:
                rows.append(SingularValueRow(*place, matrix, index, value, value / of_matrix[0]))
    return rows
