"""Labels in another unit or with another sign are noticed; right ones, and noise, are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.published_sets import frames_of
from zoo.data.frame import Frame
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.unit_hints import unit_hints

ATOMS = 4


def frames_and_predictions(noise: float = 0.3) -> tuple[list[Frame], Predictions]:
    """Labels of a crystal's kind and predictions that differ from them by ``noise`` times their size."""
    random = np.random.default_rng(7)
    frames, forces, stresses = [], [], []
    for index in range(5):
        force, stress = random.normal(size=(ATOMS, 3)), random.normal(size=(3, 3)) * 0.01
        frames.append(
            Frame(
                atomic_numbers=np.full(ATOMS, 29),
                positions=random.normal(size=(ATOMS, 3)),
                cell=np.eye(3) * 5,
                pbc=np.ones(3, dtype=bool),
                energy=-1.0,
                forces=force,
                stress=stress + stress.T,
                source="made",
                frame_id=index,
            )
        )
        forces.append(force + noise * random.normal(size=force.shape))
        stresses.append(stress + stress.T + noise * 0.01 * random.normal(size=(3, 3)))
    names = tuple(frame.name for frame in frames)
    return frames, Predictions(names, np.full(5, -1.0), tuple(forces), tuple(stresses))


def scaled(frames: list[Frame], forces: float = 1.0, stress: float = 1.0) -> list[Frame]:
    return [replace(frame, forces=frame.forces * forces, stress=frame.stress * stress) for frame in frames]


def test_labels_in_house_units_are_left_alone() -> None:
    frames, predictions = frames_and_predictions()
    assert unit_hints(predictions, frames) == ()


@pytest.mark.parametrize(
    ("factor", "words"),
    [(23.0605, "kcal/mol/Å"), (1 / 51.4221, "Hartree/Bohr"), (1000.0, "meV/Å"), (-1.0, "gradients instead of forces")],
)
def test_forces_a_unit_or_a_sign_away_are_named(factor: float, words: str) -> None:
    frames, predictions = frames_and_predictions()
    (hint,) = unit_hints(predictions, scaled(frames, forces=factor))
    assert words in hint


@pytest.mark.parametrize(("factor", "words"), [(160.218, "GPa"), (1602.18, "kbar"), (-1.0, "and are as large"), (-1602.18, "as kbar are")])
def test_stresses_a_unit_or_a_sign_away_are_named(factor: float, words: str) -> None:
    frames, predictions = frames_and_predictions()
    (hint,) = unit_hints(predictions, scaled(frames, stress=factor))
    assert words in hint


def test_forces_that_have_nothing_to_do_with_the_predictions_look_like_no_unit() -> None:
    frames, predictions = frames_and_predictions(noise=30.0)
    assert unit_hints(predictions, scaled(frames, forces=23.06)) == ()


def test_fixed_atoms_without_labels_do_not_hide_a_wrong_unit() -> None:
    frames, predictions = frames_and_predictions()
    masked = []
    for frame in scaled(frames, forces=23.0605):
        forces = frame.forces.copy()
        forces[0] = np.nan
        masked.append(replace(frame, forces=forces, fixed=np.arange(ATOMS) == 0))
    assert len(unit_hints(predictions, masked)) == 1


@pytest.mark.parametrize("factor", [23.0605, -1.0])
def test_one_broken_label_or_prediction_hides_no_unit_and_no_sign(factor: float) -> None:
    frames, predictions = frames_and_predictions()
    labels = scaled(frames, forces=factor)
    (usual,) = unit_hints(predictions, labels)
    broken = labels[0].forces.copy()
    broken[0] = 1e4
    (hint,) = unit_hints(predictions, [replace(labels[0], forces=broken), *labels[1:]])
    assert hint.partition(":")[2] == usual.partition(":")[2]
    blown_up = predictions.forces[0].copy()
    blown_up[0] = 1e4
    (hint,) = unit_hints(replace(predictions, forces=(blown_up, *predictions.forces[1:])), labels)
    assert hint.partition(":")[2] == usual.partition(":")[2]


@pytest.mark.usefixtures("zoo_data")
def test_forces_left_over_in_relaxed_structures_look_like_no_unit_whichever_frames_are_drawn() -> None:
    """Labels of a tenth of a model's error beside its error: small, and pointing anywhere (alexandria-random-1k)."""
    relaxed = [frame for frame in frames_of("alexandria-random-1k", "frames") if len(frame) <= 12 and np.any(frame.forces)]
    random = np.random.default_rng(0)
    hints = []
    for _ in range(200):
        frames = [relaxed[index] for index in random.choice(len(relaxed), 8, replace=False)]
        # a model's error, along what symmetry leaves free
        errors = tuple(random.choice((-1, 1)) * random.uniform(5, 100) * frame.forces for frame in frames)
        names = tuple(frame.name for frame in frames)
        predictions = Predictions(names, np.zeros(8), errors, tuple(None for _ in frames))
        hints += unit_hints(predictions, frames)
    assert len(hints) <= 20  # 115 where only the correlation of all frames together was looked at
