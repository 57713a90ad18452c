"""What a potential says about a list of frames, and how it is written to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from zoo.data.frame import FloatArray, Frame
from zoo.errors import ZooError
from zoo.files import write_atomically


class Graphs(Protocol):
    """Graphs of frames by index, as `zoo.data.loader.StoredGraphs`."""

    def __getitem__(self, index: int, /) -> Any: ...


class PredictionLike(Protocol):
    """The answer for one structure: energy in eV, forces (N, 3) eV/Å, stress (3, 3) eV/Å^3 or None where it has none."""

    @property
    def energy(self) -> float:
        """Total energy in eV."""
        ...

    @property
    def forces(self) -> NDArray[Any]:
        """(N, 3) eV/Å."""
        ...

    @property
    def stress(self) -> NDArray[Any] | None:
        """(3, 3) eV/Å^3 or None."""
        ...


class Predictor(Protocol):
    """Anything that predicts frames as `zoo.Potential` does; keeps this package free of torch."""

    def predict(self, frames: Sequence[Any], /, batch_size: int = 8) -> Sequence[PredictionLike]:
        """One answer a frame, or a graph of one, in their order."""
        ...


@dataclass(frozen=True)
class Predictions:
    """Predictions for F frames, in the order of the frames.

    Attributes:
        names: F frame names, as `Frame.name`.
        energies: (F,) eV, total.
        forces: F arrays (N, 3) eV/Å.
        stresses: F arrays (3, 3) eV/Å^3 in ASE's sign, None where the potential gives none (not periodic in 3D).

    Raises:
        ZooError: when the four do not have the same length or an array has the wrong shape.
    """

    names: tuple[str, ...]
    energies: FloatArray
    forces: tuple[FloatArray, ...]
    stresses: tuple[FloatArray | None, ...]

    def __post_init__(self) -> None:
        lengths = {"names": len(self.names), "energies": len(self.energies), "forces": len(self.forces), "stresses": len(self.stresses)}
        if len(set(lengths.values())) > 1:
            raise ZooError(f"predictions of unequal length: {lengths}; give one entry a frame in each")
        for name, forces, stress in zip(self.names, self.forces, self.stresses, strict=True):
            if forces.ndim != 2 or forces.shape[1] != 3:
                raise ZooError(f"{name}: predicted forces have shape {forces.shape}, wanted (atoms, 3)")
            if stress is not None and stress.shape != (3, 3):
                raise ZooError(f"{name}: predicted stress has shape {stress.shape}, wanted (3, 3)")

    def __len__(self) -> int:
        return len(self.names)


MOST_ATOMS_IN_A_BATCH = 768
"""16 cells of 108 copper atoms in one pass of SevenNet-0 with forces take 8 GB; a data set's largest cells decide, not its usual ones."""


def predict_frames(
    potential: Predictor,
    frames: Sequence[Frame],
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
    graphs: Graphs | None = None,
) -> Predictions:
    """Predict every frame, ``batch_size`` at a time, or fewer where they are large.

    Args:
        potential: usually a `zoo.Potential`.
        frames: their labels are not used.
        batch_size: structures a forward pass, at the most; also at most `MOST_ATOMS_IN_A_BATCH` atoms, unless one structure has more.
        progress: called after every batch with the number of frames done so far.
        graphs: of the frames, by the potential's recipe, where they are known.
    """
    answers: list[PredictionLike] = []
    for batch in _answers(potential, frames, batch_size, graphs):
        answers.extend(batch)
        if progress is not None:
            progress(len(answers))
    return Predictions(
        names=tuple(frame.name for frame in frames),
        energies=np.array([answer.energy for answer in answers], dtype=np.float64),
        forces=tuple(np.asarray(answer.forces, dtype=np.float64) for answer in answers),
        stresses=tuple(None if answer.stress is None else np.asarray(answer.stress, dtype=np.float64) for answer in answers),
    )


def predict_energies(potential: Predictor, frames: Sequence[Frame], batch_size: int = 8, graphs: Graphs | None = None) -> FloatArray:
    """(F,) eV: the energies of `predict_frames`, which keeps the forces of all frames too."""
    energies = [answer.energy for batch in _answers(potential, frames, batch_size, graphs) for answer in batch]
    return np.array(energies, dtype=np.float64)


def _answers(potential: Predictor, frames: Sequence[Frame], batch_size: int, graphs: Graphs | None) -> Iterator[Sequence[PredictionLike]]:
    done = 0
    for batch in _batches(frames, batch_size):
        given = batch if graphs is None else [graphs[done + place] for place in range(len(batch))]
        yield potential.predict(given, batch_size=len(batch))
        done += len(batch)


def _batches(frames: Sequence[Frame], batch_size: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        if batch and (len(batch) == batch_size or sum(map(len, batch)) + len(frame) > MOST_ATOMS_IN_A_BATCH):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


def write_extxyz(path: Path, frames: Sequence[Frame], predictions: Predictions) -> None:
    """Write predictions as extended XYZ, whole or not at all.

    Predicted values stand under the usual keys ``energy``, ``forces``, ``stress``, which ASE reads back as results; labels that a frame
    has are kept beside them as ``reference_energy``, ``reference_forces`` and ``reference_stress``. What else the structures'
    file held is not known to a `Frame` and not written. ASE writes positions and forces with eight decimals, energies and stresses in full.

    Raises:
        ZooError: when frames and predictions do not match, or the file cannot be written.
    """
    check_same_frames(predictions, frames)
    images = [_labelled_atoms(frame, predictions, index) for index, frame in enumerate(frames)]
    write_atomically(path, lambda partial: ase_write(partial, images, format="extxyz"))


def check_same_frames(predictions: Predictions, frames: Sequence[Frame]) -> None:
    """Raise `ZooError` unless ``predictions`` are for ``frames``: same number, same atom counts, in the same order."""
    if len(predictions) != len(frames):
        raise ZooError(f"{len(predictions)} predictions for {len(frames)} frames; predict and compare the same frames")
    for name, forces, frame in zip(predictions.names, predictions.forces, frames, strict=True):
        if len(forces) != len(frame):
            raise ZooError(f"{frame.name}: {len(frame)} atoms, but the prediction {name!r} has {len(forces)}; keep the order of the frames")


def _labelled_atoms(frame: Frame, predictions: Predictions, index: int) -> Any:
    atoms = frame.to_atoms()
    stress = predictions.stresses[index]
    results: dict[str, Any] = {"energy": float(predictions.energies[index]), "forces": predictions.forces[index]}
    if stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(stress)
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update(source=frame.source, frame_id=frame.frame_id)
    if frame.level_of_theory:
        atoms.info["level_of_theory"] = frame.level_of_theory
    if frame.has_energy:
        atoms.info["reference_energy"] = float(frame.energy)
    if frame.has_stress:
        atoms.info["reference_stress"] = frame.stress
    if frame.has_forces:
        atoms.arrays["reference_forces"] = frame.forces
    return atoms
