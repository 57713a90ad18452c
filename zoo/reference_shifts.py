"""Reference energies of a potential, eV per atom of each element, and the level of theory of what it returns.

Both belong to the adapters that were trained with them, as far as these bring them, and scale, add up and are switched with their deltas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from adapters.adapter import Provenance
from adapters.stack import AdapterStack
from zoo.backbones.base import Backbone
from zoo.errors import ZooError

_HIGHEST_ATOMIC_NUMBER = 118


class WithReferenceEnergies(nn.Module):
    """What `zoo.potential.Potential` knows of the zero of its energies.

    Attributes:
        reference_shifts: (119,) float64, eV per atom of each element, added whatever is active.
        own_level_of_theory: where no active adapter brings one.
    """

    backbone: Backbone
    adapters: AdapterStack
    source: str
    reference_shifts: Tensor

    def __init__(self, level_of_theory: str) -> None:
        super().__init__()
        self.register_buffer("reference_shifts", torch.zeros(_HIGHEST_ATOMIC_NUMBER + 1, dtype=torch.float64))
        self.own_level_of_theory = level_of_theory

    @property
    def level_of_theory(self) -> str:
        """Of the energies: that of the active adapters where they bring one, else the card's, or what a fine-tuning set."""
        known = [adapter.provenance.level_of_theory for adapter in self.adapters.active_adapters if adapter.provenance is not None]
        return " + ".join(filter(None, dict.fromkeys(known))) if known else self.own_level_of_theory

    @level_of_theory.setter
    def level_of_theory(self, level_of_theory: str) -> None:
        brought = [adapter for adapter in self.adapters.active_adapters if adapter.provenance is not None]
        for adapter in brought:
            assert adapter.provenance is not None
            adapter.provenance = replace(adapter.provenance, level_of_theory=level_of_theory)
        if not brought:
            self.own_level_of_theory = level_of_theory

    def set_reference_shifts(self, shifts_ev: Mapping[int, float]) -> None:
        """Replace the per-element energies (atomic number to eV) added to the backbone's; elements left out get 0.

        With one adapter active, unscaled, they become its own: they are saved with it and count where it is active. Otherwise they are
        added whatever is active, and active adapters lose their own.
        """
        unknown = sorted(set(shifts_ev) - set(self.backbone.elements))
        if unknown:
            raise ZooError(f"reference energies for {unknown}, which {self.source} does not know; leave them out")
        active = self.adapters.active
        alone = len(active) == 1 and self.adapters.scale_of(active[0]) == 1
        self.reference_shifts.zero_()
        if alone:
            own = {chemical_symbols[number]: float(value) for number, value in shifts_ev.items() if value != 0}
            adapter = self.adapters.get(active[0])
            adapter.provenance = replace(adapter.provenance or Provenance({}, self.level_of_theory), reference_energies=own)
            return
        for atomic_number, value in shifts_ev.items():
            self.reference_shifts[atomic_number] = value
        for adapter in self.adapters.active_adapters:
            if adapter.provenance is not None:
                adapter.provenance = replace(adapter.provenance, reference_energies={})

    def get_reference_shifts(self) -> dict[int, float]:
        """The nonzero per-element energies in effect, those of the active adapters included; atomic number to eV."""
        shifts = self.shifts_with(self.adapters.active)
        return {number: float(value) for number, value in enumerate(shifts) if value != 0}

    def shifts_with(self, names: Sequence[str]) -> Tensor:
        """(119,) float64 eV per atom: `reference_shifts`, and what these adapters bring, scaled as they are."""
        shifts = self.reference_shifts
        for name in names:
            provenance = self.adapters.get(name).provenance
            if provenance is not None and provenance.reference_energies:
                own = [0.0] * len(shifts)
                for symbol, value in provenance.reference_energies.items():
                    own[atomic_numbers[symbol]] = self.adapters.scale_of(name) * value
                shifts = shifts + torch.tensor(own, dtype=shifts.dtype, device=shifts.device)
        return shifts
