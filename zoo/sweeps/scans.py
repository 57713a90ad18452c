"""Structures along a scan, such as a dihedral cut: their reference energies and where on the scan each stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.card_files import local_path
from zoo.data.catalogue import data_card, data_set_names
from zoo.data.frame import FloatArray, Frame
from zoo.data.keys import LabelKeys
from zoo.data.labels import labelled_frame
from zoo.data.raw import RawFrame
from zoo.data.readers import read_raw
from zoo.errors import ZooError, nearest_name_hint

FRAME_NUMBER = "frame"


@dataclass(frozen=True)
class Scan:
    """One cut of a potential energy surface.

    Attributes:
        name: of the file or test set, and of the panel that shows it.
        frames: F of them, each with an energy.
        coordinate: (F,) ascending; the frame's number where nothing else was asked for.
    """

    name: str
    frames: list[Frame]
    coordinate: FloatArray

    @property
    def reference(self) -> FloatArray:
        """(F,) eV."""
        return np.array([frame.energy for frame in self.frames])


def read_scans(sources: Sequence[str], coordinate: str, panel: str | None, keys: LabelKeys) -> list[Scan]:
    """The cuts of some files.

    Args:
        sources: paths, or test sets of published sets: ``acac/test_dihedral``.
        coordinate: ``frame``; a number that the file has for each structure, by its name, or ``NAME.2`` of several numbers; or four atoms
            counted from 0, ``5-13-14-18``, whose dihedral angle (degrees) is worked out.
        panel: a quantity, written as ``coordinate``, whose values divide a file into cuts; None where each file is one.
        keys: names and units of the labels in files; test sets of published sets bring their own.

    Raises:
        ZooError: a file that is absent or broken, a frame without an energy, or without the quantity.
    """
    scans: list[Scan] = []
    for path, found in [file for source in sources for file in _files(source, keys)]:
        raws = read_raw(path, found)
        frames = [labelled_frame(raw, path.name, index, found, ("energy",)) for index, raw in enumerate(raws)]
        places = np.array([_quantity(raw, frame, coordinate) for raw, frame in zip(raws, frames, strict=True)])
        divided = np.array([0.0 if panel is None else _quantity(raw, frame, panel) for raw, frame in zip(raws, frames, strict=True)])
        for value in np.unique(divided):
            chosen = np.flatnonzero(divided == value)
            order = chosen[np.argsort(places[chosen], kind="stable")]
            name = path.stem if panel is None else f"{path.stem}, {panel} = {value:g}"
            scans.append(Scan(name, [frames[index] for index in order], places[order]))
    twice = next((scan.name for index, scan in enumerate(scans) if scan.name in [one.name for one in scans[:index]]), None)
    if twice is not None:
        raise ZooError(f"cuts: two of them are named {twice!r}; rename a file")
    return scans


def _files(source: str, keys: LabelKeys) -> list[tuple[Path, LabelKeys]]:
    """The files of a source, and how the labels of each are read."""
    path = Path(source).expanduser()
    name, _, test = source.rpartition("/")
    if path.exists() or name not in data_set_names():
        return [(path, keys)]
    card = data_card(name)
    if test not in card.tests:
        raise ZooError(f"cuts: {name} has no test set {test!r}; {nearest_name_hint(test, card.tests)}")
    return [(path, card.keys_of(file)) for path, file in (local_path(card, key) for key in card.tests[test])]


def _quantity(raw: RawFrame, frame: Frame, name: str) -> float:
    if name == FRAME_NUMBER:
        return float(frame.frame_id)
    atoms = name.split("-")
    if len(atoms) == 4 and all(atom.isdecimal() for atom in atoms):
        return _dihedral(frame, [int(atom) for atom in atoms])
    key, _, index = name.rpartition(".") if name not in raw.found else (name, "", "")
    if key not in raw.found:
        single = [found for found, value in raw.found.items() if np.ndim(value) <= 1 and np.size(value) < len(frame)]
        raise ZooError(
            f"{frame.name} has no {name!r}; pass coordinate=frame, four atoms (5-13-14-18), or a name (found: {', '.join(single)})"
        )
    return _number(raw.found[key], index, f"{frame.name}: {name}")


def _dihedral(frame: Frame, atoms: Sequence[int]) -> float:
    if max(atoms) >= len(frame) or len(set(atoms)) < 4:
        raise ZooError(f"{frame.name} has {len(frame)} atoms, and {'-'.join(map(str, atoms))} are not four of them (counted from 0)")
    first, second, third, fourth = atoms
    return float(frame.to_atoms().get_dihedral(first, second, third, fourth, mic=bool(frame.pbc.any())))


def _number(value: Any, index: str, what: str) -> float:
    """A number as a file has it: ``1.0``, or one of several in an array or in a text with spaces."""
    parts = value.split() if isinstance(value, str) else np.atleast_1d(value).ravel().tolist()
    try:
        numbers, place = [float(part) for part in parts], int(index or 0)
    except (ValueError, TypeError):
        numbers, place = [], 0
    if not 0 <= place < len(numbers):
        raise ZooError(f"{what} is {value!r}, wanted a number; pass another coordinate=..., such as coordinate=frame")
    if not index and len(numbers) > 1:
        raise ZooError(f"{what} is {len(numbers)} numbers; name one of them, from 0: {what.rpartition(' ')[2]}.0")
    return numbers[place]
