"""Where the deltas of a parameter's blocks go in the parameter: decided once, applied at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters.blocks import WeightBlock


class ParameterLayout:
    """Assembles block deltas into one tensor of the parameter's shape.

    Blocks that are runs of the flat parameter, with or without gaps between them, are concatenated, each with its axes in the order of
    storage (``torch.nn.Linear`` has its matrix transposed); anything else is scattered through an index.
    """

    def __init__(self, blocks: Sequence[WeightBlock], shape: torch.Size) -> None:
        """Decide how the blocks are assembled.

        Args:
            blocks: the adapted blocks of one parameter.
            shape: the parameter's.
        """
        self._blocks = tuple(blocks)
        self._shape = shape
        self._order = sorted(range(len(blocks)), key=lambda position: blocks[position].offset)
        self._axes = [axes for block in blocks if (axes := block.axes_in_storage) is not None]
        self._index = torch.cat([block.flat_index() for block in blocks]) if len(self._axes) < len(blocks) else None

    def assemble(self, deltas: Sequence[Tensor]) -> Tensor:
        """The parameter's delta.

        Args:
            deltas: one flat ``(numel,)`` tensor a block, in row-major order (stack, rows, cols), in the order of the constructor's blocks.

        Returns:
            A tensor of the parameter's shape, zero where no block is adapted.
        """
        if self._index is None:
            return self._concatenated(deltas).reshape(self._shape)
        self._index = self._index.to(deltas[0].device)
        empty = deltas[0].new_zeros(self._shape.numel())
        return empty.index_copy(0, self._index, torch.cat(list(deltas))).reshape(self._shape)

    def _concatenated(self, deltas: Sequence[Tensor]) -> Tensor:
        pieces: list[Tensor] = []
        end = 0
        for position in self._order:
            block = self._blocks[position]
            if block.offset > end:
                pieces.append(deltas[position].new_zeros(block.offset - end))
            pieces.append(deltas[position].reshape(block.shape).permute(self._axes[position]).reshape(-1))
            end = block.offset + block.numel
        if end < self._shape.numel():
            pieces.append(deltas[0].new_zeros(self._shape.numel() - end))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
