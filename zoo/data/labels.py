"""From what a file holds to the labels of a frame: names looked up, units converted, every doubt refused.

Missing is an error, never zeros: a label that is needed and absent is refused with the frame's number and the names that were found,
and forces that lie in the file under another name are refused even where they are not needed, because they were meant to be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import numpy as np

from zoo.data.frame import FloatArray, Frame
from zoo.data.keys import LabelKeys
from zoo.data.raw import RawFrame
from zoo.data.stated_units import units_of
from zoo.errors import ZooError
from zoo.units import STRESS_IN_EV_PER_ANGSTROM3, energy_factor, length_factor, stress_factor

Label = Literal["energy", "forces", "stress"]

_LABEL_WORDS = ("energy", "force", "stress", "virial", "magmom", "moment")


def labelled_frame(raw: RawFrame, source: str, frame_id: int, keys: LabelKeys, needs: Sequence[Label]) -> Frame:
    """The frame of ``raw`` in the house units.

    Args:
        raw: as its format gives it.
        source: names the frame in errors.
        frame_id: its index in ``source``.
        keys: names and units of the labels.
        needs: labels that it must have; the others are read where present. A stress is wanted of, and kept for, frames periodic in three
            directions only.

    Raises:
        ZooError: a needed label that is absent or not a number, forces under another name than ``keys.forces_key``, a value of a wrong
            shape, a unit other than the one the file states, or an impossible structure.
    """
    labels = _Labels(_structure(raw, source, frame_id, keys), raw, keys, frozenset(needs))
    forces = labels.forces()
    frame = replace(
        labels.frame,
        energy=labels.energy(),
        forces=forces,
        stress=labels.stress(),
        magnetic_moments=labels.magnetic_moments(),
        magnetic_forces=labels.magnetic_forces(),
        relaxed_energy=labels.relaxed_energy(),
        relaxed_positions=labels.relaxed_positions(),
    )
    return _without_forces_of_fixed_atoms(frame, keys)


def lenient_frame(raw: RawFrame, source: str, frame_id: int) -> Frame:
    """The frame of ``raw`` for a prediction: labels under the house names and units where they are whole, NaN where not."""
    keys = LabelKeys()
    frame = _structure(raw, source, frame_id, keys)
    labels = _Labels(frame, raw, keys, frozenset())
    # a label that cannot be used is no reason to refuse a structure
    with suppress(ZooError):
        frame = replace(frame, energy=labels.energy())
    with suppress(ZooError):
        frame = replace(frame, forces=labels.forces())
    with suppress(ZooError):
        frame = replace(frame, stress=labels.stress())
    return frame


def _structure(raw: RawFrame, source: str, frame_id: int, keys: LabelKeys) -> Frame:
    length = length_factor(units_of(raw, keys, f"{source}: frame {frame_id}").length)
    cell = np.zeros((3, 3)) if keys.pbc is False else np.asarray(raw.cell, dtype=np.float64) * length
    pbc = raw.pbc if keys.pbc is None else np.full(3, keys.pbc)
    positions = np.asarray(raw.positions, dtype=np.float64) * length
    return Frame.of_structure(replace(raw, positions=positions, cell=cell, pbc=pbc), source, frame_id)


def _without_forces_of_fixed_atoms(frame: Frame, keys: LabelKeys) -> Frame:
    """Forces of fixed atoms made NaN where they are no labels."""
    if frame.fixed is None or not np.isfinite(frame.forces).any():
        return frame
    zeroed = not np.any(frame.forces[frame.fixed])  # a constraint sets them to exactly zero: not a force
    if keys.fixed_atoms == "kept" or (keys.fixed_atoms == "auto" and not zeroed):
        return frame
    return replace(frame, forces=np.where(frame.fixed[:, None], np.nan, frame.forces))


class _Labels:
    """The labels of one frame, read from what its file holds and converted."""

    def __init__(self, frame: Frame, raw: RawFrame, keys: LabelKeys, needs: frozenset[Label]) -> None:
        self.frame, self.found, self.keys, self.needs = frame, raw.found, keys, needs
        self.documented = raw.units
        self.units = units_of(raw, keys, frame.name)

    def energy(self) -> float:
        value = self._get("energy", self.keys.energy_key, "energy_key", [(), (1,), (1, 1)])
        return float(value.reshape(-1)[0]) * energy_factor(self.units.energy) if value is not None else float("nan")

    def forces(self) -> FloatArray:
        shape = (len(self.frame), 3)
        value = self._forces_of_free_atoms()
        if value is None:
            value = self._get("forces", self.keys.forces_key, "forces_key", [shape])
        if value is None:
            self._refuse_forces_under_another_name()
            return np.full(shape, np.nan)
        return value * (energy_factor(self.units.energy) / length_factor(self.units.length))

    def _forces_of_free_atoms(self) -> FloatArray | None:
        """Forces that are NaN on fixed atoms and nowhere else, as this project writes them where they were left out."""
        value, fixed = self.found.get(self.keys.forces_key or ""), self.frame.fixed
        if fixed is None or not isinstance(value, np.ndarray) or value.shape != (len(self.frame), 3) or value.dtype.kind != "f":
            return None
        unknown = np.isnan(value)
        return np.asarray(value, dtype=np.float64) if unknown[fixed].all() and np.isfinite(value[~fixed]).all() else None

    def stress(self) -> FloatArray:
        absent = np.full((3, 3), np.nan)
        if not self.frame.pbc.all():
            return absent  # of a molecule or slab a stress has no agreed meaning, whatever the file says
        if self.keys.virial_key is not None:
            virial = self._get("stress", self.keys.virial_key, "virial_key", [(3, 3), (9,)])
            if virial is None:
                return absent
            volume = abs(np.linalg.det(self.frame.cell))
            from_virial: FloatArray = -virial.reshape(3, 3) * (energy_factor(self.units.energy) / volume)
            return from_virial
        stress = self._get("stress", self.keys.stress_key, "stress_key", [(3, 3), (9,), (6,)])
        if stress is None:
            return absent
        self._refuse_unclear_stress_unit()
        tensor: FloatArray = _full_tensor(stress) * stress_factor(self.units.stress)
        return tensor

    def magnetic_moments(self) -> FloatArray | None:
        count = len(self.frame)
        value = self._get(None, self.keys.magnetic_moments_key, "magnetic_moments_key", [(count,), (count, 1), (count, 3)])
        if value is None or value.size == 3 * count:
            return value
        return np.column_stack([np.zeros((count, 2)), value.reshape(-1)])

    def magnetic_forces(self) -> FloatArray | None:
        value = self._get(None, self.keys.magnetic_forces_key, "magnetic_forces_key", [(len(self.frame), 3)])
        return None if value is None else value * energy_factor(self.units.energy)

    def relaxed_energy(self) -> float:
        value = self._get(None, "relaxed_energy", "energy_key", [(), (1,)])
        return float(value.reshape(-1)[0]) * energy_factor(self.units.energy) if value is not None else float("nan")

    def relaxed_positions(self) -> FloatArray | None:
        value = self._get(None, "relaxed_positions", "energy_key", [(len(self.frame), 3)])
        return None if value is None else value * length_factor(self.units.length)

    def _get(self, label: Label | None, key: str | None, option: str, shapes: Sequence[tuple[int, ...]]) -> FloatArray | None:
        """The value under ``key`` as an array of one of ``shapes``; None where it is absent (or all NaN) and not needed."""
        if key is None or key not in self.found:
            if label in self.needs:
                raise ZooError(f"{self.frame.name} has no {key or label!r}; pass data.{option}=... (found: {self._names()})")
            return None
        try:
            value = np.asarray(self.found[key], dtype=np.float64)
        except (TypeError, ValueError):
            raise ZooError(f"{self.frame.name}: {key!r} is {self.found[key]!r}, not a number; repair the frame or remove it") from None
        if value.shape not in shapes:
            wanted = " or ".join(str(shape) for shape in shapes)
            raise ZooError(
                f"{self.frame.name}: {key!r} has shape {value.shape}, wanted {wanted}; pass data.{option}=... or repair the frame"
            )
        if np.isnan(value).all() and label not in self.needs:
            return None
        if not np.isfinite(value).all():
            count = int((~np.isfinite(value)).sum())
            raise ZooError(
                f"{self.frame.name}: {count} of {value.size} numbers of {key!r} are NaN or infinite; remove the frame or repair the label"
            )
        return value

    def _refuse_unclear_stress_unit(self) -> None:
        """A stress does not follow the units of energy and length by itself: who changes those says what it comes in."""
        changed = (self.units.energy, self.units.length) != (self.documented.energy, self.documented.length)
        if changed and self.keys.stress_unit is None and self.units.stress == self.documented.stress:
            raise ZooError(
                f"{self.frame.name} has a stress, but data.energy_unit and data.length_unit say nothing of its unit; pass "
                f"data.stress_unit=... (one of {', '.join(STRESS_IN_EV_PER_ANGSTROM3)}), data.virial_key=... or data.stress_key=null"
            )

    def _refuse_forces_under_another_name(self) -> None:
        shape = (len(self.frame), 3)
        other = [
            name
            for name, value in self.found.items()
            if "force" in name.lower() and value is not self.found.get(self.keys.magnetic_forces_key or "") and np.shape(value) == shape
        ]
        if self.keys.forces_key is not None and other and self.keys.forces_key not in self.found:
            raise ZooError(
                f"{self.frame.name} has no {self.keys.forces_key!r} but has {', '.join(sorted(other))}; "
                f"pass data.forces_key={min(other)}, or data.forces_key=null to leave forces out"
            )

    def _names(self) -> str:
        alike = sorted(name for name in self.found if any(word in name.lower() for word in _LABEL_WORDS))
        return ", ".join(alike or sorted(self.found)) or "no labels"


def _full_tensor(stress: FloatArray) -> FloatArray:
    """(3, 3) from (3, 3), 9 numbers, or ASE's Voigt order xx, yy, zz, yz, xz, xy."""
    if stress.shape == (6,):
        xx, yy, zz, yz, xz, xy = stress
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return stress.reshape(3, 3)
