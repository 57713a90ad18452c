"""Metrics of a potential on the parts of a data set, as `zoo evaluate` reports them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase.data import chemical_symbols

from zoo.data.checks import LabelReport, check_elements
from zoo.data.frame import Frame
from zoo.data.loader import check_edges
from zoo.data.source import DataConfig, DataSplits, load_splits
from zoo.data.splits import overlap_notes
from zoo.errors import ZooError, nearest_name_hint
from zoo.evaluation.metrics import METRICS, compute_metrics
from zoo.evaluation.predictions import predict_frames
from zoo.evaluation.provenance import base_record, data_record, git_commit, versions
from zoo.evaluation.record import build_record, metric_records, write_record
from zoo.evaluation.record_parts import ReferenceEnergyRecord, ReferenceTreatment
from zoo.evaluation.reference import fit_to_own_error
from zoo.potential import Potential


@dataclass(frozen=True)
class Evaluation:
    """Metrics by part, with what a reader needs to know about them.

    Attributes:
        metrics: part name to metric name to value.
        notes: labels found, energies-only parts, the treatment of reference energies.
        reference_energies: ``keep`` or ``fit``.
        wall_seconds: of the predictions.
    """

    metrics: dict[str, dict[str, float]]
    notes: tuple[str, ...]
    reference_energies: str
    wall_seconds: float

    def text(self) -> str:
        """Notes, then one aligned line a metric."""
        lines = [*self.notes, f"{'part':<18} {'metric':<44} {'value':>12}  unit"]
        for part, metrics in self.metrics.items():
            lines += [f"{part:<18} {METRICS[name].label:<44} {value:12.3f}  {METRICS[name].unit}" for name, value in metrics.items()]
        return "\n".join(lines)


def evaluate_parts(potential: Potential, splits: DataSplits, part: str | None, batch_size: int, reference_energies: str) -> Evaluation:
    """Predict and score one part of the data, or all test sets.

    Args:
        potential: its reference shifts change where they are refitted.
        splits: the data.
        part: ``train``, ``valid`` or a test set; None for every test set (the validation frames where there is none).
        batch_size: for the predictions.
        reference_energies: ``keep``, or ``fit`` to refit them on the training split first (what a zero-shot energy error needs).

    Raises:
        ZooError: an unknown part, an element the model does not know, a frame of several atoms without any pair within the cutoff, no
            training split to fit reference energies on, or no label to compare with.
    """
    chosen = _chosen(splits, part)
    notes = [LabelReport.of(frame for frames in chosen.values() for frame in frames).text()]
    for frames in chosen.values():
        check_elements(frames, potential.backbone.elements, potential.source)
        check_edges(frames, potential.backbone.cutoff)
    if reference_energies == "fit" and not splits.train:
        raise ZooError(
            f"{splits.protocol}: reference_energies=fit wants a training split; pass data.n_train=... (and data.n_test=...) to draw one"
        )
    if reference_energies == "fit":
        notes.append(fit_to_own_error(potential, splits.train, batch_size).note)
    elif not potential.get_reference_shifts():
        notes.append("energies: with the base's own reference energies; pass reference_energies=fit to fit them on the training split")
    started = time.perf_counter()
    metrics = {}
    for name, frames in chosen.items():
        if not any(frame.has_forces for frame in frames):
            notes.append(f"{name}: no forces in this set, energies only")
        metrics[name] = compute_metrics(predict_frames(potential, frames, batch_size=batch_size), frames)
    if not any(metrics.values()):
        raise ZooError(
            f"{', '.join(chosen)}: no frame has an energy, forces or stress to compare with; pass data.energy_key=... or "
            "data.forces_key=..., or use zoo predict"
        )
    return Evaluation(metrics, tuple(notes), reference_energies, time.perf_counter() - started)


def overlap_with_training(run: str, trained_on: DataConfig, evaluated: Mapping[str, Sequence[Frame]]) -> tuple[str, ...]:
    """One warning for every part that shares structures with what a run was trained or chosen on.

    Args:
        run: how the warnings name the run.
        trained_on: the run's own data.
        evaluated: part name to frames.
    """
    try:
        own = load_splits(trained_on, needs=())
    except ZooError as error:
        return (f"warning: {run}: cannot tell whether it was trained on these frames, for its own data cannot be read ({error})",)
    parts = {f"evaluated {name}": frames for name, frames in evaluated.items()}
    notes: Iterable[str] = (*overlap_notes(own.train, (), parts), *overlap_notes((), own.valid, parts))
    return tuple(f"warning: {run}: {note}" for note in notes)


def _chosen(splits: DataSplits, part: str | None) -> dict[str, list[Frame]]:
    if part is None:
        return splits.tested
    if part not in splits.parts:
        raise ZooError(f"{splits.name} has no part {part!r}; {nearest_name_hint(part, splits.parts)}")
    return {part: splits.parts[part]}


def write_evaluation_record(path: Path, potential: Potential, splits: DataSplits, evaluation: Evaluation) -> None:
    """The evaluation as a record of the leaderboard's schema; only a base without adapter has one of its own (a run writes its own)."""
    if potential.adapters.active:
        raise ZooError(f"record={path}: a fine-tuned model's record is written by its run; use the record.json of the run folder")
    treatment: ReferenceTreatment = "model_error" if evaluation.reference_energies == "fit" else "none"
    record = build_record(
        base=base_record(potential),
        adapter=None,
        data=data_record(splits),
        seed=None,
        reference_energies=ReferenceEnergyRecord(
            before="none",
            after=treatment,
            values={chemical_symbols[number]: value for number, value in potential.get_reference_shifts().items()},
        ),
        training=None,
        metrics=metric_records(evaluation.metrics),
        zero_shot_metrics=(),
        cost=None,
        versions=versions(),
        git_commit=git_commit(),
        provenance="local",
        author=None,
        equivariance_residual=None,
        forgetting=None,
    )
    write_record(path, record)
