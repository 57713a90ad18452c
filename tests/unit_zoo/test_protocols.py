"""Published sets are split as their protocols say, the protocol line says when they were not, and nothing is read that nobody looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.refusals import refusal_of
from zoo.data.catalogue import data_card
from zoo.data.config import DataConfig
from zoo.data.frame import Frame
from zoo.data.parts import DataSplits
from zoo.data.source import load_evaluated, load_splits
from zoo.errors import ZooError

ACAC_TESTS = {"test_300K": 650, "test_600K": 650, "test_dihedral": 45, "test_H_transfer": 15}

# set, protocol (None: the default), other options, frames by part, and the protocol line
PROTOCOLS = [
    ("rmd17/ethanol", None, {}, {"train": 950, "valid": 50, "test_1": 1000}, "1 n_train=950 n_valid=50 split_seed=0 (protocol official)"),
    ("rmd17/ethanol", "elora", {}, {"train": 50, "valid": 50, "test_1": 1000}, "1 n_train=50 n_valid=50 split_seed=0 (protocol elora)"),
    ("rmd17/ethanol", "sparse", {}, {"train": 1000, "valid": 200, "test_1": 800}, "n_valid=200 from test_1 (protocol sparse)"),
    (
        "3bpa", "elora", {"test": ["test_300K"]}, {"train": 450, "valid": 50, "test_300K": 1669},
        "300K n_train=450 n_valid=50 split_seed=0 (protocol elora)",
    ),
    (
        "3bpa", "mixedT", {"test": ["test_300K", "test_600K"]}, {"train": 450, "valid": 50, "test_300K": 1669, "test_600K": 2138},
        "mixedT n_train=450 n_valid=50 split_seed=0 (protocol mixedT)",
    ),
    ("acac", None, {}, {"train": 450, "valid": 50, **ACAC_TESTS}, "300K n_train=450 n_valid=50 split_seed=0 (protocol full)"),
    ("acac", "few-shot", {}, {"train": 50, "valid": 50, **ACAC_TESTS}, "300K n_train=50 n_valid=50 split_seed=0 (protocol few-shot)"),
    # 8:1:1
    ("lam/sse-pbe-ligeps", "subset-mae", {}, {"train": 2799, "valid": 350, "test": 350}, "n_test=350 split_seed=0 (protocol subset-mae)"),
    # 77 structures that the set holds twice, some of them shifted, are drawn once
    (
        "lam/hfo2-init", "subset-rmse", {}, {"train": 883, "valid": 110, "test": 110},
        "n_test=110 split_seed=0 (repeated frames left out: 77) (protocol subset-rmse)",
    ),
    (
        "cu-snap", None, {}, {"train": 235, "valid": 29, "test": 29},
        "n_train=235 n_valid=29 n_test=29 split_seed=0 (repeated frames left out: 1) (protocol random)",
    ),
    ("mptrj-1k", None, {}, {"train": 800, "valid": 100, "test": 100}, "n_train=800 n_valid=100 n_test=100 split_seed=0 (protocol random)"),
    ("nio-deltaspin", None, {}, {"train": 108, "valid": 12, "data_2": 31}, "n_train=108 n_valid=12 split_seed=0 (protocol example)"),
    (
        "oc20/samples", None, {}, {"train": 37, "valid": 5, "slab": 1, "test": 5},
        "trajectory n_train=37 n_valid=5 n_test=5 split_seed=0 (protocol random)",
    ),
    ("chgnet-vasp", None, {}, {"outcar": 1, "vasprun": 1}, "chgnet-vasp tests alone (protocol single)"),
]  # fmt: skip


@pytest.fixture
def here(on_disk: Callable[..., Path]):
    """Loads a set; the test skips where ZOO_DATA lacks a file of its default pool."""

    def load(name: str, **options: object) -> DataSplits:
        card = data_card(name)
        for key in card.pool(None)[1].files if card.pools else card.files:
            on_disk(name, key)
        return load_splits(DataConfig.model_validate({"name": name, **options}))

    return load


def _ids(frames: list[Frame]) -> set[tuple[str, int]]:
    return {(frame.source, frame.frame_id) for frame in frames}


def _pairs(splits: DataSplits) -> Iterator[tuple[str, str]]:
    """Every two parts."""
    names = list(splits.parts)
    return ((first, second) for at, first in enumerate(names) for second in names[at + 1 :])


@pytest.mark.parametrize(("name", "protocol", "options", "counts", "line"), PROTOCOLS, ids=[f"{one[0]}-{one[1]}" for one in PROTOCOLS])
def test_a_protocol_gives_its_counts_apart_from_each_other_and_is_named(here, name, protocol, options, counts, line) -> None:
    splits = here(name, **({"protocol": protocol} if protocol else {}), **options)
    assert splits.frame_counts() == counts
    assert splits.protocol.endswith(line)
    assert splits.protocol.startswith(name)
    assert not [pair for pair in _pairs(splits) if _ids(splits.parts[pair[0]]) & _ids(splits.parts[pair[1]])]
    assert {part: len(_ids(frames)) for part, frames in splits.parts.items()} == counts
    assert splits.origin.metrics == data_card(name).protocol(protocol)[1].metrics


def test_validation_frames_of_the_sparse_protocol_are_those_that_left_the_test_set(here) -> None:
    sparse, official = here("rmd17/ethanol", protocol="sparse"), here("rmd17/ethanol")
    assert _ids(sparse.valid) | _ids(sparse.tests["test_1"]) == _ids(official.tests["test_1"])
    assert not _ids(sparse.valid) & _ids(sparse.tests["test_1"])
    assert _ids(sparse.train) == _ids(official.train) | _ids(official.valid)


CHANGED = [
    ({}, " (protocol full)"),
    ({"protocol": "few-shot"}, " (protocol few-shot)"),
    ({"n_train": 20}, "n_train=20 n_valid=50 split_seed=0"),
    ({"subset": "600K"}, "split_seed=0"),
    ({"protocol": "few-shot", "n_train": 20}, " (changed from protocol few-shot)"),
    ({"protocol": "few-shot", "valid_fraction": 0.5}, "n_valid=250 split_seed=0 (changed from protocol few-shot)"),
    ({"protocol": "few-shot", "subset": "600K"}, " (changed from protocol few-shot)"),
    # another seed and fewer test sets change no size: the protocol is followed
    ({"protocol": "few-shot", "split_seed": 3}, "split_seed=3 (protocol few-shot)"),
]


@pytest.mark.parametrize(("options", "ending"), CHANGED, ids=[str(options) for options, _ in CHANGED])
def test_the_protocol_line_says_what_was_changed_and_nothing_where_none_was_asked_for(here, options, ending) -> None:
    line = here("acac", test=["test_dihedral"], **options).protocol
    assert line.endswith(ending)
    assert ("protocol" in line) == ("protocol" in ending)


def test_the_same_seed_gives_the_same_frames_and_another_seed_others(here) -> None:
    first, again, other = (here("rmd17/ethanol", protocol="sparse", split_seed=seed) for seed in (1, 1, 2))
    assert first.hashes == again.hashes
    assert first.hashes["valid"] != other.hashes["valid"]
    assert first.hashes["test_1"] != other.hashes["test_1"]
    assert first.hashes["train"] == other.hashes["train"]  # all 1,000, whatever the seed
    drawn = [here("rmd17/ethanol", protocol="elora", split_seed=seed).hashes["train"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_more_training_frames_keep_validation_and_test(here) -> None:
    small, large = (here("oxides", n_train=count) for count in (20, 200))
    assert small.hashes["valid"] == large.hashes["valid"]
    assert small.hashes["test"] == large.hashes["test"]
    assert _ids(small.train) < _ids(large.train)


def test_a_subset_may_be_given_as_a_number(here) -> None:
    splits = here("rmd17/ethanol", subset=1, n_train=5, n_valid=5, test=[])
    assert splits.protocol.startswith("rmd17/ethanol/1 n_train=5")
    with pytest.raises(ZooError, match="no subset '6'"):
        here("rmd17/ethanol", subset=6)


def test_the_test_set_of_another_split_is_refused_with_the_reason_and_a_way(here) -> None:
    assert refusal_of(here, "rmd17/ethanol", subset=1, test=["test_2"]) == (
        "rmd17/ethanol: test set 'test_2' shares frames with the training pool; take one of test_1, or evaluate it by name "
        "(zoo evaluate split=test_2)"
    )
    assert set(here("rmd17/ethanol", subset=1, test=["test_1"]).tests) == {"test_1"}


def test_an_evaluation_of_a_test_set_leaves_the_pool_unread_and_validation_frames_out_of_it(here, monkeypatch) -> None:
    import zoo.data.named

    read = []
    real = zoo.data.named.read_card_file
    monkeypatch.setattr(zoo.data.named, "read_card_file", lambda card, key, *rest: read.append(key) or real(card, key, *rest))
    whole = here("rmd17/ethanol", protocol="sparse")
    assert read == ["train_1", "test_1"]
    read.clear()
    config = DataConfig(name="rmd17/ethanol", protocol="sparse")
    alone = load_evaluated(config, "test_1")
    assert read == ["test_1"]
    assert (alone.train, alone.valid) == ([], [])
    assert alone.hashes == {"test_1": whole.hashes["test_1"]}
    assert load_evaluated(config, "test_1", with_training=True).hashes["train"] == whole.hashes["train"]


def test_upstreams_lists_of_a_lam_set_are_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a folder as its archive unpacks to: systems, and lists of them
    folder = tmp_path / "data" / "Cu" / "sys_dir"
    random = np.random.default_rng(0)
    counts = {"first": 20, "second": 10, "held": 130}
    for name, count in counts.items():
        part = folder / name / "set.000"
        part.mkdir(parents=True)
        (folder / name / "type.raw").write_text("0 0")
        (folder / name / "type_map.raw").write_text("Cu")
        np.save(part / "box.npy", np.tile(8 * np.eye(3).ravel(), (count, 1)))
        np.save(part / "coord.npy", random.normal(size=(count, 6)))
        np.save(part / "force.npy", random.normal(size=(count, 6)))
        np.save(part / "energy.npy", random.normal(size=count))
    (folder / "train.txt").write_text("first\nsecond\n")
    (folder / "valid.txt").write_text("held\n")
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    elora = load_splits(DataConfig(name="lam/cu"))
    assert elora.frame_counts() == {"train": 30, "valid": 100, "upstream_valid": 30}
    assert {Path(frame.source).name for frame in elora.train} == {"first", "second"}
    assert not _ids(elora.valid) & _ids(elora.tests["upstream_valid"])
    assert elora.protocol.endswith("n_valid=100 from upstream_valid (protocol elora)")
    assert any("train.txt was taken by its name" in note for note in elora.notes)
    sparse = load_splits(DataConfig(name="lam/cu", protocol="sparse"))
    assert sparse.frame_counts() == {"train": 128, "valid": 16, "test": 16}
    assert sparse.protocol == "lam/cu/all n_train=128 n_valid=16 n_test=16 split_seed=0 (protocol sparse)"
