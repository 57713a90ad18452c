"""EquiformerV2 (Liao, Wood, Das, Smidt, ICLR 2024, arXiv:2306.12059) behind the contract of all backbones: eV and Å in and out.

Its own forces, and the stress of its OMat24 models, are outputs of the network. ``forces="gradient"`` derives them from the energy
instead, with the rotations of the edges' frames differentiable in the positions, which upstream's training leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.backbones.base import Backbone, Family, ForceMode, UpstreamFormat, choose_head
from zoo.backbones.equiformer_v2.checkpoint import read_architecture, read_checkpoint, recognises, stated_normalisers
from zoo.backbones.equiformer_v2.config import EquiformerV2Config
from zoo.backbones.equiformer_v2.configuration import is_configuration, names_the_model, read_configuration
from zoo.backbones.equiformer_v2.network import HydraNetwork, MonolithicNetwork, Structures, build_network, rebuilt_network
from zoo.backbones.equiformer_v2.normalisers import Normaliser, in_ev_and_angstrom
from zoo.backbones.equiformer_v2.upstream import upstream_content
from zoo.graph import AtomGraph, GraphRecipe

Network = MonolithicNetwork | HydraNetwork

# Å: upstream keeps a pair at the cutoff itself, and compares in float32; the project's neighbour list leaves it out
_CUTOFF_MARGIN_ANGSTROM = 1e-6


class EquiformerV2(Backbone):
    """A network of EquiformerV2 that reads an `AtomGraph` and returns energy, forces and, where it has the head, stress.

    Args:
        network: monolithic or hydra, of `build_network`.
        normalisers: by the network's outputs, from the units it was trained in; an output without one is in eV and Å.
        element_references: (highest atomic number + 1,) float64, eV of each element to add to the energy; None for none.
    """

    family = "equiformer_v2"
    adapter_roles: ClassVar[dict[str, str]] = {"*energy_block.*": "readout", "*force_block.*": "readout", "*output_heads.*": "readout"}
    element_references: Tensor | None

    def __init__(self, network: Network, normalisers: Mapping[str, Normaliser], element_references: Tensor | None) -> None:
        super().__init__()
        config = network.architecture.config
        self.network = network
        self.normalisers = dict(normalisers)
        self.register_buffer("element_references", element_references, persistent=False)
        self.cutoff = config.max_radius
        self.max_neighbours, self.strict_neighbours = config.max_neighbors, config.enforce_max_neighbors_strictly
        self.elements = tuple(range(1, config.max_num_elements))
        self.symmetry = "SO(3)"
        shift = self.normalisers["energy"].shift if "energy" in self.normalisers else torch.zeros(())
        averaged = isinstance(network, HydraNetwork) and network.energy_is_mean
        self.extensive = not averaged and float(shift) == 0  # OC20's shift is one of structures, not of atoms
        self.smooth_cutoff = False  # no cutoff function anywhere, and a limit of neighbours besides
        self.conservative = False
        self.direct_stress = isinstance(network, HydraNetwork) and "stress" in network.output_heads
        self.equivariant_stress = False  # its MLP has biases and activations on components of degree 2
        self.aliasing_floor = aliasing_floor(config)
        self.vectorises = False  # the sphere's values are worked out again for the gradient, in a function that torch.vmap cannot enter
        self.idle_weights = _idle_weights(network)

    @property
    def graph_recipe(self) -> GraphRecipe:
        """The nearest neighbours within the cutoff and at it."""
        return GraphRecipe(self.cutoff + _CUTOFF_MARGIN_ANGSTROM, self.max_neighbours, self.strict_neighbours)

    def forward(self, graph: AtomGraph, *, forces: ForceMode = "direct") -> dict[str, Tensor]:
        """``energy`` (G,) eV and, of the network's own, ``forces`` (N, 3) eV/Å and ``stress`` (G, 3, 3) eV/Å^3, float64.

        With ``forces="gradient"`` the energy alone, differentiable in the graph's positions and cell.
        """
        structures = structures_of(graph, self.dtype, attached=forces == "gradient")
        outputs = self.network(structures, ("energy",) if forces == "gradient" else ("energy", "forces", "stress"))
        return in_ev_and_angstrom(outputs, self.normalisers, self.element_references, structures)

    def upstream_checkpoint(self, element_shifts_ev: Mapping[int, float]) -> dict[str, Any]:
        """A dict that fairchem-core 1.x reads once ``torch.save`` wrote it; the shifts go into its element references."""
        return upstream_content(self.network, self.normalisers, self.element_references, element_shifts_ev)

    def rebuilt(self, dtype: torch.dtype) -> EquiformerV2:
        """The same model in ``dtype``."""
        return self._with_network(rebuilt_network(self.network, dtype))

    def restricted_to(self, elements: Sequence[int]) -> EquiformerV2:
        """The same model, claiming fewer elements; it keeps all weights, since an element's number is its row in the tables."""
        unknown = sorted(set(elements) - set(self.elements))
        if unknown:
            return super().restricted_to(elements)  # type: ignore[return-value]
        narrowed = self._with_network(self.network)
        narrowed.elements = tuple(sorted(set(elements)))
        return narrowed

    def randomised(self) -> EquiformerV2:
        """The same architecture and units with weights drawn anew, as upstream draws them, from torch's global generator."""
        anew = build_network(self.network.architecture, self.dtype)
        fixed = {name: value for name, value in self.network.named_parameters() if not value.requires_grad and name == "energy_lin_ref"}
        with torch.no_grad():
            for name, value in fixed.items():
                anew.get_parameter(name).copy_(value)
        return self._with_network(anew.to(next(self.network.parameters()).device).train(self.network.training))

    def _with_network(self, network: Network) -> EquiformerV2:
        anew = EquiformerV2(network, self.normalisers, self.element_references)
        anew.elements, anew.has_weights = self.elements, self.has_weights
        return anew


