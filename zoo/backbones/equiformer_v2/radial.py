"""Numbers that depend on an edge's length and on the elements of its ends."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.backbones.equiformer_v2.config import GAUSSIAN_COUNT
from zoo.backbones.equiformer_v2.edges import Edges


class RadialFunction(nn.Module):
    """An MLP of the Gaussians of the length and the embeddings of the two elements.

    Args:
        edge_channels: of either embedding and of the hidden layers.
        out_channels: of the output.
    """

    def __init__(self, edge_channels: int, out_channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(GAUSSIAN_COUNT + 2 * edge_channels, edge_channels),
            nn.LayerNorm(edge_channels),
            nn.SiLU(),
            nn.Linear(edge_channels, edge_channels),
            nn.LayerNorm(edge_channels),
            nn.SiLU(),
            nn.Linear(edge_channels, out_channels),
        )

    def forward(self, edges: Edges, source_embedding: nn.Embedding, target_embedding: nn.Embedding) -> Tensor:
        """(E, out) for edges; the embeddings are the (elements, edge_channels) ones of the layer that asks."""
        first = self.net[0]
        assert isinstance(first, nn.Linear)
        channels = source_embedding.embedding_dim
        of_length, of_source, of_target = torch.split(first.weight, [GAUSSIAN_COUNT, channels, channels], dim=1)
        # the part of the elements is worked out once an element, not once an edge
        hidden = functional.linear(edges.gaussians, of_length, first.bias)
        hidden = hidden + functional.linear(source_embedding.weight, of_source).index_select(0, edges.source_elements)
        hidden = hidden + functional.linear(target_embedding.weight, of_target).index_select(0, edges.target_elements)
        values: Tensor = self.net[1:](hidden)
        return values
