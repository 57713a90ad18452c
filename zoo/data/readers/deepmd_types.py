"""Which elements the atoms of a DeePMD system are: integer types, and the map from them to symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from zoo.errors import ZooError

VIRTUAL = -1
"""The type of an atom that only fills a row of ``real_atom_types.npy`` up to the length of the longest frame."""


def types_of_system(system: Path) -> NDArray[np.int64]:
    """(N,) the types in ``type.raw``; raises `ZooError` for an empty file and for anything but whole numbers from 0."""
    file = system / "type.raw"
    words = file.read_text(encoding="utf-8", errors="replace").split()
    if not words:
        raise ZooError(f"{file}: names no atoms; wanted one whole number from 0 for each atom")
    try:
        types = whole_numbers(np.array(words, dtype=np.float64), file)
    except ValueError as error:
        if isinstance(error, ZooError):
            raise
        raise ZooError(f"{file}: {error}; wanted one whole number from 0 for each atom") from None
    if types.min() < 0:
        raise ZooError(f"{file}: has an atom of type {types.min()}; wanted one whole number from 0 for each atom")
    return types


def whole_numbers(values: NDArray[Any], file: Path) -> NDArray[np.int64]:
    """``values`` as int64, which must lose nothing; raises `ZooError` with the first value that is not whole."""
    broken = values[~np.isfinite(values) | (values != np.rint(values))]
    if broken.size:
        raise ZooError(f"{file}: {broken[0]} is no atom type; wanted one whole number from 0 for each atom")
    return values.astype(np.int64)


def numbers_of_types(types: NDArray[np.int64], system: Path, given: tuple[str, ...] | None) -> NDArray[np.int64]:
    """Atomic numbers of ``types``, an array of any shape; 0 where a type is `VIRTUAL`.

    Args:
        types: as the system stores them.
        system: its folder, with or without a ``type_map.raw``.
        given: the symbols of types 0, 1, ... that the user states.

    Raises:
        ZooError: no map or two different ones, a type outside of the map, or one whose name is no element.
    """
    used, counts = np.unique(types[types != VIRTUAL], return_counts=True)
    file = system / "type_map.raw"
    symbols = _type_map(file, given, used, counts)
    map_name = str(file) if file.is_file() else f"data.type_map={_written(symbols)}"
    outside = used[(used < 0) | (used >= len(symbols))]
    if outside.size:
        raise ZooError(
            f"{system}: has atoms of type {outside[0]}, but {map_name} names types 0 to {len(symbols) - 1}; repair the map or the types"
        )
    numbers = np.array([*(atomic_numbers.get(symbol, 0) for symbol in symbols), 0], dtype=np.int64)  # the last for VIRTUAL, -1
    unknown = used[numbers[used] == 0]
    if unknown.size:
        raise ZooError(f"{map_name}: type {unknown[0]} is {symbols[unknown[0]]!r}, not an element; write its symbol there, such as Li")
    of_atoms: NDArray[np.int64] = numbers[types]
    return of_atoms


def _type_map(file: Path, given: tuple[str, ...] | None, used: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[str, ...]:
    if not file.is_file():
        if given is None:
            found = ", ".join(f"{count} of type {index}" for index, count in zip(used, counts, strict=True))
            raise ZooError(
                f"{file.parent}: has no type_map.raw, so the elements of its atoms are unknown ({found}); "
                "pass data.type_map=[..] with the symbols of types 0, 1, ..."
            )
        return given
    stored = tuple(file.read_text(encoding="utf-8", errors="replace").split())
    if given is not None and tuple(given) != stored:
        raise ZooError(
            f"{file}: says {_written(stored)}, but data.type_map={_written(given)} is set; remove the setting or repair the file"
        )
    return stored


def _written(symbols: tuple[str, ...]) -> str:
    return f"[{','.join(symbols)}]"
