"""Blocks are computed together only where they are of one shape, which their factors alone do not tell."""

from __future__ import annotations

import torch
from torch import nn

from adapters.blocks import find_blocks
from adapters.method import AdapterMethod, MethodConfig
from adapters.stack import AdapterStack


class ColumnScale(AdapterMethod):
    """delta = W diag(s)."""

    name = "column-scale of a test"
    needs_base = True

    def selects(self, block):
        return block.structure == "matrix"

    def initial_factors(self, block, generator, dtype):
        return {"s": torch.zeros(1, block.cols, dtype=dtype)}

    def delta(self, factors):
        return factors["W"] * factors["s"]


def test_blocks_whose_factors_are_alike_and_that_are_not_have_deltas_of_their_own():
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(5, 4), nn.Linear(3, 4)])
    weights = [layer.weight.detach().clone() for layer in model]
    stack = AdapterStack(model, find_blocks(model))
    adapter = stack.add("scale", ColumnScale(MethodConfig()))
    with torch.no_grad():
        for number, tensor in enumerate(adapter.tensors.values()):
            tensor.fill_(0.1 * (number + 1))
    deltas = adapter.deltas()
    assert len(deltas) == 3
    for number, weight in enumerate(weights):
        torch.testing.assert_close(deltas[f"{number}.weight"].detach(), 0.1 * (number + 1) * weight)
