"""How deep in the network a weight sits: which layer's it is, so that the first layers can be frozen or trained slowly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from adapters.blocks import WeightBlock

_INPUT = frozenset({"embedding", "radial_basis"})  # roles
_OUTPUT = frozenset({"readout", "scale_shift"})


def numbered(blocks: Sequence[WeightBlock], pattern: str | None) -> list[WeightBlock]:
    """The blocks with their layer: 0 for what comes before the first interaction layer, 1 to L for these, L + 1 for the readout.

    Embeddings within the first interaction layer count as before it.

    Args:
        blocks: of a model, in the order of its parameters.
        pattern: a regular expression that finds the interaction layers' parameters by name, with their number, from 0, as its one group;
            None for a model that is one layer between its embedding and its readout.
    """
    found = [None if pattern is None or block.role in _OUTPUT else re.search(pattern, block.parameter) for block in blocks]
    places = [place for place, match in enumerate(found) if match]
    count = max((int(found[place][1]) + 1 for place in places), default=1)  # type: ignore[index]
    layers = []
    for place, (block, match) in enumerate(zip(blocks, found, strict=True)):
        if match:
            layer = 0 if int(match[1]) == 0 and block.role in _INPUT else int(match[1]) + 1
        elif block.role in _OUTPUT or (places and place > places[-1]):
            layer = count + 1
        else:
            layer = 0 if places or block.role in _INPUT else 1
        layers.append(layer)
    return [replace(block, layer=layer) for block, layer in zip(blocks, layers, strict=True)]
