"""Labelled structures from a file: extended XYZ, ASE databases and whatever else ASE reads.

Missing is an error, never zeros: a label that is needed and absent is refused with the frame's number and the names that were found,
and forces that lie in the file under another name are refused even where they are not needed, because they were meant to be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms

from zoo.data.frame import FloatArray, Frame
from zoo.data.keys import LabelKeys
from zoo.errors import ZooError
from zoo.units import energy_factor, length_factor, stress_factor

Label = Literal["energy", "forces", "stress"]

_STRUCTURE = frozenset({"numbers", "positions", "masses", "tags", "momenta", "initial_magmoms", "initial_charges"})
_LABEL_WORDS = ("energy", "force", "stress", "virial")
# both are read through pickle, which runs code from the file
_PICKLED_FORMATS = frozenset({"bundletrajectory", "trj"})


def read_frames(
    path: str | Path,
    keys: LabelKeys | None = None,
    level_of_theory: str = "",
    needs: Sequence[Label] = ("energy",),
) -> list[Frame]:
    """Every frame of a file, in the house units.

    Args:
        path: extended XYZ, an ASE database (``.db``), or any file that ``ase.io.read`` takes.
        keys: names and units of the labels.
        level_of_theory: carried by every frame.
        needs: labels that every frame must have; the others are read where present and NaN elsewhere. A stress is wanted of, and
            kept for, frames periodic in three directions only.

    Raises:
        ZooError: a file that is absent, unreadable or empty, a needed label that is absent or NaN, forces under another name than
            ``keys.forces_key``, or a value of a wrong shape; the frame is named by its number, from 0.
    """
    path = Path(path)
    keys = keys or LabelKeys()
    frames = [_frame(atoms, extra, path.name, index, keys, needs) for index, (atoms, extra) in enumerate(_read(path))]
    if not frames:
        raise ZooError(f"{path}: holds no frames; give a file with at least one structure")
    return [replace(frame, level_of_theory=level_of_theory) for frame in frames]


def read_structures(path: str | Path) -> list[Frame]:
    """Every frame of a file for a prediction: labels under ASE's usual names and units where they are whole, NaN where not.

    Raises:
        ZooError: a file that is absent, unreadable or empty, or a frame without atoms or with an impossible cell.
    """
    path = Path(path)
    frames = []
    for index, (atoms, extra) in enumerate(_read(path)):
        frame = Frame.unlabelled(atoms, path.name, index)
        labels = _Labels(frame, _candidates(atoms, extra), LabelKeys(), frozenset())
        # a label that cannot be used is no reason to refuse a structure
        with suppress(ZooError):
            frame = replace(frame, energy=labels.energy())
        with suppress(ZooError):
            frame = replace(frame, forces=labels.forces())
        with suppress(ZooError):
            frame = replace(frame, stress=labels.stress())
        frames.append(frame)
    if not frames:
        raise ZooError(f"{path}: holds no frames; give a file with at least one structure")
    return frames


def _read(path: Path) -> Iterator[tuple[Atoms, Mapping[str, Any]]]:
    """Structures with what their file says beside them."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ZooError(f"{path}: {what}; give the path of a structure file (extxyz, ASE db, ...)")
    if path.stat().st_size == 0:
        raise ZooError(f"{path}: is empty (0 bytes); give a file with at least one structure")
    try:
        yield from _read_database(path) if path.suffix == ".db" else _read_file(path)
    except ZooError:
        raise
    except Exception as error:  # ASE's readers raise whatever their parsing meets: IndexError, KeyError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ZooError(f"{path}: cannot be read ({reason}); is it complete, and in a format that ase.io.read knows?") from error


def _read_file(path: Path) -> Iterator[tuple[Atoms, Mapping[str, Any]]]:
    from ase.io import read
    from ase.io.formats import filetype

    file_format = filetype(str(path))
    if file_format in _PICKLED_FORMATS:
        raise ZooError(f"{path}: the format {file_format!r} can run code when read; convert it to extxyz where you trust it")
    for atoms in read(str(path), index=":", format=file_format, do_not_split_by_at_sign=True):
        yield atoms, {}


def _read_database(path: Path) -> Iterator[tuple[Atoms, Mapping[str, Any]]]:
    from ase.db import connect

    for row in connect(str(path), type="db").select():
        yield row.toatoms(), {**row.data, **row.key_value_pairs}


def _candidates(atoms: Atoms, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the frame may keep a label in: ASE moves well-known names from info and arrays into a calculator."""
    arrays = {name: value for name, value in atoms.arrays.items() if name not in _STRUCTURE}
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    return {**extra, **atoms.info, **arrays, **{name: value for name, value in results.items() if value is not None}}


def _frame(atoms: Atoms, extra: Mapping[str, Any], source: str, index: int, keys: LabelKeys, needs: Sequence[Label]) -> Frame:
    frame = Frame.unlabelled(atoms, source, index)
    length = length_factor(keys.length_unit)
    frame = replace(frame, positions=frame.positions * length, cell=frame.cell * length)
    labels = _Labels(frame, _candidates(atoms, extra), keys, frozenset(needs))
    return replace(frame, energy=labels.energy(), forces=labels.forces(), stress=labels.stress())


class _Labels:
    """The labels of one frame, read from its candidates and converted."""

    def __init__(self, frame: Frame, found: dict[str, Any], keys: LabelKeys, needs: frozenset[Label]) -> None:
        self.frame, self.found, self.keys, self.needs = frame, found, keys, needs

    def energy(self) -> float:
        value = self._get("energy", self.keys.energy_key, "energy_key", [(), (1,)])
        return float(value.reshape(-1)[0]) * energy_factor(self.keys.energy_unit) if value is not None else float("nan")

    def forces(self) -> FloatArray:
        shape = (len(self.frame), 3)
        value = self._get("forces", self.keys.forces_key, "forces_key", [shape])
        if value is None:
            self._refuse_forces_under_another_name()
            return np.full(shape, np.nan)
        return value * (energy_factor(self.keys.energy_unit) / length_factor(self.keys.length_unit))

    def stress(self) -> FloatArray:
        absent = np.full((3, 3), np.nan)
        if not self.frame.pbc.all():
            return absent  # of a molecule or slab a stress has no agreed meaning, whatever the file says
        if self.keys.virial_key is not None:
            virial = self._get("stress", self.keys.virial_key, "virial_key", [(3, 3), (9,)])
            if virial is None:
                return absent
            volume = abs(np.linalg.det(self.frame.cell))
            from_virial: FloatArray = -virial.reshape(3, 3) * (energy_factor(self.keys.energy_unit) / volume)
            return from_virial
        stress = self._get("stress", self.keys.stress_key, "stress_key", [(3, 3), (9,), (6,)])
        if stress is None:
            return absent
        tensor: FloatArray = _full_tensor(stress) * stress_factor(self.keys.stress_unit)
        return tensor

    def _get(self, label: Label, key: str | None, option: str, shapes: Sequence[tuple[int, ...]]) -> FloatArray | None:
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

    def _refuse_forces_under_another_name(self) -> None:
        shape = (len(self.frame), 3)
        other = [name for name, value in self.found.items() if "force" in name.lower() and np.shape(value) == shape]
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
