"""NequIP (Batzner et al., Nat. Commun. 2022, 13, 2453) and Allegro (Musaelian et al., 2023, 14, 579) of the NequIP framework.

Upstream's edges run from row 0, the centre, to row 1, the neighbour: our rows swapped, the same vector. Positions and edge vectors stay
float64 in a float32 network, as upstream has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from ase.data import atomic_numbers, chemical_symbols
from e3nn.o3 import SphericalHarmonics, TensorProduct
from nequip.data import AtomicDataDict as keys
from nequip.nn import InteractionBlock
from torch import Tensor, nn

from zoo.backbones.base import Backbone, Family, SpeciesRows, Symmetry, choose_head
from zoo.backbones.convolution import PathConvolution
from zoo.backbones.nequip_build import build_graph_model, energy_network
from zoo.backbones.nequip_checkpoint import checkpoint_payload, read_model, recognises
from zoo.backbones.nequip_compare import compare_networks
from zoo.backbones.nequip_config import Config, by_type, family_of_config
from zoo.backbones.nequip_package import FORMATS
from zoo.backbones.nequip_weights import fill
from zoo.backbones.nequip_yaml import is_configuration, read_configuration
from zoo.errors import ZooError, first_line
from zoo.graph import AtomGraph

_SCALE_SHIFT = "per_type_energy_scale_shift"
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class NequIPFramework(Backbone):
    """A network of the NequIP framework that reads an `AtomGraph` and returns energies.

    Args:
        config: upstream's model configuration (`zoo.backbones.nequip_config.clean_config`); the weights are drawn from its seed.
        dtype: of the network.
    """

    adapter_layers = r"\.(?:layer|latents\.|tps\.)(\d+)(?:_convnet)?\."
    adapter_roles: ClassVar[dict[str, str]] = {
        "*.per_atom_energy_readout.*": "readout",
        "*.edge_readout.*": "readout",
        "*.edge_mlp.*": "radial",
        "*.radial_chemical_embed.type_embed.basis_linear.*": "radial",
        "*.radial_chemical_embed.spline.*": "radial",
        "*.scalar_embed_mlp.*": "radial",
    }
    # tensor products see what the embedding makes of an element, so that no element has weights of its own there
    species_weights: ClassVar[dict[str, SpeciesRows]] = {
        "*type_embed.embed_module.weight": "inner",
        "*type_embed.center_embed.weight": "inner",
        "*type_embed.neighbor_embed.weight": "inner",
    }

    def __init__(self, config: Config, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        self.family = family_of_config(config, "model")
        self.network = energy_network(build_graph_model(config, dtype))
        self.symmetry = _symmetry(self.network)
        for module in self.network.modules():
            if isinstance(module, InteractionBlock):
                module.tp_scatter = _TensorProductScatter(module.tp_scatter.tp, dtype)
        self._dtype = dtype
        self.cutoff = float(config["r_max"])
        types = [atomic_numbers[symbol] for symbol in config["type_names"]]
        self.elements = tuple(sorted(types))
        type_of_number = torch.full((119,), -1, dtype=torch.long)
        type_of_number[torch.tensor(types)] = torch.arange(len(types))
        self.register_buffer("type_of_number", type_of_number, persistent=False)

    @property
    def species_order(self) -> tuple[int, ...]:
        """As the configuration has them."""
        return tuple(atomic_numbers[symbol] for symbol in self.config["type_names"])

    @property
    def dtype(self) -> torch.dtype:
        """The network's; radial frequencies and per-element scales that train stay float64 in upstream's float32 models."""
        return self._dtype

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """``{"energy": (G,)}`` in eV."""
        data = {
            keys.POSITIONS_KEY: graph.positions,  # (N, 3)
            keys.EDGE_VECTORS_KEY: graph.edge_vectors(),  # (E, 3)
            keys.EDGE_INDEX_KEY: graph.edge_index.flip(0),  # row 0 the centre, row 1 the neighbour
            keys.ATOM_TYPE_KEY: self.get_buffer("type_of_number")[graph.atomic_numbers],  # (N,)
            keys.BATCH_KEY: graph.graph_of_atom,
            keys.NUM_NODES_KEY: graph.atom_counts,
        }
        energy: Tensor = self.network(data)[keys.TOTAL_ENERGY_KEY]
        return {"energy": energy.squeeze(-1)}

    def upstream_checkpoint(self, element_shifts_ev: Mapping[int, float]) -> dict[str, Any]:
        """A dict that ``nequip``'s checkpoint loader reads once ``torch.save`` wrote it, in the network's own dtype.

        The shifts go into the per-type energy shifts.
        """
        shifts = self._per_type("shifts", 0.0)
        for atomic_number, value in element_shifts_ev.items():
            shifts[chemical_symbols[atomic_number]] += value
        name_of_dtype = str(self.dtype).removeprefix("torch.")
        config = {**self._current_config(), "per_type_energy_shifts": shifts, "model_dtype": name_of_dtype}
        upstream = build_graph_model(config, self.dtype)
        own = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, parameter in energy_network(upstream).named_parameters():
                if name != f"{_SCALE_SHIFT}.shifts":  # the configuration brought them, with the reference energies
                    parameter.copy_(own[name])
        return checkpoint_payload(config, {name: value.detach().clone() for name, value in upstream.state_dict().items()})

    def rebuilt(self, dtype: torch.dtype) -> NequIPFramework:
        """The same model built anew in ``dtype``."""
        twin = type(self)(self._current_config(), dtype)
        own = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, parameter in twin.network.named_parameters():
                parameter.copy_(own[name])
        return twin.to(self.get_buffer("type_of_number").device)

    def randomised(self) -> NequIPFramework:
        """The same architecture with weights drawn anew, seeded from torch's global generator; per-element scales and shifts are kept."""
        config = {**self._current_config(), "seed": int(torch.randint(2**31, ()))}
        return type(self)(config, self.dtype).to(self.get_buffer("type_of_number").device)

    def _per_type(self, quantity: str, default: float) -> dict[str, float]:
        """Atom type to the scale or shift it has now, in the order of the types."""
        tensor: Tensor = getattr(self.network.get_submodule(_SCALE_SHIFT), quantity)
        values = tensor.detach().reshape(-1).tolist() or [default]
        return by_type(self.config["type_names"], values, self.family)

    def _current_config(self) -> Config:
        """The configuration with the scales and shifts the network has now: training may have changed them."""
        scale_shift = self.network.get_submodule(_SCALE_SHIFT)
        present = [quantity for quantity in ("scales", "shifts") if getattr(scale_shift, quantity).numel()]
        return {**self.config, **{f"per_type_energy_{quantity}": self._per_type(quantity, 0.0) for quantity in present}}


