"""Under which names, and in which units, a file keeps its labels."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, field_validator

from zoo.units import energy_factor, length_factor, stress_factor


class LabelKeys(BaseModel):
    """The names of the labels in a file and the units they come in.

    A key set to None is not read. Forces take their unit from energy and length; a virial that of the energy.

    Attributes:
        energy_key: total energy of a frame.
        forces_key: forces, (N, 3).
        stress_key: stress in ASE's sign, as (3, 3), 9 or 6 (Voigt) numbers.
        virial_key: virial, (3, 3) or 9 numbers, with stress = -virial / volume; takes the place of ``stress_key`` where set.
        energy_unit: one of `zoo.units.ENERGY_IN_EV`.
        length_unit: one of `zoo.units.LENGTH_IN_ANGSTROM`; positions and cell come in it too.
        stress_unit: one of `zoo.units.STRESS_IN_EV_PER_ANGSTROM3`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    energy_key: str = "energy"
    forces_key: str | None = "forces"
    stress_key: str | None = "stress"
    virial_key: str | None = None
    energy_unit: str = "eV"
    length_unit: str = "Angstrom"
    stress_unit: str = "eV/Angstrom^3"

    @field_validator("energy_unit")
    @classmethod
    def _known_energy_unit(cls, unit: str) -> str:
        energy_factor(unit)
        return unit

    @field_validator("length_unit")
    @classmethod
    def _known_length_unit(cls, unit: str) -> str:
        length_factor(unit)
        return unit

    @field_validator("stress_unit")
    @classmethod
    def _known_stress_unit(cls, unit: str) -> str:
        stress_factor(unit)
        return unit
