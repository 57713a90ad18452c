"""An adapter's change of each weight block, worked out in float64 block by block, so that no second model lies in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.adapter import Adapter
from adapters.blocks import WeightBlock
from zoo.errors import ZooError
from zoo.potential import Potential


@dataclass(frozen=True)
class BlockChange:
    """One block's weights before and their change.

    Attributes:
        block: the block.
        base: W, (stack, rows, cols) float64.
        delta: its change, of the same shape; None where the adapter does not change the block.
        product: the change as left (stack, rows, r) times right (stack, r, cols) where the method has this form; else None.
    """

    block: WeightBlock
    base: Tensor
    delta: Tensor | None
    product: tuple[Tensor, Tensor] | None


class Changes:
    """The changes that one adapter makes, in the order of the model's blocks; each iteration works them out anew.

    Attributes:
        potential: the model.
        adapter: whose changes they are.
        scale: what the stack multiplies them with.
    """

    def __init__(self, potential: Potential, name: str | None = None) -> None:
        """The changes of an adapter.

        Args:
            potential: with the adapter.
            name: of the adapter; None for the one that is active.

        Raises:
            ZooError: no active adapter, or several, and no name; merged weights.
            adapters.errors.AdapterError: an unknown name.
        """
        stack = potential.adapters
        if name is None:
            if len(stack.active) != 1:
                found = ", ".join(stack.active) or "none"
                raise ZooError(f"{potential.source}: active adapters: {found}, wanted one to analyse; pass its name, or load one")
            (name,) = stack.active
        if stack.is_merged:
            raise ZooError(f"{potential.source}: adapters are merged into the weights; call potential.adapters.unmerge() first")
        self.potential = potential
        self.adapter: Adapter = stack.get(name)
        self.scale = stack.scale_of(name)
        self._positions = {block.key: position for position, block in enumerate(self.adapter.blocks)}
        self._base = dict(potential.backbone.named_parameters())

    @property
    def blocks(self) -> tuple[WeightBlock, ...]:
        """All of the model's blocks, adapted or not."""
        return self.potential.coverage.blocks

    def position(self, block: WeightBlock) -> int | None:
        """The block's place among the adapter's; None where it is not adapted."""
        return self._positions.get(block.key)

    def changes_weights(self, block: WeightBlock) -> bool:
        """Whether the block has a delta; an adapted one without has its layer's output changed instead."""
        position = self.position(block)
        return position is not None and self.adapter.changes_weights(position)

    @property
    def any(self) -> bool:
        """Whether any weight has a delta."""
        return any(self.changes_weights(block) for block in self.blocks)

    def __iter__(self) -> Iterator[BlockChange]:
        with torch.no_grad():
            for block in self.blocks:
                yield self._of(block)

    def adapted(self) -> Iterator[tuple[BlockChange, Tensor]]:
        """The blocks with a delta alone, and the delta."""
        with torch.no_grad():
            for block in filter(self.changes_weights, self.blocks):
                change = self._of(block)
                assert change.delta is not None
                yield change, change.delta

    def _of(self, block: WeightBlock) -> BlockChange:
        base = block.view(self._base[block.parameter].detach()).double()
        if not self.changes_weights(block):
            return BlockChange(block, base, None, None)
        position = self._positions[block.key]
        method, own = self.adapter.method, self.adapter.own_factors(position)
        factors = {name: tensor.detach().double()[None] for name, tensor in {**own, **self.adapter.layer_factors(position)}.items()}
        if method.needs_base:
            factors["W"] = base.reshape(1, *block.compact_shape)
        delta = self.scale * method.delta(factors).reshape(block.shape)
        product = method.as_product({name: tensor.detach().double() for name, tensor in own.items()})
        if product is None:
            return BlockChange(block, base, delta, None)
        left, right = (tensor.reshape(block.stack, *tensor.shape[-2:]) for tensor in product)
        return BlockChange(block, base, delta, (self.scale * left, right))
