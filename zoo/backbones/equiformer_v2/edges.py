"""What every layer of the network reads of the edges: ends, elements, distances and rotations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.backbones.equiformer_v2.config import GAUSSIAN_COUNT
from zoo.backbones.equiformer_v2.rotation import EdgeRotations

_WIDTH_IN_SPACINGS = 2.0


@dataclass(frozen=True)
class Edges:
    """E edges between N atoms.

    Attributes:
        source: (E,) the neighbour, which messages come from.
        target: (E,) the centre, which they are summed onto.
        source_elements, target_elements: (E,) atomic numbers of the two.
        vectors: (E, 3) Å, from the centre to the neighbour.
        gaussians: (E, 600) the distances in the radial basis.
        rotations: into the edges' frames and out of them.
        atom_count: N.
        edges_per_atom: where every atom is the centre of equally many edges, one behind the other, that number.
    """

    source: Tensor
    target: Tensor
    source_elements: Tensor
    target_elements: Tensor
    vectors: Tensor
    gaussians: Tensor
    rotations: EdgeRotations
    atom_count: int
    edges_per_atom: int | None

    def turned_in(self, features: Tensor) -> Tensor:
        """(E, R, 2 C) features (N, S, C) of both ends of each edge in its frame, the source's channels first."""
        into = self.rotations.into
        of_sources = torch.bmm(into, features.index_select(0, self.source))
        if self.edges_per_atom is None:
            of_targets = torch.bmm(into, features.index_select(0, self.target))
        else:  # the rotations of an atom's edges are one matrix
            of_targets = torch.bmm(into.view(self.atom_count, -1, into.shape[2]), features).view_as(of_sources)
        return torch.cat([of_sources, of_targets], dim=2)

    def turned_out(self, messages: Tensor, orders: slice, coefficients: slice) -> Tensor:
        """(N, S', C) sums over each centre's edges of messages turned out of the edges' frames.

        Args:
            messages: (E, R', C) in the edges' frames.
            orders: which R' of the coefficients by |m| they hold; the others are zero.
            coefficients: which S' of the atoms' coefficients are wanted.
        """
        out_of = self.rotations.out_of[:, orders, coefficients]
        if self.edges_per_atom is None:
            return self.summed_onto_targets(torch.bmm(out_of.transpose(1, 2), messages))
        rows = self.edges_per_atom * messages.shape[1]  # the sum over edges is part of the product
        of_atoms = out_of.reshape(self.atom_count, rows, out_of.shape[2])
        return torch.bmm(of_atoms.transpose(1, 2), messages.reshape(self.atom_count, rows, messages.shape[2]))

    def summed_onto_targets(self, values: Tensor) -> Tensor:
        """(N, ...) sums of values (E, ...) over the edges of each centre."""
        return values.new_zeros(self.atom_count, *values.shape[1:]).index_add(0, self.target, values)

    def meaned_onto_targets(self, values: Tensor) -> Tensor:
        """(N, ...) means of values (E, ...) over the edges of each centre; 0 for an atom without edges."""
        counts = torch.bincount(self.target, minlength=self.atom_count).clamp(min=1)
        return self.summed_onto_targets(values) / counts.view(-1, *[1] * (values.dim() - 1))

    def softmax_over_edges(self, logits: Tensor) -> Tensor:
        """(E, H) weights whose sum over the edges of a centre is 1, from logits (E, H)."""
        index = self.target[:, None].expand_as(logits)
        highest = logits.new_zeros(self.atom_count, logits.shape[1])
        highest = highest.scatter_reduce(0, index, logits.detach(), "amax", include_self=False)
        exponentials = (logits - highest[self.target]).exp()
        return exponentials / (self.summed_onto_targets(exponentials)[self.target] + 1e-16)


class GaussianBasis(nn.Module):
    """600 Gaussians of the distance, their centres evenly spaced from 0 to the cutoff."""

    centres: Tensor

    def __init__(self, cutoff_angstrom: float, dtype: torch.dtype) -> None:
        super().__init__()
        centres = torch.linspace(0, cutoff_angstrom, GAUSSIAN_COUNT, dtype=torch.float64, device="cpu")
        self.coefficient = -0.5 / (_WIDTH_IN_SPACINGS * float(centres[1] - centres[0])) ** 2
        self.register_buffer("centres", centres.to(dtype), persistent=False)

    def forward(self, distances: Tensor) -> Tensor:
        """(E, 600) of distances (E,) in Å."""
        return torch.exp(self.coefficient * (distances[:, None] - self.centres) ** 2)


def uniform_count(centres: Tensor, atom_count: int) -> int | None:
    """How many edges every atom is the centre of, where these are equally many and sorted by centre; else None."""
    count = len(centres) // max(atom_count, 1)
    expected = torch.arange(atom_count, device=centres.device).repeat_interleave(count)
    return count if count and len(expected) == len(centres) and torch.equal(centres, expected) else None
