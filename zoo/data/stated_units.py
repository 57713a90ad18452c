"""The units of a frame's labels: what the user says, else what the file states itself, else what its format documents."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.data.keys import LabelKeys
from zoo.data.raw import RawFrame, Units
from zoo.errors import ZooError
from zoo.units import ENERGY_IN_EV, LENGTH_IN_ANGSTROM, STRESS_IN_EV_PER_ANGSTROM3, unit_of_spelling


def units_of(raw: RawFrame, keys: LabelKeys, where: str) -> Units:
    """The units to convert the labels and lengths of ``raw`` from.

    Files state them as ``energy_unit``, ``length_unit``, ``stress_unit`` and ``forces_unit`` beside the labels, or as their format does.

    Args:
        raw: the frame.
        keys: the user's settings.
        where: names the frame in errors.

    Raises:
        ZooError: where the file states a unit that is not known here, or another one than the user.
    """
    energy = _chosen("energy", ENERGY_IN_EV, raw, keys.energy_unit, where)
    length = _chosen("length", LENGTH_IN_ANGSTROM, raw, keys.length_unit, where)
    stress = _chosen("stress", STRESS_IN_EV_PER_ANGSTROM3, raw, keys.stress_unit, where)
    if keys.forces_key is not None:
        _refuse_other_forces_unit(raw, energy, length, where)
    return Units(energy, length, stress)


def _chosen(what: str, known: Mapping[str, float], raw: RawFrame, given: str | None, where: str) -> str:
    documented: str = getattr(raw.units, what)
    stated = _stated(raw, f"{what}_unit", known, where)
    if stated is None and raw.units.stated and what != "stress":
        stated = documented
    if stated is not None and given not in (None, stated):
        raise ZooError(f"{where} says {what}_unit={stated}, but data.{what}_unit={given} is set; remove the setting")
    return given or stated or documented


def _stated(raw: RawFrame, name: str, known: Mapping[str, float], where: str) -> str | None:
    text = raw.found.get(name)
    if not isinstance(text, str):
        return None
    unit = unit_of_spelling(text)
    if unit not in known:
        raise ZooError(f"{where} says {name}={text}, which is not known here; convert its labels to one of {', '.join(known)}")
    return unit


def _refuse_other_forces_unit(raw: RawFrame, energy: str, length: str, where: str) -> None:
    """Forces take their unit from energy and length; a file that states another one would be read wrongly."""
    text = raw.found.get("forces_unit")
    if not isinstance(text, str):
        return
    first, _, second = text.rpartition("/")
    if (unit_of_spelling(first), unit_of_spelling(second)) != (energy, length):
        raise ZooError(
            f"{where} says forces_unit={text}, but its forces would be read as {energy}/{length}; convert them, or set data.energy_unit "
            "and data.length_unit to what the file holds"
        )
