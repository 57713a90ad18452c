"""What the contract of all backbones asks and a network's architecture and units answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

from zoo.backbones.equiformer_v2.config import EquiformerV2Config
from zoo.backbones.equiformer_v2.network import HydraNetwork, MonolithicNetwork
from zoo.backbones.equiformer_v2.normalisers import Normaliser

Network = MonolithicNetwork | HydraNetwork


def has_forces(network: Network) -> bool:
    """Whether forces are an output of the network."""
    if isinstance(network, HydraNetwork):
        return "forces" in network.output_heads
    return network.architecture.config.regress_forces


def aliasing_floor(config: EquiformerV2Config) -> float:
    """A bound on the force error under rotations relative to the largest force, from products of functions on the sphere's grid.

    Random networks show 1e-5 at L = 4 and 3e-3 at L = 6 on the published grid of 18, 5e-9 and 8e-5 on one of 32, and up to 8e-5 at L = 2
    on one of 14, where weights are large. The bound lies above all of these: 1e-2 at a resolution of 3 L, and half a decade less for
    every L more.
    """
    if config.use_gate_act and not config.use_grid_mlp:
        return 0.0
    resolution = config.grid_resolution or 2 * (config.lmax + 1)
    return float(min(1.0, 10 ** (-2 - 0.5 * (resolution / config.lmax - 3))))


def idle_weights(network: Network) -> tuple[str, ...]:
    """Weights that upstream's networks have and no output depends on.

    Of the energy's head only scalars are read, which have a path of their own in most variants; of the forces' only degree 1.
    """
    config, hydra = network.architecture.config, isinstance(network, HydraNetwork)
    energy, forces = ("output_heads.energy.energy_block", "output_heads.forces.force_block") if hydra else ("energy_block", "force_block")
    degrees = range(config.lmax + 1)
    if config.use_grid_mlp:
        passed_by = ["so3_linear_1.*", "grid_mlp.*"] if config.use_sep_s2_act else []
    elif config.use_gate_act:
        passed_by = ["gating_linear.*", *(f"so3_linear_1.weight/l{degree}" for degree in degrees if degree != 0)]
    else:
        passed_by = ["so3_linear_1.*"] if config.use_sep_s2_act else []
    idle = [f"{energy}.{layer}" for layer in passed_by]
    idle += [f"{energy}.so3_linear_2.weight/l{degree}" for degree in degrees if degree != 0]
    if has_forces(network):
        idle += [f"{forces}.proj.weight/l{degree}" for degree in degrees if degree != 1]
        # vectors hold orders up to 1
        idle += [f"{forces}.so2_conv_2.so2_m_conv.{order - 1}.*" for order in range(2, config.mmax + 1)]
        idle.append(f"{forces}.proj.bias/*")
    return tuple(f"network.{weights}" for weights in idle)


def convention(network: Network, normalisers: Mapping[str, Normaliser], element_references: Tensor | None) -> str:
    """A name for all that makes the model besides its weights: graph, grid, averages and units; dropout makes no other model."""
    settings = network.architecture.config.model_dump(mode="json", exclude={"alpha_drop", "drop_path_rate", "proj_drop", "weight_init"})
    units = {name: (value.shift.tolist(), value.scale.tolist()) for name, value in sorted(normalisers.items())}
    references = {} if element_references is None else {row: value for row, value in enumerate(element_references.tolist()) if value}
    return "settings-" + hashlib.sha256(repr((settings, units, references)).encode()).hexdigest()[:12]
