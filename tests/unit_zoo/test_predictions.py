"""Predicting in batches and writing the answer as extended XYZ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from zoo.data.frame import FloatArray, Frame
from zoo.errors import ZooError
from zoo.evaluation.predictions import MOST_ATOMS_IN_A_BATCH, Predictions, predict_frames, write_extxyz


@dataclass
class Answer:
    energy: float
    forces: FloatArray
    stress: FloatArray | None


class Harmonic:
    """E = sum |r|^2 / 2 in float32, as many potentials answer; remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, frames: Sequence[Frame], /, batch_size: int = 8) -> list[Answer]:
        self.batches.append(len(frames))
        stress = np.diag([1.0, 2.0, 3.0]) / 100
        return [
            Answer(float((f.positions**2).sum() / 2), (-f.positions).astype(np.float32), stress if f.pbc.all() else None) for f in frames
        ]


def frames() -> list[Frame]:
    molecule = Frame.unlabelled(Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.13]]), "co.xyz", 3)
    crystal = Frame.unlabelled(Atoms("Cu", positions=[[0.1, 0.2, 0.3]], cell=np.eye(3) * 2.6, pbc=True), "cu.xyz")
    return [replace(molecule, energy=-14.25, forces=np.full((2, 3), 0.5), level_of_theory="PBE"), crystal]


def test_batches_cover_every_frame_once_and_in_order() -> None:
    potential, many, done = Harmonic(), frames() * 3 + frames()[:1], list[int]()
    answer = predict_frames(potential, many, batch_size=3, progress=done.append)
    assert potential.batches == [3, 3, 1]
    assert done == [3, 6, 7]
    assert answer.names == tuple(frame.name for frame in many)
    np.testing.assert_array_equal(answer.energies, [(frame.positions**2).sum() / 2 for frame in many])
    assert answer.forces[0].dtype == np.float64


def test_large_structures_get_smaller_batches() -> None:
    potential = Harmonic()
    large = Frame.unlabelled(
        Atoms(f"Cu{MOST_ATOMS_IN_A_BATCH // 2}", positions=np.random.default_rng(0).random((MOST_ATOMS_IN_A_BATCH // 2, 3)))
    )
    beyond = Frame.unlabelled(Atoms(f"Cu{MOST_ATOMS_IN_A_BATCH + 1}"))
    small = frames()[1]
    answer = predict_frames(potential, [large, large, small, beyond, small, small], batch_size=4)
    assert potential.batches == [2, 1, 1, 2]
    assert len(answer) == 6


def test_no_frames_give_empty_predictions() -> None:
    assert len(predict_frames(Harmonic(), [])) == 0


def test_extxyz_read_by_ase_returns_predictions_and_keeps_the_labels_apart(tmp_path: Path) -> None:
    answer = predict_frames(Harmonic(), frames())
    write_extxyz(tmp_path / "new" / "out.xyz", frames(), answer)
    molecule, crystal = ase.io.read(tmp_path / "new" / "out.xyz", index=":")
    assert molecule.get_potential_energy() == answer.energies[0]
    np.testing.assert_allclose(molecule.get_forces(), answer.forces[0], atol=1e-8)
    assert molecule.info["reference_energy"] == -14.25
    assert molecule.info["level_of_theory"] == "PBE"
    assert (molecule.info["source"], molecule.info["frame_id"]) == ("co.xyz", 3)
    np.testing.assert_array_equal(molecule.arrays["reference_forces"], np.full((2, 3), 0.5))
    np.testing.assert_allclose(crystal.get_stress(voigt=False), np.diag([0.01, 0.02, 0.03]))
    assert "reference_energy" not in crystal.info
    assert "stress" not in molecule.calc.results
    assert crystal.pbc.all()
    assert not molecule.pbc.any()


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.xyz"
    path.write_text("old")
    answer = predict_frames(Harmonic(), frames())

    def full_disk(partial: Path, *_: object, **__: object) -> None:
        Path(partial).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.evaluation.predictions.ase_write", full_disk)
    with pytest.raises(ZooError, match=r"out.xyz: .*No space left"):
        write_extxyz(path, frames(), answer)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.xyz"]


def test_predictions_with_missing_entries_or_wrong_shapes_are_refused() -> None:
    with pytest.raises(ZooError, match="unequal length"):
        Predictions(("a",), np.zeros(2), (np.zeros((1, 3)),), (None,))
    with pytest.raises(ZooError, match=r"a: predicted forces have shape \(3,\)"):
        Predictions(("a",), np.zeros(1), (np.zeros(3),), (None,))
    with pytest.raises(ZooError, match=r"a: predicted stress has shape \(6,\)"):
        Predictions(("a",), np.zeros(1), (np.zeros((1, 3)),), (np.zeros(6),))
    with pytest.raises(ZooError, match="predictions for 1 frames"):
        write_extxyz(Path("unused.xyz"), frames()[:1], predict_frames(Harmonic(), frames()))
