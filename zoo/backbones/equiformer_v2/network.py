"""The whole network in both forms that upstream's files have, with upstream's parameter names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.backbones.equiformer_v2.attention import GraphAttention
from zoo.backbones.equiformer_v2.blocks import EdgeDegreeEmbedding, FeedForward, TransformerBlock
from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.config import Architecture, EquiformerV2Config, HydraHeads
from zoo.backbones.equiformer_v2.edges import Edges, GaussianBasis, uniform_count
from zoo.backbones.equiformer_v2.grid import SphereGrid
from zoo.backbones.equiformer_v2.heads import StressHead, summed_over_graphs
from zoo.backbones.equiformer_v2.initialisation import initialise
from zoo.backbones.equiformer_v2.norms import create_norm
from zoo.backbones.equiformer_v2.rotation import EdgeFrames, unit_vectors

QUANTITIES = ("energy", "forces", "stress")
"""What a network may be asked for."""


@dataclass(frozen=True)
class Structures:
    """A batch of structures as the network reads it.

    Attributes:
        atomic_numbers: (N,).
        edge_index: (2, E) neighbour and centre, sorted by centre.
        edge_vectors: (E, 3) Å, from the centre to the neighbour.
        graph_of_atom: (N,) index of each atom's structure.
        graph_count: G.
        gauge: (E,) turns of the edges' frames about the edges, radians; None for the network's own frames.
        attached: whether the edges' frames are differentiable in the positions. Upstream trains with frames that are not, so that only
            distances carry gradients of an energy; forces that are an energy's gradient need them.
    """

    atomic_numbers: Tensor
    edge_index: Tensor
    edge_vectors: Tensor
    graph_of_atom: Tensor
    graph_count: int
    gauge: Tensor | None = None
    attached: bool = False


class Trunk(nn.Module):
    """Features of atoms: embeddings, transformer blocks and a last norm.

    Args:
        config: of the network.
        dtype: constants are computed in it.
    """

    def __init__(self, config: EquiformerV2Config, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        in_frames, on_atoms = Coefficients(config.lmax, config.mmax), Coefficients(config.lmax, config.lmax)
        self.frames = EdgeFrames(in_frames, dtype)
        self.basis = GaussianBasis(config.max_radius, dtype)
        self.grid_of_frames = SphereGrid(in_frames, "|m|", config.grid_resolution, dtype)
        self.grid_of_atoms = SphereGrid(on_atoms, "degree", config.grid_resolution, dtype)
        self.sphere_embedding = nn.Embedding(config.max_num_elements, config.sphere_channels)
        self.edge_degree_embedding = EdgeDegreeEmbedding(config)
        self.blocks = nn.ModuleList(
            TransformerBlock(config, self.grid_of_frames, self.grid_of_atoms, dtype) for _ in range(config.num_layers)
        )
        self.norm = create_norm(config.norm_type, config.lmax, config.sphere_channels, dtype)

    def edges(self, structures: Structures) -> Edges:
        """What the layers read of the edges."""
        vectors = structures.edge_vectors
        directions = unit_vectors(vectors if structures.attached else vectors.detach())
        source, target = structures.edge_index
        return Edges(
            source=source,
            target=target,
            source_elements=structures.atomic_numbers[source],
            target_elements=structures.atomic_numbers[target],
            vectors=vectors,
            gaussians=self.basis(vectors.norm(dim=1)),
            rotations=self.frames(directions, structures.gauge),
            atom_count=len(structures.atomic_numbers),
            edges_per_atom=uniform_count(target, len(structures.atomic_numbers)),
        )

    def features(self, structures: Structures, edges: Edges) -> Tensor:
        """(N, S, C) features of the atoms."""
        features = self.edge_degree_embedding(edges)
        scalars = features[:, :1] + self.sphere_embedding(structures.atomic_numbers)[:, None]
        features = torch.cat([scalars, features[:, 1:]], dim=1)
        for block in self.blocks:
            features = block(features, edges, structures.graph_of_atom, structures.graph_count)
        return self.norm(features)  # type: ignore[no-any-return]


class MonolithicNetwork(Trunk):
    """Upstream's ``equiformer_v2``: energies and forces; the form of OC20's and OC22's files."""

    def __init__(self, config: EquiformerV2Config, dtype: torch.dtype) -> None:
        super().__init__(config, dtype)
        self.architecture = Architecture(config)
        if config.load_energy_lin_ref:
            # fitted to the training set by its authors, in the energy's normalised unit, and not trained
            self.energy_lin_ref = nn.Parameter(torch.zeros(config.max_num_elements), requires_grad=False)
        self.energy_block = FeedForward(config, 1, self.grid_of_atoms)
        if config.regress_forces:
            self.force_block = GraphAttention(config, 1, self.grid_of_frames, alpha_drop=0.0)
        self.to(dtype)

    def forward(self, structures: Structures, quantities: Collection[str] = QUANTITIES) -> dict[str, Tensor]:
        """See `build_network`."""
        edges = self.edges(structures)
        features = self.features(structures, edges)
        outputs = {}
        if "energy" in quantities:
            outputs["energy"] = _energy(self.energy_block, features, structures) / self.config.avg_num_nodes
            if self.config.use_energy_lin_ref:
                references = self.energy_lin_ref[structures.atomic_numbers]
                outputs["energy"] = outputs["energy"] + summed_over_graphs(references, structures.graph_of_atom, structures.graph_count)
        if "forces" in quantities and self.config.regress_forces:
            outputs["forces"] = self.force_block.vectors(features, edges)[:, :, 0]
        return outputs


