"""A model as fairchem-core 1.x keeps it in a file, the last version that has EquiformerV2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.backbones.equiformer_v2.config import Architecture
from zoo.backbones.equiformer_v2.network import HydraNetwork, MonolithicNetwork
from zoo.backbones.equiformer_v2.normalisers import Normaliser

_HIGHEST_ATOMIC_NUMBER = 118


def upstream_content(
    network: MonolithicNetwork | HydraNetwork,
    normalisers: Mapping[str, Normaliser],
    element_references: Tensor | None,
    element_shifts_ev: Mapping[int, float],
) -> dict[str, Any]:
    """What upstream's calculator reads: configuration, weights under upstream's names, normalisers and element references.

    Args:
        network: whose weights are written, in their own precision.
        normalisers: by output.
        element_references: (highest atomic number + 1,) eV, None for none.
        element_shifts_ev: atomic number to eV, added to them.
    """
    content: dict[str, Any] = {
        "state_dict": {name: value.detach().to("cpu", copy=True) for name, value in network.named_parameters()},
        "config": _config(network.architecture),
        "normalizers": {
            name: {"mean": value.shift.to("cpu", torch.float64), "rmsd": value.scale.to("cpu", torch.float64)}
            for name, value in normalisers.items()
        },
        "ema": None,
    }
    rows = 0 if element_references is None else len(element_references)
    references = torch.zeros(max(rows, _HIGHEST_ATOMIC_NUMBER + 1), dtype=torch.float64)
    if element_references is not None:
        references[: len(element_references)] = element_references.to("cpu", torch.float64)
    for atomic_number, shift in element_shifts_ev.items():
        references[atomic_number] += shift
    if references.any():
        content["elementrefs"] = {"energy": {"element_references": references}}
    return content


def _config(architecture: Architecture) -> dict[str, Any]:
    """The whole of a trainer's configuration, as upstream's calculator wants it."""
    config = architecture.config
    # only what was given: upstream's classes do not know all names of each other
    settings = config.model_dump(mode="json", exclude_unset=True)
    settings |= {"avg_num_nodes": config.avg_num_nodes, "avg_degree": config.avg_degree}
    outputs: dict[str, Any] = {"energy": {"shape": 1, "level": "system"}}
    if architecture.heads is None:
        model: dict[str, Any] = {"name": "equiformer_v2", **settings}
        has_forces, has_stress = config.regress_forces, False
    else:
        heads = architecture.heads.model_dump(mode="json", exclude_unset=True)
        backbone = {"model": "equiformer_v2_backbone", **settings}
        model = {"name": "hydra", "otf_graph": True, "pass_through_head_outputs": True, "backbone": backbone, "heads": heads}
        has_forces, has_stress = "forces" in heads, "stress" in heads
    if has_forces:
        outputs["forces"] = {"irrep_dim": 1, "level": "atom", "train_on_free_atoms": True, "eval_on_free_atoms": True}
    if has_stress:
        parts = {"stress_isotropic": {"irrep_dim": 0}, "stress_anisotropic": {"irrep_dim": 2}}
        outputs["stress"] = {"level": "system", "property": "stress", "decomposition": parts}
    return {
        "trainer": "ocp",
        # upstream's constants, which it would look for in the weights, follow from the configuration
        "task": {"strict_load": False},
        "model": model,
        "dataset": {"src": ""},
        "outputs": outputs,
        "loss_functions": [{name: {"fn": "l2mae" if name == "forces" else "mae", "coefficient": 1}} for name in outputs],
        "evaluation_metrics": {},
        "optim": {},
    }
