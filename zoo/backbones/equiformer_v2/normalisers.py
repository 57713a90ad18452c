"""From the units a model was trained in to eV and Å."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.backbones.equiformer_v2.heads import joined_stress, summed_over_graphs
from zoo.backbones.equiformer_v2.network import Structures


@dataclass(frozen=True)
class Normaliser:
    """An output times ``scale`` plus ``shift`` is the quantity in eV and Å.

    Attributes:
        shift: () or one for each component of the output, float64.
        scale: alike.
    """

    shift: Tensor
    scale: Tensor

    def denormalised(self, values: Tensor) -> Tensor:
        """``values`` (G, ...) or (N, ...) in eV and Å, in float64: at thousands of eV, float32 resolves tenths of meV."""
        return values.to(torch.float64) * self.scale.to(values.device) + self.shift.to(values.device)


def in_ev_and_angstrom(
    outputs: Mapping[str, Tensor], normalisers: Mapping[str, Normaliser], element_references: Tensor | None, structures: Structures
) -> dict[str, Tensor]:
    """What a network gives, as far as it gives it.

    Args:
        outputs: of the network.
        normalisers: by output; an output without one is in these units.
        element_references: (highest atomic number + 1,) eV of each element, None for none.
        structures: that the outputs are of.

    Returns:
        ``energy`` (G,) eV, ``forces`` (N, 3) eV/Å and ``stress`` (G, 3, 3) eV/Å^3, float64.
    """
    values = {name: normalisers[name].denormalised(value) if name in normalisers else value.double() for name, value in outputs.items()}
    if element_references is not None and "energy" in values:
        of_atoms = element_references.to(values["energy"])[structures.atomic_numbers]
        values["energy"] = values["energy"] + summed_over_graphs(of_atoms, structures.graph_of_atom, structures.graph_count)
    if "stress_isotropic" in values:
        values["stress"] = joined_stress(values.pop("stress_isotropic"), values.pop("stress_anisotropic"))
    return values
