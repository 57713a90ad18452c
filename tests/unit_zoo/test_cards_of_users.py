"""A user's own card, found through ZOO_SETS, is worth what a published one is; a faulty one is one line."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

import zoo.data
import zoo.data.archives
from tests.refusals import refusal_of
from zoo.data.catalogue import data_card, data_set_names
from zoo.data.config import DataConfig
from zoo.data.emt import emt_frames
from zoo.data.frame import Frame
from zoo.data.source import load_evaluated, load_splits

FACTS = {"description": "a test's own", "base_url": None, "licence": "MIT", "citation": "-", "level_of_theory": "EMT"}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's folder, in which ``sets``, ``data`` and ``cache`` are those of ZOO_SETS, ZOO_DATA and ZOO_CACHE."""
    for name in ("sets", "data", "cache"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"ZOO_{name.upper()}", str(tmp_path / name))
    return tmp_path


@pytest.fixture
def card(folders: Path) -> Callable[..., None]:
    """``card(name="mine", files={...})`` writes a card, of which only what is given differs from `FACTS`."""

    def write(**fields: Any) -> None:
        whole = {"name": "mine", **FACTS, **fields}
        (folders / "sets" / f"{whole['name'].replace('/', '-')}.yaml").write_text(yaml.safe_dump(whole))

    return write


def _write(path: Path, count: int, seed: int = 0) -> Path:
    """Labelled frames of copper and gold."""

    def labelled(frame: Frame) -> Atoms:
        atoms = frame.to_atoms()
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
        return atoms

    path.parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(path, [labelled(frame) for frame in emt_frames(count, seed, "x")], format="extxyz")
    return path


def _checked(path: Path) -> dict[str, object]:
    return {"filename": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}


def test_a_card_of_ones_own_is_split_and_named_like_any_other(folders: Path, card) -> None:
    files = {"pool": _checked(_write(folders / "data" / "pool.xyz", 20)), "held": _checked(_write(folders / "data" / "held.xyz", 5, 1))}
    protocol = {"description": "-", "source": "-", "n_train": 10, "n_valid": 4, "metrics": ["energy_mae_mev"]}
    card(
        files=files, pools={"all": "pool"}, default_pool="all", tests={"held": "held"}, protocols={"paper": protocol},
        default_protocol="paper", reference_energies={"Cu": -1.5, "Au": -2.5}, subset_of="a larger set",
    )  # fmt: skip
    assert "mine" in data_set_names()
    splits = load_splits(DataConfig(name="mine"))
    assert splits.frame_counts() == {"train": 10, "valid": 4, "held": 5}
    assert splits.protocol == "mine/all n_train=10 n_valid=4 split_seed=0 (protocol paper)"
    assert splits.isolated_atom_energies == {29: -1.5, 79: -2.5}
    assert splits.origin.metrics == ("energy_mae_mev",)
    assert splits.notes == ("mine is a subset of a larger set",)
    assert splits.train[0].level_of_theory == splits.level_of_theory == "EMT"


def test_members_of_a_collection_have_their_own_files_and_facts(folders: Path, card) -> None:
    for member, count in (("gold", 6), ("silver", 8)):
        _write(folders / "data" / f"set_{member}.xyz", count)
    card(
        name="metals", description="{member} of {atoms} atoms", members={"gold": {"atoms": 3}, "silver": {"atoms": 4}},
        files={"pool": {"filename": "set_{member}.xyz"}}, pools={"all": "pool"}, default_pool="all",
    )  # fmt: skip
    assert {name for name in data_set_names() if name.startswith("metals")} == {"metals/gold", "metals/silver"}
    assert data_card("metals/silver").description == "silver of 4 atoms"
    assert load_splits(DataConfig(name="metals/gold", n_valid=2)).frame_counts() == {"train": 4, "valid": 2}
    splits = load_splits(DataConfig(name="metals/silver", n_valid=2))
    assert splits.frame_counts() == {"train": 6, "valid": 2}
    assert "set_silver.xyz was taken by its name, nobody has verified its checksum" in splits.notes[0]
    message = refusal_of(data_card, "metals")
    assert "unknown data set 'metals'" in message
    assert "metals/" in message


