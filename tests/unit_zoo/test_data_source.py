"""From a configuration to frames: published sets, the embedded one, and the user's files."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import ValidationError

import zoo.data
from tests.refusals import refusal_of
from zoo.data.card_files import availability, local_path
from zoo.data.cards import DataCard
from zoo.data.catalogue import data_card, data_set_names
from zoo.data.config import DataConfig
from zoo.data.emt import emt_frames
from zoo.data.frame import Frame
from zoo.data.source import load_splits
from zoo.errors import ZooError
from zoo.evaluation.metrics import METRICS


def as_atoms(frame: Frame) -> Atoms:
    atoms = frame.to_atoms()
    atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
    return atoms


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Extended XYZ files of 20, 5 and 4 frames."""
    folder = tmp_path_factory.mktemp("files")
    paths = {}
    for seed, (name, count) in enumerate({"pool": 20, "held": 5, "scan": 4}.items()):
        paths[name] = str(folder / f"{name}.xyz")
        ase.io.write(paths[name], [as_atoms(frame) for frame in emt_frames(count, 10 + seed, name)], format="extxyz")
    return paths


def test_the_embedded_set_is_the_default_and_split_by_seed() -> None:
    splits = load_splits(DataConfig(n_train=60, n_valid=20))
    assert splits.frame_counts() == {"train": 60, "valid": 20, "test": 40}
    assert splits.protocol == "emt-cuau n_train=60 n_valid=20 split_seed=0"
    assert (splits.level_of_theory, splits.licence, splits.notes) == ("EMT (ASE)", "MIT", ())
    assert splits.elements() == (29, 79)
    other = load_splits(DataConfig(n_train=60, n_valid=20, split_seed=1))
    assert other.hashes["train"] != splits.hashes["train"]
    assert other.hashes["test"] == splits.hashes["test"]


def test_one_file_is_split_into_disjoint_parts(files: dict[str, str]) -> None:
    splits = load_splits(DataConfig(name="file", path=files["pool"], n_valid=3, test_fraction=0.2, level_of_theory="EMT"))
    assert splits.frame_counts() == {"train": 13, "valid": 3, "test": 4}
    assert sorted(frame.frame_id for part in splits.parts.values() for frame in part) == list(range(20))
    assert splits.protocol == "file/pool n_train=13 n_valid=3 n_test=4 split_seed=0"
    assert splits.train[0].level_of_theory == splits.level_of_theory == "EMT"
    assert set(splits.hashes) == {"train", "valid", "test"}


def test_separate_files_keep_their_parts(files: dict[str, str]) -> None:
    config = DataConfig(name="file", train=files["pool"], valid=files["held"], test=[files["scan"]])
    assert load_splits(config).frame_counts() == {"train": 20, "valid": 5, "scan": 4}
    named = DataConfig(name="file", train=files["pool"], n_train=7, test={"train": files["scan"]})
    assert load_splits(named).frame_counts() == {"train": 7, "valid": 2, "test_train": 4}


def test_a_test_file_that_repeats_training_frames_is_noted(files: dict[str, str]) -> None:
    splits = load_splits(DataConfig(name="file", path=files["pool"], n_train=10, n_valid=5, test=files["pool"]))
    assert splits.notes == (
        "10 frames are in both train and pool: errors on pool are too optimistic",
        "5 frames are in both valid and pool: errors on pool are too optimistic",
    )


def test_a_label_in_the_loss_must_be_there(files: dict[str, str]) -> None:
    with pytest.raises(ZooError, match=r"pool.xyz: frame \d+ has no 'stress'; pass data.stress_key"):
        load_splits(DataConfig(name="file", path=files["pool"]), needs=("energy", "forces", "stress"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "acacc"}, "did you mean 'acac'"),
        ({"name": "emt-cuau", "forces_key": "F"}, "data.forces_key=F belongs to data=file"),
        ({"name": "emt-cuau", "path": "x.xyz"}, "data.path=x.xyz belongs to data=file"),
        ({"name": "emt-cuau", "subset": "300K"}, "data.subset=300K has no effect"),
        ({"name": "emt-cuau", "n_train": 79, "n_valid": 2}, "80 frames cannot give n_train=79, n_valid=2"),
        ({"name": "emt-cuau", "test": "tests"}, "did you mean 'test'"),
        ({"name": "emt-cuau", "test": {"a": "b"}}, "brings its own test sets"),
        ({"name": "file"}, "wants either data.path=FILE"),
        ({"name": "file", "path": "a.xyz", "train": "b.xyz"}, "wants either data.path=FILE"),
        ({"name": "file", "path": "a.xyz", "valid": "b.xyz"}, "rename data.path to data.train"),
        ({"name": "file", "train": "a.xyz", "valid": "b.xyz", "n_valid": 3}, "have no effect where data.valid"),
        ({"name": "file", "path": "a.xyz", "subset": "300K"}, "data.subset=300K belongs to a published set"),
        ({"name": "file", "path": "absent.xyz"}, "absent.xyz: does not exist"),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_line(options: dict[str, object], message: str) -> None:
    assert re.search(message, refusal_of(load_splits, DataConfig.model_validate(options)))


