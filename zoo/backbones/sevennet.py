"""SevenNet (Park et al., J. Chem. Theory Comput. 2024, 20, 4857): NequIP-type networks of the ``sevenn`` package.

SevenNet's edges run from row 0, the centre, to row 1, the neighbour: our rows swapped, the same vector. A mirrored model differs by only
2e-6 eV on NaCl, so the parity test looks at forces.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar

import torch
from sevenn import __version__ as sevenn_version
from sevenn import _keys as keys
from sevenn.model_build import build_E3_equivariant_model
from sevenn.nn.convolution import IrrepsConvolution
from sevenn.nn.sequential import AtomGraphSequential
from torch import Tensor, nn

from zoo.backbones.base import Backbone, Family, SpeciesRows, UpstreamFormat, choose_head
from zoo.backbones.convolution import PathConvolution
from zoo.backbones.sevennet_checkpoint import SafeCheckpoint, read_payload, recognises
from zoo.graph import AtomGraph


class SevenNet(Backbone):
    """A SevenNet network that reads an `AtomGraph` and returns energies.

    Args:
        network: upstream's module, with or without its force output (it is dropped: `zoo.forces` derives them).
        config: upstream's configuration, kept for the way back to an upstream checkpoint.
        head: modality of a multi-fidelity model.
    """

    family = "sevennet"
    adapter_layers = r"\.(\d+)_"
    adapter_roles: ClassVar[dict[str, str]] = {
        "*onehot_to_feature_x.*": "embedding",
        "*reduce_input_to_hidden.*": "readout",
        "*reduce_hidden_to_energy.*": "readout",
    }
    species_weights: ClassVar[dict[str, SpeciesRows]] = {
        "*onehot_to_feature_x.*": "inner",
        "*_self_connection_intro.fc_tensor_product.*": "inner",
    }

    def __init__(self, network: AtomGraphSequential, config: dict[str, Any], head: str | None = None) -> None:
        super().__init__()
        network.delete_module_by_key("force_output")
        network.set_is_batch_data(True)
        network.eval_type_map = False
        network.eval_modal_map = False
        for name, module in network._modules.items():
            if isinstance(module, IrrepsConvolution):
                network.replace_module(name, _Convolution(module))
        # upstream's one-hot module always returns float32; ours follows the model's dtype
        self._one_hot_names = [name for name in ("onehot_idx_to_onehot", "one_hot_modality") if name in network._modules]
        self.network = network
        self.config = config
        self.cutoff = float(config[keys.CUTOFF])
        self.symmetry = "O(3)" if config[keys.IS_PARITY] else "SO(3)"
        type_map: dict[int, int] = config[keys.TYPE_MAP]
        self.elements = tuple(sorted(type_map))
        species_of_number = torch.full((119,), -1, dtype=torch.long)
        for atomic_number, species in type_map.items():
            species_of_number[atomic_number] = species
        self.register_buffer("species_of_number", species_of_number, persistent=False)
        self.species_count = len(type_map)
        modal_map: dict[str, int] = config.get(keys.MODAL_MAP, {}) if config.get(keys.USE_MODALITY, False) else {}
        self.heads = tuple(sorted(modal_map))
        self.head = head
        self.modal_index = modal_map[head] if head is not None else None

    @property
    def species_order(self) -> tuple[int, ...]:
        """As the file's map of types has them."""
        type_map: dict[int, int] = self.config[keys.TYPE_MAP]
        return tuple(sorted(type_map, key=lambda number: type_map[number]))

    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """``{"energy": (G,)}`` in eV."""
        data = self._upstream_input(graph)
        for name, module in self.network._modules.items():
            if name not in self._one_hot_names:
                assert module is not None
                data = module(data)
        return {"energy": data[keys.PRED_TOTAL_ENERGY]}

    def _upstream_input(self, graph: AtomGraph) -> dict[str, Tensor]:
        dtype = self.dtype
        species_of_number = self.species_of_number
        assert isinstance(species_of_number, Tensor)
        species = species_of_number[graph.atomic_numbers]  # (N,)
        one_hot = nn.functional.one_hot(species, self.species_count).to(dtype)  # (N, species)
        data = {
            keys.EDGE_VEC: graph.edge_vectors().to(dtype),  # (E, 3)
            keys.EDGE_IDX: graph.edge_index.flip(0),  # row 0 the centre, row 1 the neighbour
            keys.BATCH: graph.graph_of_atom,
            keys.NUM_ATOMS: graph.atom_counts,
            keys.ATOMIC_NUMBERS: graph.atomic_numbers,
            keys.ATOM_TYPE: species,
            keys.NODE_FEATURE: one_hot,
            keys.NODE_ATTR: one_hot,
        }
        if self.modal_index is not None:
            modal = torch.full((graph.graph_count,), self.modal_index, dtype=torch.long, device=species.device)
            data[keys.MODAL_TYPE] = modal
            data[keys.MODAL_ATTR] = nn.functional.one_hot(modal, len(self.heads)).to(dtype)  # (G, heads)
        return data

    def upstream_checkpoint(self, element_shifts_ev: Mapping[int, float]) -> dict[str, Any]:
        """A dict that ``sevenn.util.load_checkpoint`` reads once ``torch.save`` wrote it, in the network's own precision.

        The shifts go into the per-element rescale. sevenn loads the file into a network of torch's default dtype.
        """
        state = {name: value.detach().to("cpu", copy=True) for name, value in self._upstream_state().items()}
        shift = state["rescale_atomic_energy.shift"]  # (species,) or (heads, species)
        type_map = self.config[keys.TYPE_MAP]
        for atomic_number, value in element_shifts_ev.items():
            if shift.dim() == 2:
                shift[self.modal_index, type_map[atomic_number]] += value
            else:
                shift[type_map[atomic_number]] += value
        config = {**self.config, "version": sevenn_version, keys.SHIFT: shift.numpy(), "device": "cpu"}
        return {"model_state_dict": state, "optimizer_state_dict": {}, "scheduler_state_dict": {}, "config": config, "epoch": 0}

    def rebuilt(self, dtype: torch.dtype) -> SevenNet:
        """The same model built anew in ``dtype``."""
        with torch.random.fork_rng(devices=[]):  # its random weights are replaced: they must not use up the caller's stream
            twin = SevenNet(_build(self.config, dtype), self.config, self.head)
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                parameter.copy_(own[name])
        return twin.to(next(self.parameters()).device)

    def _upstream_state(self) -> dict[str, Tensor]:
        """State of upstream's own network with this one's parameters."""
        with torch.random.fork_rng(devices=[]):
            upstream = _build(self.config, self.dtype)
        own = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, parameter in upstream.named_parameters():
                parameter.copy_(own[name])
        return dict(upstream.state_dict())