class HydraNetwork(nn.Module):
    """Upstream's hydra: a backbone and heads by name; the form of OMat24's files."""

    def __init__(self, config: EquiformerV2Config, heads: HydraHeads, dtype: torch.dtype) -> None:
        super().__init__()
        self.architecture = Architecture(config, heads)
        self.energy_is_mean = heads.energy.reduce == "mean"
        self.backbone = Trunk(config, dtype)
        self.output_heads = nn.ModuleDict()
        self.output_heads["energy"] = nn.ModuleDict({"energy_block": FeedForward(config, 1, self.backbone.grid_of_atoms)})
        if heads.forces is not None:
            force_block = GraphAttention(config, 1, self.backbone.grid_of_frames, alpha_drop=0.0)
            self.output_heads["forces"] = nn.ModuleDict({"force_block": force_block})
        if heads.stress is not None:
            self.output_heads["stress"] = StressHead(config, dtype)
        self.to(dtype)

    def forward(self, structures: Structures, quantities: Collection[str] = QUANTITIES) -> dict[str, Tensor]:
        """See `build_network`."""
        edges = self.backbone.edges(structures)
        features = self.backbone.features(structures, edges)
        outputs = {}
        if "energy" in quantities:
            energy = _energy(self.output_heads["energy"]["energy_block"], features, structures)  # type: ignore[index]
            if self.energy_is_mean:
                counts = torch.bincount(structures.graph_of_atom, minlength=structures.graph_count)
                outputs["energy"] = energy / counts.clamp(min=1)
            else:
                outputs["energy"] = energy / self.architecture.config.avg_num_nodes
        if "forces" in quantities and "forces" in self.output_heads:
            outputs["forces"] = self.output_heads["forces"]["force_block"].vectors(features, edges)[:, :, 0]  # type: ignore[index]
        if "stress" in quantities and "stress" in self.output_heads:
            parts = self.output_heads["stress"](features, edges, structures.graph_of_atom, structures.graph_count)
            outputs["stress_isotropic"], outputs["stress_anisotropic"] = parts
        return outputs


def build_network(architecture: Architecture, dtype: torch.dtype) -> MonolithicNetwork | HydraNetwork:
    """The network of an architecture with fresh weights, as upstream's own initialisation draws them.

    Called under ``torch.device("meta")`` it allocates no weights, and its constants are on the CPU all the same.

    The network is called with `Structures` and, where not all are wanted, with the names of some of `QUANTITIES`. As far as it has heads
    for them it returns ``energy`` (G,), ``forces`` (N, 3), ``stress_isotropic`` (G, 1) and ``stress_anisotropic`` (G, 5), in the units the
    model was trained in.
    """
    network: MonolithicNetwork | HydraNetwork
    if architecture.heads is None:
        network = MonolithicNetwork(architecture.config, dtype)
    else:
        network = HydraNetwork(architecture.config, architecture.heads, dtype)
    initialise(network, architecture.config.weight_init)
    return network


def rebuilt_network(network: MonolithicNetwork | HydraNetwork, dtype: torch.dtype) -> MonolithicNetwork | HydraNetwork:
    """The same model in ``dtype``, with its constants computed in it; a cast would keep their rounding."""
    with torch.device("meta"):
        anew = build_network(network.architecture, dtype)
    weights = {name: value.detach().to(dtype, copy=True) for name, value in network.named_parameters()}
    anew.load_state_dict(weights, assign=True)
    return anew.to(next(network.parameters()).device).train(network.training)


def trunk_of(network: MonolithicNetwork | HydraNetwork) -> Trunk:
    """The part that both forms share."""
    return network.backbone if isinstance(network, HydraNetwork) else network


def _energy(block: FeedForward, features: Tensor, structures: Structures) -> Tensor:
    """(G,) sums of the atoms' scalars."""
    return summed_over_graphs(block.scalars(features)[:, 0], structures.graph_of_atom, structures.graph_count)
