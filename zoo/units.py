"""The house units (eV, Å, eV/Å, eV/Å^3) and the factors that bring a data set's units to them.

Energies are multiplied by ``ENERGY_IN_EV[unit]``, lengths by ``LENGTH_IN_ANGSTROM[unit]``; forces and stresses follow from the two
unless a data set states its own.
"""

from __future__ import annotations

from ase import units as ase_units

from zoo.errors import ZooError, nearest_name_hint

ENERGY_IN_EV: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": ase_units.kcal / ase_units.mol,
    "kJ/mol": ase_units.kJ / ase_units.mol,
    "Hartree": ase_units.Hartree,
    "Ry": ase_units.Rydberg,
}
LENGTH_IN_ANGSTROM: dict[str, float] = {"Angstrom": 1.0, "Bohr": ase_units.Bohr, "nm": 10.0}

STRESS_IN_EV_PER_ANGSTROM3: dict[str, float] = {
    "eV/Angstrom^3": 1.0,
    "GPa": ase_units.GPa,
    "Hartree/Bohr^3": ase_units.Hartree / ase_units.Bohr**3,
    "Ry/Bohr^3": ase_units.Rydberg / ase_units.Bohr**3,
    "kbar": ase_units.GPa / 10,
    # VASP prints the pressure-like quantity: positive under compression, while ASE's stress is negative there
    "-kbar": -ase_units.GPa / 10,
}


_SPELLINGS: dict[str, str] = {
    **{name.lower(): name for table in (ENERGY_IN_EV, LENGTH_IN_ANGSTROM, STRESS_IN_EV_PER_ANGSTROM3) for name in table},
    "ha": "Hartree", "eh": "Hartree", "a.u.": "Hartree", "rydberg": "Ry", "kcal": "kcal/mol", "kj": "kJ/mol",
    "a": "Angstrom", "å": "Angstrom", "ang": "Angstrom", "angstroms": "Angstrom", "a0": "Bohr",
    "ev/a^3": "eV/Angstrom^3", "ev/å^3": "eV/Angstrom^3", "ev/ang^3": "eV/Angstrom^3", "ev/a3": "eV/Angstrom^3",
    "kb": "kbar",
}  # fmt: skip


def unit_of_spelling(text: str) -> str | None:
    """The unit that a file's own statement means, e.g. ``"eV/Angstrom^3"`` for ``"eV/A^3"``; None for one that is not known here."""
    return _SPELLINGS.get(text.strip().lower().replace("**", "^"))


def energy_factor(unit: str) -> float:
    """Factor from ``unit`` to eV; raises `ZooError` with the nearest name for an unknown unit."""
    return _factor(unit, ENERGY_IN_EV, "energy")


def length_factor(unit: str) -> float:
    """Factor from ``unit`` to Å; raises `ZooError` with the nearest name for an unknown unit."""
    return _factor(unit, LENGTH_IN_ANGSTROM, "length")


def stress_factor(unit: str) -> float:
    """Factor from ``unit`` to eV/Å^3 in ASE's sign; raises `ZooError` with the nearest name for an unknown unit."""
    return _factor(unit, STRESS_IN_EV_PER_ANGSTROM3, "stress")


def _factor(unit: str, table: dict[str, float], quantity: str) -> float:
    if unit not in table:
        raise ZooError(f"unknown {quantity} unit {unit!r}; {nearest_name_hint(unit, table)}")
    return table[unit]
