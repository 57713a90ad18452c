"""The family: how its files and configurations are read, and its toys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.backbones.base import Backbone, Family, UpstreamFormat, choose_head
from zoo.backbones.equiformer_v2.backbone import EquiformerV2
from zoo.backbones.equiformer_v2.checkpoint import read_architecture, read_checkpoint, recognises
from zoo.backbones.equiformer_v2.configuration import is_configuration, names_the_model, read_configuration
from zoo.backbones.equiformer_v2.network import build_network
from zoo.backbones.equiformer_v2.toys import HYDRA_HEADS, toy
from zoo.backbones.equiformer_v2.units import stated_normalisers


def load_network(path: Path, head: str | None, trust_pickle: bool) -> EquiformerV2:
    """The model of an official file, with its running averages and normalisers, or of a configuration, with random weights.

    Raises:
        ZooError: a file that cannot be read or would run code, or whose weights do not fit its configuration.
    """
    choose_head((), head, str(path))
    if is_configuration(path):
        return build(read_configuration(path), str(path))
    checkpoint = read_checkpoint(path, trust_pickle=trust_pickle)
    return EquiformerV2(checkpoint.network, checkpoint.normalisers, checkpoint.element_references)


def build(settings: Mapping[str, Any], source: str) -> EquiformerV2:
    """The network of upstream's configuration with random weights, from torch's global generator.

    Args:
        settings: with ``model`` and, where the model's units are not eV and Å, the ``dataset``'s normalisers.
        source: where they are from, for messages.

    Raises:
        ZooError: an unknown hyper-parameter or another model.
    """
    architecture = read_architecture(settings, source)
    normalisers = {name: value for name, value in stated_normalisers(settings, source).items() if value is not None}
    backbone = EquiformerV2(build_network(architecture, torch.float32).eval(), normalisers, None)
    backbone.has_weights = False
    return backbone


def _randomise(backbone: Backbone) -> Backbone:
    assert isinstance(backbone, EquiformerV2)
    return backbone.randomised()


FAMILY = Family(
    name="equiformer_v2",
    load=load_network,
    randomise=_randomise,
    build=build,
    toy=toy,
    recognises=lambda path: names_the_model(path) if is_configuration(path) else recognises(path),
    formats={
        "native": UpstreamFormat(
            ".pt", lambda path, head: f'fairchem.core.OCPCalculator(checkpoint_path="{path}") of fairchem-core 1.10'
        )
    },
    more_toys={
        "hydra": lambda seed: toy(
            seed, heads=HYDRA_HEADS, lmax_list=[3], mmax_list=[2], enforce_max_neighbors_strictly=False,
            edge_channels=4,
        ),
        "oc22": lambda seed: toy(seed, load_energy_lin_ref=True, use_energy_lin_ref=True, norm_type="rms_norm_sh"),
        "gate": lambda seed: toy(seed, use_gate_act=True, use_grid_mlp=False, use_attn_renorm=False, norm_type="layer_norm"),
        "s2": lambda seed: toy(seed, use_sep_s2_act=False, mmax_list=[2]),
    },
)  # fmt: skip
