"""``zoo cache`` says what is there, and removes what nobody uses."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from tests.refusals import cli_refusal, lacks, refusal_of
from zoo.data.array_store import ArrayStore, StoreWriter
from zoo.data.cache_choice import CacheChoice
from zoo.data.emt import emt_frames
from zoo.data.loader import StoredGraphs
from zoo.data.store_builder import obtain_store
from zoo.data.stores import kept_stores
from zoo.edges import GraphRecipe

DAY = 86_400


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(kind: str, key: str, days: float = 0.0, rows: int = 1000) -> Path:
    """A store that nobody has open, last used so many days ago."""

    def build(writer: StoreWriter) -> Mapping[str, Any]:
        writer.append({"rows": np.zeros(rows)})
        return {"frames": 7, "sources": ["my.xyz", "b"], "cutoff_angstrom": 5.0, "max_neighbours": None}

    folder = obtain_store(kind, key, build).folder
    used = (folder / "manifest.json").stat().st_mtime - days * DAY
    os.utime(folder / "manifest.json", (used, used))
    return folder


def test_an_empty_cache_is_listed(zoo, cache):
    told = zoo("cache")
    assert (told.code, told.err) == (0, "")
    assert not lacks(told.out, f"{cache} (not there yet)", "0 copies of frames and edges, 0 B")
    assert zoo("cache", "remove", "all").out == "0 B freed\n"


def test_every_store_is_listed_with_size_age_and_content(zoo, cache):
    make("frames", "a" * 64)
    make("edges", "b" * 64, days=40)
    (cache / "weights").mkdir()
    (cache / "weights/file").write_bytes(bytes(2500))
    (cache / f"frames/.{'c' * 64}.12.partial").mkdir()
    lines = zoo("cache").out.splitlines()
    rows = {line.split()[0]: line for line in lines[1:-1]}
    assert not lacks(rows["frames/aaaaaaaaaaaa"], "8.4 kB", "0 days", "7 frames of my.xyz and 1 more")
    assert not lacks(rows["edges/bbbbbbbbbbbb"], "40 days", "edges of 7 frames within 5 Å")
    assert "left by a process that was ended" in rows["frames/cccccccccccc"]
    assert not lacks(rows["weights"], "2.5 kB", "not removed")
    assert lines[-1].startswith("3 copies of frames and edges, 16.")


def test_the_stores_of_a_run_are_described(zoo):
    StoredGraphs(emt_frames(3, 1, "x"), GraphRecipe(4.0, 7), 1)
    assert "edges of 3 frames within 4 Å, 7 neighbours" in zoo("cache").out
    assert CacheChoice("disk").graphs_on_disk(1)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("all",), set()),
        (("unused=30",), {"frames/aaaaaaaaaaaa"}),
        (("unused=50",), {"frames/aaaaaaaaaaaa", "edges/bbbbbbbbbbbb"}),
        (("frames/aaaaaaaaaaaa",), {"edges/bbbbbbbbbbbb"}),
    ],
)
def test_what_is_asked_for_is_removed(zoo, cache, words, left):
    make("frames", "a" * 64)
    make("edges", "b" * 64, days=40)
    (cache / "weights").mkdir()
    told = zoo("cache", "remove", *words)
    assert told.code == 0
    assert {one.name for one in kept_stores()} == left
    assert told.out.count("removed ") == 2 - len(left)
    assert (cache / "weights").is_dir()
    if len(words) == 1 and words[0] == "all":
        assert {path.suffix for kind in ("frames", "edges") for path in (cache / kind).iterdir()} == {".lock"}


def test_a_use_counts_as_one(cache):
    folder = make("frames", "a" * 64, days=40)
    assert kept_stores()[0].days_unused > 39
    obtain_store("frames", "a" * 64, lambda _: pytest.fail("it was built again"))
    assert kept_stores()[0].days_unused < 1
    assert folder.is_dir()


@pytest.fixture
def another_process() -> Iterator[Callable[[Callable[[], object]], None]]:
    """``another_process(work)``: a process that did ``work`` and waits, holding what it returned."""
    context = multiprocessing.get_context("fork")
    ended, started = context.Event(), []

    def start(work: Callable[[], object]) -> None:
        ready = context.Event()

        def body() -> None:
            held = work()
            ready.set()
            ended.wait(60)
            del held

        started.append(context.Process(target=body))
        started[-1].start()
        assert ready.wait(60)

    yield start
    ended.set()
    for one in started:
        one.join()


def test_what_another_process_has_open_stays(zoo, another_process):
    folder = make("frames", "a" * 64)
    another_process(lambda: obtain_store("frames", "a" * 64, lambda _: pytest.fail("it was built again")))
    refusal = cli_refusal(zoo("cache", "remove", "frames/aaaaaaaaaaaa"))
    assert not lacks(refusal, str(folder), "a process has it open")
    told = zoo("cache", "remove", "all")
    assert (told.code, told.out) == (0, "0 B freed\n")
    assert "left alone" in told.err
    assert folder.is_dir()


def test_a_store_is_held_as_long_as_it_is_open_and_no_longer():
    folder = make("frames", "a" * 64)
    store: ArrayStore = obtain_store("frames", "a" * 64, lambda _: pytest.fail("it was built again"))
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 - of this test's own making
    assert "has it open" in refusal_of(kept_stores()[0].remove)
    del store
    assert again["rows"].sum() == 0
    kept_stores()[0].remove()
    assert not folder.exists()


def test_what_a_process_is_building_stays(zoo, cache, another_process):
    partial = cache / f"edges/.{'d' * 64}.12.partial"
    partial.mkdir(parents=True)
    (partial / "rows.npy").write_bytes(b"x")

    def lock() -> FileLock:
        held = FileLock(cache / f"edges/{'d' * 64}.lock")
        held.acquire()
        return held

    another_process(lock)
    assert "a process is building it" in cli_refusal(zoo("cache", "remove", "edges/dddddddddddd"))
    assert partial.is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("remove",), "found: nothing"),
        (("remove", "unused=soon"), "wanted a number of days"),
        (("remove", "unused=-1"), "wanted a number of days"),
        (("remove", "--everything"), "found: --everything"),
        (("remove", "frames/aaaaaaaaaaab"), "frames/aaaaaaaaaaaa"),
        (("prune",), "zoo cache --help"),
    ],
)
def test_other_words_are_refused(zoo, words, said):
    make("frames", "a" * 64)
    assert said in cli_refusal(zoo("cache", *words))
    assert len(kept_stores()) == 1
