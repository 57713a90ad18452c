"""Whether submitted predictions are of the protocol's own test frames, and give the metrics that the record states.

Labels come from the data set's files, which are recognised by their checksums; a submission brings none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from zoo.data.catalogue import data_set_names
from zoo.data.config import EMBEDDED_SET, DataConfig
from zoo.data.frame import FloatArray, Frame
from zoo.data.parts import DataSplits
from zoo.data.source import load_evaluated, load_splits
from zoo.errors import ZooError
from zoo.evaluation.metrics import METRICS, compute_metrics
from zoo.evaluation.prediction_files import SavedPredictions
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.provenance import data_record
from zoo.evaluation.record import Record
from zoo.evaluation.unit_hints import unit_hints

_OWN_MACHINE = {"workers": None, "cache": "auto"}
"""How many processes read here, and where to, is not for a submission to say."""
METRIC_TOLERANCE = 1e-9
"""Relative: the same float64 numbers are added up again, and only the order of the sums may differ from one NumPy to the next."""
_EXACT_FORCE_EV_PER_ANGSTROM = 1e-7
_EXACT_ENERGY_EV = 1e-6
_EXACT_MEDIAN_ENERGY_EV = 1e-5
_EXACT_FRAME = 1e-5
_OUTSTANDING = 100
_FEWEST_TELLING = 6
_TELLING_FORCE_EV_PER_ANGSTROM = 1e-3
_EXACT_SHARE = 0.01
_FEWEST_EXACT = 3
_IMPLAUSIBLE = ", which no model's are: implausibly exact, as labels copied into predictions are"


def tested_frames(config: DataConfig, part: str | None, reference_energies: str) -> DataSplits:
    """What an entry is tested on, all test sets of a protocol or ``part`` alone, with the frames that reference energies are fitted on.

    Raises:
        ZooError: data that cannot be had, or without any test set.
    """
    splits = load_splits(config, needs=()) if part is None else load_evaluated(config, part, with_training=reference_energies == "model")
    if not splits.tests or (part is not None and part not in splits.tests):
        raise ZooError(f"{config.name}: {part or 'the data'} is no test set, and errors on frames that chose the weights are not entered")
    return splits


def protocol_frames(record: Record, config: DataConfig, part: str | None = None) -> tuple[DataSplits | None, list[str]]:
    """(the data that ``config`` names, read here; every way in which the record says otherwise).

    No data where they cannot be had, or are a file of the author's, whose labels nobody else has.
    """
    if config.name != EMBEDDED_SET and config.name not in data_set_names():
        return None, [f"data.name is {config.name!r}, no published set with checksums, so that its labels cannot be had here"]
    try:
        splits = tested_frames(config.model_copy(update=_OWN_MACHINE), part, record.reference_energies.after)
    except ZooError as error:
        return None, [f"the protocol's data cannot be had (zoo data {config.name} says where they are looked for): {error}"]
    own, here = record.data, data_record(splits)
    reasons = []
    for name in ("name", "protocol", "level_of_theory", "licence"):
        if getattr(own, name) != getattr(here, name):
            reasons.append(f"data.{name} is {getattr(own, name)!r} in the record, the protocol's is {getattr(here, name)!r}")
    for name in sorted(own.splits.keys() | here.splits.keys()):
        found, wanted = own.splits.get(name), here.splits.get(name)
        if found != wanted:
            reasons.append(f"data.splits.{name} is {_split(found)} in the record, the protocol's is {_split(wanted)}")
    return splits, reasons


def _split(split: object) -> str:
    frames, sha256 = getattr(split, "frames", None), getattr(split, "sha256", None)
    return "absent" if split is None else f"{frames} frames {str(sha256)[:12]}..."


def aligned(saved: Mapping[str, SavedPredictions], tests: Mapping[str, Sequence[Frame]]) -> tuple[dict[str, Predictions], list[str]]:
    """(predictions by test set, every way in which their frames are not those of the protocol, in its order)."""
    reasons = [f"predictions of {name!r}, which is no test set of the protocol" for name in saved if name not in tests]
    reasons += [f"{name}: no predictions of this test set" for name in tests if name not in saved]
    predictions = {}
    for name, frames in tests.items():
        if name not in saved:
            continue
        difference = saved[name].difference_of_frames(frames)
        if difference is None and saved[name].atom_counts.tolist() != [len(frame) for frame in frames]:
            difference = "predicted forces are of other numbers of atoms than the frames have"
        if difference is None:
            predictions[name] = saved[name].of_frames(frames)
        else:
            reasons.append(f"{name}: {difference}")
    return predictions, reasons


def metric_differences(record: Record, predictions: Mapping[str, Predictions], tests: Mapping[str, Sequence[Frame]]) -> Iterator[str]:
    """One line for every metric that is not what the predictions give, is missing, or has nothing to be computed from."""
    stated = {(metric.test_set, metric.name): metric.value for metric in record.metrics}
    for name, frames in tests.items():
        try:
            computed = compute_metrics(predictions[name], frames)
        except ZooError as error:
            yield str(error)
            continue
        for metric, value in computed.items():
            found = stated.pop((name, metric), None)
            if found is None:
                yield f"{name}: {metric} is missing from the record; the predictions give {value:.6g} {METRICS[metric].unit}"
            elif not math.isclose(found, value, rel_tol=METRIC_TOLERANCE, abs_tol=METRIC_TOLERANCE):
                unit = METRICS[metric].unit
                yield (
                    f"{name}: {metric} is {found:.9g} {unit} in the record, {value:.9g} recomputed from the predictions "
                    f"(tolerance {METRIC_TOLERANCE:g} of it)"
                )
    for name, metric in stated:
        yield f"{name}: {metric} is in the record, and there are no labels to compute it from"


def copied_labels(predictions: Mapping[str, Predictions], tests: Mapping[str, Sequence[Frame]]) -> Iterator[str]:
    """One line for every way in which predictions are closer to labels than any model's are.

    Errors of a model spread over their own size, so that hardly one in a hundred thousand is below 1e-7 eV/Å, and no frame of several
    forces is right to 1e-5 of them: the best models known are at some 1e-4, and the labels' own convergence is not much better. Force
    components that symmetry makes zero are exact in any model and are left out.
    """
    for name, frames in tests.items():
        pairs = list(zip(predictions[name].forces, frames, strict=True))
        components = np.concatenate([_telling(predicted, frame) for predicted, frame in pairs])
        energies = predictions[name].energies - np.array([frame.energy for frame in frames])
        for what, errors, limit, unit in (
            ("force components", components, _EXACT_FORCE_EV_PER_ANGSTROM, "eV/Å"),
            ("energies", energies, _EXACT_ENERGY_EV, "eV"),
        ):
            known = np.abs(errors[np.isfinite(errors)])
            exact = int((known < limit).sum())
            if exact >= _FEWEST_EXACT and exact > _EXACT_SHARE * len(known):
                yield f"{name}: {exact} of {len(known)} {what} equal their labels to {limit:g} {unit}{_IMPLAUSIBLE}"
        relative = _relative_force_errors(predictions[name], frames)
        exact = int((relative < _EXACT_FRAME).sum())
        if exact:
            yield f"{name}: the forces of {exact} of {len(frames)} frames are their labels to {_EXACT_FRAME:g} of their size{_IMPLAUSIBLE}"
        known = np.abs(energies[np.isfinite(energies)])
        if len(known) >= _FEWEST_EXACT and np.median(known) < _EXACT_MEDIAN_ENERGY_EV:
            yield f"{name}: half of {len(known)} energies are their labels to {np.median(known):.1g} eV{_IMPLAUSIBLE}"


def outstanding_frames(predictions: Predictions, frames: Sequence[Frame]) -> str | None:
    """A note where some frames are predicted far better than the rest, as frames are whose labels were copied and blurred.

    A data set of calm and of hot structures may have such frames too, so that this refuses nothing.
    """
    relative = _relative_force_errors(predictions, frames)
    known = relative[np.isfinite(relative)]
    outstanding = int((known < np.median(known) / _OUTSTANDING).sum()) if len(known) else 0
    if not outstanding:
        return None
    return f"forces of {outstanding} of {len(known)} frames are over {_OUTSTANDING} times closer to their labels than the median frame's"


def _relative_force_errors(predictions: Predictions, frames: Sequence[Frame]) -> FloatArray:
    """(F,) root mean square of the force error over that of the label, by frame; NaN where few components tell."""
    found = []
    for predicted, frame in zip(predictions.forces, frames, strict=True):
        errors, label = _telling(predicted, frame), frame.forces[np.abs(frame.forces) > _TELLING_FORCE_EV_PER_ANGSTROM]
        tells = len(errors) >= _FEWEST_TELLING
        found.append(float(np.sqrt((errors**2).mean() / (label**2).mean())) if tells else np.nan)
    return np.array(found, dtype=np.float64)


def _telling(predicted: FloatArray, frame: Frame) -> FloatArray:
    """Errors of the components whose label symmetry does not make zero."""
    errors: FloatArray = (predicted - frame.forces)[np.abs(frame.forces) > _TELLING_FORCE_EV_PER_ANGSTROM]
    return errors


def warnings(predictions: Mapping[str, Predictions], splits: DataSplits) -> tuple[str, ...]:
    """What a reader should know: frames that parts share, predictions that look like another unit, and frames that stand out."""
    hints = [f"{name}: {hint}" for name, frames in splits.tests.items() for hint in unit_hints(predictions[name], frames)]
    found = {name: outstanding_frames(predictions[name], frames) for name, frames in splits.tests.items()}
    return (*splits.notes, *hints, *(f"{name}: {note}" for name, note in found.items() if note is not None))
