"""What can be said of a frame without reading it again: few numbers a frame, so that a million of them are looked at as arrays.

The geometry's invariants move by less than 20 times as much as atoms do, shifts and whole lattice vectors aside; they only choose which
pairs of structures are compared (`zoo.data.overlap`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.content import frame_sha256
from zoo.data.frame import Frame

LABEL_BITS = {"energy": 1, "forces": 2, "stress": 4}
_CHARGED = 8
_WORD_BITS = 64


def facts_of(frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    """Arrays over F frames.

    ``sha256`` (F, 32) uint8, `zoo.data.content.frame_sha256`; ``atoms`` (F,) int32; ``labels`` (F,) uint8, bits of `LABEL_BITS`, and 8 for
    a charge; ``labelled_atoms`` (F,) int32, atoms with a force; ``energy`` (F,) eV; ``elements`` (F, 2) uint64, bit z for an element of
    atomic number z; and those of `geometry_facts`.
    """
    return {
        "sha256": np.array([list(bytes.fromhex(frame_sha256(frame))) for frame in frames], dtype=np.uint8).reshape(-1, 32),
        "atoms": np.array([len(frame) for frame in frames], dtype=np.int32),
        "labels": np.array([_labels(frame) for frame in frames], dtype=np.uint8),
        "labelled_atoms": np.array([labelled_atoms(frame) for frame in frames], dtype=np.int32),
        "energy": np.array([frame.energy for frame in frames], dtype=np.float64),
        "elements": np.array([_elements(frame) for frame in frames], dtype=np.uint64).reshape(-1, 2),
        **geometry_facts(frames),
    }


def geometry_facts(frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    """What structures are told apart by.

    ``composition`` (F,) uint64, the same for the same elements in the same order and periodicity; ``exact`` (F,) uint64, the same for the
    same bytes of structure and magnetic moments; ``invariants`` (F, 5), of a scale of Å.
    """
    return {
        "composition": np.array([_composition(frame) for frame in frames], dtype=np.uint64),
        "exact": np.array([_exact(frame) for frame in frames], dtype=np.uint64),
        "invariants": np.array([_invariants(frame) for frame in frames], dtype=np.float64).reshape(-1, 5),
    }


def elements_in(masks: NDArray[Any]) -> tuple[int, ...]:
    """Atomic numbers of ``masks`` (F, 2), the ``elements`` of `facts_of`, ascending."""
    low, high = (int(word) for word in np.bitwise_or.reduce(masks.astype(np.uint64), axis=0)) if len(masks) else (0, 0)
    joined = low | high << _WORD_BITS
    return tuple(number for number in range(2 * _WORD_BITS) if joined >> number & 1)


def mask_of(numbers: Sequence[int]) -> NDArray[np.uint64]:
    """(2,) the mask of some atomic numbers; what is no element's counts as 127, which no model knows."""
    joined = sum(1 << number for number in {number if 0 <= number < 2 * _WORD_BITS else 2 * _WORD_BITS - 1 for number in numbers})
    return np.array([joined & (1 << _WORD_BITS) - 1, joined >> _WORD_BITS], dtype=np.uint64)


def has_charge(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """(F,) whether a frame has a charge, from ``labels`` of `facts_of`."""
    return (labels.astype(np.uint8) & _CHARGED).astype(bool)


def labelled_atoms(frame: Frame) -> int:
    """How many atoms have a force that is a label."""
    return int(np.isfinite(frame.forces).all(axis=1).sum())


def _labels(frame: Frame) -> int:
    found = sum(bit for name, bit in LABEL_BITS.items() if getattr(frame, f"has_{name}"))
    return found | (_CHARGED if frame.charge else 0)


def _elements(frame: Frame) -> NDArray[np.uint64]:
    return mask_of(np.unique(frame.atomic_numbers).tolist())


def can_wrap(frame: Frame) -> bool:
    """Whether atoms may be moved by lattice vectors."""
    return bool(frame.pbc.any()) and abs(np.linalg.det(frame.cell)) > 0


def _composition(frame: Frame) -> int:
    return _short_hash(frame.atomic_numbers.astype("<i8").tobytes(), frame.pbc.astype("u1").tobytes())


def _exact(frame: Frame) -> int:
    moments = b"" if frame.magnetic_moments is None else frame.magnetic_moments.tobytes()
    return _short_hash(
        frame.atomic_numbers.astype("<i8").tobytes(), frame.pbc.tobytes(), frame.positions.tobytes(), frame.cell.tobytes(), moments
    )


def _short_hash(*parts: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(b"".join(parts), digest_size=8).digest(), "little")


def _invariants(frame: Frame) -> tuple[float, ...]:
    """Of the whole structure, then of its last, second and middle atom, so that structures of one trajectory are told apart."""
    relative = frame.positions - frame.positions[0]  # (N, 3)
    chosen = [-1, min(1, len(frame) - 1), len(frame) // 2]
    if not can_wrap(frame):
        lengths = np.linalg.norm(relative, axis=1)
        return float(lengths.mean()), float(np.sqrt(np.square(lengths).mean())), *(float(lengths[atom]) for atom in chosen)
    waves = np.cos(2 * np.pi * np.linalg.solve(frame.cell.T, relative.T)[frame.pbc])  # (periodic, N)
    size = float(np.cbrt(abs(np.linalg.det(frame.cell))))
    return size + float(waves.mean()), size + float(waves[0].mean()), *(size + float(waves[:, atom].mean()) for atom in chosen)
