"""Relaxing structures with a potential, and how close that comes to the relaxation of the reference method (OC20's IS2RE and IS2RS).

The tasks are those of Chanussot et al., ACS Catal. 2021, 11, 6059 (arXiv:2010.09990). A relaxation that runs out of steps counts like any
other, at the structure it has reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from ase.calculators.calculator import Calculator
from ase.optimize import LBFGS
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from zoo.data.frame import FloatArray, Frame
from zoo.errors import ZooError
from zoo.evaluation.labelled_errors import errors_where_labelled
from zoo.evaluation.metrics import energy_mae_mev
from zoo.evaluation.threshold_metrics import (
    average_distance_within_threshold_percent,
    average_force_below_threshold_percent,
    energy_within_threshold_percent,
    minimum_image_distances,
)

# what fairchem ends its relaxations with; OC20's DFT relaxations end at 0.03 eV/Å
FMAX_EV_PER_ANGSTROM = 0.02
MAX_STEPS = 300
# the L-BFGS of fairchem's OC20 relaxations; ASE's own default lets atoms go five times as far in one step
_LONGEST_STEP_ANGSTROM = 0.04
_MEMORY_STEPS = 50
# files with four decimals hold a structure to within this
_SAME_PLACE_ANGSTROM = 1e-3


class RelaxationSettings(BaseModel):
    """How structures are relaxed, and what is done with them.

    Attributes:
        fmax_ev_per_angstrom, max_steps: see `relax_frames`.
        output: extended XYZ for the relaxed structures, in the order of the frames: what the reference method is run on for AFbT.
        single_points: that method's results for them, in the same order, for AFbT.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fmax_ev_per_angstrom: float = Field(default=FMAX_EV_PER_ANGSTROM, gt=0)
    max_steps: int = Field(default=MAX_STEPS, ge=1)
    output: str | None = None
    single_points: str | None = None


class GivesCalculator(Protocol):
    """Anything with an ASE calculator, as `zoo.Potential` has."""

    def calculator(self) -> Calculator:
        """A calculator of energies in eV and forces in eV/Å."""
        ...


@dataclass(frozen=True)
class RelaxedStructures:
    """Where S relaxations ended, in the order of the frames they started from.

    Attributes:
        names: S frame names, as `Frame.name`.
        positions: S arrays (N, 3) Å, not wrapped into the cell.
        energies: (S,) eV, the potential's own at those positions.
        steps: (S,) optimiser steps taken.
        converged: (S,) whether the largest force norm on a free atom fell below the limit.
    """

    names: tuple[str, ...]
    positions: tuple[FloatArray, ...]
    energies: FloatArray
    steps: NDArray[np.int64]
    converged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ForcesBelowThreshold:
    """``percent``: AFbT over the ``structures`` whose single point converged; ``left_out``: how many did not and count nowhere."""

    percent: float
    structures: int
    left_out: int


def relax_frames(
    potential: GivesCalculator,
    frames: Sequence[Frame],
    fmax_ev_per_angstrom: float = FMAX_EV_PER_ANGSTROM,
    max_steps: int = MAX_STEPS,
    progress: Callable[[int], None] | None = None,
) -> RelaxedStructures:
    """Relax the atoms of every frame with L-BFGS at constant cell; fixed atoms stay where they are.

    Args:
        potential: usually a `zoo.Potential`.
        frames: where the relaxations start; their labels are not used.
        fmax_ev_per_angstrom: a relaxation ends when no free atom feels a force of this norm.
        max_steps: or after this many steps.
        progress: called after every frame with the number of frames done so far.

    Raises:
        ZooError: for a limit that is not positive, or naming the frame that the potential cannot compute.
    """
    if fmax_ev_per_angstrom <= 0 or max_steps < 1:
        raise ZooError(
            f"relaxation with fmax {fmax_ev_per_angstrom} eV/Å and {max_steps} steps; give a positive force and at least one step"
        )
    ends = []
    for frame in frames:
        ends.append(_relax(potential, frame, fmax_ev_per_angstrom, max_steps))
        if progress is not None:
            progress(len(ends))
    return RelaxedStructures(
        names=tuple(frame.name for frame in frames),
        positions=tuple(end.positions for end in ends),
        energies=np.array([end.energy for end in ends], dtype=np.float64),
        steps=np.array([end.steps for end in ends], dtype=np.int64),
        converged=np.array([end.converged for end in ends], dtype=bool),
    )


