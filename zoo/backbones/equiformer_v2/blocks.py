"""The blocks of the network: the features atoms start with, feed-forward networks, and transformer blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.backbones.equiformer_v2.activations import GateActivation, SeparableSphereActivation, SphereActivation
from zoo.backbones.equiformer_v2.attention import GraphAttention
from zoo.backbones.equiformer_v2.coefficients import degrees_of_all
from zoo.backbones.equiformer_v2.config import EquiformerV2Config
from zoo.backbones.equiformer_v2.edges import Edges
from zoo.backbones.equiformer_v2.grid import SphereGrid
from zoo.backbones.equiformer_v2.norms import create_norm
from zoo.backbones.equiformer_v2.radial import RadialFunction
from zoo.backbones.equiformer_v2.so3 import SO3Linear


class EdgeDegreeEmbedding(nn.Module):
    """What an atom's features start from: a sum over its edges of functions of their lengths along their directions."""

    def __init__(self, config: EquiformerV2Config) -> None:
        super().__init__()
        self.lmax = config.lmax
        self.divisor = config.avg_degree
        self.source_embedding = nn.Embedding(config.max_num_elements, config.edge_channels)
        self.target_embedding = nn.Embedding(config.max_num_elements, config.edge_channels)
        self.rad_func = RadialFunction(config.edge_channels, (config.lmax + 1) * config.sphere_channels)

    def forward(self, edges: Edges) -> Tensor:
        """(N, S, C)."""
        radial = self.rad_func(edges, self.source_embedding, self.target_embedding).unflatten(1, (self.lmax + 1, -1))  # (E, lmax + 1, C)
        return edges.turned_out(radial, slice(0, self.lmax + 1), slice(None)) / self.divisor


class FeedForward(nn.Module):
    """Each atom's features by themselves: linear, activation or an MLP on the sphere, linear."""

    def __init__(self, config: EquiformerV2Config, out_channels: int, grid: SphereGrid) -> None:
        super().__init__()
        channels, hidden = config.sphere_channels, config.ffn_hidden_channels
        self.so3_linear_1 = SO3Linear(channels, hidden, config.lmax)
        self.grid = grid
        self.separable = config.use_sep_s2_act and (config.use_grid_mlp or not config.use_gate_act)
        self.scalar_mlp: nn.Sequential | None = None
        self.grid_mlp: nn.Sequential | None = None
        self.gating_linear: nn.Linear | None = None
        if config.use_grid_mlp:
            if config.use_sep_s2_act:
                self.scalar_mlp = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU())
            layers = [nn.Linear(hidden, hidden, bias=False), nn.SiLU()]
            self.grid_mlp = nn.Sequential(*layers, nn.Linear(hidden, hidden, bias=False), nn.SiLU(), nn.Linear(hidden, hidden, bias=False))
        elif config.use_gate_act:
            self.gating_linear = nn.Linear(channels, config.lmax * hidden)
            self.activation: nn.Module = GateActivation(degrees_of_all(config.lmax), hidden)
        else:
            if config.use_sep_s2_act:
                self.gating_linear = nn.Linear(channels, hidden)
            self.activation = SeparableSphereActivation(grid) if config.use_sep_s2_act else SphereActivation(grid)
        self.so3_linear_2 = SO3Linear(hidden, out_channels, config.lmax)

    def forward(self, features: Tensor) -> Tensor:
        """(N, S, C_out) from features (N, S, C)."""
        scalars, hidden = features[:, 0], self.so3_linear_1(features)
        if self.grid_mlp is None:
            gates = scalars if self.gating_linear is None else self.gating_linear(scalars)
            return self.so3_linear_2(self.activation(hidden, gates))  # type: ignore[no-any-return]
        hidden = self.grid(hidden, self.grid_mlp)
        if self.scalar_mlp is not None:
            hidden = torch.cat([self.scalar_mlp(scalars)[:, None], hidden[:, 1:]], dim=1)
        return self.so3_linear_2(hidden)  # type: ignore[no-any-return]

    def scalars(self, features: Tensor) -> Tensor:
        """(N, C_out): degree 0 alone of what `forward` gives; where scalars pass the activation apart, nothing else is worked out."""
        if not self.separable:
            return self(features)[:, 0]  # type: ignore[no-any-return]
        if self.scalar_mlp is not None:
            hidden = self.scalar_mlp(features[:, 0])
        else:
            assert self.gating_linear is not None
            hidden = nn.functional.silu(self.gating_linear(features[:, 0]))
        return self.so3_linear_2.of_degree(hidden[:, None], 0)[:, 0]


class TransformerBlock(nn.Module):
    """Attention and a feed-forward network, each behind a norm and beside a skip connection."""

    def __init__(self, config: EquiformerV2Config, grid_of_frames: SphereGrid, grid_of_atoms: SphereGrid, dtype: torch.dtype) -> None:
        super().__init__()
        self.drop_path_rate = config.drop_path_rate
        self.norm_1 = create_norm(config.norm_type, config.lmax, config.sphere_channels, dtype)
        self.ga = GraphAttention(config, config.sphere_channels, grid_of_frames, config.alpha_drop)
        self.norm_2 = create_norm(config.norm_type, config.lmax, config.sphere_channels, dtype)
        self.ffn = FeedForward(config, config.sphere_channels, grid_of_atoms)
        self.proj_drop = config.proj_drop

    def forward(self, features: Tensor, edges: Edges, graph_of_atom: Tensor, graph_count: int) -> Tensor:
        """(N, S, C) from features (N, S, C)."""
        attended = self.ga(self.norm_1(features), edges)
        features = features + self._dropped(attended, graph_of_atom, graph_count)
        forwarded = self.ffn(self.norm_2(features))
        return features + self._dropped(forwarded, graph_of_atom, graph_count)

    def _dropped(self, branch: Tensor, graph_of_atom: Tensor, graph_count: int) -> Tensor:
        """Stochastic depth, one draw a structure; then dropout, one draw an atom and channel for all its coefficients."""
        if not self.training:
            return branch
        if self.drop_path_rate:
            kept = nn.functional.dropout(branch.new_ones(graph_count), self.drop_path_rate)
            branch = branch * kept[graph_of_atom][:, None, None]
        if self.proj_drop:
            branch = branch * nn.functional.dropout(torch.ones_like(branch[:, :1]), self.proj_drop)
        return branch
