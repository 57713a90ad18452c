"""Upstream's network, built in one precision, and its outputs for an `AtomGraph`'s edges.

The layers are fairchem-core's own; what is said here is the way through them. Upstream's draws a random roll about every edge, builds its
own graph in the model's precision, and takes the derivatives inside of its heads.
"""

from __future__ import annotations

from typing import Any

import torch
from fairchem.core.models.base import HydraModel
from fairchem.core.models.uma.common.quaternion.wigner_d_hybrid import axis_angle_wigner_hybrid
from fairchem.core.models.uma.nn.execution_backends import ExecutionBackend
from fairchem.core.models.uma.nn.so2_layers import SO2_Convolution
from torch import Tensor, nn

from zoo.backbones.default_dtype import default_dtype
from zoo.backbones.uma.config import UmaConfig, refuse_cached_weights
from zoo.errors import ZooError, first_line


def build(config: UmaConfig, dtype: torch.dtype) -> HydraModel:
    """The network with weights drawn from torch's global generator, its constants computed in ``dtype``.

    Raises:
        ZooError: for settings that upstream does not build from.
    """
    kind, settings = config.backbone
    try:
        with default_dtype(dtype):
            network = HydraModel(
                backbone={**settings, "model": f"{kind.__module__}.{kind.__qualname__}"},
                heads=config.heads,
                pass_through_head_outputs=config.pass_through,
                model_id=config.model_id,
            )
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:  # upstream's checks of its settings are of all kinds
        reason = first_line(error) or type(error).__name__
        raise ZooError(f"{config.source}: fairchem-core builds no network from its settings ({reason}); mend them") from None
    # forces and stress of a conservative model are derived elsewhere: its heads return energies
    network.backbone.regress_config.forces = False
    network.backbone.regress_config.stress = False
    network.backbone.regress_config.hessian = False
    network.eval()
    return network.to(dtype)


class Structures(dict[str, Any]):
    """What upstream's layers ask of a batch of structures, by key or by attribute.

    ``natoms`` (G,), ``batch`` (N,), ``pos`` (N, 3), ``charge`` (G,), ``spin`` (G,), ``dataset`` a name a structure.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def outputs(network: HydraModel, structures: Structures, edge_index: Tensor, vectors: Tensor) -> dict[str, Any]:
    """The outputs of every head, as ``HydraModel.forward`` names them, before their normalisers.

    Args:
        network: of `build`.
        structures: with ``atomic_numbers`` (N,) as well.
        edge_index: (2, E), row 0 the neighbour, row 1 the centre, structure after structure.
        vectors: (E, 3) from the centre to the neighbour, in the network's precision.
    """
    embedded = _embedded(network.backbone, structures, edge_index, vectors)
    found: dict[str, Any] = {}
    with default_dtype(vectors.dtype):  # a head of stresses makes its constants in it
        for name, head in network.output_heads.items():
            made = head(structures, embedded)
            found |= made if network.pass_through_head_outputs else {name: made}
    for module in (network.backbone, *network.output_heads.values()):
        if hasattr(module, "global_mole_tensors"):  # else it would keep this call's graph alive until the next
            module.global_mole_tensors.expert_mixing_coefficients = None
    return found


def _embedded(backbone: Any, structures: Structures, edge_index: Tensor, vectors: Tensor) -> dict[str, Tensor]:
    """Features of the atoms (N, (lmax + 1)^2, C) as upstream's backbone returns them."""
    check_computes_with_its_weights(backbone)
    if not edge_index.shape[1]:  # upstream's layers cannot do without an edge: one beyond the cutoff, which carries nothing
        edge_index = edge_index.new_zeros((2, 1))
        vectors = vectors.new_full((1, 3), 1 + backbone.cutoff)
    numbers, batch = structures["atomic_numbers"], structures["batch"]
    of_structure = backbone.csd_embedding(structures["charge"], structures["spin"], structures["dataset"])  # (G, C)
    backbone.set_MOLE_coefficients(numbers, batch, of_structure)
    backbone.set_MOLE_sizes(of_structure.shape[0], batch, edge_index)
    wigner, wigner_inverse = _wigner(backbone, vectors)  # (E, M, L), (E, L, M)
    lengths = torch.linalg.vector_norm(vectors, dim=1)  # (E,)
    wigner_inverse = wigner_inverse * backbone.envelope(lengths / backbone.cutoff)[:, None, None]
    ends = (backbone.source_embedding(numbers[edge_index[0]]), backbone.target_embedding(numbers[edge_index[1]]))
    edges = torch.cat([backbone.distance_expansion(lengths), *ends], dim=1)  # (E, radial + 2 edge channels)
    scalars = backbone.sphere_embedding(numbers) + of_structure[batch]  # (N, C)
    features = nn.functional.pad(scalars[:, None], (0, 0, 0, backbone.sph_feature_size - 1))  # (N, L, C)
    features = backbone.edge_degree_embedding(features, edges, edge_index[1], wigner_inverse)
    for block in backbone.blocks:
        features = block(
            features,
            edges,
            edge_index,
            wigner,
            wigner_inverse,
            total_atoms_across_gp_ranks=len(numbers),
            sys_node_embedding=of_structure[batch],
            scatter_target=edge_index[1],
        )
        charge, spin = structures["charge"].to(features.dtype), structures["spin"].to(features.dtype)
        features = backbone.balance_channels(features, charge=charge, spin=spin, natoms=structures["natoms"], batch=batch)
    return {"node_embedding": backbone.norm(features), "batch": batch}


