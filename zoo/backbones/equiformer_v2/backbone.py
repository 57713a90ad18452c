"""EquiformerV2 (Liao, Wood, Das, Smidt, ICLR 2024, arXiv:2306.12059) behind the contract of all backbones: eV and Å in and out.

Its own forces, and the stress of its OMat24 models, are outputs of the network. ``forces="gradient"`` derives them from the energy
instead, with the rotations of the edges' frames differentiable in the positions, which upstream's training leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from ase.data import chemical_symbols
from torch import Tensor

from zoo.backbones.base import Backbone, DropoutRates, ForceMode, SpeciesRows
from zoo.backbones.equiformer_v2.claims import Network, aliasing_floor, convention, has_forces, idle_weights
from zoo.backbones.equiformer_v2.dropout import dropout_rates, set_dropout
from zoo.backbones.equiformer_v2.network import HydraNetwork, Structures, build_network, rebuilt_network
from zoo.backbones.equiformer_v2.normalisers import Normaliser, in_ev_and_angstrom
from zoo.backbones.equiformer_v2.upstream import upstream_content
from zoo.errors import ZooError
from zoo.graph import AtomGraph, GraphRecipe

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
    adapter_layers = r"\bblocks\.(\d+)\."
    adapter_roles: ClassVar[dict[str, str]] = {"*energy_block.*": "readout", "*force_block.*": "readout", "*output_heads.*": "readout"}
    species_weights: ClassVar[dict[str, SpeciesRows]] = {
        "*sphere_embedding.weight": "inner",
        "*source_embedding.weight": "inner",
        "*target_embedding.weight": "inner",
    }
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
        shift = float(self.normalisers["energy"].shift) if "energy" in self.normalisers else 0.0
        averaged = isinstance(network, HydraNetwork) and network.energy_is_mean
        self.extensive = not averaged and shift == 0  # OC20's shift is one of structures, not of atoms
        self.smooth_cutoff = False  # no cutoff function anywhere, and a limit of neighbours besides
        self.conservative = not has_forces(network)  # a model of energies alone has them as a gradient
        self.direct_stress = not self.conservative and isinstance(network, HydraNetwork) and "stress" in network.output_heads
        self.equivariant_stress = False  # its MLP has biases and activations on components of degree 2
        self.aliasing_floor = aliasing_floor(config)
        self.vectorises = False  # the sphere's values are worked out again for the gradient, in a function that torch.vmap cannot enter
        self.idle_weights = idle_weights(network)
        self.convention = convention(network, self.normalisers, element_references)

    @property
    def graph_recipe(self) -> GraphRecipe:
        """The nearest neighbours within the cutoff and at it."""
        return GraphRecipe(self.cutoff + _CUTOFF_MARGIN_ANGSTROM, self.max_neighbours, self.strict_neighbours)

    def forward(self, graph: AtomGraph, *, forces: ForceMode = "direct") -> dict[str, Tensor]:
        """``energy`` (G,) eV and, of the network's own, ``forces`` (N, 3) eV/Å and ``stress`` (G, 3, 3) eV/Å^3, float64.

        With ``forces="gradient"``, and of a network without forces, the energy alone, differentiable in the graph's positions and cell.
        """
        energy_alone = self.conservative or forces == "gradient"
        structures = structures_of(graph, self.dtype, attached=energy_alone)
        outputs = self.network(structures, ("energy",) if energy_alone else ("energy", "forces", "stress"))
        return in_ev_and_angstrom(outputs, self.normalisers, self.element_references, structures)

    @property
    def dropout_rates(self) -> DropoutRates:
        """Of attention weights and of the blocks' branches."""
        return dropout_rates(self.network)

    def set_dropout(self, rates: DropoutRates) -> None:
        """Change the rates that are given."""
        set_dropout(self.network, rates)

    def upstream_checkpoint(self, element_shifts_ev: Mapping[int, float]) -> dict[str, Any]:
        """A dict that fairchem-core 1.x reads once ``torch.save`` wrote it; the shifts go into its element references."""
        return upstream_content(self.network, self.normalisers, self.element_references, element_shifts_ev)

    def rebuilt(self, dtype: torch.dtype) -> EquiformerV2:
        """The same model in ``dtype``."""
        return self._with_network(rebuilt_network(self.network, dtype))

    @property
    def species_order(self) -> tuple[int, ...]:
        """The row of an element is its atomic number."""
        return tuple(range(self.network.architecture.config.max_num_elements))

    def restricted_to(self, elements: Sequence[int]) -> EquiformerV2:
        """The same model, claiming fewer elements; it keeps all weights, since an element's number is its row in the tables."""
        unknown = sorted(set(elements) - set(self.elements))
        if unknown:
            symbols = ", ".join(chemical_symbols[number] for number in unknown)
            raise ZooError(f"elements: the model does not know {symbols}; leave these out")
        narrowed = self._with_network(self.network)
        narrowed.elements = tuple(sorted(set(elements)))
        return narrowed

    def randomised(self) -> EquiformerV2:
        """The same architecture and units with weights drawn anew, as upstream draws them, from torch's global generator."""
        anew = build_network(self.network.architecture, self.dtype)
        if hasattr(self.network, "energy_lin_ref"):  # fitted by its authors, not trained
            with torch.no_grad():
                anew.get_parameter("energy_lin_ref").copy_(self.network.get_parameter("energy_lin_ref"))
        return self._with_network(anew.to(next(self.network.parameters()).device).train(self.network.training))

    def on_finer_grid(self) -> EquiformerV2:
        """The same weights with twice the points along each angle of the sphere's grid: another model, whose products alias less."""
        config = self.network.architecture.config
        finer = config.model_copy(update={"grid_resolution": 2 * (config.grid_resolution or 2 * (config.lmax + 1))})
        network = build_network(replace(self.network.architecture, config=finer), self.dtype)
        network.load_state_dict(self.network.state_dict())
        return self._with_network(network.to(next(self.network.parameters()).device).train(self.network.training))

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
