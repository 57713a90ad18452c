"""Allegro (Musaelian et al., Nat. Commun. 2023, 14, 579), an extension of the NequIP framework: strictly local, edges carry the features."""

from __future__ import annotations

import torch

from zoo.backbones.base import Backbone, Family
from zoo.backbones.nequip import NequIPFramework, load_network, randomise, toy_config
from zoo.backbones.nequip_checkpoint import recognises


def _toy(seed: int) -> Backbone:
    """2 layers of 8 scalars and 4 tensor channels, a Bessel embedding."""
    config = {
        "_target_": "allegro.model.AllegroModel",
        **toy_config(seed),
        "radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 4},
        "scalar_embed_mlp_hidden_layers_width": 8,
        "num_layers": 2,
        "num_scalar_features": 8,
        "num_tensor_features": 4,
        "allegro_mlp_hidden_layers_width": 8,
        "readout_mlp_hidden_layers_width": 8,
    }
    return NequIPFramework(config, torch.float64)


FAMILY = Family(name="allegro", load=load_network, randomise=randomise, toy=_toy, recognises=lambda path: recognises(path, "allegro"))
