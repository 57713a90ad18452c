"""A store of the cache is whole or it is not there: killed, corrupted, out of disk, or built by two processes at once."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.refusals import lacks, refusal_of
from zoo.data import array_store
from zoo.data.array_store import BrokenStoreError, StoreWriter, open_store
from zoo.data.store_builder import obtain_store

ROWS = np.arange(30.0).reshape(10, 3)


def build(writer: StoreWriter) -> Mapping[str, Any]:
    for start in range(0, len(ROWS), 4):
        writer.append({"rows": ROWS[start : start + 4], "sums": ROWS[start : start + 4].sum(axis=1), "none": np.empty((0, 2), np.int16)})
    return {"count": len(ROWS)}


def never(_: StoreWriter) -> Mapping[str, Any]:
    raise AssertionError("it was built again")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names(cache: Path) -> set[str]:
    return {path.name for path in (cache / "kind").iterdir()}


def test_arrays_read_back_to_the_bit_and_are_built_once(cache):
    first = obtain_store("kind", "key", build)
    again = obtain_store("kind", "key", never)
    for store in (first, again):
        assert store.meta == {"count": 10}
        assert (store["rows"].tobytes(), store["sums"].tolist()) == (ROWS.tobytes(), ROWS.sum(axis=1).tolist())
        assert (store["none"].shape, store["none"].dtype) == ((0, 2), np.dtype(np.int16))
        store.release()
        assert store["rows"].tobytes() == ROWS.tobytes()
    assert names(cache) == {"key", "key.lock"}
    assert np.array_equal(np.load(cache / "kind/key/rows.npy"), ROWS)  # plain NumPy files


@pytest.mark.parametrize("name", ["rows.npy", "sums.npy", "none.npy", "manifest.json"])
@pytest.mark.parametrize("place", ["first", "middle", "last", "cut", "longer", "gone"])
def test_any_damage_is_found_said_and_built_anew(cache, capsys, name, place):
    obtain_store("kind", "key", build)
    path = cache / "kind/key" / name
    content = bytearray(path.read_bytes())
    if place == "gone":
        path.unlink()
    else:
        where = {"first": 0, "middle": len(content) // 2, "last": -1}.get(place, 0)
        content[where] ^= 4
        path.write_bytes({"cut": path.read_bytes()[:-1], "longer": path.read_bytes() + b"\0"}.get(place, bytes(content)))
    if (name, place) == ("manifest.json", "longer"):
        with pytest.raises(BrokenStoreError):
            open_store(cache / "kind/key")
    store = obtain_store("kind", "key", build)
    assert "is damaged" in capsys.readouterr().err
    assert store["rows"].tobytes() == ROWS.tobytes()
    assert names(cache) == {"key", "key.lock"}


def test_every_flipped_bit_of_a_store_is_found(cache):
    store = obtain_store("kind", "key", build)
    for path in sorted(store.folder.iterdir()):
        content = path.read_bytes()
        for place in range(0, len(content), 3):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(BrokenStoreError):
                open_store(store.folder)
        path.write_bytes(content)
    assert open_store(store.folder).meta == {"count": 10}


@pytest.mark.parametrize("call", [1, 3, 6])
def test_a_full_disk_is_one_line_and_leaves_nothing(cache, monkeypatch, call):
    original, calls = array_store._Growing.append, 0

    def full(self: Any, rows: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, rows)

    monkeypatch.setattr(array_store._Growing, "append", full)
    refusal = refusal_of(obtain_store, "kind", "key", build)
    assert not lacks(refusal, "No space left", "free disk space", "ZOO_CACHE", "data.cache=memory")
    assert names(cache) == {"key.lock"}
    monkeypatch.undo()
    os.environ["ZOO_CACHE"] = str(cache)
    assert obtain_store("kind", "key", build).meta == {"count": 10}


def test_a_file_that_cannot_grow_is_one_line_and_leaves_nothing(cache, tmp_path):
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))  # what is left in a buffer then fails once more as its file is closed
        assert "File too large" in refusal_of(obtain_store, "kind", "key", build)

    assert _exit_code(_child(work)) == 0
    assert names(cache) == {"key.lock"}


def test_a_cache_that_cannot_be_written_is_one_line(cache):
    cache.write_text("a file where a folder should be")
    assert not lacks(refusal_of(obtain_store, "kind", "key", build), "cannot be written", "ZOO_CACHE")


def _child(work: Callable[[], object]) -> int:
    """A process that does the work, by its number."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    "target",
    [
        "array_store:StoreWriter.append",
        "array_store:StoreWriter.finish",
        "array_store:_flush",
        "store_builder:Path.rename",
        "store_builder:open_store",
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_killed_build_leaves_nothing_that_is_trusted(cache, killer, target, count):
    def work() -> None:
        killer(f"zoo.data.{target}", count)()
        obtain_store("kind", "key", build)

    ended = _exit_code(_child(work))
    assert ended == -signal.SIGKILL or (target, count) in (("array_store:StoreWriter.finish", 2), ("store_builder:Path.rename", 2)), (
        "nothing was killed"
    )
    assert obtain_store("kind", "key", build)["rows"].tobytes() == ROWS.tobytes()
    assert names(cache) == {"key", "key.lock"}


def test_two_processes_that_start_at_once_build_one_store(cache):
    counter = multiprocessing.get_context("fork").Value("i", 0)

    def slow(writer: StoreWriter) -> Mapping[str, Any]:
        with counter.get_lock():
            counter.value += 1
        time.sleep(0.3)
        return build(writer)

    def work() -> None:
        assert obtain_store("kind", "key", slow)["rows"].tobytes() == ROWS.tobytes()

    children = [_child(work) for _ in range(4)]
    assert [_exit_code(child) for child in children] == [0, 0, 0, 0]
    assert counter.value == 1


def test_a_store_that_goes_away_in_use_is_one_line(cache):
    store = obtain_store("kind", "key", build)
    store["rows"].sum()
    for path in store.folder.iterdir():
        path.unlink()
    assert store["rows"].tobytes() == ROWS.tobytes()  # what is mapped stays
    assert not lacks(refusal_of(store.__getitem__, "sums"), "kind/key", "went from the cache", "start again")


def test_a_store_is_mapped_anew_after_a_fork(cache):
    store = obtain_store("kind", "key", build)
    assert store["rows"][0, 1] == 1.0

    def work() -> None:
        before = store._maps
        assert store["rows"].tobytes() == ROWS.tobytes()
        assert store._maps is not before

    assert _exit_code(_child(work)) == 0
