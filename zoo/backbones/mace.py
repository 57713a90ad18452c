"""MACE (Batatia et al., NeurIPS 2022): higher-order equivariant message passing, of the ``mace-torch`` package.

MACE's edges have our rows, sender and receiver, and the vector of opposite sign, from the neighbour to the centre. The node attributes are
one-hot in the model's own order of elements. Energies are summed here, in float64, from what the package's modules give for each atom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar

import torch
from ase.data import chemical_symbols
from e3nn.o3._spherical_harmonics import _spherical_harmonics
from torch import Tensor, nn

from zoo.backbones.base import Backbone, Family, SpeciesRows, UpstreamFormat, choose_head
from zoo.backbones.clebsch_gordan import convention, in_signs_of, is_coupling
from zoo.backbones.default_dtype import default_dtype
from zoo.backbones.mace_checkpoint import recognises
from zoo.backbones.mace_conversion import read_through_cache
from zoo.backbones.mace_network import HIGHEST_ATOMIC_NUMBER, MaceConfig, build_network
from zoo.backbones.mace_state import check_state, load_state, weights_of_elements
from zoo.backbones.mace_toys import MORE_TOYS, TOY
from zoo.backbones.portable_pickle import make_portable
from zoo.errors import ZooError, first_line
from zoo.graph import AtomGraph


class Mace(Backbone):
    """A MACE or ScaleShiftMACE network that reads an `AtomGraph` and returns energies.

    Args:
        network: upstream's module; its own derivation of forces is not used.
        config: what it was built from.
        head: level of theory of a multi-head model.
        convention: the signs of its Clebsch-Gordan coefficients (`zoo.backbones.clebsch_gordan`).
    """

    family = "mace"
    adapter_layers = r"\b(?:interactions|products)\.(\d+)\."
    adapter_roles: ClassVar[dict[str, str]] = {
        "*node_embedding.*": "embedding",
        "*.source_embedding.*": "embedding",
        "*.target_embedding.*": "embedding",
        "*.readouts.*": "readout",
        "*.conv_tp_weights.*": "radial",
        "*.density_fn.*": "radial",
        "*.symmetric_contractions.*.weights.*": "contraction_lower",
        "*.interactions.*.alpha": "normalisation",
        "*.interactions.*.beta": "normalisation",
        "*.radial_embedding.*": "radial_basis",
        "*.pair_repulsion_fn.*": "pair_repulsion",
    }
    species_weights: ClassVar[dict[str, SpeciesRows]] = {
        "*node_embedding.*": "inner",
        "*.source_embedding.*": "inner",
        "*.target_embedding.*": "inner",
        "*.skip_tp.*": "inner",
        "*.symmetric_contractions.*": "outer",
    }

    def __init__(self, network: nn.Module, config: MaceConfig, head: str | None, convention: str) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.convention = convention
        self.cutoff = config.r_max
        self.symmetry = "SO(3)" if config.use_so3 else "O(3)"
        self.elements = tuple(sorted(config.atomic_numbers))
        self.heads = config.heads if len(config.heads) > 1 else ()
        self.head = head
        self.head_index = config.heads.index(head) if head is not None else 0
        species_of_number = torch.full((HIGHEST_ATOMIC_NUMBER + 1,), -1, dtype=torch.long)
        species_of_number[list(config.atomic_numbers)] = torch.arange(len(config.atomic_numbers))
        self.register_buffer("species_of_number", species_of_number, persistent=False)

    @property
    def species_order(self) -> tuple[int, ...]:
        """As the configuration has them."""
        return tuple(self.config.atomic_numbers)

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """``{"energy": (G,)}`` in eV, float64."""
        with default_dtype(self.dtype):  # the pair repulsion raises integers to a power: float32 unless the default is another
            energy_of_atom = self._energy_of_atom(graph)  # (N,)
        energy = energy_of_atom.new_zeros(graph.graph_count).index_add(0, graph.graph_of_atom, energy_of_atom)  # (G,)
        return {"energy": energy}

    def _energy_of_atom(self, graph: AtomGraph) -> Tensor:
        network: Any = self.network
        species = self.get_buffer("species_of_number")[graph.atomic_numbers]  # (N,)
        one_hot = nn.functional.one_hot(species, len(self.config.atomic_numbers)).to(self.dtype)  # (N, elements)
        heads = torch.full_like(species, self.head_index)  # (N,)
        atoms = torch.arange(len(species), device=species.device)
        vectors = -graph.edge_vectors().to(self.dtype)  # (E, 3) from the neighbour to the centre
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)  # (E, 1)
        edges, numbers = graph.edge_index, network.atomic_numbers
        harmonics = network.spherical_harmonics(vectors)  # (E, (L + 1)^2)
        radial, cutoff = network.radial_embedding(lengths, one_hot, edges, numbers)  # (E, basis)
        parts = []  # (N,) each
        if self.config.pair_repulsion:
            parts.append(network.pair_repulsion_fn(lengths, one_hot, edges, numbers))
        features, all_features = network.node_embedding(one_hot), []
        for layer, (interaction, product) in enumerate(zip(network.interactions, network.products, strict=True)):
            features, residual = interaction(
                node_attrs=one_hot,
                node_feats=features,
                edge_attrs=harmonics,
                edge_feats=radial,
                edge_index=edges,
                cutoff=cutoff,
                first_layer=layer == 0,
            )
            features = product(node_feats=features, sc=residual, node_attrs=one_hot)
            all_features.append(features)
        inputs = all_features if len(network.readouts) > 1 else all_features[-1:]
        parts += [readout(x, heads)[atoms, heads] for readout, x in zip(network.readouts, inputs, strict=True)]
        interaction_energy = torch.stack(parts).sum(0)  # (N,)
        if self.config.model == "ScaleShiftMACE":
            interaction_energy = network.scale_shift(interaction_energy, heads)
        isolated = network.atomic_energies_fn(one_hot)[atoms, heads]  # (N,)
        energy_of_atom: Tensor = interaction_energy.double() + isolated.double()  # thousands of eV: float32 would resolve 1 meV
        return energy_of_atom

    def upstream_checkpoint(self, element_shifts_ev: Mapping[int, float]) -> Any:
        """The whole module, which ``MACECalculator`` and mace's other tools load under e3nn 0.4.4 and 0.6, in this model's precision.

        The shifts are added to the reference energies of the head in use.
        """
        with torch.random.fork_rng(devices=[]):
            upstream: Any = build_network(self.config, self.dtype, "script")
        upstream.spherical_harmonics.sph_func = _spherical_harmonics  # by reference: a TorchScript function cannot be pickled
        load_state(upstream, {name: value.detach().cpu() for name, value in self.network.state_dict().items()}, "model")
        energies = upstream.get_buffer("atomic_energies_fn.atomic_energies").view(-1, len(self.config.atomic_numbers))  # (heads, elements)
        for atomic_number, value in element_shifts_ev.items():
            energies[self.head_index, self.config.atomic_numbers.index(atomic_number)] += value
        make_portable(upstream)
        return upstream

    def rebuilt(self, dtype: torch.dtype) -> Mace:
        """The same model built anew in ``dtype``; its coupling coefficients keep their signs and are computed in ``dtype``."""
        with torch.random.fork_rng(devices=[]):  # its random weights are replaced: they must not use up the caller's stream
            twin = build_network(self.config, dtype)
        native = dict(twin.named_buffers())
        state = dict(self.network.state_dict())
        for name, own in state.items():
            if is_coupling(name):
                state[name] = in_signs_of(name, own, native[name])
        load_state(twin, state, "model")
        return Mace(twin, self.config, self.head, self.convention).to(next(self.parameters()).device)

    def restricted_to(self, elements: Sequence[int]) -> Mace:
        """The same model for fewer elements, equal on them to rounding: weights of the others are left out.

        e3nn divides weights that mix the one-hot attributes by the square root of the number of elements; they are scaled so that the
        quotient stays the same.

        Args:
            elements: atomic numbers to keep.

        Raises:
            ZooError: for an element the model does not know, or none.
        """
        unknown = sorted(set(elements) - set(self.elements))
        if unknown or not elements:
            asked, known = (", ".join(chemical_symbols[number] for number in numbers) for numbers in (unknown, self.elements))
            raise ZooError(f"cannot cut the model down to {asked or 'nothing'}: it knows {known}; name some of these")
        kept = [index for index, number in enumerate(self.config.atomic_numbers) if number in set(elements)]
        total = len(self.config.atomic_numbers)
        config = self.config.model_copy(
            update={
                "atomic_numbers": tuple(self.config.atomic_numbers[index] for index in kept),
                "atomic_energies_shape": (*self.config.atomic_energies_shape[:-1], len(kept)),
            }
        )
        with torch.random.fork_rng(devices=[]):
            smaller = build_network(config, self.dtype)
        wanted = smaller.state_dict()
        state = {name: value.detach().cpu() for name, value in self.network.state_dict().items()}
        for name, value in state.items():
            if name == "atomic_numbers" or name.endswith("atomic_energies"):
                state[name] = value[..., kept]
            elif is_coupling(name):
                continue  # the same for every element, in the basis of the file
            elif value.shape != wanted[name].shape and ".contractions." in name:
                state[name] = value[kept]  # (elements, paths, channels)
            elif value.shape != wanted[name].shape:
                layer: Any = self.network.get_submodule(name.rpartition(".")[0])
                state[name] = weights_of_elements(value, [path.path_shape for path in layer.instructions], kept, total)
        load_state(smaller, state, "restricted model")
        return Mace(smaller, config, self.head, self.convention).to(next(self.parameters()).device)


def from_state(config: MaceConfig, state: Mapping[str, Tensor], head: str | None, source: str) -> Mace:
    """The backbone of a configuration and a state, in the state's precision.

    Raises:
        ZooError: for a head that is not there, and for a configuration that no network can be built from or that contradicts the state.
    """
    chosen = choose_head(config.heads if len(config.heads) > 1 else (), head, source)
    check_state(config, state, source)
    try:
        dtype = next(value.dtype for name, value in state.items() if name.endswith("node_embedding.linear.weight"))
        with torch.random.fork_rng(devices=[]):
            network = build_network(config, dtype)
    except Exception as error:  # upstream's constructors raise whatever the settings lead them to
        reason = first_line(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {first_line(error)}"
        raise ZooError(f"{source}: no MACE network can be built from its settings ({reason}); pass a .model that mace wrote") from None
    native = {name: value.clone() for name, value in network.named_buffers() if is_coupling(name)}
    load_state(network, state, source)
    return Mace(network, config, chosen, convention(state, native))


def _load(path: Path, head: str | None, trust_pickle: bool) -> Backbone:
    config, state = read_through_cache(path, trust_pickle)
    return from_state(config, state, head, str(path))


def _randomise(backbone: Backbone) -> Backbone:
    assert isinstance(backbone, Mace)
    network = build_network(backbone.config, backbone.dtype)
    statistics = {name: value for name, value in backbone.network.state_dict().items() if name in dict(network.named_buffers())}
    network.load_state_dict({name: value for name, value in statistics.items() if not is_coupling(name)}, strict=False)
    return Mace(network, backbone.config, backbone.head, "e3nn-0.6")


def random_toy(config: MaceConfig, seed: int) -> Mace:
    """A float64 backbone with weights drawn from ``seed``, reference energies of -0.5 eV, -1.0 eV, ... and scale 1.2.

    Nonlinear blocks divide by ``3 + density``; at upstream's start, ``20 + 0 density``, no weight of the density has a gradient.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config, torch.float64)
    energies = network.get_buffer("atomic_energies_fn.atomic_energies")
    energies.copy_(-0.5 * (1.0 + torch.arange(energies.numel(), dtype=torch.float64)).reshape(energies.shape))
    if config.model == "ScaleShiftMACE":
        network.get_buffer("scale_shift.scale").fill_(1.2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith((".alpha", ".beta")):
                parameter.fill_(3.0 if name.endswith(".alpha") else 1.0)
    return Mace(network, config, config.heads[0] if len(config.heads) > 1 else None, "e3nn-0.6")


def _loaded_by(path: Path, head: str | None) -> str:
    calculator = f'MACECalculator(model_paths="{path}"' + (f', head="{head}")' if head else ")")
    return f"{calculator}; for LAMMPS: mace_create_lammps_model {quote(str(path))}{f' --head {quote(head)}' if head else ''}"


FAMILY = Family(
    name="mace",
    load=_load,
    randomise=_randomise,
    toy=partial(random_toy, TOY),
    recognises=recognises,
    formats={"native": UpstreamFormat(".model", _loaded_by)},
    more_toys={name: partial(random_toy, config) for name, config in MORE_TOYS.items()},
)
