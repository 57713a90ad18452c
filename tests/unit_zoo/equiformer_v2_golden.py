"""Upstream's stored numbers for EquiformerV2: networks with their weights, inputs with their edges and frames, and outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.config import Architecture, parse_config, parse_heads
from zoo.backbones.equiformer_v2.network import HydraNetwork, MonolithicNetwork, Structures, build_network
from zoo.backbones.equiformer_v2.rotation import EdgeFrames, unit_vectors

FORMS = ("mono", "hydra")
CASES = ("slab", "ethanol", "batch")
HEADS = {
    "energy": {"module": "equiformer_v2_energy_head"},
    "forces": {"module": "equiformer_v2_force_head"},
    "stress": {"module": "rank2_symmetric_head", "output_name": "stress", "use_source_target_embedding": True, "decompose": True},
}


def read_architecture(folder: Path, form: str, **changes: object) -> Architecture:
    settings = json.loads((folder / "golden" / f"{form}_L4M2_config.json").read_text())
    return Architecture(parse_config(settings | changes, form), parse_heads(HEADS, form) if form == "hydra" else None)


def read_network(folder: Path, form: str, dtype: torch.dtype) -> MonolithicNetwork | HydraNetwork:
    with torch.device("meta"):
        network = build_network(read_architecture(folder, form), dtype)
    weights = load_file(folder / "golden" / f"{form}_L4M2_state.safetensors")
    network.load_state_dict({name: value.to(dtype) for name, value in weights.items()}, assign=True)
    return network.eval()


def read_case(folder: Path, form: str, case: str) -> dict[str, Tensor]:
    with np.load(folder / "golden" / f"{form}_L4M2_{case}.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def gauge_of(stored: dict[str, Tensor]) -> Tensor:
    """(E,) by how much upstream's stored frames are turned about the edges against ours."""
    vectors_only = Coefficients(1, 1)
    ours = EdgeFrames(vectors_only, torch.float64)(unit_vectors(stored["mid_edge_distance_vec"])).into
    ours = ours[:, np.argsort(vectors_only.index_in_full)][:, 1:, 1:]  # (E, 3, 3) in x, y, z
    turn = stored["mid_edge_rot_mat"] @ ours.transpose(1, 2)
    return torch.atan2(turn[:, 0, 2], turn[:, 0, 0])


def structures_of(stored: dict[str, Tensor], dtype: torch.dtype, gauge: Tensor | None = None) -> Structures:
    return Structures(
        atomic_numbers=stored["atomic_numbers"],
        edge_index=stored["edge_index"],
        edge_vectors=stored["mid_edge_distance_vec"].to(dtype),
        graph_of_atom=stored["batch"],
        graph_count=len(stored["natoms"]),
        gauge=None if gauge is None else gauge.to(dtype),
    )
