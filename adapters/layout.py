"""Where the deltas of a parameter's blocks go in the parameter: decided once, applied at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.blocks import WeightBlock


class ParameterLayout:
    """Assembles block deltas into one tensor of the parameter's shape.

    Runs of the flat parameter, with or without gaps, are concatenated; a single permuted block (``torch.nn.Linear`` stores its matrix
    transposed) is permuted back; anything else is scattered through an index.
    """

    def __init__(self, blocks: Sequence[WeightBlock], shape: torch.Size) -> None:
        """Decide how the blocks are assembled.

        Args:
            blocks: the adapted blocks of one parameter.
            shape: the parameter's.
        """
        self._blocks = tuple(blocks)
        self._shape = shape
        self._order: list[int] | None = None
        self._permutation: list[int] | None = None
        self._index: Tensor | None = None
        if all(block.is_row_major for block in blocks):
            self._order = sorted(range(len(blocks)), key=lambda position: blocks[position].offset)
        elif len(blocks) == 1 and blocks[0].numel == shape.numel():
            # a block that covers the parameter is a permutation of its axes: largest stride first is storage order
            self._permutation = sorted(range(3), key=lambda axis: (-blocks[0].strides[axis], -blocks[0].shape[axis]))
        else:
            self._index = torch.cat([block.flat_index() for block in blocks])

    def assemble(self, deltas: Sequence[Tensor]) -> Tensor:
        """The parameter's delta.

        Args:
            deltas: one flat ``(numel,)`` tensor a block, in row-major order (stack, rows, cols), in the order of the constructor's blocks.

        Returns:
            A tensor of the parameter's shape, zero where no block is adapted.
        """
        if self._order is not None:
            return self._concatenated(deltas, self._order).reshape(self._shape)
        if self._permutation is not None:
            return deltas[0].reshape(self._blocks[0].shape).permute(self._permutation).reshape(self._shape)
        assert self._index is not None
        self._index = self._index.to(deltas[0].device)
        empty = deltas[0].new_zeros(self._shape.numel())
        return empty.index_copy(0, self._index, torch.cat(list(deltas))).reshape(self._shape)

    def _concatenated(self, deltas: Sequence[Tensor], order: list[int]) -> Tensor:
        pieces: list[Tensor] = []
        end = 0
        for position in order:
            block = self._blocks[position]
            if block.offset > end:
                pieces.append(deltas[position].new_zeros(block.offset - end))
            pieces.append(deltas[position])
            end = block.offset + block.numel
        if end < self._shape.numel():
            pieces.append(deltas[0].new_zeros(self._shape.numel() - end))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