def relaxation_metrics(relaxed: RelaxedStructures, frames: Sequence[Frame]) -> dict[str, float]:
    """Metrics of relaxed energies and positions against the frames' ``relaxed_energy`` and ``relaxed_positions``.

    Returns:
        By name, as in `zoo.evaluation.metrics.METRICS`: MAE and EwT of the relaxed energy, and ADwT over free atoms. What no frame is
        labelled with is absent.

    Raises:
        ZooError: when the two are not for the same frames, a relaxed energy is not a number, or a labelled frame has no free atom.
    """
    _check_same_frames(relaxed, frames)
    pairs = zip(frames, relaxed.energies, strict=True)
    energy_errors = np.concatenate(
        [*(errors_where_labelled(frame, "relaxed energy", energy, frame.relaxed_energy) for frame, energy in pairs), np.empty(0)]
    )
    distances = [
        _mean_free_distance(frame, positions, frame.relaxed_positions)
        for frame, positions in zip(frames, relaxed.positions, strict=True)
        if frame.relaxed_positions is not None
    ]
    metrics = {}
    if energy_errors.size:
        metrics["relaxed_energy_mae_mev"] = energy_mae_mev(energy_errors)
        metrics["relaxed_energy_within_threshold_percent"] = energy_within_threshold_percent(energy_errors)
    if distances:
        metrics["average_distance_within_threshold_percent"] = average_distance_within_threshold_percent(np.array(distances))
    return metrics


def average_force_below_threshold(
    relaxed: RelaxedStructures, frames: Sequence[Frame], single_points: Sequence[Frame]
) -> ForcesBelowThreshold:
    """AFbT from the reference method's forces at the structures a potential relaxed to.

    Args:
        relaxed: from `relax_frames`.
        frames: the frames it started from; they say which atoms are fixed.
        single_points: the reference method's result for each relaxed structure, in their order. One without forces on every free atom is
            a calculation that did not converge: it counts nowhere.

    Raises:
        ZooError: when a single point is of another structure than the relaxed one, a frame has no free atom, or none has forces.
    """
    _check_same_frames(relaxed, frames)
    if len(single_points) != len(relaxed):
        raise ZooError(
            f"{len(single_points)} single points for {len(relaxed)} relaxed structures; give one for each, without forces where it failed"
        )
    largest = []
    for frame, positions, point in zip(frames, relaxed.positions, single_points, strict=True):
        _check_same_structure(frame, positions, point)
        forces = point.forces[_free(frame)]  # (n, 3)
        if np.isfinite(forces).all():
            largest.append(np.linalg.norm(forces, axis=1).max())
    if not largest:
        raise ZooError("no single point has forces on every free atom; give the file with the reference method's forces, or name their key")
    return ForcesBelowThreshold(average_force_below_threshold_percent(np.array(largest)), len(largest), len(relaxed) - len(largest))


@dataclass(frozen=True)
class _End:
    positions: FloatArray
    energy: float
    steps: int
    converged: bool


def _relax(potential: GivesCalculator, frame: Frame, fmax_ev_per_angstrom: float, max_steps: int) -> _End:
    atoms = frame.to_atoms()
    # a fresh calculator, so that no frame's result depends on the one before
    atoms.calc = potential.calculator()
    # None is how ASE says "no log", whatever its annotation says
    optimiser = LBFGS(atoms, logfile=None, maxstep=_LONGEST_STEP_ANGSTROM, memory=_MEMORY_STEPS)  # type: ignore[arg-type]
    try:
        converged = optimiser.run(fmax=fmax_ev_per_angstrom, steps=max_steps)
    except ZooError as error:
        raise ZooError(f"{frame.name}: step {optimiser.nsteps} of the relaxation: {error}") from error
    return _End(atoms.get_positions(), float(atoms.get_potential_energy()), optimiser.nsteps, bool(converged))


def _check_same_frames(relaxed: RelaxedStructures, frames: Sequence[Frame]) -> None:
    if len(relaxed) != len(frames):
        raise ZooError(f"{len(relaxed)} relaxed structures for {len(frames)} frames; relax and compare the same frames")
    for name, positions, frame in zip(relaxed.names, relaxed.positions, frames, strict=True):
        if positions.shape != (len(frame), 3):
            raise ZooError(f"{frame.name}: {len(frame)} atoms, the relaxed {name!r} has {len(positions)}; keep the order of the frames")


def _check_same_structure(frame: Frame, positions: FloatArray, point: Frame) -> None:
    if not np.array_equal(point.atomic_numbers, frame.atomic_numbers):
        raise ZooError(f"{point.name}: other elements than {frame.name}; give the single points in the order of the relaxed structures")
    # up to whole lattice vectors, for a code may have wrapped the atoms
    farthest = minimum_image_distances(point.positions, positions, frame.cell, frame.pbc).max()
    if farthest > _SAME_PLACE_ANGSTROM:
        raise ZooError(
            f"{point.name}: an atom is {farthest:.3g} Å from where {frame.name} relaxed to, wanted at most {_SAME_PLACE_ANGSTROM}; compute "
            "the single points at these relaxed structures"
        )


def _mean_free_distance(frame: Frame, positions: FloatArray, reference: FloatArray) -> float:
    free = _free(frame)
    return float(minimum_image_distances(positions[free], reference[free], frame.cell, frame.pbc).mean())


def _free(frame: Frame) -> NDArray[np.bool_]:
    if not frame.free.any():
        raise ZooError(f"{frame.name}: every atom is fixed, so there is nothing to relax; leave the frame out")
    return frame.free
