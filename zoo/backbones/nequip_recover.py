"""The configuration of a packaged model from its modules: a fine-tuned package's own configuration names only the file it began with.

Modules of a package are of the package's own classes, so attributes are read and nothing is asked of their type. Whatever is not found here
keeps upstream's default; the caller compares the rebuilt network with the packaged one, which shows a default that was not meant.
"""

from __future__ import annotations

from typing import Any

import torch
from ase.data import chemical_symbols
from torch import nn

from zoo.backbones.nequip_config import by_type
from zoo.errors import ZooError

_COULOMB_EV_ANGSTROM = 14.399645  # upstream's constant for ``units: metal``; ``real`` is kcal/mol
_ACTIVATIONS = {"SiLU": "silu", "Mish": "mish", "GELU": "gelu", "Tanh": "tanh", "ShiftedSoftplus": "ssp"}


def recovered_config(model: Any, source: str) -> dict[str, Any]:
    """The arguments of ``FullNequIPGNNModel`` or ``FullAllegroModel`` that build a network like this one.

    Args:
        model: upstream's whole model, of a package.
        source: for the message.

    Raises:
        ZooError: for a network that is neither.
    """
    network = model.model.func
    try:
        specific = _allegro(network) if hasattr(network, "allegro") else _nequip(network)
        common = _common(model, network, source)
    except AttributeError as error:
        raise ZooError(
            f"{source}: not a NequIP or Allegro network of this version ({error}); package it again with the nequip installed here"
        ) from None
    return {**common, **specific}


def _common(model: Any, network: Any, source: str) -> dict[str, Any]:
    names = list(model.type_names)
    scale_shift = network.per_type_energy_scale_shift
    config: dict[str, Any] = {
        "seed": 0,
        "model_dtype": str(model.model_dtype).removeprefix("torch."),
        "type_names": names,
        "r_max": float(network.edge_norm.r_max),
        "per_type_energy_scales_trainable": isinstance(scale_shift.scales, nn.Parameter),
        "per_type_energy_shifts_trainable": isinstance(scale_shift.shifts, nn.Parameter),
    }
    for quantity in ("scales", "shifts"):
        values = getattr(scale_shift, quantity).detach().reshape(-1).tolist()
        if values:
            config[f"per_type_energy_{quantity}"] = by_type(names, values, source)
    if network.edge_norm._per_edge_type:
        table = network.edge_norm._rmax_recip.reciprocal().view(len(names), len(names)).tolist()
        config["per_edge_type_cutoff"] = {one: dict(zip(names, row, strict=True)) for one, row in zip(names, table, strict=True)}
    if hasattr(network, "pair_potential"):
        config["pair_potential"] = _zbl(network.pair_potential)
    return config


def _zbl(module: Any) -> dict[str, Any]:
    in_electronvolts = abs(2 * float(module._qqr2exesquare) - _COULOMB_EV_ANGSTROM) < 1e-3
    return {
        "_target_": "nequip.nn.pair_potential.ZBL",
        "units": "metal" if in_electronvolts else "real",
        "chemical_species": [chemical_symbols[int(number)] for number in module.atomic_numbers],
        "polynomial_cutoff_p": module.cutoff.p,
    }


def _nequip(network: Any) -> dict[str, Any]:
    layers = [module for name, module in network.named_children() if name.startswith("layer") and name.endswith("_convnet")]
    uses_self_connection = [layer.conv.sc is not None for layer in layers]
    return {
        "_target_": "nequip.model.FullNequIPGNNModel",
        "irreps_edge_sh": str(network.spharm.irreps_edge_sh),
        "type_embed_num_features": int(network.type_embed.embed_module.embedding_dim),
        "feature_irreps_hidden": [str(layer.feature_irreps_hidden) for layer in layers],
        "radial_mlp_depth": [len(layer.conv.edge_mlp.dims) - 2 for layer in layers],
        "radial_mlp_width": [int(layer.conv.edge_mlp.dims[1]) for layer in layers],
        "num_bessels": int(network.bessel_encode.num_bessels),
        "bessel_trainable": bool(network.bessel_encode.trainable),
        "polynomial_cutoff_p": network.bessel_encode.cutoff.p,
        "avg_num_neighbors": _neighbours(_norm_of_sums(layers[0].conv), network),
        "convnet_sc": any(uses_self_connection),
        "learnable_shift": uses_self_connection[0] or layers[0].resnet,
        "convnet_resnet": any(layer.resnet for layer in layers),
        **_mlp("readout_mlp", network.per_atom_energy_readout.mlp_module),
    }


def _allegro(network: Any) -> dict[str, Any]:
    allegro, embed = network.allegro, network.radial_chemical_embed
    return {
        "_target_": "allegro.model.allegro_models.FullAllegroModel",
        "irreps_edge_sh": str(network.tensor_embed.sh.irreps_out),
        "tensor_track_allowed_irreps": str(allegro.tensor_track_allowed_irreps),
        "radial_chemical_embed": _radial_embed(embed),
        "radial_chemical_embed_dim": int(network.scalar_embed_mlp.mlp_module.dims[0]),
        "num_layers": int(allegro.num_layers),
        "num_scalar_features": int(allegro.num_scalar_features),
        "num_tensor_features": int(allegro.num_tensor_features),
        "tp_path_channel_coupling": bool(allegro.tps[0].path_channel_coupling),
        "weight_individual_irreps": bool(allegro._env_weighter.weight_individual_irreps),
        "avg_num_neighbors": _neighbours(_norm_of_sums(allegro), network),
        **_mlp("scalar_embed_mlp", network.scalar_embed_mlp.mlp_module),
        **_mlp("allegro_mlp", allegro.latents[0]),
        **_mlp("readout_mlp", network.edge_readout.mlp_module),
    }


def _radial_embed(embed: Any) -> dict[str, Any]:
    if hasattr(embed, "spline"):
        spline = embed.spline
        return {"_target_": "allegro.nn.TwoBodySplineScalarEmbed", "num_splines": spline.num_splines, "spline_span": spline.spline_span}
    bessel = embed.bessel_encode
    return {
        "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
        "num_bessels": int(bessel.num_bessels),
        "bessel_trainable": bool(bessel.trainable),
        "polynomial_cutoff_p": bessel.cutoff.p,
    }


def _mlp(prefix: str, module: Any) -> dict[str, Any]:
    """Depth, width and activation of upstream's multi-layer perceptron."""
    activations = [_ACTIVATIONS[type(part).__name__] for part in module.modules() if type(part).__name__ in _ACTIVATIONS]
    hidden = list(module.dims[1:-1])
    config: dict[str, Any] = {
        f"{prefix}_hidden_layers_depth": len(hidden),
        f"{prefix}_nonlinearity": activations[0] if activations else None,
    }
    if hidden:
        config[f"{prefix}_hidden_layers_width"] = int(hidden[0])
    return config


def _norm_of_sums(module: Any) -> torch.Tensor:
    """1 / sqrt(neighbours), which packages before nequip 0.16 keep as one number of the layer."""
    if hasattr(module, "avg_num_neighbors_norm"):
        constant: torch.Tensor = module.avg_num_neighbors_norm.norm_const
        return constant
    return torch.as_tensor(module.scatter_norm_factor, dtype=torch.float64)


def _neighbours(norm_const: torch.Tensor, network: Any) -> float | dict[str, float]:
    """``avg_num_neighbors`` from 1 / sqrt of it."""
    values: list[float] = norm_const.double().reshape(-1).pow(-2).tolist()
    return values[0] if len(values) == 1 else dict(zip(network.per_type_energy_scale_shift.type_names, values, strict=True))
