"""Relaxed energies and positions of a potential on the parts of a data set: ``zoo evaluate task=relaxation``."""

from __future__ import annotations

import time
from pathlib import Path

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
    reference_energies: ReferenceChoice,
    settings: RelaxationSettings,
) -> Evaluation:
    """Relax the frames of one part, or of all test sets, and compare with the relaxed energies and positions that they are labelled with.

    Args:
        potential: its reference shifts change as ``reference_energies`` says.
        splits: the data.
        part: as `zoo.evaluation.evaluate.evaluate_parts` takes it.
        reference_energies: as there.
        settings: how to relax.

    Raises:
        ZooError: as `evaluate_parts`; frames without a relaxed structure to compare with; a file of structures for several parts.
    """
    chosen, notes = prepare_parts(potential, splits, part, settings.batch_size, reference_energies)
    if len(chosen) > 1 and (settings.output or settings.single_points):
        raise ZooError(f"output and single_points are for one part, found {', '.join(chosen)}; pass split=...")
    started = time.perf_counter()
    metrics = {}
    for name, frames in chosen.items():
        relaxed = relax_frames(potential, frames, settings.fmax_ev_per_angstrom, settings.max_steps)
        notes.append(
            f"{name}: {int(relaxed.converged.sum())} of {len(relaxed)} relaxations converged, {relaxed.steps.mean():.0f} steps each"
        )
        metrics[name] = relaxation_metrics(relaxed, frames)
        if settings.single_points is not None:
            points = average_force_below_threshold(relaxed, frames, read_file(settings.single_points).frames)
            metrics[name]["average_force_below_threshold_percent"] = points.percent
            notes.append(f"{name}: AFbT over {points.structures} single points, {points.left_out} without forces left out")
        if settings.output is not None:
            write_relaxed(Path(settings.output), frames, relaxed)
            notes.append(f"relaxed structures: {settings.output}")
    if not any(metrics.values()) and settings.output is None:
        raise ZooError(
            f"{', '.join(chosen)}: no frame is labelled with a relaxed energy or structure, as OC20's IS2RE sets are; pass output=FILE to "
            "write the relaxed structures, or leave task=relaxation out"
        )
    return Evaluation(metrics, splits.origin.metrics, tuple(notes), reference_energies, time.perf_counter() - started)


def write_relaxed(path: Path, frames: list[Frame], relaxed: RelaxedStructures) -> None:
    """Write the relaxed structures with the potential's energies as extended XYZ, whole or not at all."""
    images = []
    for frame, positions, energy in zip(frames, relaxed.positions, relaxed.energies, strict=True):
        atoms: Atoms = frame.to_atoms()
        atoms.positions = positions
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy))
        atoms.info.update(source=frame.source, frame_id=frame.frame_id)
        images.append(atoms)
    write_atomically(path, lambda partial: ase_write(partial, images, format="extxyz"))
