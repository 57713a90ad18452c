"""Metrics of a potential on the parts of a data set, as `zoo evaluate` reports them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue
from rich.console import Console
from rich.progress import Progress

from zoo.data.cache_choice import CacheChoice
from zoo.data.checks import LabelReport, check_charges, check_elements
from zoo.data.config import DataConfig
from zoo.data.frame import Frame
from zoo.data.loader import check_edges, stored_graphs
from zoo.data.overlap import overlap_notes
from zoo.data.parts import DataSplits
from zoo.data.reference_choice import ReferenceChoice
from zoo.data.source import load_splits
from zoo.errors import ZooError, nearest_name_hint
from zoo.evaluation.metrics import METRICS, compute_metrics
from zoo.evaluation.predictions import Predictions, predict_frames
from zoo.evaluation.provenance import base_record, data_record, made_here, reference_energy_record
from zoo.evaluation.record import build_record, metric_records, write_record
from zoo.evaluation.reference import set_reference_energies
from zoo.evaluation.unit_hints import unit_hints
from zoo.potential import Potential


@dataclass(frozen=True)
class Evaluation:
    """Metrics by part, with what a reader needs to know about them.

    Attributes:
        metrics: part name to metric name to value.
        headline: names of the metrics that the data's protocol asks for, in its order; empty where it has none.
        notes: labels found, energies-only parts, the treatment of reference energies.
        reference_energies: where they came from.
        wall_seconds: of the predictions.
        settings: what was done to get the numbers, as a record carries it: ``task``, and the limits and outcome of relaxations.
    """

    metrics: dict[str, dict[str, float]]
    headline: tuple[str, ...]
    notes: tuple[str, ...]
    reference_energies: ReferenceChoice
    wall_seconds: float
    settings: dict[str, JsonValue] = field(default_factory=lambda: {"task": "labels"})

    def text(self, choice: Literal["protocol", "all"] = "protocol") -> str:
        """Notes, then one aligned line a metric: those of the protocol, or all."""
        lines = [*self.notes, f"{'part':<18} {'metric':<44} {'value':>12}  unit"]
        hidden = 0
        for part, metrics in self.metrics.items():
            asked = [name for name in self.headline if name in metrics] if choice == "protocol" else []
            shown = asked or list(metrics)  # a scan without forces may have none of the protocol's metrics
            hidden += len(metrics) - len(shown)
            lines += [f"{part:<18} {METRICS[name].label:<44} {metrics[name]:12.3f}  {METRICS[name].unit}" for name in shown]
        if hidden:
            lines.append(f"({hidden} more numbers with metrics=all)")
        return "\n".join(lines)


def evaluate_parts(
    potential: Potential, splits: DataSplits, part: str | None, batch_size: int, reference_energies: ReferenceChoice
) -> Evaluation:
    """Predict and score one part of the data, or all test sets.

    Args:
        potential: its reference shifts change as ``reference_energies`` says.
        splits: the data.
        part: ``train``, ``valid`` or a test set; None for every test set (the validation frames where there is none).
        batch_size: for the predictions.
        reference_energies: ``base`` leaves the model's own; ``model`` refits them on the training split first, as a zero-shot energy error
            needs; the others as `ReferenceChoice` says.

    Raises:
        ZooError: an unknown part, an element the model does not know, a frame of several atoms without any pair within the cutoff, no
            training split or table to take reference energies from, or no label to compare with.
    """
    chosen, notes = prepare_parts(potential, splits, part, batch_size, reference_energies)
    started = time.perf_counter()
    metrics = {}
    for name, frames in chosen.items():
        if not any(frame.has_forces for frame in frames):
            notes.append(f"{name}: no forces in this set, energies only")
        predictions = _predicted(potential, name, frames, batch_size, splits.cache)
        notes += [f"warning: {name}: {hint}" for hint in unit_hints(predictions, frames)]
        metrics[name] = compute_metrics(predictions, frames)
    if not any(metrics.values()):
        raise ZooError(
            f"{', '.join(chosen)}: no frame has an energy, forces or stress to compare with; pass data.energy_key=... or "
            "data.forces_key=..., or use zoo predict"
        )
    return Evaluation(metrics, splits.origin.metrics, tuple(notes), reference_energies, time.perf_counter() - started)


def _predicted(potential: Potential, name: str, frames: Sequence[Frame], batch_size: int, cache: CacheChoice) -> Predictions:
    """The predictions, with a progress bar where a person looks on."""
    graphs = stored_graphs(frames, potential.backbone.graph_recipe, cache)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=len(frames))
        return predict_frames(potential, frames, batch_size, lambda done: bar.update(task, completed=done), graphs)


def prepare_parts(
    potential: Potential, splits: DataSplits, part: str | None, batch_size: int, reference_energies: ReferenceChoice
) -> tuple[dict[str, Sequence[Frame]], list[str]]:
    """(the parts to evaluate, lines to print), with every frame checked and the reference energies set; raises as `evaluate_parts`."""
    chosen = _chosen(splits, part)
    notes = [f"protocol: {splits.protocol}", *splits.notes]
    notes.append(LabelReport.of(*chosen.values()).text())
    for frames in chosen.values():
        check_elements(frames, potential.backbone.elements, potential.source)
        check_charges(frames, potential.backbone.reads_charge, potential.source)
        check_edges(frames, potential.backbone.graph_recipe, splits.cache)
    estimate = set_reference_energies(reference_energies, potential, splits, batch_size)
    if estimate.note:
        notes.append(estimate.note)
    elif not potential.get_reference_shifts():
        notes.append(
            "energies: with the base's own zero of energy, which need not be that of the labels; pass reference_energies=model to fit it "
            "on a training split (of your own file: with data.n_train=... and data.n_test=...)"
        )
    return chosen, notes


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


def _chosen(splits: DataSplits, part: str | None) -> dict[str, Sequence[Frame]]:
    if part is None:
        return splits.tested
    if part not in splits.parts:
        raise ZooError(f"{splits.name} has no part {part!r}; {nearest_name_hint(part, splits.parts)}")
    return {part: splits.parts[part]}


def write_evaluation_record(
    path: Path, potential: Potential, splits: DataSplits, evaluation: Evaluation, asked: Mapping[str, JsonValue]
) -> None:
    """The evaluation as a record of the leaderboard's schema; only a base without adapter has one of its own (a run writes its own).

    ``asked``: the settings of the evaluation, with which `zoo reproduce` makes it again.
    """
    if potential.adapters.active:
        raise ZooError(f"record={path}: a fine-tuned model's record is written by its run; use the record.json of the run folder")
    record = build_record(
        base=base_record(potential),
        adapter=None,
        data=data_record(splits),
        seed=None,
        reference_energies=reference_energy_record(potential, "base", evaluation.reference_energies),
        training=None,
        evaluation={**evaluation.settings, "asked": dict(asked)},
        metrics=metric_records(evaluation.metrics),
        zero_shot_metrics=(),
        cost=None,
        **made_here(),
    )
    write_record(path, record)
