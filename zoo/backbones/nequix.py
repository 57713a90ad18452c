"""Nequix (Koker, Kotak, Smidt, arXiv:2508.16067): foundation models of NequIP's type, trained in JAX and computed here in torch.

Upstream's own package imports JAX; nothing of it is needed. Its edges run as ours do, from the centre to the neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.backbones.base import Backbone, Family, SpeciesRows, UpstreamFormat, choose_head
from zoo.backbones.nequix_checkpoint import parse_settings, read_file, recognises, upstream_leaves, write_file
from zoo.backbones.nequix_model import NequixNetwork
from zoo.graph import AtomGraph


class Nequix(Backbone):
    """A Nequix network that reads an `AtomGraph` and returns energies.

    Args:
        network: with its weights.
        settings: of upstream's file, those of its training run too, kept for the way back.
        tail: what stood behind the arrays in upstream's file.
    """

    family = "nequix"
    symmetry = "O(3)"
    adapter_layers = r"\blayers\.(\d+)\."
    adapter_roles: ClassVar[dict[str, str]] = {
        "*radial_mlp.*": "radial",
        "*readout.*": "readout",
        # the first layer mixes one-hot elements
        "*layers.0.linear_1.*": "embedding",
        "*layers.0.skip.*": "embedding",
    }
    species_weights: ClassVar[dict[str, SpeciesRows]] = {"*layers.0.linear_1.*": "inner", "*layers.0.skip.*": "inner"}

    def __init__(self, network: NequixNetwork, settings: Mapping[str, Any], tail: bytes = b"") -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.tail = tail
        self.cutoff = network.config.cutoff
        self.elements = tuple(sorted(network.config.atomic_numbers))
        species_of_number = torch.full((119,), -1, dtype=torch.long)
        species_of_number[torch.tensor(self.elements)] = torch.arange(len(self.elements))
        self.register_buffer("species_of_number", species_of_number, persistent=False)

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """``{"energy": (G,)}`` in eV."""
        species_of_number = self.species_of_number
        assert isinstance(species_of_number, Tensor)
        neighbour, centre = graph.edge_index
        energies = self.network(species_of_number[graph.atomic_numbers], graph.edge_vectors().to(self.dtype), neighbour, centre)  # (N,)
        return {"energy": energies.new_zeros(graph.graph_count).index_add(0, graph.graph_of_atom, energies)}

    def upstream_checkpoint(self, element_shifts_ev: Mapping[int, float]) -> dict[str, Any]:
        """What stands in upstream's file: its settings, its arrays and its tail.

        Shifts go into the atom energies, of which a file has two copies: upstream's JAX model reads the array, its torch twin the settings.
        The tail, a third copy that nobody reads, is then left out.
        """
        atom_energies, *weights = (leaf.to("cpu", torch.float64, copy=True) for leaf in upstream_leaves(self.network))
        settings = dict(self.settings)
        for atomic_number, shift in element_shifts_ev.items():
            atom_energies[self.elements.index(atomic_number)] += shift
        if element_shifts_ev and isinstance(settings.get("atom_energies"), Mapping):
            listed = dict(settings["atom_energies"])
            for atomic_number, shift in element_shifts_ev.items():
                if str(atomic_number) in listed:
                    listed[str(atomic_number)] += shift
            settings["atom_energies"] = listed
        return {"settings": settings, "leaves": [atom_energies, *weights], "tail": b"" if element_shifts_ev else self.tail}

    def write_upstream_checkpoint(self, path: Path, element_shifts_ev: Mapping[int, float]) -> None:
        """Write the ``.nqx`` file that upstream's calculator reads."""
        write_file(path, **self.upstream_checkpoint(element_shifts_ev))

    def rebuilt(self, dtype: torch.dtype) -> Nequix:
        """The same model built anew in ``dtype``."""
        twin = Nequix(_network(self, dtype), self.settings, self.tail)
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                parameter.copy_(own[name])
        return twin.to(next(self.parameters()).device)


def _network(backbone: Nequix, dtype: torch.dtype) -> NequixNetwork:
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced: they must not use up the caller's stream
        return NequixNetwork(backbone.network.config, dtype)


def _load(path: Path, head: str | None, trust_pickle: bool) -> Backbone:
    """From a file; nothing in it is pickled, so ``trust_pickle`` changes nothing."""
    choose_head((), head, str(path))
    return Nequix(*read_file(path))


def _randomise(backbone: Backbone) -> Backbone:
    assert isinstance(backbone, Nequix)
    fresh = Nequix(_network(backbone, backbone.dtype), backbone.settings, backbone.tail)
    with torch.no_grad():
        fresh.network.atom_energies.copy_(backbone.network.atom_energies)
    fresh.network.randomise()
    return fresh


def _toy(seed: int) -> Backbone:
    """2 layers, 10x0e+4x1o+2x2e, H C O Cu Au, cutoff 4 Å."""
    energies = {1: -0.5, 6: -1.0, 8: -1.5, 29: -2.0, 79: -2.5}
    settings = {
        "cutoff": 4.0,
        "atomic_numbers": list(energies),
        "atom_energies": {str(number): energy for number, energy in energies.items()},
        "avg_n_neighbors": 9.0,
        "hidden_irreps": "10x0e + 4x1o + 2x2e",
        "index_weights": False,
        "layer_norm": True,
        "lmax": 2,
        "mlp_init_scale": 4.0,
        "n_layers": 2,
        "radial_basis_size": 4,
        "radial_mlp_layers": 1,
        "radial_mlp_size": 8,
        "radial_polynomial_p": 6.0,
        "scale": 0.8,
        "shift": 0.1,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NequixNetwork(parse_settings(settings, "the toy"), torch.float64)
        network.randomise()
    with torch.no_grad():
        network.atom_energies.copy_(torch.tensor(list(energies.values()), dtype=torch.float64))
    return Nequix(network, settings)


FAMILY = Family(
    name="nequix",
    load=_load,
    randomise=_randomise,
    toy=_toy,
    recognises=recognises,
    formats={"native": UpstreamFormat(".nqx", lambda path, head: f'NequixCalculator(model_path="{path}")')},
)
