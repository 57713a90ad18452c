"""Changes of a frame under which a potential must answer in a known way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import FloatArray, Frame
from zoo.evaluation.predictions import Predictions


def random_rotation(generator: np.random.Generator) -> FloatArray:
    """(3, 3) rotation, uniform over SO(3) (QR of a Gaussian matrix with signs fixed; Mezzadri 2007, arXiv:math-ph/0609050)."""
    orthogonal, upper = np.linalg.qr(generator.standard_normal((3, 3)))
    orthogonal = orthogonal * np.sign(np.diag(upper))
    rotation: FloatArray = orthogonal if np.linalg.det(orthogonal) > 0 else -orthogonal
    return rotation


def transform_frame(frame: Frame, matrix: FloatArray) -> Frame:
    """Positions and cell under x' = R x with the orthogonal ``matrix`` R (3, 3); labels are left as they are."""
    return replace(frame, positions=frame.positions @ matrix.T, cell=frame.cell @ matrix.T)


def transform_predictions(base: Predictions, matrix: FloatArray) -> Predictions:
    """What an equivariant potential predicts for frames under `transform_frame`: the same energies, F' = R F, S' = R S R^T."""
    return replace(
        base,
        forces=tuple(forces @ matrix.T for forces in base.forces),
        stresses=tuple(None if stress is None else matrix @ stress @ matrix.T for stress in base.stresses),
    )


def move_to_images(frame: Frame, generator: np.random.Generator) -> Frame:
    """Every atom moved by lattice vectors of its own along the periodic directions: the same crystal."""
    cells: NDArray[np.int64] = generator.integers(-2, 3, size=(len(frame), 3)) * frame.pbc
    return replace(frame, positions=frame.positions + cells @ frame.cell)


def double_frame(frame: Frame) -> Frame:
    """A supercell of two along the first periodic direction, or for a molecule two copies far apart: twice the energy, same forces."""
    periodic = np.flatnonzero(frame.pbc)
    cell = frame.cell.copy()
    if len(periodic):
        offset = cell[periodic[0]].copy()
        cell[periodic[0]] *= 2
    else:
        offset = np.array([np.ptp(frame.positions[:, 0]) + 100.0, 0.0, 0.0])  # beyond any cutoff
    return replace(
        frame,
        atomic_numbers=np.concatenate([frame.atomic_numbers, frame.atomic_numbers]),
        positions=np.concatenate([frame.positions, frame.positions + offset]),
        cell=cell,
        forces=np.concatenate([frame.forces, frame.forces]),
        charge=2 * frame.charge,
    )