class _Convolution(nn.Module):
    """Upstream's convolution block with its parameters under the same names, computed by `PathConvolution`."""

    def __init__(self, upstream: IrrepsConvolution) -> None:
        super().__init__()
        self.denominator = upstream.denominator
        self.weight_nn = upstream.get_submodule("weight_nn")
        self.convolution = PathConvolution(upstream.convolution, upstream.denominator.dtype)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Replace the node features (N, inputs.dim) by the summed messages (N, outputs.dim)."""
        weights = self.weight_nn(data[keys.EDGE_EMBEDDING])  # (E, paths)
        centre, neighbour = data[keys.EDGE_IDX]
        summed = self.convolution(data[keys.NODE_FEATURE], data[keys.EDGE_ATTR], weights, neighbour, centre)
        data[keys.NODE_FEATURE] = summed / self.denominator
        return data


def _load(path: Path, head: str | None, trust_pickle: bool) -> Backbone:
    checkpoint = SafeCheckpoint(path, read_payload(path, trust_pickle))
    config = checkpoint.config
    modal_map = config.get(keys.MODAL_MAP) or {}
    heads = tuple(sorted(modal_map)) if config.get(keys.USE_MODALITY, False) else ()
    chosen = choose_head(heads, head, str(path))
    state = checkpoint.model_state_dict
    dtype = next(value.dtype for value in state.values() if value.is_floating_point())
    with _quiet_in(dtype), torch.random.fork_rng(devices=[]):
        network = checkpoint.build_model()
    # upstream's scale and shift are float32 whatever the default: float64 values were rounded on their way
    rounded = [name for name, value in network.state_dict().items() if name in state and value.dtype != state[name].dtype]
    network.to(dtype)
    for name in rounded:
        network.state_dict()[name].copy_(state[name])
    return SevenNet(network, config, chosen)


def _build(config: dict[str, Any], dtype: torch.dtype) -> AtomGraphSequential:
    """Upstream's network with random weights from torch's global generator, its constants computed in ``dtype``."""
    with _quiet_in(dtype):
        return build_E3_equivariant_model(config).to(dtype)


@contextlib.contextmanager
def _quiet_in(dtype: torch.dtype) -> Iterator[None]:
    """For as long as upstream builds: ``dtype`` is torch's default, and what upstream prints is dropped."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        torch.set_default_dtype(previous)


