"""Fresh weights as upstream draws them, for training from scratch."""

from __future__ import annotations

import math

import torch
from torch import nn

from zoo.backbones.equiformer_v2.attention import GraphAttention
from zoo.backbones.equiformer_v2.blocks import EdgeDegreeEmbedding
from zoo.backbones.equiformer_v2.heads import StressHead
from zoo.backbones.equiformer_v2.norms import DegreewiseLayerNorm, RootMeanSquareNorm, SeparableLayerNorm
from zoo.backbones.equiformer_v2.radial import RadialFunction
from zoo.backbones.equiformer_v2.so2 import OrderConvolution
from zoo.backbones.equiformer_v2.so3 import SO3Linear

_ELEMENT_EMBEDDING_BOUND = 0.001


@torch.no_grad()
def initialise(network: nn.Module, weight_init: str) -> None:
    """Draw every weight anew, from torch's global generator; fitted reference energies stay.

    Args:
        network: of this package.
        weight_init: ``uniform`` between plus and minus 1/sqrt(inputs), or ``normal`` with that standard deviation; radial functions and the
            stress head are uniform in both.
    """
    always_uniform: set[int] = set()
    for module in network.modules():
        if isinstance(module, RadialFunction | StressHead):
            always_uniform.update(map(id, module.modules()))
    for module in network.modules():
        _reset(module)
        if isinstance(module, nn.Linear | SO3Linear):
            bound = 1 / math.sqrt(module.weight.shape[-1])
            if weight_init == "normal" and id(module) not in always_uniform:
                module.weight.normal_(std=bound)
            else:
                module.weight.uniform_(-bound, bound)
            if module.bias is not None:
                module.bias.zero_()
    if weight_init == "uniform":  # upstream's own "normal" draws these again without the factor
        for module in network.modules():
            if isinstance(module, OrderConvolution):
                module.fc.weight.mul_(math.sqrt(0.5))


def _reset(module: nn.Module) -> None:
    """What is drawn otherwise than linear maps are; a module comes before its parts, so that an embedding of elements is drawn last."""
    if isinstance(module, nn.LayerNorm):
        module.reset_parameters()
    elif isinstance(module, SeparableLayerNorm):
        module.affine_weight.fill_(1)
    elif isinstance(module, RootMeanSquareNorm | DegreewiseLayerNorm):
        module.affine_weight.fill_(1)
        module.affine_bias.zero_()
    elif isinstance(module, GraphAttention | EdgeDegreeEmbedding):
        for embedding in (module.source_embedding, module.target_embedding):
            embedding.weight.uniform_(-_ELEMENT_EMBEDDING_BOUND, _ELEMENT_EMBEDDING_BOUND)
        if isinstance(module, GraphAttention):
            bound = 1 / math.sqrt(module.alpha_dot.shape[1])
            module.alpha_dot.uniform_(-bound, bound)
