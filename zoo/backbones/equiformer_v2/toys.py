"""Small random networks in each variant of the architecture, for contract tests."""

from __future__ import annotations

from typing import Any

import torch

from zoo.backbones.base import Backbone
from zoo.backbones.equiformer_v2.backbone import EquiformerV2
from zoo.backbones.equiformer_v2.checkpoint import read_architecture
from zoo.backbones.equiformer_v2.network import build_network
from zoo.backbones.equiformer_v2.normalisers import Normaliser

HYDRA_HEADS = {
    "energy": {"module": "equiformer_v2_energy_head"},
    "forces": {"module": "equiformer_v2_force_head"},
    "stress": {"module": "rank2_symmetric_head", "output_name": "stress", "use_source_target_embedding": True, "decompose": True},
}


def toy(seed: int, **changes: Any) -> Backbone:
    """One block, L = 2; norms, biases and embeddings, which start alike or nearly zero, are random too."""
    settings: dict[str, Any] = {
        "name": "equiformer_v2", "max_neighbors": 6, "max_radius": 6.0, "max_num_elements": 80, "num_layers": 1, "sphere_channels": 6,
        "attn_hidden_channels": 4, "num_heads": 2, "attn_alpha_channels": 4, "attn_value_channels": 2, "ffn_hidden_channels": 4,
        "norm_type": "layer_norm_sh", "lmax_list": [2], "mmax_list": [1], "grid_resolution": 32, "edge_channels": 5,
        "use_grid_mlp": True, "alpha_drop": 0.0, "drop_path_rate": 0.0, "weight_init": "uniform", "avg_num_nodes": 4.0, "avg_degree": 4.0,
    }  # fmt: skip
    heads = changes.pop("heads", None)
    settings |= changes
    if heads is not None:
        settings["model"] = settings.pop("name")
        settings = {"name": "hydra", "backbone": settings, "heads": heads}
    architecture = read_architecture({"model": settings}, "toy")
    shift, energy_unit, force_unit, zero = torch.tensor([-0.75, 2.9, 0.7, 0.0], dtype=torch.float64)
    normalisers = {"energy": Normaliser(shift, energy_unit), "forces": Normaliser(zero, force_unit)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(architecture, torch.float64).eval()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if parameter.dim() < 2 or "embedding" in name or "norm" in name:
                    parameter.add_(0.5 * torch.randn_like(parameter))
    references = None if heads is None else torch.linspace(-2.0, 0.0, 80, dtype=torch.float64)
    return EquiformerV2(network, normalisers, references)
