"""Relaxed energies and positions of a potential on the parts of a data set: ``zoo evaluate task=relaxation``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write

from zoo.data.frame import Frame
from zoo.data.parts import DataSplits
from zoo.data.readers import read_file
from zoo.data.reference_choice import ReferenceChoice
from zoo.errors import ZooError
from zoo.evaluation.evaluate import Evaluation, prepare_parts
from zoo.evaluation.relaxations import (
    RelaxationSettings,
    RelaxedStructures,
    average_force_below_threshold,
    relax_frames,
    relaxation_metrics,
)
from zoo.files import write_atomically
from zoo.potential import Potential


def evaluate_relaxations(
    potential: Potential,
    splits: DataSplits,
    part: str | None,
    batch_size: int,
    reference_energies: ReferenceChoice,
    settings: RelaxationSettings,
) -> Evaluation:
    """Relax the frames of one part, or of all test sets, and compare with the relaxed energies and positions that they are labelled with.

    Args:
        potential: its reference shifts change as ``reference_energies`` says.
        splits: the data.
        part: as `zoo.evaluation.evaluate.evaluate_parts` takes it.
        batch_size: structures a forward pass where reference energies are fitted first.
        reference_energies: as there.
        settings: how to relax.

    Raises:
        ZooError: as `evaluate_parts`; frames without a relaxed structure to compare with; a file of structures for several parts. Whatever
            can be refused is refused before the first relaxation.
    """
    chosen, notes = prepare_parts(potential, splits, part, batch_size, reference_energies)
    if len(chosen) > 1 and (settings.output or settings.single_points):
        raise ZooError(f"relaxation.output and relaxation.single_points are for one part, found {', '.join(chosen)}; pass split=...")
    if settings.output is None and settings.single_points is None:
        check_labelled(splits, part, "task=relaxation")
    points = None if settings.single_points is None else read_file(settings.single_points).frames
    started = time.perf_counter()
    metrics, outcome = {}, {}
    for name, frames in chosen.items():
        relaxed = relax_frames(potential, frames, settings.fmax_ev_per_angstrom, settings.max_steps)
        converged = int(relaxed.converged.sum())
        outcome[name] = {"structures": len(relaxed), "converged": converged, "mean_steps": float(relaxed.steps.mean())}
        notes.append(f"{name}: {converged} of {len(relaxed)} relaxations converged, {relaxed.steps.mean():.0f} steps each")
        if settings.output is not None:
            write_relaxed(Path(settings.output), frames, relaxed)
            notes.append(f"relaxed structures: {settings.output}")
        metrics[name] = relaxation_metrics(relaxed, frames)
        if points is not None:
            below = average_force_below_threshold(relaxed, frames, points)
            metrics[name]["average_force_below_threshold_percent"] = below.percent
            notes.append(f"{name}: AFbT over {below.structures} single points, {below.left_out} without forces left out")
    limits = settings.model_dump(include={"fmax_ev_per_angstrom", "max_steps"})
    record = {"task": "relaxation", "optimiser": "LBFGS", **limits, "outcome": outcome}
    return Evaluation(metrics, splits.origin.metrics, tuple(notes), reference_energies, time.perf_counter() - started, record)


def check_labelled(splits: DataSplits, part: str | None, what: str) -> None:
    """Raise `ZooError` where no frame of what would be relaxed has a relaxed energy or structure to compare with."""
    parts = splits.tested if part is None else {part: splits.parts.get(part, [])}
    frames = [frame for group in parts.values() for frame in group]
    if not any(np.isfinite(frame.relaxed_energy) or frame.relaxed_positions is not None for frame in frames):
        raise ZooError(
            f"{what}: {', '.join(parts)}: no frame is labelled with a relaxed energy or structure, as OC20's IS2RE sets are; pass "
            "relaxation.output=FILE to write the relaxed structures alone, or leave it out"
        )


def write_relaxed(path: Path, frames: Sequence[Frame], relaxed: RelaxedStructures) -> None:
    """Write the relaxed structures with the potential's energies as extended XYZ, whole or not at all."""
    images = []
    for frame, positions, energy in zip(frames, relaxed.positions, relaxed.energies, strict=True):
        atoms: Atoms = frame.to_atoms()
        atoms.positions = positions
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy))
        atoms.info.update(source=frame.source, frame_id=frame.frame_id)
        images.append(atoms)
    write_atomically(path, lambda partial: ase_write(partial, images, format="extxyz"))
