"""Pairs of close structures, in which a change of energy can be compared with the work of forces and stress.

Between two configurations of the same atoms the energy changes by minus the work of the forces along the way. With the trapezoidal rule,

    E2 - E1 = -1/2 (F1 + F2) . dx + 1/2 (V1 s1 + V2 s2) : e + O(dx^3),

where dx is what the atoms move besides the strain e of the cell; exact where the energy is quadratic. So labels of a trajectory check one
another, without any model: the slope of the left side on the right one is 1, whatever the zero of energy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import FloatArray, Frame

MOST_DISPLACEMENT_ANGSTROM = 0.3
"""Farther apart, the trapezoidal rule misses more than a third of the change in molecules at 600 K."""
MOST_STRAIN = 0.03
LEAST_WORK_EV = 5e-3
"""Smaller changes drown in what electronic minimisations leave open, and in float32 totals."""
_SAME_MOMENT = 0.05  # μ_B
_CHUNK = 400  # frames compared all with all
_MOST_CHUNKS = 6
_CANDIDATES = 3
_PRINTED_ATOMS = 24


@dataclass(frozen=True)
class Pair:
    """Two frames of the same atoms.

    Attributes:
        first, second: the frames.
        energy_change: eV, of the labels.
        work: eV, what the forces say of the change.
        strain_work: eV, what the stresses say of it; 0 where the cell is the same, NaN where it is not and a stress is missing.
        displacement: Å, of the atom that moves the most.
        strain: the largest entry of the strain between the cells.
    """

    first: Frame
    second: Frame
    energy_change: float
    work: float
    strain_work: float
    displacement: float
    strain: float


def close_pairs(frames: Sequence[Frame]) -> list[Pair]:
    """For each frame the nearest other one of the same atoms, where it is near enough; each pair once.

    Molecules are turned onto each other first, so that frames drawn from a trajectory find partners too. Frames with other charges, spins
    or magnetic moments are no partners. Of large sets the first frames of each composition are looked at.
    """
    groups: defaultdict[bytes, list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.has_energy and frame.has_forces and len(frame) > 1:
            groups[_kind(frame)].append(frame)
    pairs: dict[tuple[str, str], Pair] = {}
    for chunk in _chunks(groups):
        for index, candidates in enumerate(_candidates(chunk)):
            found = (_pair(chunk[min(index, other)], chunk[max(index, other)]) for other in candidates)
            pair = next((one for one in found if one is not None), None)
            if pair is not None:
                pairs[pair.first.name, pair.second.name] = pair
    return list(pairs.values())


def _kind(frame: Frame) -> bytes:
    state = np.array([frame.charge, frame.spin, *frame.pbc], dtype="<i8").tobytes()
    return state + frame.atomic_numbers.astype("<i8").tobytes()


def _chunks(groups: dict[bytes, list[Frame]]) -> Iterator[list[Frame]]:
    """Frames of one kind that follow each other in their files, at most `_CHUNK`; the largest groups first."""
    count = 0
    for group in sorted(groups.values(), key=len, reverse=True):
        ordered = sorted(group, key=lambda frame: (frame.source, frame.frame_id))
        for start in range(0, len(ordered), _CHUNK):
            if len(ordered) - start < 2:
                continue
            if count >= _MOST_CHUNKS and len(ordered) >= _CHUNK:
                break
            count += 1
            yield ordered[start : start + _CHUNK]


def _candidates(chunk: Sequence[Frame]) -> list[list[int]]:
    """For each frame the few others that look nearest, by numbers that change little where atoms move little."""
    prints = _fingerprints(chunk)  # (n, D)
    squares = np.square(prints).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * prints @ prints.T  # (n, n)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1)[:, : min(_CANDIDATES, len(chunk) - 1)].tolist()  # type: ignore[no-any-return]


def _fingerprints(chunk: Sequence[Frame]) -> FloatArray:
    """(n, D) distances between some atoms of a molecule; of a crystal positions, unwrapped towards those of the first frame."""
    positions = np.stack([frame.positions for frame in chunk])  # (n, N, 3)
    if not chunk[0].pbc.any() or not all(abs(np.linalg.det(frame.cell)) > 0 for frame in chunk):
        some = positions[:, np.linspace(0, positions.shape[1] - 1, min(_PRINTED_ATOMS, positions.shape[1])).astype(int)]
        first, second = np.triu_indices(some.shape[1], 1)
        return np.asarray(np.linalg.norm(some[:, first] - some[:, second], axis=2), dtype=np.float64)
    cells = np.stack([frame.cell for frame in chunk])
    fractions = np.linalg.solve(cells.transpose(0, 2, 1), positions.transpose(0, 2, 1)).transpose(0, 2, 1)
    moved = fractions - fractions[0]
    moved -= np.where(chunk[0].pbc, np.round(moved), 0.0)
    moved -= moved.mean(axis=1, keepdims=True)
    return np.concatenate([(moved @ chunk[0].cell).reshape(len(chunk), -1), cells.reshape(len(chunk), 9)], axis=1)


def _moves(frame: Frame, positions: FloatArray, cells: FloatArray) -> FloatArray:
    """(n, N, 3) how atoms move from ``frame`` to each of ``positions``, besides strain, images and (molecules) rotation."""
    if not frame.pbc.any():
        centred = positions - positions.mean(axis=1, keepdims=True)
        own = frame.positions - frame.positions.mean(axis=0)
        return np.asarray(np.einsum("mna,mab->mnb", centred, _rotations(own, centred)) - own, dtype=np.float64)
    strained = np.abs(cells - frame.cell).max(axis=(1, 2)) > MOST_STRAIN * np.abs(frame.cell).max()
    moves = positions - frame.positions
    if abs(np.linalg.det(frame.cell)) > 0:
        fractions = np.linalg.solve(cells.transpose(0, 2, 1), positions.transpose(0, 2, 1)).transpose(0, 2, 1)
        fractions -= np.linalg.solve(frame.cell.T, frame.positions.T).T
        fractions -= np.where(frame.pbc, np.round(fractions), 0.0)
        moves = fractions @ frame.cell
    moves = moves - moves.mean(axis=1, keepdims=True)
    moves[strained] = np.inf
    return np.asarray(moves, dtype=np.float64)


def _rotations(target: FloatArray, others: FloatArray) -> FloatArray:
    """(n, 3, 3) R that bring ``others @ R`` nearest to ``target`` (Kabsch 1976); all centred."""
    left, _, right = np.linalg.svd(np.einsum("mna,nb->mab", others, target))
    handed = np.sign(np.linalg.det(left @ right))
    left[:, :, 2] *= handed[:, None]
    return np.asarray(left @ right, dtype=np.float64)


def _pair(first: Frame, second: Frame) -> Pair | None:
    """The pair's changes; None where the frames are too far apart or their magnetic states differ."""
    if not _same_moments(first, second):
        return None
    cells = second.cell[None]
    if first.pbc.any() and not np.any(np.linalg.det(cells)):
        return None
    moves, forces = _moves(first, second.positions[None], cells)[0], second.forces
    if not first.pbc.any():
        centred = second.positions - second.positions.mean(axis=0)
        forces = forces @ _rotations(first.positions - first.positions.mean(axis=0), centred[None])[0]
    strain = _strain(first, second)
    displacement, most_strain = float(np.abs(moves).max()), float(np.abs(strain).max())
    if not displacement <= MOST_DISPLACEMENT_ANGSTROM or most_strain > MOST_STRAIN:
        return None
    free = first.free & second.free
    work = -0.5 * float(((first.forces + forces)[free] * moves[free]).sum())
    return Pair(first, second, second.energy - first.energy, work, _strain_work(first, second, strain), displacement, most_strain)


def _same_moments(first: Frame, second: Frame) -> bool:
    one, other = first.magnetic_moments, second.magnetic_moments
    return one is None or other is None or bool(np.abs(one - other).max() < _SAME_MOMENT)


def _strain(first: Frame, second: Frame) -> NDArray[np.float64]:
    """(3, 3) symmetric strain from the cell of ``first`` to that of ``second``, about their mean."""
    if not first.pbc.all() or np.array_equal(first.cell, second.cell):
        return np.zeros((3, 3))
    strain = np.linalg.solve((first.cell + second.cell) / 2, second.cell - first.cell)
    return np.asarray((strain + strain.T) / 2, dtype=np.float64)


def _strain_work(first: Frame, second: Frame, strain: FloatArray) -> float:
    if not strain.any():
        return 0.0
    volumes = abs(np.linalg.det(first.cell)), abs(np.linalg.det(second.cell))
    return 0.5 * float(((volumes[0] * first.stress + volumes[1] * second.stress) * strain).sum())
