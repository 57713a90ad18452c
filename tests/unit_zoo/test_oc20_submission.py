"""The npz of the public OC20 leaderboard: names sorted, free atoms alone, cut where numpy.split cuts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.refusals import cli_refusal, lacks, refusal_of
from tests.unit_zoo.conftest import Zoo
from tests.unit_zoo.test_readers_oc20 import record, write_lmdb
from zoo import load
from zoo.data.readers import read_structures
from zoo.evaluation.oc20_submission import SPLITS, leaderboard_arrays
from zoo.evaluation.predictions import predict_frames

NO_LABELS = {"y": None, "force": None}  # what the published test splits are


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, Path]:
    """Four LMDB files whose structures stand in no order of their names, with different numbers of fixed atoms."""
    paths = {}
    for position, split in enumerate(SPLITS):
        records = [record(number, sid=2_000 - 7 * number, fid=position, **NO_LABELS) for number in range(3 + position)]
        paths[split] = write_lmdb(tmp_path / f"{split}.lmdb", records)
    return paths


def words(splits: dict[str, Path], **options: str) -> list[str]:
    inputs = "{" + ",".join(f"{split}: '{path}'" for split, path in splits.items()) + "}"
    settings = {"output": "oc20.npz", "format": "oc20_s2ef", **options}
    return ["backbone=sevennet-0", f"input={inputs}", *(f"{key}={value}" for key, value in settings.items())]


def test_the_file_holds_what_the_model_predicts_of_every_split(splits: dict[str, Path], zoo: Zoo, tmp_path: Path) -> None:
    done = zoo("predict", *words(splits))
    assert done.code == 0, done.err
    potential = load("sevennet-0")
    with np.load(tmp_path / "oc20.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {f"{split}_{name}" for split in SPLITS for name in ("ids", "energy", "forces", "chunk_idx")}
        for split, path in splits.items():
            frames = {frame.identifier: frame for frame in read_structures(path)}
            assert arrays[f"{split}_ids"].tolist() == sorted(frames)
            forces = np.split(arrays[f"{split}_forces"], arrays[f"{split}_chunk_idx"])
            for name, energy, own in zip(arrays[f"{split}_ids"], arrays[f"{split}_energy"], forces, strict=True):
                (expected,) = potential.predict([frames[name]])
                free = frames[name].free
                assert 0 < free.sum() < len(free), "the test needs fixed and free atoms"
                assert abs(energy - expected.energy) < 1e-4
                np.testing.assert_allclose(own, expected.forces[free], atol=1e-5)


def test_is2re_has_energies_alone_and_names_without_frames(splits: dict[str, Path]) -> None:
    frames = [replace(frame, identifier=frame.identifier.split("_")[0]) for frame in read_structures(splits["id"])]
    predictions = predict_frames(load("sevennet-0"), frames)
    arrays = leaderboard_arrays("id", frames, predictions, "oc20_is2re")
    assert set(arrays) == {"id_ids", "id_energy"}
    assert arrays["id_ids"].tolist() == sorted(frame.identifier for frame in frames)
    message = refusal_of(leaderboard_arrays, "id", frames, predictions, "oc20_s2ef")
    assert not lacks(message, "sid and fid", "id split")


def test_a_structure_given_twice_is_refused(splits: dict[str, Path]) -> None:
    frames = read_structures(splits["id"])
    predictions = predict_frames(load("sevennet-0"), [*frames, frames[0]])
    assert "1 structures have a name" in refusal_of(leaderboard_arrays, "id", [*frames, frames[0]], predictions, "oc20_s2ef")


def test_a_missing_split_or_another_suffix_is_one_line_and_leaves_nothing(splits: dict[str, Path], zoo: Zoo, tmp_path: Path) -> None:
    assert not lacks(cli_refusal(zoo("predict", *words({"id": splits["id"]}))), "ood_ads, ood_cat, ood_both", "found: id")
    assert not lacks(cli_refusal(zoo("predict", *words(splits, output="oc20.txt"))), "oc20.txt", ".npz")
    assert not lacks(cli_refusal(zoo("predict", *words(splits, format="extxyz"))), "format=extxyz takes one")
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".lmdb"] * 4
