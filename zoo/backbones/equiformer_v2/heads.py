"""From atoms to structures: sums and means, and the head that predicts stress in two parts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.backbones.equiformer_v2.config import EquiformerV2Config
from zoo.backbones.equiformer_v2.edges import Edges
from zoo.backbones.equiformer_v2.harmonics import solid_harmonics
from zoo.backbones.equiformer_v2.norms import create_norm
from zoo.backbones.equiformer_v2.rotation import unit_vectors


def summed_over_graphs(values: Tensor, graph_of_atom: Tensor, graph_count: int) -> Tensor:
    """(G, ...) sums of values (N, ...) over the atoms of each structure."""
    return values.new_zeros(graph_count, *values.shape[1:]).index_add(0, graph_of_atom, values)


def meaned_over_graphs(values: Tensor, graph_of_atom: Tensor, graph_count: int) -> Tensor:
    """(G, ...) means of values (N, ...) over the atoms of each structure."""
    counts = torch.bincount(graph_of_atom, minlength=graph_count).clamp(min=1)
    return summed_over_graphs(values, graph_of_atom, graph_count) / counts.view(-1, *[1] * (values.dim() - 1))


class StressHead(nn.Module):
    """Stress as an isotropic number and five components of degree 2, means over edges and atoms (upstream's ``rank2_symmetric_head``).

    The MLP of the second part has biases and acts on components of degree 2 as on scalars, so that it is not equivariant.
    """

    def __init__(self, config: EquiformerV2Config, dtype: torch.dtype) -> None:
        super().__init__()
        channels = 2 * config.sphere_channels
        self.lmax = config.lmax
        self.sphharm_norm = create_norm(config.norm_type, config.lmax, 1, dtype)
        self.xedge_layer_norm = nn.LayerNorm(channels)
        self.block = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 1)) for name in ("scalar_MLP", "irrep2_MLP")}
        )

    def forward(self, features: Tensor, edges: Edges, graph_of_atom: Tensor, graph_count: int) -> tuple[Tensor, Tensor]:
        """The isotropic part (G, 1) and the anisotropic (G, 5), from features (N, S, C)."""
        vectors = edges.vectors.detach()
        harmonics = _harmonics(vectors, self.lmax)  # (E, S)
        harmonics = self.sphharm_norm(harmonics[:, :, None])[:, None, :, 0]  # (E, 1, S)
        ends = [torch.bmm(harmonics, features.index_select(0, end))[:, 0] for end in (edges.source, edges.target)]  # (E, C) each
        of_edges = self.xedge_layer_norm(torch.cat(ends, dim=1))  # (E, 2 C)
        along = _harmonics(unit_vectors(vectors), 2)[:, 4:]  # (E, 5)
        isotropic = self.block["scalar_MLP"](edges.meaned_onto_targets(of_edges))  # (N, 1)
        anisotropic = self.block["irrep2_MLP"](edges.meaned_onto_targets(along[:, :, None] * of_edges[:, None]))  # (N, 5, 1)
        return (
            meaned_over_graphs(isotropic, graph_of_atom, graph_count),
            meaned_over_graphs(anisotropic[:, :, 0], graph_of_atom, graph_count),
        )


def joined_stress(isotropic: Tensor, anisotropic: Tensor) -> Tensor:
    """(G, 3, 3) symmetric, from the isotropic part (G, 1) and the anisotropic (G, 5), each in the stress's unit.

    The first multiplies the unit matrix over sqrt(3); the others five orthonormal traceless ones, in the order of the harmonics of degree 2
    (xz, xy, y^2, yz, z^2 - x^2).
    """
    basis = isotropic.new_zeros(6, 3, 3)
    for component, diagonal in ((0, (1, 1, 1)), (3, (-1, 2, -1)), (5, (-1, 0, 1))):
        for row, entry in enumerate(diagonal):
            basis[component, row, row] = entry / math.hypot(*diagonal)
    for component, (row, column) in ((1, (0, 2)), (2, (0, 1)), (4, (1, 2))):
        basis[component, row, column] = basis[component, column, row] = math.sqrt(0.5)
    return torch.einsum("gc,cij->gij", torch.cat([isotropic, anisotropic], dim=1), basis)


def _harmonics(vectors: Tensor, lmax: int) -> Tensor:
    """(E, (lmax + 1)^2) of vectors (E, 3)."""
    x, y, z = vectors.unbind(1)
    return torch.stack(solid_harmonics(x, y, z, lmax), dim=1)
