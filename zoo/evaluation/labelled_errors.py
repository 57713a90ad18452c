"""Predictions against labels, entry by entry, wherever there is a label: what every metric of `zoo.evaluation.metrics` is computed from.

A label that is not a number is no label, for each atom by itself: the forces of fixed atoms that a reader left out count nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import FloatArray, Frame
from zoo.errors import ZooError
from zoo.evaluation.predictions import Predictions, check_same_frames


@dataclass(frozen=True)
class LabelledErrors:
    """Prediction minus label where there is a label, over all frames at once.

    Attributes:
        energy: (F',) eV, total, of the frames with an energy.
        atom_counts: (F',) atoms of those frames.
        one_composition: whether those frames all have the same elements in the same numbers.
        forces: (M,) eV/Å, the labelled Cartesian components of all frames.
        predicted_forces: (A, 3) eV/Å, of the atoms whose three components are labelled.
        label_forces: (A, 3) eV/Å, the labels of those atoms.
        jointly_labelled: (K, 2) of the frames with an energy and with forces on every free atom: the energy error in eV, and the largest
            absolute error of a labelled force component in eV/Å.
        stress: (F'', 3, 3) eV/Å^3, of the frames with a stress label and prediction.
    """

    energy: FloatArray
    atom_counts: NDArray[np.int64]
    one_composition: bool
    forces: FloatArray
    predicted_forces: FloatArray
    label_forces: FloatArray
    jointly_labelled: FloatArray
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
    def has_force_vectors(self) -> bool:
        """Whether the whole force on any atom is known."""
        return self.label_forces.size > 0

    @property
    def has_energy_and_forces(self) -> bool:
        """Whether any frame has an energy and all its forces."""
        return self.jointly_labelled.size > 0

    @property
    def has_stress(self) -> bool:
        """Whether any frame has a stress that was also predicted."""
        return self.stress.size > 0


def labelled_errors(predictions: Predictions, labels: Sequence[Frame]) -> LabelledErrors:
    """Prediction minus label wherever the label is a number.

    Raises:
        ZooError: when the two are not for the same frames, a prediction that has a label is not a number, or a potential that gives stress
            for some frames gives none for a labelled frame that is periodic in 3D.
    """
    check_same_frames(predictions, labels)
    energy_errors = {
        index: errors_where_labelled(frame, "energy", predictions.energies[index], frame.energy)[0]
        for index, frame in enumerate(labels)
        if frame.has_energy
    }
    force_errors = [
        errors_where_labelled(frame, "forces", forces, frame.forces) for forces, frame in zip(predictions.forces, labels, strict=True)
    ]
    whole = [np.isfinite(frame.forces).all(axis=1) for frame in labels]  # F masks (N,)
    joint = [
        (energy_errors[index], np.abs(force_errors[index]).max())
        for index, frame in enumerate(labels)
        if index in energy_errors and frame.has_forces
    ]
    return LabelledErrors(
        energy=np.array(list(energy_errors.values()), dtype=np.float64),
        atom_counts=np.array([len(labels[index]) for index in energy_errors], dtype=np.int64),
        one_composition=len({tuple(sorted(labels[index].atomic_numbers.tolist())) for index in energy_errors}) == 1,
        forces=np.concatenate([*force_errors, np.empty(0)]),
        predicted_forces=_rows(forces[atoms] for forces, atoms in zip(predictions.forces, whole, strict=True)),
        label_forces=_rows(frame.forces[atoms] for frame, atoms in zip(labels, whole, strict=True)),
        jointly_labelled=np.array(joint, dtype=np.float64).reshape(-1, 2),
        stress=_stress_errors(predictions, labels),
    )


def errors_where_labelled(frame: Frame, quantity: str, prediction: FloatArray | float, label: FloatArray | float) -> FloatArray:
    """(K,) prediction minus label over the K entries whose label is a number.

    Raises:
        ZooError: where one of those predictions is not a number; masking it with the unknown labels would turn a diverged model into a
            good one.
    """
    known = np.atleast_1d(np.isfinite(label))
    predicted, wanted = np.atleast_1d(np.asarray(prediction, dtype=np.float64)), np.atleast_1d(np.asarray(label, dtype=np.float64))
    error: FloatArray = predicted[known] - wanted[known]
    if not np.isfinite(error).all():
        raise ZooError(f"{frame.name}: the predicted {quantity} is not a number where the label is one; the model has diverged")
    return error


def _rows(arrays: Iterable[FloatArray]) -> FloatArray:
    """(A, 3) float64 from arrays of (n, 3), which may be none at all."""
    return np.concatenate([*arrays, np.empty((0, 3))], dtype=np.float64)


def _stress_errors(predictions: Predictions, labels: Sequence[Frame]) -> FloatArray:
    gives_stress = any(stress is not None for stress in predictions.stresses)
    errors = []
    for frame, stress in zip(labels, predictions.stresses, strict=True):
        if not frame.has_stress or not gives_stress:
            continue
        if stress is not None:
            errors.append(errors_where_labelled(frame, "stress", stress, frame.stress).reshape(3, 3))
        elif frame.pbc.all():
            raise ZooError(f"{frame.name}: labelled with a stress but predicted without one; predict stress for every 3D-periodic frame")
    return np.array(errors, dtype=np.float64).reshape(-1, 3, 3)
