"""Conditions on the degree l and the order |m| of weights, as users write them: ``l>=1``, ``m<=2``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from adapters.blocks import Coverage, WeightBlock
from adapters.errors import AdapterError

_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_FORM = re.compile(rf"\s*([lm])\s*({'|'.join(_COMPARISONS)})\s*(\d+)\s*")
_WORDS = {"l": "degree", "m": "order"}


@dataclass(frozen=True)
class Condition:
    """One comparison; it concerns the blocks that have the number and lets all others through.

    Attributes:
        symbol: ``"l"``, the degree, or ``"m"``, the order |m|.
        comparison: ``<=``, ``>=``, ``==``, ``!=``, ``<`` or ``>``.
        number: to compare with.
    """

    symbol: str
    comparison: str
    number: int

    @classmethod
    def parse(cls, text: str) -> Condition:
        """A condition from ``"m<=2"``; raises `ValueError` for anything else."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is no condition: wanted l or m, one of {' '.join(_COMPARISONS)} and a whole number, as in 'm<=2' or 'l>=1'"
            )
        return cls(match[1], match[2], int(match[3]))

    def __str__(self) -> str:
        return f"{self.symbol}{self.comparison}{self.number}"

    def number_of(self, block: WeightBlock) -> int | None:
        """The block's degree or order, None where it has none."""
        return block.degree if self.symbol == "l" else block.order

    def lets_through(self, block: WeightBlock) -> bool:
        """Whether the block has no such number or one that fulfils the condition."""
        found = self.number_of(block)
        return found is None or _COMPARISONS[self.comparison](found, self.number)

    def check(self, coverage: Coverage) -> None:
        """Raise `AdapterError` where the model's weights have no such number, or none of theirs fulfils the condition."""
        found = sorted({number for block in coverage.blocks if (number := self.number_of(block)) is not None})
        word = _WORDS[self.symbol]
        if not found:
            raise AdapterError(f"adapter.select: {str(self)!r}, but no weight of the model has a known {word} {self.symbol}; leave it out")
        if not any(_COMPARISONS[self.comparison](number, self.number) for number in found):
            raise AdapterError(
                f"adapter.select: no {word} of the model fulfils {str(self)!r}; its weights have {self.symbol} = "
                f"{', '.join(map(str, found))}; choose among them"
            )
