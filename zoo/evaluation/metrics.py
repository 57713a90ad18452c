"""Error metrics as pure functions whose names state quantity, kind, unit and normalisation; no metric exists without a label.

Errors are prediction minus label. Papers mix MAE and RMSE, per structure and per atom, with and without an energy offset, so nothing here
is called just "energy error"; `METRICS` is the table that records, plots and the command line read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import FloatArray, Frame
from zoo.errors import ZooError
from zoo.evaluation.predictions import Predictions, check_same_frames

Kind = Literal["MAE", "RMSE"]
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
class LabelledErrors:
    """Prediction minus label where there is a label: what every metric is computed from.

    Attributes:
        energy: (F',) eV, total, of the frames with an energy.
        atom_counts: (F',) atoms of those frames.
        one_composition: whether those frames all have the same elements in the same numbers.
        forces: (M,) eV/Å, the labelled Cartesian components of all frames.
        stress: (F'', 3, 3) eV/Å^3, of the frames with a stress label and prediction.
    """

    energy: FloatArray
    atom_counts: NDArray[np.int64]
    one_composition: bool
    forces: FloatArray
    stress: FloatArray

    @property
    def has_energy(self) -> bool:
        """Whether any frame has an energy."""
        return self.energy.size > 0

    @property
    def has_removable_offset(self) -> bool:
        """Whether a mean energy error can be told from the rest."""
        # one frame minus its own mean is 0 by construction, and over several compositions an offset is not one number
        return self.energy.size > 1 and self.one_composition

    @property
    def has_forces(self) -> bool:
        """Whether any frame has forces."""
        return self.forces.size > 0

    @property
    def has_stress(self) -> bool:
        """Whether any frame has a stress that was also predicted."""
        return self.stress.size > 0


@dataclass(frozen=True)
class Metric:
    """One row of the metric table: what a number means, when it exists, and how it is computed.

    Attributes:
        label: words for an axis or a table head, without the unit.
        unit: of the value, as records carry it.
        kind: "MAE" or "RMSE".
        normalisation: over what the mean is taken, e.g. "per atom".
    """

    name: str
    label: str
    unit: str
    kind: Kind
    normalisation: str
    defined: Callable[[LabelledErrors], bool]
    value: Callable[[LabelledErrors], float]


def _energy(name: str, kind: Kind, normalisation: str, value: Callable[[LabelledErrors], float], unit: str = "meV") -> Metric:
    return Metric(name, f"energy {kind} {normalisation}", unit, kind, normalisation, lambda errors: errors.has_energy, value)


def _offset_removed(name: str, kind: Kind, value: Callable[[LabelledErrors], float]) -> Metric:
    normalisation = "per structure, offset removed"
    return Metric(name, f"energy {kind} {normalisation}", "meV", kind, normalisation, lambda errors: errors.has_removable_offset, value)


def _forces(name: str, kind: Kind, value: Callable[[LabelledErrors], float]) -> Metric:
    return Metric(name, f"force {kind}", "meV/Å", kind, "per component", lambda errors: errors.has_forces, value)


def _stress(name: str, kind: Kind, value: Callable[[LabelledErrors], float]) -> Metric:
    return Metric(name, f"stress {kind}", "meV/Å^3", kind, "per component", lambda errors: errors.has_stress, value)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _energy("energy_mae_mev_per_atom", "MAE", "per atom", lambda e: energy_mae_mev_per_atom(e.energy, e.atom_counts), "meV/atom"),
        _energy("energy_rmse_mev_per_atom", "RMSE", "per atom", lambda e: energy_rmse_mev_per_atom(e.energy, e.atom_counts), "meV/atom"),
        _energy("energy_mae_mev", "MAE", "per structure", lambda e: energy_mae_mev(e.energy)),
        _energy("energy_rmse_mev", "RMSE", "per structure", lambda e: energy_rmse_mev(e.energy)),
        _offset_removed("energy_mae_mev_offset_removed", "MAE", lambda e: energy_mae_mev_offset_removed(e.energy)),
        _offset_removed("energy_rmse_mev_offset_removed", "RMSE", lambda e: energy_rmse_mev_offset_removed(e.energy)),
        _forces("force_mae_mev_per_angstrom", "MAE", lambda e: force_mae_mev_per_angstrom(e.forces)),
        _forces("force_rmse_mev_per_angstrom", "RMSE", lambda e: force_rmse_mev_per_angstrom(e.forces)),
        _stress("stress_mae_mev_per_angstrom3", "MAE", lambda e: stress_mae_mev_per_angstrom3(e.stress)),
        _stress("stress_rmse_mev_per_angstrom3", "RMSE", lambda e: stress_rmse_mev_per_angstrom3(e.stress)),
    )
}
"""Every metric of the project by name."""


def labelled_errors(predictions: Predictions, labels: Sequence[Frame]) -> LabelledErrors:
    """Prediction minus label wherever the label is a number.

    Raises:
        ZooError: when the two are not for the same frames, a prediction that has a label is not a number, or a potential that gives stress
            for some frames gives none for a labelled frame that is periodic in 3D.
    """
    check_same_frames(predictions, labels)
    with_energy = [index for index, frame in enumerate(labels) if frame.has_energy]
    energy_errors = np.array(
        [_error(labels[i], "energy", predictions.energies[i], labels[i].energy) for i in with_energy], dtype=np.float64
    )
    force_errors = [_error(frame, "forces", forces, frame.forces) for forces, frame in zip(predictions.forces, labels, strict=True)]
    return LabelledErrors(
        energy=energy_errors.reshape(-1),
        atom_counts=np.array([len(labels[i]) for i in with_energy], dtype=np.int64),
        one_composition=len({tuple(sorted(labels[i].atomic_numbers.tolist())) for i in with_energy}) == 1,
        forces=np.concatenate([*force_errors, np.empty(0)]),
        stress=_stress_errors(predictions, labels),
    )


def compute_metrics(predictions: Predictions, labels: Sequence[Frame]) -> dict[str, float]:
    """Every metric of `METRICS` that the labels define, by name; a quantity no frame is labelled with is absent, never 0.

    Raises:
        ZooError: as `labelled_errors`.
    """
    errors = labelled_errors(predictions, labels)
    return {name: metric.value(errors) for name, metric in METRICS.items() if metric.defined(errors)}


def _error(frame: Frame, quantity: str, prediction: FloatArray | float, label: FloatArray | float) -> FloatArray:
    """(K,) prediction minus label over the K entries whose label is a number."""
    known = np.isfinite(label)
    error: FloatArray = np.asarray(prediction, dtype=np.float64)[known] - np.asarray(label, dtype=np.float64)[known]
    if not np.isfinite(error).all():
        # masking it with the unknown labels would turn a diverged model into a good one
        raise ZooError(f"{frame.name}: the predicted {quantity} is not a number where the label is one; the model has diverged")
    return error


def _stress_errors(predictions: Predictions, labels: Sequence[Frame]) -> FloatArray:
    gives_stress = any(stress is not None for stress in predictions.stresses)
    errors = []
    for frame, stress in zip(labels, predictions.stresses, strict=True):
        if not frame.has_stress or not gives_stress:
            continue
        if stress is not None:
            errors.append(_error(frame, "stress", stress, frame.stress).reshape(3, 3))
        elif frame.pbc.all():
            raise ZooError(f"{frame.name}: labelled with a stress but predicted without one; predict stress for every 3D-periodic frame")
    return np.array(errors, dtype=np.float64).reshape(-1, 3, 3)
