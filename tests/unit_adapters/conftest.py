"""A small model with every layer type that the rules know, and the stack on it."""

from __future__ import annotations

import pytest
import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from torch import Tensor, nn

from adapters.blocks import find_blocks
from adapters.stack import AdapterStack

IRREPS = "8x0e+4x1e"


class ToyModel(nn.Module):
    """features (N, 20), species (N,), lengths (N, 4) -> (N, 20), equivariant in ``features``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 6)
        self.mix = o3.FullyConnectedTensorProduct(IRREPS, "6x0e+2x1e", IRREPS)
        self.linear = o3.Linear("4x0e+4x0e+4x1e", IRREPS, biases=True)
        self.radial = e3nn_nn.FullyConnectedNet([4, 8, 8], torch.nn.functional.silu)
        self.head = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.linear_again = self.linear
        self.frozen = nn.Parameter(torch.full((3,), 0.5), requires_grad=False)

    def forward(self, features: Tensor, species: Tensor, lengths: Tensor) -> Tensor:
        second = torch.cat([self.embed(species) * self.frozen[0], features[:, 8:14]], dim=1)
        mixed = self.linear_again(self.linear(self.mix(features, second)))
        scalars = self.norm(self.head(mixed[:, :8] * self.radial(lengths)))
        return torch.cat([scalars, mixed[:, 8:]], dim=1)


def toy_inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(7, 20, generator=generator, dtype=torch.float64)
    lengths = torch.rand(7, 4, generator=generator, dtype=torch.float64)
    return features.to(dtype), torch.arange(7) % 3, lengths.to(dtype)


@pytest.fixture
def toy() -> ToyModel:
    torch.manual_seed(0)
    model = ToyModel().double()
    for name, buffer in model.named_buffers():
        if "_w3j_" in name:  # .double() keeps float32's rounding
            degrees = [int(part) for part in name.rsplit("_w3j_", 1)[1].split("_")]
            buffer.copy_(o3.wigner_3j(*degrees, dtype=torch.float64))
    return model


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return toy_inputs()


@pytest.fixture
def stack(toy: ToyModel) -> AdapterStack:
    return AdapterStack(toy, find_blocks(toy, {"head.*": "readout"}))
