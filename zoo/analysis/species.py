"""Which of a block's weights belong to which element."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import Tensor

from adapters.blocks import WeightBlock
from zoo.backbones.base import Backbone

# a layer of another role mixes features of atoms, whatever its name
_ROLES = frozenset({"embedding", "tensor_product", "contraction", "contraction_lower"})


def rows_by_species(block: WeightBlock, backbone: Backbone) -> dict[int, Tensor]:
    """Atomic number -> the block's rows with weights of that element alone, in the order of atomic numbers; empty where there are none.

    Rows of one-hot embeddings are elements; a tensor product of features with one-hot elements has rows (channels, elements), MACE's
    contraction (elements, paths). Where a network embeds elements first (NequIP's self-connection), weights belong to no one element.

    Args:
        block: of the backbone.
        backbone: which says where its elements are (`Backbone.species_weights`, `Backbone.species_order`).
    """
    order = backbone.species_order
    kind = next((kind for pattern, kind in backbone.species_weights.items() if fnmatchcase(block.parameter, pattern)), None)
    if kind is None or not {block.role, block.layer_role} & _ROLES or block.structure != "matrix" or block.rows % len(order):
        return {}
    rows = torch.arange(block.rows)
    each = rows.reshape(-1, len(order)).T if kind == "inner" else rows.reshape(len(order), -1)  # (species, rows of each)
    return {number: each[order.index(number)] for number in sorted(backbone.elements)}