def structures_of(graph: AtomGraph, dtype: torch.dtype, *, attached: bool = False) -> Structures:
    """The network's input; edge vectors are computed in the graph's precision, and differentiable in its positions and cell.

    Args:
        graph: with the edges of `EquiformerV2.graph_recipe`.
        dtype: of the network.
        attached: of `Structures`.
    """
    return Structures(
        atomic_numbers=graph.atomic_numbers,
        edge_index=graph.edge_index,
        edge_vectors=graph.edge_vectors().to(dtype),  # (E, 3)
        graph_of_atom=graph.graph_of_atom,
        graph_count=graph.graph_count,
        attached=attached,
    )


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


def _idle_weights(network: Network) -> tuple[str, ...]:
    """Weights that upstream's networks have and no output depends on.

    Of the energy's head only scalars are read, which have a path of their own in most variants; of the forces' only degree 1.
    """
    config, hydra = network.architecture.config, isinstance(network, HydraNetwork)
    energy, forces = ("output_heads.energy.energy_block", "output_heads.forces.force_block") if hydra else ("energy_block", "force_block")
    if config.use_grid_mlp:
        passed_by = ["so3_linear_1", "grid_mlp"] if config.use_sep_s2_act else []
    elif config.use_gate_act:
        passed_by = ["gating_linear"]
    else:
        passed_by = ["so3_linear_1"] if config.use_sep_s2_act else []
    degrees = range(config.lmax + 1)
    idle = [f"{energy}.{layer}.*" for layer in passed_by]
    idle += [f"{energy}.so3_linear_2.weight/l{degree}" for degree in degrees if degree != 0]
    idle += [f"{forces}.proj.weight/l{degree}" for degree in degrees if degree != 1]
    # vectors hold orders up to 1
    idle += [f"{forces}.so2_conv_2.so2_m_conv.{order - 1}.*" for order in range(2, config.mmax + 1)]
    return tuple(f"network.{weights}" for weights in (*idle, f"{forces}.proj.bias/*"))


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


def _toy(seed: int, **changes: Any) -> Backbone:
    """One block, L = 2; norms, biases and embeddings, which start alike or nearly zero, are random too."""
    settings: dict[str, Any] = {
        "name": "equiformer_v2", "max_neighbors": 6, "max_radius": 6.0, "max_num_elements": 10, "num_layers": 1, "sphere_channels": 6,
        "attn_hidden_channels": 4, "num_heads": 2, "attn_alpha_channels": 4, "attn_value_channels": 2, "ffn_hidden_channels": 4,
        "norm_type": "layer_norm_sh", "lmax_list": [2], "mmax_list": [1], "grid_resolution": 32, "edge_channels": 6,
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
    references = None if heads is None else torch.linspace(-2.0, 0.0, 10, dtype=torch.float64)
    return EquiformerV2(network, normalisers, references)


_HYDRA_HEADS = {
    "energy": {"module": "equiformer_v2_energy_head"},
    "forces": {"module": "equiformer_v2_force_head"},
    "stress": {"module": "rank2_symmetric_head", "output_name": "stress", "use_source_target_embedding": True, "decompose": True},
}

FAMILY = Family(
    name="equiformer_v2",
    load=load_network,
    randomise=_randomise,
    build=build,
    toy=_toy,
    recognises=lambda path: names_the_model(path) if is_configuration(path) else recognises(path),
    formats={
        "native": UpstreamFormat(
            ".pt", lambda path, head: f'fairchem.core.OCPCalculator(checkpoint_path="{path}") of fairchem-core 1.10'
        )
    },
    more_toys={
        "hydra": lambda seed: _toy(
            seed, heads=_HYDRA_HEADS, lmax_list=[3], mmax_list=[2], enforce_max_neighbors_strictly=False,
            edge_channels=5,
        ),
        "oc22": lambda seed: _toy(seed, load_energy_lin_ref=True, use_energy_lin_ref=True, norm_type="rms_norm_sh"),
        "gate": lambda seed: _toy(seed, use_gate_act=True, use_grid_mlp=False, use_attn_renorm=False, norm_type="layer_norm"),
        "s2": lambda seed: _toy(seed, use_sep_s2_act=False, mmax_list=[2]),
    },
)  # fmt: skip
