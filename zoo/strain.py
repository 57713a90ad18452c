"""The strain whose derivative is the stress: applied to positions and cell together, zero, and kept for the gradient."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from zoo.graph import AtomGraph, cell_volumes, fully_periodic


def apply_strain(graph: AtomGraph) -> tuple[AtomGraph, Tensor, Tensor]:
    """The graph with differentiable positions and a symmetric strain of zero on positions and cell."""
    positions = graph.positions.detach().to(torch.float64).requires_grad_(True)  # (N, 3)
    strain = torch.zeros((graph.graph_count, 3, 3), dtype=torch.float64, device=positions.device, requires_grad=True)  # (G, 3, 3)
    symmetric = (strain + strain.transpose(1, 2)) / 2
    cell = graph.cell.to(torch.float64)
    strained = copy.copy(graph)
    strained.positions = positions + torch.einsum("ni,nij->nj", positions, symmetric[graph.graph_of_atom])
    strained.cell = cell + cell @ symmetric
    return strained, positions, strain


def stress_of(strain_gradient: Tensor, graph: AtomGraph) -> Tensor:
    """(G, 3, 3) eV/Å^3; NaN where a volume has no meaning."""
    periodic = fully_periodic(graph)[:, None, None]
    volume = cell_volumes(graph.cell)[:, None, None]
    safe_volume = torch.where(periodic, volume, torch.ones_like(volume))  # a molecule's volume of 0 would put NaN into its gradient
    return torch.where(periodic, strain_gradient / safe_volume, torch.full_like(strain_gradient, float("nan")))
