"""Graph attention: messages in the edges' frames, weighted over the edges of each atom (arXiv:2306.12059, section 4.1 and figure 1b)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.backbones.equiformer_v2.activations import GateActivation, SeparableSphereActivation, SphereActivation, smooth_leaky_relu
from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.config import EquiformerV2Config
from zoo.backbones.equiformer_v2.edges import Edges
from zoo.backbones.equiformer_v2.grid import SphereGrid
from zoo.backbones.equiformer_v2.so2 import SO2Convolution
from zoo.backbones.equiformer_v2.so3 import SO3Linear


class GraphAttention(nn.Module):
    """Messages from the features at both ends of an edge, by two SO(2) convolutions with an activation between them.

    Args:
        config: of the network.
        out_channels: C_out.
        grid: of the edges' frames.
        alpha_drop: dropout of the attention weights.
    """

    def __init__(self, config: EquiformerV2Config, out_channels: int, grid: SphereGrid, alpha_drop: float) -> None:
        super().__init__()
        coefficients = Coefficients(config.lmax, config.mmax)
        self.lmax = config.lmax
        self.heads_shape = (config.num_heads, config.attn_alpha_channels)
        self.alpha_drop = alpha_drop
        logits, hidden, values = math.prod(self.heads_shape), config.attn_hidden_channels, config.num_heads * config.attn_value_channels
        self.alpha_dot = nn.Parameter(torch.empty(self.heads_shape))
        self.source_embedding = nn.Embedding(config.max_num_elements, config.edge_channels)
        self.target_embedding = nn.Embedding(config.max_num_elements, config.edge_channels)
        if config.use_gate_act:
            self.activation: nn.Module = GateActivation(coefficients.degrees, hidden)
            gates = config.lmax * hidden
        else:
            self.activation = SeparableSphereActivation(grid) if config.use_sep_s2_act else SphereActivation(grid)
            gates = hidden if config.use_sep_s2_act else 0
        self.so2_conv_1 = SO2Convolution(coefficients, 2 * config.sphere_channels, hidden, logits + gates, config.edge_channels)
        self.alpha_norm = nn.LayerNorm(config.attn_alpha_channels) if config.use_attn_renorm else nn.Identity()
        self.so2_conv_2 = SO2Convolution(coefficients, hidden, values)
        self.proj = SO3Linear(values, out_channels, config.lmax)

    def forward(self, features: Tensor, edges: Edges) -> Tensor:
        """(N, S, C_out) from features (N, S, C); an atom without edges gets the bias alone."""
        attended: Tensor = self.proj(edges.turned_out(self._messages(features, edges), slice(None), slice(None)))
        return attended

    def vectors(self, features: Tensor, edges: Edges) -> Tensor:
        """(N, 3, C_out): degree 1 alone of what `forward` gives."""
        return self.proj.of_degree(edges.turned_out(self._messages(features, edges), slice(None), slice(1, 4)), 1)

    def _messages(self, features: Tensor, edges: Edges) -> Tensor:
        """(E, R, heads values) in the edges' frames, weighted by attention."""
        turned = edges.turned_in(features)  # (E, R, 2 C)
        weights = self.so2_conv_1.rad_func(edges, self.source_embedding, self.target_embedding)
        hidden, scalars = self.so2_conv_1(turned, weights)
        logits, gates = scalars.split([math.prod(self.heads_shape), scalars.shape[1] - math.prod(self.heads_shape)], dim=1)
        values = self.so2_conv_2(self.activation(hidden, gates)).coefficients  # (E, R, heads values)
        attention = self._attention(logits, edges)  # (E, heads)
        weighted: Tensor = values * attention.repeat_interleave(values.shape[2] // self.heads_shape[0], dim=1)[:, None]
        return weighted

    def _attention(self, logits: Tensor, edges: Edges) -> Tensor:
        logits = smooth_leaky_relu(self.alpha_norm(logits.view(-1, *self.heads_shape)))  # (E, heads, alpha channels)
        attention = edges.softmax_over_edges(torch.einsum("eha,ha->eh", logits, self.alpha_dot))
        return functional.dropout(attention, self.alpha_drop, self.training)
