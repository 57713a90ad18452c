"""Under which names, and in which units, a file keeps its labels, and what else has to be said about it."""

from __future__ import annotations

from typing import Literal

from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, field_validator

from zoo.errors import ZooError
from zoo.units import energy_factor, length_factor, stress_factor


class LabelKeys(BaseModel):
    """The names of the labels in a file, their units, and what the file does not say itself.

    A key set to None is not read. A unit set to None is the one that the file or its format states, and the house unit where neither does.
    Forces take their unit from energy and length; a virial that of the energy.

    Attributes:
        format: a name of `zoo.data.readers.format_names`; recognised from the file where None.
        energy_key: total energy of a frame.
        forces_key: forces, (N, 3).
        stress_key: stress in ASE's sign, as (3, 3), 9 or 6 (Voigt) numbers.
        virial_key: virial, (3, 3) or 9 numbers, with stress = -virial / volume; takes the place of ``stress_key`` where set.
        magnetic_moments_key: magnetic moments in μ_B, (N,) for collinear spins (along z) or (N, 3).
        magnetic_forces_key: magnetic forces -dE/dm in eV/μ_B, (N, 3).
        energy_unit: one of `zoo.units.ENERGY_IN_EV`.
        length_unit: one of `zoo.units.LENGTH_IN_ANGSTROM`; positions and cell come in it too.
        stress_unit: one of `zoo.units.STRESS_IN_EV_PER_ANGSTROM3`.
        pbc: periodicity of every frame, against what the file says; False also drops the cell (a molecule that was written in a box).
        type_map: element symbols of a DeePMD folder's types 0, 1, ... where it has no ``type_map.raw``.
        fixed_atoms: forces on atoms that the calculation held in place: ``left_out`` (OC20: trained and tested on free atoms), ``kept``, or
            ``auto``: left out where they are all exactly zero, which is a constraint and not a force.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str | None = None
    energy_key: str = "energy"
    forces_key: str | None = "forces"
    stress_key: str | None = "stress"
    virial_key: str | None = None
    magnetic_moments_key: str | None = "magnetic_moments"
    magnetic_forces_key: str | None = "magnetic_forces"
    energy_unit: str | None = None
    length_unit: str | None = None
    stress_unit: str | None = None
    pbc: bool | None = None
    type_map: tuple[str, ...] | None = None
    fixed_atoms: Literal["auto", "left_out", "kept"] = "auto"

    @field_validator("energy_unit")
    @classmethod
    def _known_energy_unit(cls, unit: str | None) -> str | None:
        if unit is not None:
            energy_factor(unit)
        return unit

    @field_validator("length_unit")
    @classmethod
    def _known_length_unit(cls, unit: str | None) -> str | None:
        if unit is not None:
            length_factor(unit)
        return unit

    @field_validator("stress_unit")
    @classmethod
    def _known_stress_unit(cls, unit: str | None) -> str | None:
        if unit is not None:
            stress_factor(unit)
        return unit

    @field_validator("type_map")
    @classmethod
    def _known_elements(cls, symbols: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [symbol for symbol in symbols or () if symbol not in atomic_numbers or symbol == "X"]
        if unknown:
            raise ZooError(f"type_map: {unknown[0]!r} is not an element; give symbols such as [Li, Ge, P, S]")
        return symbols
