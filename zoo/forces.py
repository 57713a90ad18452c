"""Energy, forces and stress of a batch, before reference energies are added.

Forces and stress of every conservative backbone are derived here and nowhere else: F = -dE/dr, and stress = (1/V) dE/d(strain), the strain
applied to positions and cell together (Knuth et al., Comput. Phys. Commun. 2015, 190, 33), in ASE's sign (negative under compression). The
same for a direct backbone with ``forces="gradient"``; else its own outputs are handed on, and no derivative is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.backbones.base import Backbone, ForceMode
from zoo.errors import ZooError
from zoo.graph import AtomGraph, fully_periodic
from zoo.strain import apply_strain, stress_of

if TYPE_CHECKING:
    from zoo.potential import Potential


def derived(potential: Potential, graph: AtomGraph, stress: bool) -> dict[str, Tensor]:
    """The backbone's energy, and forces and stress as its derivatives."""
    # a direct backbone detaches what its own forces do not need, unless it is asked not to
    settings = {} if potential.backbone.conservative else {"forces": "gradient"}
    with torch.inference_mode(False), torch.enable_grad():
        strained, positions, strain = apply_strain(graph)
        energy = potential.adapters.call(strained, **settings)["energy"].to(torch.float64)  # (G,)
        if not graph.edge_index.shape[1]:  # isolated atoms only: nothing depends on where they are
            gradients: tuple[Tensor, ...] = (torch.zeros_like(positions), torch.zeros_like(strain))
        else:
            gradients = torch.autograd.grad(energy.sum(), (positions, strain), create_graph=potential.training)
    results = {"energy": energy, "forces": -gradients[0]}
    if stress:
        results["stress"] = stress_of(gradients[1], graph)
    return results


def direct(potential: Potential, graph: AtomGraph, stress: bool) -> dict[str, Tensor]:
    """The backbone's own energy, forces and stress; in ``train()`` mode differentiable in the adapters, never in the positions."""
    with torch.inference_mode(False), torch.set_grad_enabled(potential.training and torch.is_grad_enabled()):
        outputs = potential.adapters.call(graph, forces="direct")
        results = {name: outputs[name].to(torch.float64) for name in ("energy", "forces")}
        if stress:
            unknown = torch.full_like(graph.cell, torch.nan, dtype=torch.float64)  # (G, 3, 3)
            own = outputs["stress"].to(torch.float64) if potential.backbone.direct_stress else unknown
            results["stress"] = torch.where(fully_periodic(graph)[:, None, None], own, unknown)
    return results


def force_mode(backbone: Backbone, forces: ForceMode | None, source: str) -> ForceMode:
    """The way to forces that was asked for, or the backbone's own."""
    if forces not in (None, "gradient", "direct"):
        raise ZooError(f"forces={forces!r} is not a choice; pass 'gradient', 'direct' or None for the model's own way")
    if forces == "direct" and backbone.conservative:
        raise ZooError(f"{source} has no direct force output: its forces are the gradient of its energy; pass forces=None or 'gradient'")
    if forces == "gradient" and "gradient" not in backbone.force_modes:
        raise ZooError(f"{source} cannot derive forces from its energy: it has a force output alone; pass forces=None or 'direct'")
    return backbone.force_modes[0] if forces is None else forces
