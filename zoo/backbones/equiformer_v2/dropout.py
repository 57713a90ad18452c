"""What the network leaves out at random while it trains: attention weights, and whole branches of its blocks (stochastic depth).

The output heads have neither (arXiv:2306.12059, appendix C).
"""

from __future__ import annotations

from dataclasses import replace

from zoo.backbones.base import DropoutRates
from zoo.backbones.equiformer_v2.blocks import TransformerBlock
from zoo.backbones.equiformer_v2.network import HydraNetwork, MonolithicNetwork, trunk_of


def dropout_rates(network: MonolithicNetwork | HydraNetwork) -> DropoutRates:
    """Upstream's ``alpha_drop`` and ``drop_path_rate``, as the network has them now."""
    config = network.architecture.config
    return DropoutRates(dropout=config.alpha_drop, stochastic_depth=config.drop_path_rate)


def set_dropout(network: MonolithicNetwork | HydraNetwork, rates: DropoutRates) -> None:
    """Change the rates that are given, in the blocks and in the architecture, from which other precisions are built."""
    names = {"dropout": "alpha_drop", "stochastic_depth": "drop_path_rate"}
    config = network.architecture.config.model_copy(update={names[name]: rate for name, rate in rates.given.items()})
    network.architecture = replace(network.architecture, config=config)
    trunk = trunk_of(network)
    trunk.config = config
    for block in trunk.blocks:
        assert isinstance(block, TransformerBlock)
        block.ga.alpha_drop, block.drop_path_rate = config.alpha_drop, config.drop_path_rate