def test_an_evaluation_of_a_test_set_does_without_the_pool(folders: Path, card, zoo, toy_checkpoint: Path) -> None:
    held = _checked(_write(folders / "data" / "held.xyz", 3))
    card(files={"pool": {"filename": "absent.xyz"}, "held": held}, pools={"all": "pool"}, default_pool="all", tests={"held": "held"})
    assert load_evaluated(DataConfig(name="mine"), "held").frame_counts() == {"held": 3}
    assert "mine/absent.xyz: no address is known" in refusal_of(load_splits, DataConfig(name="mine"))
    finished = zoo("evaluate", f"backbone={toy_checkpoint}", "data=mine", "split=held")
    assert finished.code == 0, finished.err
    assert "held" in finished.out
    # one that looks at the training frames needs them
    finished = zoo("evaluate", f"backbone={toy_checkpoint}", "data=mine", "split=held", "reference_energies=model")
    assert finished.code == 1
    assert "mine/absent.xyz: no address is known" in finished.err


def test_validation_frames_of_another_subset_come_from_its_own_test_set(folders: Path, card) -> None:
    files = {key: _checked(_write(folders / "data" / f"{key}.xyz", 10, seed)) for seed, key in enumerate(("a", "b", "ta", "tb"))}
    protocol = {"description": "-", "source": "-", "subset": "A", "n_valid": 3, "valid_from": "ta", "metrics": ["energy_mae_mev"]}
    card(
        files=files, pools={"A": {"files": ["a"], "tests": ["ta"]}, "B": {"files": ["b"], "tests": ["tb"]}, "free": ["a", "b"]},
        default_pool="A", tests={"ta": "ta", "tb": "tb"}, protocols={"p": protocol}, default_protocol="p",
    )  # fmt: skip
    assert {frame.source for frame in load_splits(DataConfig(name="mine")).valid} == {"ta.xyz"}
    other = load_splits(DataConfig(name="mine", subset="B", protocol="p"))
    assert other.frame_counts() == {"train": 10, "valid": 3, "tb": 7}
    assert {frame.source for frame in other.valid} == {"tb.xyz"}
    assert other.protocol.endswith("n_valid=3 from tb (changed from protocol p)")
    assert load_splits(DataConfig(name="mine", subset="free")).frame_counts() == {"train": 20, "valid": 3, "ta": 7, "tb": 10}
    for n_valid in (10, 11):
        message = refusal_of(load_splits, DataConfig(name="mine", n_valid=n_valid))
        assert f"{n_valid} validation frames and a rest cannot be drawn from the 10 of ta" in message


def test_a_protocol_may_validate_on_its_training_frames_and_the_user_may_want_others(folders: Path, card) -> None:
    files = {key: _checked(_write(folders / "data" / f"{key}.xyz", 10, seed)) for seed, key in enumerate(("a", "t"))}
    protocol = {"description": "-", "source": "-", "n_train": 10, "valid_from": "training", "tests": [], "metrics": ["energy_mae_mev"]}
    card(files=files, pools={"A": "a"}, default_pool="A", tests={"t": "t"}, protocols={"p": protocol}, default_protocol="p")
    splits = load_splits(DataConfig(name="mine"))
    assert splits.frame_counts() == {"train": 10, "valid": 10}
    assert splits.hashes["train"] == splits.hashes["valid"]
    assert list(splits.tested) == ["valid"]
    assert splits.protocol.endswith("validated on the same (protocol p)")
    assert any("10 frames are in both train and valid" in note for note in splits.notes)
    apart = load_splits(DataConfig(name="mine", n_train=7, n_valid=3))
    assert apart.frame_counts() == {"train": 7, "valid": 3}
    assert {frame.frame_id for frame in apart.train}.isdisjoint(frame.frame_id for frame in apart.valid)


