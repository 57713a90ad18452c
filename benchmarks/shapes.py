"""Networks in the shapes of published models, with random weights: what can be counted without a download.

MACE-MP-0 and MACE-OFF23 by ELoRA's and the models' papers; NequIP-OAM-L and Allegro-OAM-L by the training configurations that their authors
left at Matbench Discovery (models/nequip, models/allegro); EquiformerV2 by the configurations of its official OC20 checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ase.data import chemical_symbols

from zoo.backbones.base import Backbone
from zoo.backbones.equiformer_v2.config import Architecture, parse_config
from zoo.backbones.equiformer_v2.network import HydraNetwork, MonolithicNetwork, build_network
from zoo.backbones.mace import Mace, random_toy
from zoo.backbones.mace_network import MaceConfig

MATERIALS_PROJECT = (*range(1, 84), *range(89, 95))
ORGANIC = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)
_MACE: dict[str, Any] = {
    "model": "ScaleShiftMACE",
    "num_polynomial_cutoff": 5,
    "max_ell": 3,
    "interaction_cls": "RealAgnosticResidualInteractionBlock",
    "num_interactions": 2,
    "mlp_irreps": "16x0e",
    "avg_num_neighbors": 60.0,
    "correlation": (3, 3),
    "gate": "silu",
    # the first published models train their Bessel frequencies, which mace 0.3.16 makes buffers of
    "trained_buffers": ("radial_embedding.bessel_fn.bessel_weights",),
}
_MP_0: dict[str, Any] = {**_MACE, "r_max": 6.0, "num_bessel": 10, "interaction_cls_first": "RealAgnosticResidualInteractionBlock"}
MACE_SHAPES: dict[str, dict[str, Any]] = {
    "mace-mp-0-medium": {**_MP_0, "hidden_irreps": "128x0e+128x1o"},
    "mace-mp-0-large": {**_MP_0, "hidden_irreps": "128x0e+128x1o+128x2e"},
    "mace-off23-medium": {
        **_MACE,
        **{"model": "MACE", "r_max": 5.0, "num_bessel": 8, "hidden_irreps": "128x0e+128x1o"},
        **{"interaction_cls_first": "RealAgnosticInteractionBlock"},
    },
}
# lmax, mmax, layers
EQUIFORMER_V2_SHAPES = {"31M": (4, 2, 8), "83M": (6, 2, 12), "153M": (6, 3, 20)}
EQUIFORMER_V2_ROLES = {"*energy_block.*": "readout", "*force_block.*": "readout"}
_EQUIFORMER_V2: dict[str, Any] = {
    **{"max_num_elements": 90, "max_radius": 12.0, "max_neighbors": 20, "grid_resolution": 18, "norm_type": "layer_norm_sh"},
    **{"sphere_channels": 128, "edge_channels": 128, "attn_hidden_channels": 64, "ffn_hidden_channels": 128, "num_heads": 8},
    **{"attn_alpha_channels": 64, "attn_value_channels": 16, "use_grid_mlp": True, "weight_init": "uniform"},
}


def mace_shape(name: str, elements: Sequence[int]) -> Mace:
    """A float64 network of a shape in `MACE_SHAPES` for these atomic numbers."""
    config = MaceConfig(**MACE_SHAPES[name], atomic_numbers=tuple(elements), atomic_energies_shape=(len(elements),))
    return random_toy(config, 0)


def nequip_oam_l() -> Backbone:
    """NequIP-OAM-L: six layers, l = 3, 89 elements, ZBL."""
    names = [chemical_symbols[number] for number in MATERIALS_PROJECT]
    hidden = "128x0e+64x1o+32x2e+32x3o"
    return _framework(
        names,
        _target_="nequip.model.FullNequIPGNNModel",
        r_max=6.0,
        irreps_edge_sh="1x0e+1x1o+1x2e+1x3o",
        type_embed_num_features=48,
        feature_irreps_hidden=[hidden] * 5 + ["128x0e"],
        radial_mlp_depth=[1] * 6,
        radial_mlp_width=[128] * 6,
        num_bessels=8,
        bessel_trainable=True,
        polynomial_cutoff_p=5,
        avg_num_neighbors=62.0,
        pair_potential={"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": names},
    )


def allegro_oam_l() -> Backbone:
    """Allegro-OAM-L: four layers, l = 3, 89 elements."""
    return _framework(
        [chemical_symbols[number] for number in MATERIALS_PROJECT],
        _target_="allegro.model.AllegroModel",
        r_max=7.0,
        l_max=3,
        parity=False,
        num_layers=4,
        num_scalar_features=256,
        num_tensor_features=64,
        allegro_mlp_hidden_layers_depth=2,
        allegro_mlp_hidden_layers_width=1024,
        readout_mlp_hidden_layers_width=128,
        radial_chemical_embed={
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            **{"num_bessels": 12, "bessel_trainable": True, "polynomial_cutoff_p": 8},
        },
        radial_chemical_embed_dim=512,
        scalar_embed_mlp_hidden_layers_width=512,
        avg_num_neighbors=62.0,
    )


def _framework(names: list[str], **config: Any) -> Backbone:
    from zoo.backbones.nequip import NequIPFramework

    common = {"seed": 0, "model_dtype": "float32", "type_names": names}
    scales = {"per_type_energy_scales": 1.0, "per_type_energy_shifts": 0.0, "per_type_energy_scales_trainable": True}
    return NequIPFramework({**common, **scales, **config}, torch.float32)


def equiformer_v2(size: str, dtype: torch.dtype = torch.float32) -> MonolithicNetwork | HydraNetwork:
    """EquiformerV2 in a size of `EQUIFORMER_V2_SHAPES`; under ``torch.device("meta")`` without its weights."""
    lmax, mmax, layers = EQUIFORMER_V2_SHAPES[size]
    settings = {**_EQUIFORMER_V2, "lmax_list": [lmax], "mmax_list": [mmax], "num_layers": layers}
    return build_network(Architecture(parse_config(settings, f"EquiformerV2 {size}")), dtype)