def test_two_test_files_of_one_name_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    shutil.copy(files["scan"], tmp_path / "scan.xyz")
    with pytest.raises(ZooError, match="two files of one name"):
        load_splits(DataConfig(name="file", path=files["pool"], test=[files["scan"], str(tmp_path / "scan.xyz")]))


def test_misspelt_keys_and_impossible_values_are_refused_by_the_schema() -> None:
    for options in ({"n_trian": 5}, {"n_train": 0}, {"valid_fraction": 1.5}, {"energy_unit": "electronvolt"}):
        with pytest.raises(ValidationError):
            DataConfig.model_validate(options)


@pytest.mark.parametrize("name", data_set_names())
def test_every_card_is_whole(name: str) -> None:
    card = data_card(name)
    pools = [key for pool in card.pools.values() for key in pool.files]
    tests = [key for keys in card.tests.values() for key in keys]
    assert card.name == name
    assert set(card.files) == {*pools, *tests, *filter(None, (card.isolated_atoms, card.linear_references))}, "a file plays no part"
    assert set(card.archives) == {file.archive for file in card.files.values()} - {None}, "an archive that no file is in"
    assert card.default_protocol in card.protocols if card.protocols else card.tests, "neither a protocol nor a test to evaluate"
    assert {metric for protocol in card.protocols.values() for metric in protocol.metrics} <= set(METRICS)
    assert all(len(file.sha256) == 64 for file in card.files.values() if file.sha256)
    assert availability(card).keys() == card.files.keys()


def test_a_name_that_a_card_only_seems_to_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(zoo.data.__file__).parent / "sets" / "acac.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(
        text.replace("name: acac", "name: mine").replace("[test_1200K]", "").replace("default_pool: ", "default_pool: 9")
    )
    monkeypatch.setenv("ZOO_SETS", str(tmp_path))
    assert "mine" in data_set_names()
    assert "default_pool names" in refusal_of(data_card, "mine")


def _small_card(files: dict[str, str], base_url: str) -> DataCard:
    content = Path(files["pool"]).read_bytes()
    entry = {"filename": "pool.xyz", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "labels": ["energy", "forces"]}
    fields = {
        "name": "small", "description": "a test's own", "base_url": base_url, "licence": "MIT", "citation": "-", "level_of_theory": "EMT",
        "files": {"pool": entry}, "pools": {"all": "pool"}, "default_pool": "all",
    }  # fmt: skip
    return DataCard.model_validate(fields)


def test_a_published_file_is_recognised_by_content_under_any_name(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "my downloads" / "deeper"
    folder.mkdir(parents=True)
    impostor = folder / "pool.xyz"
    impostor.write_bytes(b"x" * Path(files["pool"]).stat().st_size)
    renamed = folder / "renamed.txt"
    shutil.copy(files["pool"], renamed)
    assert local_path(_small_card(files, "http://host.invalid"), "pool")[0] == renamed


def test_a_published_file_is_downloaded_once_into_the_cache(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_DATA", raising=False)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    found, _ = local_path(_small_card(files, Path(files["pool"]).parent.as_uri()), "pool")
    assert found == tmp_path / "cache" / "data" / "small" / "pool.xyz"
    assert found.read_bytes() == Path(files["pool"]).read_bytes()
    assert local_path(_small_card(files, "http://host.invalid"), "pool")[0] == found


def test_acac_is_read_whole(zoo_data: Path) -> None:
    splits = load_splits(DataConfig(name="acac", n_train=50, n_valid=50))
    assert splits.protocol == "acac/300K n_train=50 n_valid=50 split_seed=0"
    assert list(splits.frame_counts().items()) == [
        ("train", 50),
        ("valid", 50),
        ("test_300K", 650),
        ("test_600K", 650),
        ("test_dihedral", 45),
        ("test_H_transfer", 15),
    ]
    assert splits.level_of_theory == "PBE+D3/def2-SVP"
    assert splits.isolated_atom_energies == {1: -13.568422178253735, 6: -1026.8538996116154, 8: -2037.796869412825}
    assert all(frame.has_forces for frame in splits.tests["test_600K"])
    assert not any(frame.has_forces for frame in splits.tests["test_dihedral"])
    # the first frame of the published test file, read by eye
    first = splits.tests["test_300K"][0]
    assert first.energy == -9391.254099941396
    assert first.forces[0].tolist() == [-0.54831629, 1.31972321, -1.35368428]


def test_acac_offers_its_other_subset_and_single_test_sets(zoo_data: Path) -> None:
    splits = load_splits(DataConfig(name="acac", subset="600K", test=["test_dihedral"], n_train=5, n_valid=5))
    assert splits.train[0].source == "train_600K.xyz"
    assert set(splits.tests) == {"test_dihedral"}
    with pytest.raises(ZooError, match="did you mean '600K'"):
        load_splits(DataConfig(name="acac", subset="600"))
