"""What fine-tuning forgets: the errors on frames of the base's own kind, before and after.

The frames are of a published set at the base's own level of theory (MPtrj's for the models trained on it), drawn once and for all, so that
every result is measured on the same ones. Energies are compared as the base gives them: reference energies that a run fitted belong to its
own data and are left out on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zoo.data.checks import check_elements
from zoo.data.config import EMBEDDED_SET, FILE_SET, DataConfig
from zoo.data.frame import Frame
from zoo.data.loader import check_edges
from zoo.data.source import load_evaluated
from zoo.data.splits import frames_sha256, seeded_permutation
from zoo.errors import ZooError
from zoo.evaluation.forgetting_settings import ForgettingSettings
from zoo.evaluation.metrics import METRICS, compute_metrics
from zoo.evaluation.predictions import predict_frames
from zoo.evaluation.record import metric_records
from zoo.evaluation.record_parts import ForgettingRecord, MetricRecord, SplitRecord
from zoo.potential import Potential

WHOLE = "whole"
_DRAW_SEED = 0
_RELATIVE, _ABSOLUTE = 2e-3, 0.05
"""What another processor may change in a metric in meV, meV/Å or meV/Å^3: as much as it may change in predictions, and rounding."""


def forgetting_frames(settings: ForgettingSettings) -> list[Frame]:
    """The frames that are looked at, in the order of their file.

    Raises:
        ZooError: an unknown set, one that cannot be had or is smaller, or frames without any label.
    """
    if settings.data in (EMBEDDED_SET, FILE_SET):
        raise ZooError(f"evaluation.forgetting.data={settings.data}: wanted a published set, so that all measure the same; zoo data")
    parts = load_evaluated(DataConfig(name=settings.data), WHOLE).parts
    if WHOLE not in parts:
        raise ZooError(f"evaluation.forgetting.data={settings.data}: has tests of its own and is no set of one piece, such as mptrj-1k")
    frames: Sequence[Frame] = parts[WHOLE]
    if settings.frames > len(frames):
        raise ZooError(f"evaluation.forgetting.frames={settings.frames}, and {settings.data} has {len(frames)}; ask for fewer")
    chosen = [frames[int(index)] for index in sorted(seeded_permutation(len(frames), _DRAW_SEED)[: settings.frames])]
    if not any(frame.has_energy or frame.has_forces for frame in chosen):
        raise ZooError(f"{settings.data}: no frame has an energy or forces to compare with; name another set in evaluation.forgetting.data")
    return chosen


def check_forgetting(settings: ForgettingSettings, frames: Sequence[Frame], potential: Potential) -> None:
    """Refuse what could not be measured after hours of training; raises `ZooError` in one line."""
    check_elements(frames, potential.backbone.elements, f"evaluation.forgetting.data={settings.data}: {potential.source}")
    check_edges(frames, potential.backbone.graph_recipe)


def measure_forgetting(
    potential: Potential, settings: ForgettingSettings, frames: Sequence[Frame], batch_size: int = 8
) -> ForgettingRecord:
    """The errors of the base and of base + adapters; the potential is left as it was.

    Args:
        potential: with the trained adapters active.
        settings: where the frames are from.
        frames: `forgetting_frames` of the settings.
        batch_size: structures a forward pass.
    """
    active, shifts = potential.adapters.active, potential.get_reference_shifts()
    potential.set_reference_shifts({})
    try:
        after = _errors(potential, frames, batch_size)
        potential.adapters.activate([])
        before = _errors(potential, frames, batch_size)
    finally:
        potential.adapters.activate(active)
        potential.set_reference_shifts(shifts)
    return ForgettingRecord(
        data_name=settings.data, split=SplitRecord(frames=len(frames), sha256=frames_sha256(frames)), before=before, after=after
    )


def forgetting_text(forgetting: ForgettingRecord) -> str:
    """One line for people: the force and energy errors (those of the first names) before and after."""
    after = {metric.name: metric.value for metric in forgetting.after}
    shown = [metric for metric in forgetting.before if metric.name in ("energy_mae_mev_per_atom", "force_mae_mev_per_angstrom")]
    errors = ", ".join(f"{METRICS[one.name].label} {one.value:.1f} -> {after[one.name]:.1f} {one.unit}" for one in shown)
    return f"forgetting, on {forgetting.split.frames} frames of {forgetting.data_name}: {errors}"


def forgetting_differences(stated: ForgettingRecord, found: ForgettingRecord) -> Iterator[str]:
    """One line for everything in ``stated`` that ``found`` does not confirm."""
    for name in ("data_name", "split"):
        if getattr(stated, name) != getattr(found, name):
            yield f"forgetting.{name} is {getattr(stated, name)} in the record, recomputed is {getattr(found, name)}"
            return
    for side in ("before", "after"):
        theirs = {metric.name: metric.value for metric in getattr(stated, side)}
        ours = {metric.name: metric.value for metric in getattr(found, side)}
        other = [metric.test_set for metric in getattr(stated, side) if metric.test_set != WHOLE]
        if other:
            yield f"forgetting.{side} is of {other[0][:80]!r} in the record, wanted {WHOLE!r}"
        if theirs.keys() != ours.keys():
            yield f"forgetting.{side} has the metrics {', '.join(sorted(theirs))}, recomputed are {', '.join(sorted(ours))}"
            continue
        for name, value in ours.items():
            if not abs(theirs[name] - value) <= _ABSOLUTE + _RELATIVE * abs(value):
                yield f"forgetting.{side}: {name} is {theirs[name]:.6g} in the record, {value:.6g} recomputed"


def _errors(potential: Potential, frames: Sequence[Frame], batch_size: int) -> tuple[MetricRecord, ...]:
    return metric_records({WHOLE: compute_metrics(predict_frames(potential, frames, batch_size), frames)})
