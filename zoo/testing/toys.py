"""Toys: small random networks of each registered family, and a way to lend one to many checks.

Building a network costs more than all that a check does with it, because e3nn generates and compiles code. Lending is a contract as well:
whatever adapters, predictions and gradients a borrower had, when it is over the base is what it was, bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from zoo.backbones import family_names, is_installed, load_family
from zoo.backbones.base import Backbone, Family
from zoo.testing.measures import assert_same_state, state_of


@dataclass(frozen=True)
class Toy:
    """One of a family's toys; ``variant`` is empty for the family's main one."""

    family: str
    variant: str = ""

    def build(self, seed: int) -> Backbone:
        """The network, random weights in float64."""
        return toys_of(load_family(self.family))[self.variant](seed)

    def __str__(self) -> str:
        return f"{self.family} {self.variant}".strip()


def toys_of(family: Family) -> dict[str, Callable[[int], Backbone]]:
    """Builders ``(seed) -> Backbone`` by variant, the main one under the empty name."""
    return {"": family.toy, **family.more_toys}


def registered_toys(*, variants: bool = True) -> list[Toy]:
    """The toys of every registered family whose package is installed.

    Args:
        variants: with the families' `Family.more_toys`, else the main ones alone.
    """
    installed = [name for name in family_names() if is_installed(name)]
    return [Toy(name, variant) for name in installed for variant in toys_of(load_family(name)) if variants or not variant]


@contextmanager
def activations_integrated_once() -> Iterator[None]:
    """While this lasts, e3nn does not draw its million numbers again for each activation function of each network that it builds."""
    from e3nn.math import _normalize_activation

    with patch.object(_normalize_activation, "moment", functools.cache(_normalize_activation.moment)):
        yield


class Lender:
    """Networks that are built once; one that comes back changed is an error of the test that had it, and is not lent again."""

    def __init__(self) -> None:
        self._shelf: dict[object, Backbone] = {}

    def lend(self, key: object, build: Callable[[], Backbone]) -> Iterator[Backbone]:
        """The body of a fixture, or of a context manager: yields the network and takes it back.

        Raises:
            ContractError: where a tensor of it changed meanwhile.
        """
        backbone = self._shelf.pop(key, None) or build()
        before, trains = state_of(backbone), {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
        yield backbone
        assert_same_state(state_of(backbone), before)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(trains[name]).grad = None
        self._shelf[key] = backbone