def _wigner(backbone: Any, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations into and out of the edges' frames, (E, M, L) and (E, L, M) with their coefficients sorted by order.

    The roll about an edge is free. Upstream draws it anew in every call; here it is 0, so that a structure has one energy.
    """
    into, out_of = axis_angle_wigner_hybrid(
        vectors,
        backbone.lmax,
        gamma=vectors.new_zeros(len(vectors)),
        coeffs=backbone.wigner_data.coeffs,
        U_blocks=backbone.wigner_data.U_blocks,
        custom_kernels=backbone.wigner_data.custom_kernels,
    )
    kept = backbone.coefficient_index if backbone.mmax != backbone.lmax else None
    prepared: tuple[Tensor, Tensor] = backbone.backend.prepare_wigner(into, out_of, backbone.mappingReduced, kept)
    return prepared


def check_is_not_merged(network: HydraModel, kind: type) -> None:
    """Refuse a network whose experts were mixed for one composition, charge and task.

    Args:
        network: as it stands; merging puts a plain backbone in the place of the experts', and a task into the heads.
        kind: of the backbone that its configuration names.

    Raises:
        ZooError: where it was merged.
    """
    heads = network.output_heads.values()
    if type(network.backbone) is not kind or any(getattr(head, "merged_on_dataset", None) is not None for head in heads):
        raise ZooError(
            "this network's experts were merged for one composition, charge and task (merge_mole), so that it is another model for all "
            "others and adapters of the experts change nothing; load it again"
        )


def check_computes_with_its_weights(backbone: Any) -> None:
    """Refuse a network that someone prepared for inference: its layers hold copies of weights.

    Raises:
        ZooError: in one line, for `zoo` and upstream's own preparation alike.
    """
    mode = type(backbone.backend)
    if mode is not ExecutionBackend:
        refuse_cached_weights(mode.__name__, "this network")
    convolutions = (conv for block in backbone.blocks for conv in (block.edge_wise.so2_conv_1, block.edge_wise.so2_conv_2))
    prepared = next((type(conv).__name__ for conv in convolutions if type(conv) is not SO2_Convolution), None)
    if prepared is not None:
        refuse_cached_weights(prepared, "this network")


def mixes_extensively(backbone: Any, has_multiplicity: bool) -> bool:
    """Whether what depends on a whole structure is the same for two of them; a spin that is not stated is minus one electron each."""
    balances_spin = backbone.spin_channel_end > backbone.spin_channel_start
    counts_too_many = backbone.model_id == "UMA-S-1.2" and getattr(backbone, "use_composition_embedding", False)  # upstream's own exception
    return not counts_too_many and (has_multiplicity or not balances_spin)


def aliasing_floor(settings: dict[str, Any]) -> float:
    """The largest error of forces under rotation, relative, that products on the sphere's grid cost (`zoo.backbones.base.Backbone`)."""
    on_grid = settings["act_type"] == "s2" or settings["ff_type"] == "grid"
    return 5e-2 if on_grid else 0.0
