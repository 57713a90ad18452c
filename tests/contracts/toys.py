"""The families' toys, each built once and lent to one contract test after another.

Building a network costs more than all that a contract does with it, because e3nn generates and compiles code. Lending is a contract as
well: whatever adapters, predictions and gradients a test had, when it is over the base is what it was, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.backbones import load_family
from zoo.backbones.base import Backbone
from zoo.potential import Potential


@dataclass(frozen=True)
class Toy:
    """One of a family's toys; ``variant`` is empty for the family's main one."""

    family: str
    variant: str = ""

    def build(self, seed: int) -> Backbone:
        family = load_family(self.family)
        return family.more_toys[self.variant](seed) if self.variant else family.toy(seed)

    def __str__(self) -> str:
        return f"{self.family} {self.variant}".strip()


def state_of(backbone: Backbone) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {name: tensor.detach().clone() for name, tensor in [*backbone.named_parameters(), *backbone.named_buffers()]}


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
    differing = [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]
    assert differing == [], differing


class Lender:
    """Networks that are built once; one that comes back changed is an error of the test that had it, and is not lent again."""

    def __init__(self) -> None:
        self._shelf: dict[object, Backbone] = {}

    def lend(self, key: object, build: Callable[[], Backbone]) -> Iterator[Backbone]:
        backbone = self._shelf.pop(key, None) or build()
        before, trains = state_of(backbone), {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
        yield backbone
        assert_same_state(state_of(backbone), before)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(trains[name]).grad = None
        self._shelf[key] = backbone


class Uncopied(Potential):
    """Its copy in its own precision is itself; that real copies agree is a contract of its own."""

    def to_dtype(self, dtype: torch.dtype) -> Potential:
        assert dtype == self.dtype
        return self
