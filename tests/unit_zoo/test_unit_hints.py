"""Labels in another unit or with another sign are noticed; right ones, and noise, are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

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


@pytest.mark.parametrize(("factor", "words"), [(160.218, "GPa"), (1602.18, "kbar"), (-1.0, "-kbar"), (-1602.18, "-kbar")])
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
