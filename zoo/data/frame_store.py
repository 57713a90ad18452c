"""Frames as flat arrays of a store, and back, bit for bit.

Per-frame arrays have a row a frame, per-atom ones a row an atom. What only some frames have (fixed atoms, tags, magnetic labels, a relaxed
structure) has rows for those alone; ``has`` says which they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.array_store import Array, ArrayStore
from zoo.data.facts import facts_of
from zoo.data.frame import Frame
from zoo.data.store_check import require_rows

_RARE: dict[str, tuple[type, tuple[int, ...]]] = {
    "fixed": (np.bool_, ()),
    "tags": (np.int64, ()),
    "magnetic_moments": (np.float64, (3,)),
    "magnetic_forces": (np.float64, (3,)),
    "relaxed_positions": (np.float64, (3,)),
}
_PER_FRAME: dict[str, type] = {
    "cell": np.float64,
    "pbc": np.bool_,
    "energy": np.float64,
    "stress": np.float64,
    "frame_id": np.int64,
    "charge": np.int64,
    "spin": np.int64,
    "relaxed_energy": np.float64,
}
_READS_BEFORE_RELEASE = 100


def arrays_of(frames: Sequence[Frame]) -> dict[str, Array]:
    """The arrays of some frames, in their order, but for the number of each frame's source, which the writer knows."""
    names = [frame.identifier.encode() for frame in frames]
    arrays: dict[str, Array] = {
        "numbers": np.concatenate([frame.atomic_numbers for frame in frames]).astype(np.int64),
        "positions": np.concatenate([frame.positions for frame in frames]),
        "forces": np.concatenate([frame.forces for frame in frames]),
        "identifier_lengths": np.array([len(name) for name in names], dtype=np.int32),
        "identifiers": np.frombuffer(b"".join(names), dtype=np.uint8),
        "has": np.array([_rare_bits(frame) for frame in frames], dtype=np.uint8),
    }
    for name, dtype in _PER_FRAME.items():
        arrays[name] = np.array([getattr(frame, name) for frame in frames], dtype=dtype)
    for name, (rare_dtype, row) in _RARE.items():
        given = [value for frame in frames if (value := getattr(frame, name)) is not None]
        arrays[name] = np.concatenate([*given, np.empty((0, *row))]).astype(rare_dtype)
    return {**arrays, **{f"fact_{name}": values for name, values in facts_of(frames).items()}}


def _rare_bits(frame: Frame) -> int:
    return sum(1 << bit for bit, name in enumerate(_RARE) if getattr(frame, name) is not None)


class FrameStore:
    """Frames of a store by row: a `zoo.data.stored_frames.FrameSource`.

    Args:
        store: with the arrays of `arrays_of`, and ``source``, the number of each frame's source among ``meta["sources"]``.
        level_of_theory: carried by every frame.
    """

    def __init__(self, store: ArrayStore, level_of_theory: str) -> None:
        self._store = store
        self._level_of_theory = level_of_theory
        require_rows(store, {"fact_atoms": int(store.meta.get("frames", -1))}, ("frames", "sources", "notes"))
        self._sources: list[str] = store.meta["sources"]
        require_rows(store, self._wanted_rows(), ())
        atoms = np.array(store["fact_atoms"], dtype=np.int64)
        has = np.array(store["has"])
        self._first_atom = _starts(atoms)
        self._first_letter = _starts(np.array(store["identifier_lengths"]))
        self._first_rare = {
            name: _starts(np.where(has & (1 << bit), atoms, 0)) for bit, name in enumerate(_RARE) if np.any(has & (1 << bit))
        }
        self._reads = 0

    def _wanted_rows(self) -> dict[str, int]:
        frames, atoms = len(self._store["fact_atoms"]), int(np.sum(self._store["fact_atoms"], dtype=np.int64))
        per_frame = (*_PER_FRAME, "source", "has", "identifier_lengths", *(f"fact_{name}" for name in facts_of([])))
        return dict.fromkeys(per_frame, frames) | dict.fromkeys(("numbers", "positions", "forces"), atoms)

    def __len__(self) -> int:
        return len(self._first_atom) - 1

    def frame(self, row: int) -> Frame:
        """One frame, copied out of the store."""
        self._reads += 1
        if self._reads % _READS_BEFORE_RELEASE == 0:
            self._store.release()
        store, atoms = self._store, slice(self._first_atom[row], self._first_atom[row + 1])
        rare = {
            name: np.array(store[name][first[row] : first[row + 1]])
            for name, first in self._first_rare.items()
            if first[row + 1] > first[row]
        }
        return Frame(
            atomic_numbers=np.array(store["numbers"][atoms]),
            positions=np.array(store["positions"][atoms]),
            cell=np.array(store["cell"][row]),
            pbc=np.array(store["pbc"][row]),
            energy=float(store["energy"][row]),
            forces=np.array(store["forces"][atoms]),
            stress=np.array(store["stress"][row]),
            source=self._sources[store["source"][row]],
            frame_id=int(store["frame_id"][row]),
            level_of_theory=self._level_of_theory,
            relaxed_energy=float(store["relaxed_energy"][row]),
            identifier=store["identifiers"][self._first_letter[row] : self._first_letter[row + 1]].tobytes().decode(),
            charge=int(store["charge"][row]),
            spin=int(store["spin"][row]),
            **rare,
        )

    def numbers(self, row: int) -> NDArray[np.int64]:
        """(N,) the atomic numbers of one frame."""
        return self._store["numbers"][self._first_atom[row] : self._first_atom[row + 1]]

    def fact(self, name: str) -> NDArray[Any]:
        """One fact of every frame (`zoo.data.facts.facts_of`), valid as long as the store is."""
        self._store.release()
        return self._store[f"fact_{name}"]

    def source_names(self, rows: NDArray[np.int64]) -> list[str]:
        """`Frame.source` of some frames."""
        return [self._sources[number] for number in self._store["source"][rows]]


def _starts(counts: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


class SourceNumbers:
    """Names of sources as numbers, in order of first appearance."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, names: Sequence[str]) -> Mapping[str, Array]:
        """The array ``source`` for frames of these sources."""
        return {"source": np.array([self._numbers.setdefault(name, len(self._numbers)) for name in names], dtype=np.int32)}

    @property
    def names(self) -> list[str]:
        """By number."""
        return list(self._numbers)
