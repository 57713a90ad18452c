"""A run whose frames and graphs are on disk ends in the bytes of the one in memory, and so does one that was killed at any point."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.refusals import cli_refusal, lacks
from tests.unit_zoo.test_readers_ase_database import write_aselmdb
from zoo.data.conversion import read_source
from zoo.data.stored_frames import StoredFrames

ELORA = ("adapter=elora", "adapter.rank=2", "training.optimizer.learning_rate=2e-2", "run.name=run")
DISK = ("data.cache=disk", "data.workers=0")
BY_ATOMS = ("training.batch_size=null", "training.max_atoms_per_batch=24")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def words(small_run: list[str], emt_atoms, tmp_path: Path) -> list[str]:
    """Of a run on a database of 20 structures."""
    path = write_aselmdb(tmp_path / "some.aselmdb", emt_atoms(20), key_value_pairs={})
    return [*(word for word in small_run if not word.startswith("data.test")), f"data={path}", *ELORA]


def results(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "adapter.safetensors").read_bytes(), (folder / "history.csv").read_bytes()


@pytest.mark.parametrize("limits", [(), BY_ATOMS], ids=["count", "atoms"])
@pytest.mark.parametrize("cached", [("disk", "0"), ("disk", "2"), ("memory", "1"), ("auto", "null")], ids="-".join)
def test_where_the_data_are_changes_no_bit(words, limits, cached, zoo, tmp_path, cache):
    finished = {}
    for name, (mode, workers) in {"expected": ("memory", "null"), "found": cached}.items():
        done = zoo("train", *words, *limits, f"data.cache={mode}", f"data.workers={workers}", f"run.folder={tmp_path / name}")
        assert done.code == 0, done.err
        finished[name] = results(tmp_path / name)
    assert finished["expected"] == finished["found"]
    assert (cache / "frames").is_dir() == (cache / "edges").is_dir() == (cached[0] == "disk")


def test_a_real_set_trains_to_the_same_bits_from_disk(small_run, data_folder, zoo, tmp_path):
    path = data_folder("acac") / "train_300K.xyz"
    run = [word for word in small_run if not word.startswith("data.")]
    found = []
    for mode in ("memory", "disk"):
        done = zoo(
            "train",
            *run,
            f"data={path}",
            "data.n_train=30",
            "data.n_valid=6",
            *ELORA,
            f"data.cache={mode}",
            f"run.folder={tmp_path / mode}",
        )
        assert done.code == 0, done.err
        found.append(results(tmp_path / mode))
    assert found[0] == found[1]
    assert isinstance(read_source(path, choice=_disk()).frames, StoredFrames)


def _disk():
    from zoo.data.cache_choice import CacheChoice

    return CacheChoice("disk", 1)


KILLS = {
    "while frames are converted": ("zoo.data.array_store:StoreWriter.append", 1),
    "with all frames but no manifest": ("zoo.data.array_store:StoreWriter.finish", 1),
    "while edges are written": ("zoo.data.array_store:StoreWriter.append", 2),
    "between two stores": ("zoo.data.store_builder:_build", 2),
    "in the first steps": ("zoo.training.module:FineTuning.training_step", 2),
    "between two checkpoints": ("zoo.training.module:FineTuning.training_step", 8),
    "in a validation": ("zoo.training.validation:Validation._validate", 2),
    "in the final evaluation": ("zoo.training.artefacts:predict_tests", 1),
}


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("limits", [(), BY_ATOMS], ids=["count", "atoms"])
def test_a_run_from_disk_that_was_killed_ends_in_the_same_bytes(words, limits, kill, zoo, forked_zoo, killer, tmp_path):
    assert zoo("train", *words, *limits, "data.cache=memory", f"run.folder={tmp_path / 'expected'}").code == 0
    run = ["train", *words, *limits, *DISK, "run.resume=true", f"run.folder={tmp_path / 'run'}"]
    assert forked_zoo(run, killer(*KILLS[kill])) == -signal.SIGKILL
    assert forked_zoo(run) == 0, (tmp_path / "output.txt").read_text()
    assert results(tmp_path / "run") == results(tmp_path / "expected")


def test_a_damaged_cache_is_built_anew_and_the_run_is_the_same(words, zoo, tmp_path, cache):
    assert zoo("train", *words, *DISK, f"run.folder={tmp_path / 'first'}").code == 0
    for name in ("frames/*/positions.npy", "edges/*/sender.npy"):
        for path in cache.glob(name):
            content = bytearray(path.read_bytes())
            content[-5] ^= 1
            path.write_bytes(content)
    again = zoo("train", *words, *DISK, f"run.folder={tmp_path / 'again'}")
    assert again.code == 0
    assert again.err.count("is damaged") == 3  # frames, and the edges of training and validation
    assert results(tmp_path / "again") == results(tmp_path / "first")


def test_a_run_may_go_on_with_its_data_elsewhere(words, zoo, forked_zoo, killer, tmp_path):
    assert zoo("train", *words, f"run.folder={tmp_path / 'expected'}").code == 0
    run = ["train", *words, "run.resume=true", f"run.folder={tmp_path / 'run'}"]
    assert forked_zoo([*run, "data.cache=memory"], killer("zoo.training.module:FineTuning.training_step", 8)) == -signal.SIGKILL
    assert forked_zoo([*run, "data.cache=disk", "data.workers=2"]) == 0
    assert results(tmp_path / "run") == results(tmp_path / "expected")


def test_batches_by_atoms_train_another_model_than_batches_by_count(words, zoo, tmp_path):
    weights = []
    for name, limits in {"count": (), "atoms": BY_ATOMS}.items():
        assert zoo("train", *words, *limits, f"run.folder={tmp_path / name}").code == 0
        weights.append(load_file(tmp_path / name / "adapter.safetensors"))
    assert any(not np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_frame_beyond_the_limit_is_refused_before_anything_is_written(words, zoo, tmp_path):
    refusal = cli_refusal(
        zoo("train", *words, "training.batch_size=null", "training.max_atoms_per_batch=5", f"run.folder={tmp_path / 'run'}")
    )
    assert "more than training.max_atoms_per_batch=5; raise that to" in refusal
    assert not (tmp_path / "run").exists()


def test_evaluation_reads_through_the_cache_to_the_same_numbers(words, toy_checkpoint, zoo, cache, monkeypatch):
    (path,) = [word for word in words if word.startswith("data=")]
    told = [zoo("evaluate", f"backbone={toy_checkpoint}", path, f"data.cache={mode}", "metrics=all") for mode in ("memory", "disk")]
    assert [one.code for one in told] == [0, 0], told[1].err
    assert told[0].out == told[1].out
    with monkeypatch.context() as patch:
        patch.setattr("zoo.graph.edges_of", lambda *_: pytest.fail("edges were looked for again"))
        assert zoo("evaluate", f"backbone={toy_checkpoint}", path, "data.cache=disk", "metrics=all").out == told[0].out
    assert list((cache / "frames").glob("*/manifest.json"))
    assert list((cache / "edges").glob("*/manifest.json"))


@pytest.mark.parametrize("mode", ["memory", "disk"])
def test_an_element_that_the_model_does_not_know_is_refused_wherever_the_fit_meets_it(mode, toy_checkpoint, emt_atoms, zoo, tmp_path):
    """Of the training split an evaluation of the test set looks at nothing but energies, for the fit."""
    images = emt_atoms(8)
    for atoms in images:
        atoms.symbols[0] = "Fe"
    paths = {name: write_aselmdb(tmp_path / f"{name}.aselmdb", part) for name, part in {"train": images, "test": emt_atoms(2)}.items()}
    words = [f"data.{name}={path}" for name, path in paths.items()]
    refusal = cli_refusal(
        zoo(
            "evaluate",
            f"backbone={toy_checkpoint}",
            "data=file",
            *words,
            "split=test",
            "data.n_valid=1",
            f"data.cache={mode}",
            "reference_energies=model",
        )
    )
    assert not lacks(refusal, "train.aselmdb: frame", "has Fe", "does not know")


def test_a_reader_that_is_killed_is_one_line_and_the_run_goes_on_without(words, zoo, forked_zoo, killer, tmp_path):
    assert zoo("train", *words, f"run.folder={tmp_path / 'expected'}").code == 0
    run = ["train", *words, "data.cache=disk", f"run.folder={tmp_path / 'run'}"]
    assert forked_zoo([*run, "data.workers=1"], killer("zoo.data.batches:BatchStream.batch", 8)) == 1
    told = (tmp_path / "output.txt").read_text()
    assert not lacks(told.splitlines()[-1], "zoo: error: one of the processes that read batches ahead ended", "data.workers=0")
    assert forked_zoo([*run, "data.workers=0", "run.resume=true"]) == 0
    assert results(tmp_path / "run") == results(tmp_path / "expected")