def _randomise(backbone: Backbone) -> Backbone:
    assert isinstance(backbone, SevenNet)
    fresh = SevenNet(_build(backbone.config, backbone.dtype), backbone.config, backbone.head)
    # per-element shift, scale and neighbour normalisation are statistics of the training set, not weights
    kept = {name: value for name, value in backbone.named_parameters() if not value.requires_grad}
    fresh.load_state_dict(kept, strict=False)
    return fresh


def _toy(seed: int) -> Backbone:
    """2 layers, 8x0e+4x1e, H C O Cu Au, cutoff 4 Å, tensor-product self-connection: both layer types that adapters must reach."""
    type_map = {1: 0, 6: 1, 8: 2, 29: 3, 79: 4}
    config: dict[str, Any] = {
        "version": sevenn_version,
        keys.CUTOFF: 4.0,
        keys.NODE_FEATURE_MULTIPLICITY: 8,
        keys.LMAX: 1,
        keys.IS_PARITY: False,
        keys.NUM_CONVOLUTION: 2,
        keys.IRREPS_MANUAL: ["8x0e", "8x0e+4x1e", "8x0e"],
        keys.CONVOLUTION_WEIGHT_NN_HIDDEN_NEURONS: [8],
        keys.SELF_CONNECTION_TYPE: ["nequip", "linear"],
        keys.RADIAL_BASIS: {keys.RADIAL_BASIS_NAME: "bessel", "bessel_basis_num": 4},
        keys.CUTOFF_FUNCTION: {keys.CUTOFF_FUNCTION_NAME: "poly_cut", "poly_cut_p_value": 6},
        keys.CONV_DENOMINATOR: 3.0,
        keys.NUM_SPECIES: len(type_map),
        keys.TYPE_MAP: type_map,
        keys.CHEMICAL_SPECIES: ["H", "C", "O", "Cu", "Au"],
        keys.SHIFT: [-0.5, -1.0, -1.5, -2.0, -2.5],
        keys.SCALE: [1.0, 1.1, 1.2, 1.3, 1.4],
    }
    import sevenn._const as const

    config = {**const.model_defaults(config), **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SevenNet(_build(config, torch.float64), config)


def _loaded_by(path: Path, head: str | None) -> str:
    calculator = f'SevenNetCalculator("{path}"' + (f', modal="{head}")' if head else ")")
    return f"{calculator}; for LAMMPS: sevenn get_model {quote(str(path))}{f' -m {quote(head)}' if head else ''}"


FAMILY = Family(
    name="sevennet",
    load=_load,
    randomise=_randomise,
    toy=_toy,
    recognises=recognises,
    formats={"native": UpstreamFormat(".pth", _loaded_by)},
)
