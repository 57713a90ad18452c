"""Which irreps a block's weights make: a block as parts, one for each degree l (and parity or order |m|) of its outputs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor, nn

from adapters.blocks import WeightBlock
from adapters.rules_so2_so3 import SO2_CONVOLUTIONS

_LETTERS = "spdfghiklmno"  # of orbitals; there is no j
_IRREP = re.compile(r"(?:.*-> )?(\d+)([eo])")
_NO_IRREP = "none"
_CONTRACTIONS = ".symmetric_contractions.contractions."


@dataclass(frozen=True)
class Channel:
    """An irrep of O(3), or a degree and an order in the frame of an edge.

    Attributes:
        degree: l; None where weights make no one degree (radial networks, products that mix degrees, values on a grid).
        parity: 1 (even) or -1 (odd); None where the family has none or does not say.
        order: |m|, of weights that act in the frame of an edge; else None.
    """

    degree: int | None = None
    parity: int | None = None
    order: int | None = None

    @property
    def letter(self) -> str:
        """``s``, ``p``, ``d``, ``f``, ... after the orbitals of the same degree; ``-`` where there is no degree."""
        if self.degree is None:
            return "-"
        return _LETTERS[self.degree] if self.degree < len(_LETTERS) else f"l={self.degree}"

    @property
    def irrep(self) -> str:
        """``1o``; ``l=1`` without parity, ``l=1 m=0`` in the frame of an edge, ``none`` without degree."""
        if self.degree is not None and self.parity is not None:
            return f"{self.degree}{'e' if self.parity == 1 else 'o'}"
        numbers = {"l": self.degree, "m": self.order}
        return " ".join(f"{name}={number}" for name, number in numbers.items() if number is not None) or _NO_IRREP

    @property
    def sort_key(self) -> tuple[bool, bool, int, int, int]:
        """By degree, even before odd; then what has an order, by degree and order; what has no degree comes last."""
        return (self.degree is None, self.order is not None, self.degree or 0, self.order or 0, -(self.parity or 0))


@dataclass(frozen=True)
class Part:
    """The outputs of a block that belong to one channel.

    Attributes:
        channel: what they are.
        columns: runs of the block's last axis.
    """

    channel: Channel
    columns: tuple[slice, ...]

    def of(self, weights: Tensor) -> list[Tensor]:
        """Views of the part's weights in a block's (stack, rows, cols)."""
        return [weights[..., columns] for columns in self.columns]

    def of_change(self, delta: Tensor | None) -> list[Tensor | None]:
        """`of` for a change that may be none."""
        return [None] * len(self.columns) if delta is None else [*self.of(delta)]


def parts_of(block: WeightBlock, model: nn.Module) -> tuple[Part, ...]:
    """The block's outputs by channel: every column in exactly one part.

    In an SO(2) convolution the map of one order |m| makes coefficients of the degrees |m| to lmax, and that of m = 0 also extra scalars,
    which count as l = 0. All other blocks are one part.

    Args:
        block: of the model.
        model: whose layers say what a block alone does not: the outputs of SO(2) convolutions and of MACE's contractions.
    """
    if block.layer_type in SO2_CONVOLUTIONS and block.order is not None and block.layer_role in ("so2", "bias"):
        return _so2_parts(block, model) or _whole(block, Channel(order=block.order))
    if _CONTRACTIONS in block.parameter:
        return _whole(block, _of_contraction(block, model))
    named = _IRREP.fullmatch(block.path) if block.degree is not None else None
    if named:
        return _whole(block, Channel(int(named[1]), 1 if named[2] == "e" else -1))
    return _whole(block, Channel(block.degree, order=block.order))


def _whole(block: WeightBlock, channel: Channel) -> tuple[Part, ...]:
    return (Part(channel, (slice(0, block.cols),)),)


def _of_contraction(block: WeightBlock, model: nn.Module) -> Channel:
    """MACE's symmetric contraction has one contraction for each irrep that comes out, in their order."""
    before, _, after = block.parameter.partition(_CONTRACTIONS)
    place = int(after.partition(".")[0])
    irrep = model.get_submodule(f"{before}{_CONTRACTIONS.rpartition('.contractions')[0]}").irreps_out[place].ir  # type: ignore[union-attr,index]
    return Channel(int(irrep.l), int(irrep.p))


def _so2_parts(block: WeightBlock, model: nn.Module) -> tuple[Part, ...]:
    """By degree; empty where the layer does not say how many channels each degree has."""
    assert block.order is not None
    name = re.split(r"\.fc_m0\.|\.so2_m_conv\.", block.parameter)[0]
    layer = model.get_submodule(name)
    channels = getattr(layer, "out_channels", None) or getattr(layer, "m_output_channels", None)
    extra = (getattr(layer, "extra_scalars", None) or getattr(layer, "extra_m0_output_channels", None) or 0) if block.order == 0 else 0
    halves = 1 if block.order == 0 else 2  # [W_r; W_i]
    if not channels or (block.cols - extra) % (halves * channels):
        return ()
    half = (block.cols - extra) // halves
    runs: dict[int, list[slice]] = {0: [slice(0, extra)]} if extra else {}
    for start in range(extra, block.cols, half):
        for place in range(half // channels):
            begin = start + place * channels
            runs.setdefault(block.order + place, []).append(slice(begin, begin + channels))
    return tuple(Part(Channel(degree, order=block.order), tuple(columns)) for degree, columns in sorted(runs.items()))
