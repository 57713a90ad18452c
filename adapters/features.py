"""What goes into a layer and comes out of it, as irreps: what a method that changes activations has to know of a layer.

Rules attach a `LayerFeatures` to the blocks of layers whose input and output are features of atoms or edges. Groups are (multiplicity,
degree, parity); a feature tensor holds them in one of three layouts, which `split` and `joined` translate to (..., multiplicity, 2l + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Group = tuple[int, int, int]
Layout = Literal["irreps", "degrees", "strided"]


@dataclass(frozen=True)
class LayerFeatures:
    """A layer's input and output.

    Attributes:
        inputs: the groups of the layer's first argument.
        outputs: the groups of what it returns.
        layout: ``irreps`` is e3nn's, (..., dim), each group (multiplicity, 2l + 1); ``degrees`` is that of SO(3) linears,
            (N, (lmax + 1)^2, channels); ``strided`` is Allegro's, (E, channels, sum of 2l + 1).
        on_edges: whether the features are of edges, which have to vanish at the cutoff: nothing constant may be added there.
    """

    inputs: tuple[Group, ...]
    outputs: tuple[Group, ...]
    layout: Layout
    on_edges: bool = False

    @property
    def scalar_count(self) -> int:
        """How many invariant numbers (0e) go in."""
        return sum(multiplicity for multiplicity, degree, parity in self.inputs if (degree, parity) == (0, 1))

    @property
    def output_dim(self) -> int:
        """How many numbers come out for each atom or edge."""
        return sum(multiplicity * (2 * degree + 1) for multiplicity, degree, _ in self.outputs)

    def scalars_in(self, features: Tensor) -> Tensor:
        """(..., `scalar_count`): the invariants of the layer's input."""
        parts = split(features, self.inputs, self.layout)
        return torch.cat([part[..., 0] for part, group in zip(parts, self.inputs, strict=True) if group[1:] == (0, 1)], dim=-1)


def groups_of(irreps: Any) -> tuple[Group, ...]:
    """The groups of e3nn's ``Irreps``."""
    return tuple((int(multiplicity), int(irrep.l), int(irrep.p)) for multiplicity, irrep in irreps)


def split(features: Tensor, groups: Sequence[Group], layout: Layout) -> list[Tensor]:
    """Features in a layout as one tensor (..., multiplicity, 2l + 1) a group."""
    if layout == "irreps":
        sizes = [multiplicity * (2 * degree + 1) for multiplicity, degree, _ in groups]
        parts = torch.split(features, sizes, dim=-1)
        return [part.reshape(*part.shape[:-1], group[0], 2 * group[1] + 1) for part, group in zip(parts, groups, strict=True)]
    sizes = [2 * degree + 1 for _, degree, _ in groups]
    # (N, channels, sum of 2l + 1); Allegro hands flat features on
    strided = features.transpose(-1, -2) if layout == "degrees" else features.reshape(-1, groups[0][0], sum(sizes))
    return list(torch.split(strided, sizes, dim=-1))


def joined(parts: Sequence[Tensor], layout: Layout) -> Tensor:
    """The inverse of `split`."""
    if layout == "irreps":
        return torch.cat([part.flatten(-2) for part in parts], dim=-1)
    features = torch.cat(list(parts), dim=-1)
    # in the order in memory that the layer returns: the next layer may sum in another order otherwise
    return features.transpose(-1, -2).contiguous() if layout == "degrees" else features


def flattened(features: Tensor, layout: Layout) -> Tensor:
    """All numbers of an atom or edge in one row: (..., `LayerFeatures.output_dim`)."""
    return features if layout == "irreps" else features.flatten(-2)
