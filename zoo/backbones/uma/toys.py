"""Small eSCN-MD networks for tests, one a kind that published models are built of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from zoo.backbones.uma.tasks import references_config

_MODELS = "fairchem.core.models.uma"
_ELEMENTS = 80  # up to gold
_COMMON: dict[str, Any] = {
    "model": f"{_MODELS}.escn_md.eSCNMDBackbone",
    "max_num_elements": _ELEMENTS,
    "sphere_channels": 4,
    "lmax": 2,
    "mmax": 2,
    "max_neighbors": 300,
    "cutoff": 4.0,
    "edge_channels": 4,
    "num_distance_basis": 6,
    "num_layers": 2,
    "hidden_channels": 6,
    "norm_type": "rms_norm_sh",
    "act_type": "gate",
    "ff_type": "spectral",
    "chg_spin_emb_type": "rand_emb",
    "cs_emb_grad": True,
    "use_dataset_embedding": False,
    "direct_forces": False,
    "regress_forces": True,
    "regress_stress": True,
}
_ENERGY_HEAD = {"energyandforcehead": {"module": f"{_MODELS}.escn_md.MLP_EFS_Head"}}


@dataclass(frozen=True)
class Toy:
    """A network's configuration, its tasks and the one that is predicted."""

    backbone: dict[str, Any]
    heads: dict[str, Any]
    tasks_config: list[dict[str, Any]]
    dataset: str
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def model_config(self) -> dict[str, Any]:
        """As an inference checkpoint has it."""
        return {
            "_target_": "fairchem.core.models.base.HydraModel",
            "backbone": {**_COMMON, **self.backbone},
            "heads": self.heads,
            "pass_through_head_outputs": True,
            "supports_single_atoms": True,
            **self.model,
        }

    def enliven(self, network: nn.Module) -> None:
        """Larger weights where upstream's first ones are so small that a toy would hardly depend on its elements, and norms that differ."""
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith(("source_embedding.weight", "target_embedding.weight")):
                    parameter.mul_(1000.0)
                elif ".fc" in name and name.endswith(("weight", "weights")):
                    parameter.mul_(2.0)
                elif name.endswith("affine_weight"):
                    parameter.add_(0.2 * torch.randn_like(parameter))


def _task(dataset: str, quantity: str, prefix: str, mean: float = 0.0) -> dict[str, Any]:
    level, dim = {"energy": ("system", [1]), "forces": ("atom", [3]), "stress": ("system", [1, 9])}[quantity]
    references = {"element_references": references_config([-0.01 * number for number in range(_ELEMENTS)])} if quantity == "energy" else {}
    return {
        "_target_": "fairchem.core.units.mlip_unit.mlip_unit.Task",
        "name": f"{prefix}{quantity}",
        "level": level,
        "property": quantity,
        "out_spec": {"dim": dim, "dtype": "float32"},
        "normalizer": {"_target_": "fairchem.core.modules.normalization.normalizer.Normalizer", "mean": mean, "rmsd": 0.5},
        "datasets": [dataset],
        "metrics": ["mae"],
        **references,
    }


def _tasks(*datasets: str, prefixed: bool = False, stress: bool = True) -> list[dict[str, Any]]:
    quantities = ("energy", "forces", "stress") if stress else ("energy", "forces")
    return [_task(one, quantity, f"{one}_" if prefixed else "") for one in datasets for quantity in quantities]


TOY = Toy({"mmax": 1}, _ENERGY_HEAD, _tasks("omat"), "omat")
"""2 layers, 4 channels, l <= 2, m <= 1, cutoff 4 Å: eSEN, conserving."""

MORE_TOYS: dict[str, Toy] = {
    "direct": Toy(
        {
            **{"direct_forces": True, "direct_stress": True, "regress_stress": False},
            **{"lmax": 3, "mmax": 1, "hidden_channels": 5, "act_type": "s2", "ff_type": "grid", "max_neighbors": 30},
        },
        {
            "energy": {"module": f"{_MODELS}.escn_md.MLP_Energy_Head"},
            "forces": {"module": f"{_MODELS}.escn_md.Linear_Force_Head"},
            "stress": {"module": f"{_MODELS}.escn_md.MLP_Stress_Head"},
        },
        _tasks("omat"),
        "omat",
        {"pass_through_head_outputs": False},
    ),
    "grid": Toy({"ff_type": "grid", "grid_resolution": 18}, _ENERGY_HEAD, _tasks("omat"), "omat"),
    "experts": Toy(  # UMA: one mixture for each structure, by its composition, charge, spin and task
        {
            "model": f"{_MODELS}.escn_moe.eSCNMDMoeBackbone",
            "num_experts": 2,
            "hidden_channels": 4,
            "edge_channels": 6,
            "use_composition_embedding": True,
            "use_dataset_embedding": True,
            "dataset_mapping": {"omat": "omat", "omat_rattle": "omat", "omol": "omol"},
            "dataset_emb_grad": True,
            "charge_balanced_channels": [0, 1],
        },
        {
            "energyandforcehead": {
                "module": f"{_MODELS}.escn_moe.DatasetSpecificMoEWrapper",
                "head_cls": f"{_MODELS}.escn_md.MLP_EFS_Head",
                "head_kwargs": {"wrap_property": False},
                "dataset_mapping": {"omat": "omat", "omat_rattle": "omat", "omol": "omol"},
            }
        },
        _tasks("omat", "omat_rattle", "omol", prefixed=True),
        "omol",
        {"model_id": "UMA-toy"},
    ),
}
