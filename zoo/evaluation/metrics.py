"""Error metrics as pure functions whose names state quantity, kind, unit and normalisation; no metric exists without a label.

Errors are prediction minus label. Papers mix MAE and RMSE, per structure and per atom, with and without an energy offset, so nothing here
is called just "energy error"; `METRICS` is the table that records, plots and the command line read. Every metric is computed once over all
frames: a mean of batch means would weigh a small last batch like a full one, and a mean of batch RMSEs is not an RMSE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import FloatArray, Frame
from zoo.evaluation.labelled_errors import LabelledErrors, labelled_errors
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.threshold_metrics import energy_force_within_threshold_percent, energy_within_threshold_percent, force_cosine

Kind = Literal["MAE", "RMSE", "cosine", "percent"]
VALUE_RANGES: dict[Kind, tuple[float, float | None]] = {"MAE": (0, None), "RMSE": (0, None), "cosine": (-1, 1), "percent": (0, 100)}
"""The smallest and largest value a metric of each kind can have; None where there is no largest."""

_MILLI = 1000.0


def energy_mae_mev_per_atom(energy_errors_ev: FloatArray, atom_counts: NDArray[np.int64]) -> float:
    """Mean of ``|dE| / N`` in meV/atom; ``energy_errors_ev`` (F,) total eV, ``atom_counts`` (F,)."""
    return _MILLI * _mae(energy_errors_ev / atom_counts)


def energy_rmse_mev_per_atom(energy_errors_ev: FloatArray, atom_counts: NDArray[np.int64]) -> float:
    """Root mean square of ``dE / N`` in meV/atom; ``energy_errors_ev`` (F,) total eV, ``atom_counts`` (F,)."""
    return _MILLI * _rmse(energy_errors_ev / atom_counts)


def energy_mae_mev(energy_errors_ev: FloatArray) -> float:
    """Mean of ``|dE|`` in meV per structure (papers on molecules: "per molecule"); ``energy_errors_ev`` (F,) total eV."""
    return _MILLI * _mae(energy_errors_ev)


def energy_rmse_mev(energy_errors_ev: FloatArray) -> float:
    """Root mean square of ``dE`` in meV per structure; ``energy_errors_ev`` (F,) total eV."""
    return _MILLI * _rmse(energy_errors_ev)


def energy_mae_mev_offset_removed(energy_errors_ev: FloatArray) -> float:
    """`energy_mae_mev` after subtracting the mean of ``dE``: meaningful for frames of one composition only."""
    return energy_mae_mev(energy_errors_ev - energy_errors_ev.mean())


def energy_rmse_mev_offset_removed(energy_errors_ev: FloatArray) -> float:
    """`energy_rmse_mev` after subtracting the mean of ``dE``: meaningful for frames of one composition only."""
    return energy_rmse_mev(energy_errors_ev - energy_errors_ev.mean())


def force_mae_mev_per_angstrom(force_errors: FloatArray) -> float:
    """Mean of ``|dF|`` over all Cartesian components in meV/Å; ``force_errors`` of any shape, eV/Å."""
    return _MILLI * _mae(force_errors)


def force_rmse_mev_per_angstrom(force_errors: FloatArray) -> float:
    """Root mean square of ``dF`` over all Cartesian components in meV/Å; ``force_errors`` of any shape, eV/Å."""
    return _MILLI * _rmse(force_errors)


def stress_mae_mev_per_angstrom3(stress_errors: FloatArray) -> float:
    """Mean of ``|dS|`` over all nine components in meV/Å^3; ``stress_errors`` (F, 3, 3) eV/Å^3."""
    return _MILLI * _mae(stress_errors)


def stress_rmse_mev_per_angstrom3(stress_errors: FloatArray) -> float:
    """Root mean square of ``dS`` over all nine components in meV/Å^3; ``stress_errors`` (F, 3, 3) eV/Å^3."""
    return _MILLI * _rmse(stress_errors)


def _mae(errors: FloatArray) -> float:
    return float(np.mean(np.abs(errors)))


def _rmse(errors: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


@dataclass(frozen=True)
class Metric:
    """One row of the metric table: what a number means.

    Attributes:
        label: words for an axis or a table head, without the unit.
        unit: of the value, as records carry it; empty for a cosine.
        kind: "MAE", "RMSE", "cosine" or "percent" (the share of structures that pass, 0 to 100).
        normalisation: over what the mean is taken, e.g. "per atom", and which thresholds a share has.
    """

    name: str
    label: str
    unit: str
    kind: Kind
    normalisation: str

    @property
    def better(self) -> Literal["lower", "higher"]:
        """Which of two values is the better one."""
        return "lower" if self.kind in ("MAE", "RMSE") else "higher"


@dataclass(frozen=True)
class LabelMetric(Metric):
    """A metric of predictions for labelled frames: ``value`` exists where ``defined`` says so."""

    defined: Callable[[LabelledErrors], bool]
    value: Callable[[LabelledErrors], float]


def _energy(name: str, kind: Kind, normalisation: str, value: Callable[[LabelledErrors], float], unit: str = "meV") -> LabelMetric:
    return LabelMetric(name, f"energy {kind} {normalisation}", unit, kind, normalisation, lambda errors: errors.has_energy, value)


def _offset_removed(name: str, kind: Kind, value: Callable[[LabelledErrors], float]) -> LabelMetric:
    normalisation = "per structure, offset removed"
    label = f"energy {kind} {normalisation}"
    return LabelMetric(name, label, "meV", kind, normalisation, lambda errors: errors.has_removable_offset, value)


def _forces(name: str, kind: Kind, value: Callable[[LabelledErrors], float]) -> LabelMetric:
    return LabelMetric(name, f"force {kind}", "meV/Å", kind, "per component", lambda errors: errors.has_forces, value)


def _stress(name: str, kind: Kind, value: Callable[[LabelledErrors], float]) -> LabelMetric:
    return LabelMetric(name, f"stress {kind}", "meV/Å^3", kind, "per component", lambda errors: errors.has_stress, value)


_LABEL_METRICS = (
    _energy("energy_mae_mev_per_atom", "MAE", "per atom", lambda e: energy_mae_mev_per_atom(e.energy, e.atom_counts), "meV/atom"),
    _energy("energy_rmse_mev_per_atom", "RMSE", "per atom", lambda e: energy_rmse_mev_per_atom(e.energy, e.atom_counts), "meV/atom"),
    _energy("energy_mae_mev", "MAE", "per structure", lambda e: energy_mae_mev(e.energy)),
    _energy("energy_rmse_mev", "RMSE", "per structure", lambda e: energy_rmse_mev(e.energy)),
    _offset_removed("energy_mae_mev_offset_removed", "MAE", lambda e: energy_mae_mev_offset_removed(e.energy)),
    _offset_removed("energy_rmse_mev_offset_removed", "RMSE", lambda e: energy_rmse_mev_offset_removed(e.energy)),
    _forces("force_mae_mev_per_angstrom", "MAE", lambda e: force_mae_mev_per_angstrom(e.forces)),
    _forces("force_rmse_mev_per_angstrom", "RMSE", lambda e: force_rmse_mev_per_angstrom(e.forces)),
    LabelMetric(
        "force_cosine", "force cosine", "", "cosine", "per atom",
        lambda e: e.has_force_vectors, lambda e: force_cosine(e.predicted_forces, e.label_forces),
    ),
    _stress("stress_mae_mev_per_angstrom3", "MAE", lambda e: stress_mae_mev_per_angstrom3(e.stress)),
    _stress("stress_rmse_mev_per_angstrom3", "RMSE", lambda e: stress_rmse_mev_per_angstrom3(e.stress)),
    LabelMetric(
        "energy_within_threshold_percent", "energy within threshold (EwT)", "%", "percent", "per structure, 0.02 eV",
        lambda e: e.has_energy, lambda e: energy_within_threshold_percent(e.energy),
    ),
    LabelMetric(
        "energy_force_within_threshold_percent", "energy and forces within threshold (EFwT)", "%", "percent",
        "per structure, 0.02 eV and 0.03 eV/Å",
        lambda e: e.has_energy_and_forces, lambda e: energy_force_within_threshold_percent(*e.jointly_labelled.T),
    ),
)  # fmt: skip

_RELAXATION_METRICS = (
    Metric("relaxed_energy_mae_mev", "relaxed energy MAE per structure", "meV", "MAE", "per structure"),
    Metric(
        "relaxed_energy_within_threshold_percent", "relaxed energy within threshold (EwT)", "%", "percent", "per structure, 0.02 eV"
    ),
    Metric(
        "average_distance_within_threshold_percent", "average distance within threshold (ADwT)", "%", "percent",
        "per structure, mean over 0.01 to 0.5 Å",
    ),
    Metric(
        "average_force_below_threshold_percent", "average force below threshold (AFbT)", "%", "percent",
        "per structure, mean over 0.01 to 0.4 eV/Å",
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in (*_LABEL_METRICS, *_RELAXATION_METRICS)}
"""Every metric of the project by name; those of relaxed structures are computed by `zoo.evaluation.relaxations`."""


def compute_metrics(predictions: Predictions, labels: Sequence[Frame]) -> dict[str, float]:
    """Every metric of `METRICS` that the labels define, by name; a quantity no frame is labelled with is absent, never 0.

    Raises:
        ZooError: as `labelled_errors`.
    """
    errors = labelled_errors(predictions, labels)
    return {metric.name: metric.value(errors) for metric in _LABEL_METRICS if metric.defined(errors)}