def test_magnetic_frames_of_mptrj_are_chosen_as_the_card_says(folders: Path) -> None:
    # atoms and moments of each frame, and whether it belongs to the set
    kinds = [
        (2, [0.05, -0.05], False),
        (2, [0.1, 0.0], False),  # above 0.1, not from it
        (2, [0.0, -0.3], True),
        (99, [0.2] * 99, True),
        (100, [0.2] * 100, False),
        (3, None, False),
        (4, [0.11, 0.0, 0.0, 0.0], True),
        *[(2, [1.0, float(index)], True) for index in range(10)],
    ]
    frames = []
    for index, (count, moments, _) in enumerate(kinds):
        atoms = Atoms(f"Fe{count}", positions=np.arange(3 * count).reshape(-1, 3), cell=300 * np.eye(3), pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=-float(index), forces=np.zeros((count, 3)), stress=np.zeros(6))
        if moments is not None:
            atoms.arrays["magmoms"] = np.array(moments)
        ase.io.write(folders / f"mp-{index:02}.extxyz", atoms, format="extxyz")
        frames.append(folders / f"mp-{index:02}.extxyz")
    with zipfile.ZipFile(folders / "data" / "mine.zip", "w") as archive:
        for path in frames:
            archive.write(path, path.name)
    published = yaml.safe_load((Path(zoo.data.__file__).parent / "sets" / "mp-mag.yaml").read_text())
    published["name"] = "mp-mag-mine"
    published["files"]["frames"] = {"filename": "mine.zip", "labels": ["energy", "forces"]}
    (folders / "sets" / "mine.yaml").write_text(yaml.safe_dump(published))
    splits = load_splits(DataConfig(name="mp-mag-mine"))
    wanted = {-float(index) for index, (_, _, chosen) in enumerate(kinds) if chosen}
    assert {frame.energy for part in splits.parts.values() for frame in part} == wanted
    assert splits.frame_counts() == {"train": 11, "valid": 1, "test": 1}
    assert all(frame.has_magnetic_moments and frame.has_stress for frame in splits.train)
    assert "mp-mag-mine is a subset of MPtrj (1,580,395 frames)" in splits.notes
    published["select"]["min_magnetic_moment"] = 50.0
    (folders / "sets" / "mine.yaml").write_text(yaml.safe_dump({**published, "name": "none-left"}))
    zoo.data.catalogue._raw_cards.cache_clear()
    message = refusal_of(load_splits, DataConfig(name="none-left"))
    assert "no frame of frames passes the set's selection" in message


FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown archive": (
        {"files": {"pool": {"filename": "x", "archive": "tarr"}}, "archives": {"tar": {"filename": "x.tar"}}}, ["'tarr'", "'tar'"],
    ),
    "unknown file of a pool": ({"pools": {"all": "pol"}}, ["pools.all names 'pol'", "did you mean 'pool'"]),
    "unknown file of a test": ({"tests": {"t": "pol"}}, ["tests.t names 'pol'"]),
    "unknown test of a pool": ({"pools": {"all": {"files": ["pool"], "tests": ["t"]}}}, ["pools.all.tests names 't'"]),
    "no default pool": ({"default_pool": None}, ["default_pool is missing; name one of all"]),
    "unknown default protocol": ({"default_protocol": "elora"}, ["default_protocol names 'elora'"]),
    "misspelt field": ({"licnce": "MIT"}, ["licnce"]),
    "misspelt field of a file": ({"files": {"pool": {"filename": "x.xyz", "sh256": "0"}}}, ["files.pool.sh256"]),
    "unknown label": ({"files": {"pool": {"filename": "x.xyz", "labels": ["enrgy"]}}}, ["files.pool.labels.0"]),
    "protocol without metrics": ({"protocols": {"p": {"description": "-", "source": "-", "metrics": []}}}, ["protocols.p.metrics"]),
    "no element": ({"reference_energies": {"Qq": -1.0}}, ["reference_energies names 'Qq'"]),
    "unknown unit": ({"keys": {"energy_unit": "parsec"}}, ["parsec"]),
    "misspelt key": ({"keys": {"enrgy_key": "E"}}, ["keys.enrgy_key"]),
    "misspelt key of a file": ({"files": {"pool": {"filename": "x.xyz", "keys": {"enrgy_key": "E"}}}}, ["enrgy_key"]),
    "files as a list": ({"files": ["x.xyz"]}, ["files"]),
    "a file as a name": ({"files": {"pool": "x.xyz"}}, ["files.pool"]),
    "members as a list": ({"members": ["a", "b"]}, ["members"]),
    "a missing checksum list": ({"checksums": "absent.sha256"}, ["absent.sha256"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_card_is_one_line_that_names_it(fault: str, folders: Path, card) -> None:
    fields, wanted = FAULTS[fault]
    whole = {"files": {"pool": {"filename": "x.xyz"}}, "pools": {"all": "pool"}, "default_pool": "all"}
    card(name="sound", **whole)
    assert data_card("sound").default_pool == "all"  # the control
    zoo.data.catalogue._raw_cards.cache_clear()
    card(**{**whole, **fields})
    message = refusal_of(data_card, "mine/a" if "members" in fields else "mine")
    assert "mine.yaml" in message or "absent.sha256" in message
    for part in wanted:
        assert part in message


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name: [mine", "not valid YAML"),
        ("- mine", "a card is a mapping with a name"),
        ("licence: MIT", "a card is a mapping with a name"),
        ("", "mapping"),
    ],
)
def test_a_file_that_is_no_card_is_one_line(text: str, wanted: str, folders: Path) -> None:
    (folders / "sets" / "mine.yaml").write_text(text)
    message = refusal_of(data_set_names)
    assert "mine.yaml" in message
    assert wanted in message


def test_a_name_that_is_taken_is_refused(card) -> None:
    card(name="acac", files={})
    assert "a data set named 'acac' exists already; rename one of the two" in refusal_of(data_set_names)


def test_a_file_of_the_name_but_of_other_content_is_passed_over_for_the_download(folders: Path, card) -> None:
    published = _write(folders / "published" / "pool.xyz", 12)
    imposter = _write(folders / "data" / "pool.xyz", 12, seed=5)
    card(base_url=published.parent.as_uri(), files={"pool": _checked(published)}, pools={"all": "pool"}, default_pool="all")
    energies = {frame.energy for frame in emt_frames(12, 0, "x")}
    splits = load_splits(DataConfig(name="mine", n_valid=2))
    assert {round(frame.energy, 6) for part in splits.parts.values() for frame in part} == {round(energy, 6) for energy in energies}
    shutil.rmtree(folders / "cache")
    published.unlink()
    message = refusal_of(load_splits, DataConfig(name="mine", n_valid=2))
    assert published.as_uri() in message
    assert f"{imposter} has that name, but is not it: " in message


def _tar(path: Path, *members: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.add(member, f"inside/{member.name}")
    return path


def _card_of_archive(card, name: str, archive: Path, member: str = "inside/pool.xyz") -> None:
    card(
        name=name, files={"pool": {"archive": "tar", "filename": member}}, archives={"tar": _checked(archive)}, pools={"all": "pool"},
        default_pool="all",
    )  # fmt: skip


def test_an_archive_that_two_sets_share_is_unpacked_once_and_then_not_needed(folders: Path, card, monkeypatch) -> None:
    archive = _tar(folders / "data" / "shared.tar", _write(folders / "raw" / "pool.xyz", 12))
    extracted = []
    real = zoo.data.archives._extract
    monkeypatch.setattr(zoo.data.archives, "_extract", lambda *given: extracted.append(given[0]) or real(*given))
    _card_of_archive(card, "one", archive)
    _card_of_archive(card, "two", archive)
    first = load_splits(DataConfig(name="one", n_valid=2))
    assert extracted == [archive]
    assert load_splits(DataConfig(name="two", n_valid=2)).hashes == first.hashes
    assert extracted == [archive]
    archive.unlink()
    assert load_splits(DataConfig(name="two", n_valid=2)).hashes == first.hashes


def test_another_version_of_an_archive_is_not_taken_for_what_was_unpacked_before(folders: Path, card) -> None:
    archive = _tar(folders / "data" / "shared.tar", _write(folders / "raw" / "pool.xyz", 12))
    _card_of_archive(card, "one", archive)
    old = load_splits(DataConfig(name="one", n_valid=2))
    _tar(archive, _write(folders / "raw" / "pool.xyz", 15, seed=4))
    _card_of_archive(card, "two", archive)
    zoo.data.catalogue._raw_cards.cache_clear()
    new = load_splits(DataConfig(name="two", n_valid=2))
    assert (sum(old.frame_counts().values()), sum(new.frame_counts().values())) == (12, 15)
