"""Small MACE networks for tests, one a kind of block that published models are built of."""

from __future__ import annotations

from typing import Any

from zoo.backbones.mace_network import MaceConfig

_COMMON: dict[str, Any] = {
    "model": "ScaleShiftMACE",
    "r_max": 4.0,
    "num_bessel": 4,
    "num_polynomial_cutoff": 5,
    "max_ell": 2,
    "interaction_cls": "RealAgnosticResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
    "num_interactions": 2,
    "hidden_irreps": "4x0e+4x1o",
    "mlp_irreps": "4x0e",
    "avg_num_neighbors": 3.0,
    "atomic_numbers": (1, 6, 8, 29, 79),
    "correlation": (2, 2),
    "gate": "silu",
    "radial_mlp": (8,),
    "atomic_energies_shape": (5,),
}
DENSITY: dict[str, Any] = {
    "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
}
"""The blocks of MACE-MP-0b and later, which divide by a learnt density instead of the mean number of neighbours."""


def toy_config(**changes: Any) -> MaceConfig:
    """2 layers, 4x0e+4x1o, H C O Cu Au, cutoff 4 Å, correlation 2, residual blocks; ``changes`` replaces fields of `MaceConfig`."""
    return MaceConfig(**{**_COMMON, **changes})


TOY = toy_config(**DENSITY)

MORE_TOYS: dict[str, MaceConfig] = {
    "residual": toy_config(correlation=(3, 3)),  # MP-0
    "plain": toy_config(model="MACE", interaction_cls_first="RealAgnosticInteractionBlock"),  # OFF23: energies not scaled
    "density with ZBL": toy_config(**DENSITY, distance_transform="Agnesi", pair_repulsion=True),  # MP-0b3
    "nonlinear": toy_config(  # MH-1: radial networks of torch.nn.Linear, cutoff not applied to the messages, one readout
        interaction_cls="RealAgnosticResidualNonLinearInteractionBlock",
        interaction_cls_first="RealAgnosticResidualNonLinearInteractionBlock",
        apply_cutoff=False,
        edge_irreps="4x0e+4x1o",
        use_last_readout_only=True,
        readout_cls="NonLinearBiasReadoutBlock",
    ),
    "two heads": toy_config(hidden_irreps="4x0e+4x1o+4x2e", heads=("mp", "omol"), atomic_energies_shape=(2, 5), scale_shape=(2,)),  # mh-0
}