class _TensorProductScatter(nn.Module):
    """Upstream's module of that name, computed by `PathConvolution`."""

    def __init__(self, tensor_product: TensorProduct, dtype: torch.dtype) -> None:
        super().__init__()
        self.convolution = PathConvolution(tensor_product, dtype)

    def forward(self, x: Tensor, edge_attr: Tensor, edge_weight: Tensor, edge_dst: Tensor, edge_src: Tensor) -> Tensor:
        """Messages summed over neighbours: (N, outputs.dim); ``edge_dst`` is the centre."""
        summed: Tensor = self.convolution(x, edge_attr, edge_weight, edge_src, edge_dst)
        return summed


def _symmetry(network: nn.Module) -> Symmetry:
    """O(3) where every harmonic has the parity of its degree, with ``parity=False`` too: that only leaves pseudo-tensors out."""
    harmonics = [irrep for module in network.modules() if isinstance(module, SphericalHarmonics) for _, irrep in module.irreps_out]
    return "O(3)" if all(irrep.p == (-1) ** irrep.l for irrep in harmonics) else "SO(3)"


def load_network(path: Path, head: str | None, trust_pickle: bool) -> Backbone:
    """The model of a checkpoint or a package, with its weights, or of a configuration, with random ones.

    Raises:
        ZooError: a file that cannot be read or would run code, or whose weights do not fit its configuration.
    """
    choose_head((), head, str(path))
    if is_configuration(path):
        backbone = _built(read_configuration(path), path)
        backbone.has_weights = False
        return backbone
    upstream = read_model(path, trust_pickle)
    config = dict(upstream.config)
    for quantity in ("scales", "shifts"):
        values = upstream.state.get(f"{_SCALE_SHIFT}.{quantity}", torch.empty(0)).reshape(-1).tolist()
        if values:
            config[f"per_type_energy_{quantity}"] = by_type(config["type_names"], values, str(path))
    backbone = _built(config, path)
    fill(backbone.network, upstream, path)
    if upstream.packaged is not None:
        types = [atomic_numbers[symbol] for symbol in config["type_names"]]
        compare_networks(backbone.network, upstream.packaged, types, backbone.cutoff, backbone.dtype, path)
    return backbone


def _built(config: Config, path: Path) -> NequIPFramework:
    """The one place where a file's configuration meets upstream's builders.

    Raises:
        ZooError: for whatever they raise: they say of arguments that they do not like whatever comes of them.
    """
    try:
        return NequIPFramework(config, _DTYPES[config["model_dtype"]])
    except Exception as error:
        said = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)  # hydra's own text names the call alone
        raise ZooError(
            f"{path}: its configuration is not one that the nequip installed here builds ({said}); mend it, or install the version it names"
        ) from None


def randomise(backbone: Backbone) -> Backbone:
    """The family's ``randomise``."""
    assert isinstance(backbone, NequIPFramework)
    return backbone.randomised()


def toy_config(seed: int) -> Config:
    """What the toys of both families share: H C O Cu Au, cutoff 4 Å; no pair term, whose forces would hide the network's."""
    names = ["H", "C", "O", "Cu", "Au"]
    return {
        "seed": seed,
        "model_dtype": "float64",
        "type_names": names,
        "r_max": 4.0,
        "l_max": 1,
        "parity": True,
        "avg_num_neighbors": 5.0,
        "per_type_energy_scales": dict(zip(names, (1.0, 1.1, 1.2, 1.3, 1.4), strict=True)),
        "per_type_energy_shifts": dict(zip(names, (-0.5, -1.0, -1.5, -2.0, -2.5), strict=True)),
    }


def _toy(seed: int) -> Backbone:
    """2 layers, 8x0e+4x1o."""
    own = {"num_layers": 2, "num_features": [8, 4], "type_embed_num_features": 6, "radial_mlp_width": 8, "num_bessels": 4}
    return NequIPFramework({"_target_": "nequip.model.NequIPGNNModel", **toy_config(seed), **own}, torch.float64)


FAMILY = Family(
    name="nequip",
    load=load_network,
    randomise=randomise,
    toy=_toy,
    recognises=lambda path: recognises(path, "nequip"),
    formats=FORMATS,
)
