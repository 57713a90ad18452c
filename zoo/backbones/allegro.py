"""Allegro (Musaelian et al., Nat. Commun. 2023, 14, 579), an extension of the NequIP framework: strictly local, features on edges."""

from __future__ import annotations

import torch

from zoo.backbones.base import Backbone, Family
from zoo.backbones.nequip import NequIPFramework, load_network, randomise, toy_config
from zoo.backbones.nequip_checkpoint import recognises
from zoo.backbones.nequip_package import FORMATS


def _toy(seed: int) -> Backbone:
    """3 layers of 4 scalars and 6 tensor channels up to l = 2, so that much of the energy goes through the tensor products."""
    common = toy_config(seed)
    config = {
        "_target_": "allegro.model.AllegroModel",
        **common,
        "l_max": 2,
        "avg_num_neighbors": 1.0,
        "per_type_energy_scales": {name: 0.02 * scale for name, scale in common["per_type_energy_scales"].items()},
        "radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 4},
        "scalar_embed_mlp_hidden_layers_width": 8,
        "num_layers": 3,
        "num_scalar_features": 4,
        "num_tensor_features": 6,
        "allegro_mlp_hidden_layers_width": 4,
        "readout_mlp_hidden_layers_width": 8,
    }
    return NequIPFramework(config, torch.float64)


FAMILY = Family(
    name="allegro",
    load=load_network,
    randomise=randomise,
    toy=_toy,
    recognises=lambda path: recognises(path, "allegro"),
    formats=FORMATS,
)
