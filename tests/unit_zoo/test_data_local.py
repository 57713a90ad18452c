"""A published file or folder is recognised on this disk by what it holds, and downloaded only where it is not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import zoo.data.folders
import zoo.data.local
import zoo.digests
from tests.refusals import refusal_of
from zoo.data.local import Wanted, find_local, obtain, obtain_tree, unverified_note

BODY = bytes(range(256)) * 40
TREE = {"type.raw": b"0 1\n", "set.000/energy.npy": BODY[:500], "set.000/deep er/force.npy": BODY[:900]}


class Server(ThreadingHTTPServer):
    """Publishes the folder `published`; `asked` holds the paths of all requests."""

    def __init__(self, published: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(published)))
        self.published, self.asked = published, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "published").mkdir()
    serving = Server(tmp_path / "published")
    threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of ZOO_DATA, empty; the cache is empty too."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def wanted(content: bytes = BODY, **changes: object) -> Wanted:
    fields = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "md5": None, "url": None}
    return Wanted(**{"filename": "pool.xyz", "place": "small", **fields, **changes})


def unverified(**changes: object) -> Wanted:
    return wanted(**{"sha256": None, "size": None, **changes})


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_recognised_by_content_under_any_name_to_a_depth_of_four(data: Path) -> None:
    put(data / "my downloads" / "pool.xyz", BODY[::-1])  # an impostor of the right name and size
    renamed = put(data / "a" / "b" / "c" / "renamed.txt", BODY)
    assert find_local(wanted(), [data]) == renamed
    assert find_local(wanted(size=None), [data]) is None  # neither name nor size point to it
    named = put(data / "z" / "pool.xyz", BODY)
    assert find_local(wanted(), [data]) == named  # a file of its name goes first
    assert find_local(wanted(size=None), [data]) == named
    named.unlink()
    renamed.unlink()
    put(data / "a" / "b" / "c" / "d" / "pool.xyz", BODY)
    assert find_local(wanted(), [data]) is None


def test_an_md5_recognises_where_no_sha256_is_known(data: Path) -> None:
    put(data / "impostor" / "pool.xyz", BODY[::-1])
    renamed = put(data / "x", BODY)
    md5 = hashlib.md5(BODY).hexdigest().upper()
    assert find_local(wanted(sha256=None, md5=md5), [data]) == renamed
    assert unverified_note(wanted(sha256=None, md5=md5), renamed) is None
    assert find_local(wanted(sha256=None, md5="0" * 32), [data]) is None


def test_a_file_without_a_known_checksum_is_taken_by_its_name_and_noted(data: Path) -> None:
    put(data / "same size", BODY)
    assert find_local(unverified(), [data]) is None
    named = put(data / "deeper" / "pool.xyz", BODY)
    assert find_local(unverified(), [data]) == named
    note = unverified_note(unverified(), named)
    assert note == f"{named} was taken by its name, nobody has verified its checksum (SHA-256 {hashlib.sha256(BODY).hexdigest()})"
    assert unverified_note(wanted(), named) is None
    assert find_local(unverified(size=len(BODY)), [data]) == named
    assert find_local(unverified(size=7), [data]) is None  # what is known must fit


def test_an_unverified_name_with_folders_wants_its_folders(data: Path) -> None:
    put(data / "split_1" / "test.npz", b"one")
    assert find_local(unverified(filename="split_2/test.npz"), [data]) is None
    two = put(data / "mine" / "split_2" / "test.npz", b"two")
    assert find_local(unverified(filename="split_2/test.npz"), [data]) == two
    # with a checksum the folders do not matter
    assert find_local(wanted(b"one", filename="split_2/test.npz"), [data]) == data / "split_1" / "test.npz"


def test_the_first_folder_of_several_wins_and_links_are_followed_but_not_round(data: Path, tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "scratch" / "big" / "pool.xyz", BODY).parent
    (data / "linked").symlink_to(elsewhere)
    (data / "round").symlink_to(data)
    (data / "nowhere").symlink_to(tmp_path / "absent")
    assert find_local(wanted(), [data]) == data / "linked" / "pool.xyz"
    assert zoo.data.folders.listings([data])[0].by_name["pool.xyz"] == [data / "linked" / "pool.xyz"]
    first = tmp_path / "first"
    put(first / "pool.xyz", BODY)
    assert find_local(wanted(), [first, data]) == first / "pool.xyz"


def test_files_that_come_go_and_change_while_the_process_runs_are_seen(data: Path) -> None:
    found = []
    for number in range(3):
        path = put(data / "one" / f"{number}.xyz", BODY)
        found.append(find_local(wanted(), [data]) == path)
        path.write_bytes(BODY[::-1])  # of the same size, within the same moment
        found.append(find_local(wanted(), [data]) is None)
        path.unlink()
        found.append(find_local(wanted(), [data]) is None)
    assert found == [True] * 9


def test_a_change_within_one_tick_of_a_coarse_clock_is_seen(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_local(wanted(), [data]) is None
    tick = data.stat().st_mtime_ns
    path = put(data / "renamed", BODY)
    os.utime(data, ns=(tick, tick))
    assert find_local(wanted(), [data]) == path
    monkeypatch.setattr(zoo.digests, "_state", lambda path: (0, 0, len(BODY), tick, tick))
    assert find_local(wanted(), [data]) == path
    path.write_bytes(BODY[::-1])
    assert find_local(wanted(), [data]) is None


def test_an_old_listing_and_an_old_checksum_are_reused_until_something_changes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(data / "one" / "pool.xyz", BODY)
    hashed, listed = [], []
    digest, enter = hashlib.file_digest, zoo.data.folders._list
    monkeypatch.setattr(zoo.digests.hashlib, "file_digest", lambda *given: hashed.append(1) or digest(*given))
    monkeypatch.setattr(zoo.data.folders, "_list", lambda root: listed.append(root) or enter(root))
    # what was written a moment ago may change unnoticed, so that it is looked at anew: here an hour has passed
    monkeypatch.setattr(zoo.data.folders.time, "time_ns", lambda now=time.time_ns: now() + 3_600_000_000_000)
    for _ in range(5):
        assert find_local(wanted(), [data]) == path
    assert (len(hashed), len(listed)) == (1, 1)
    path.write_bytes(BODY[::-1])
    assert find_local(wanted(), [data]) is None
    put(data / "one" / "new", BODY)
    assert find_local(wanted(), [data]) == data / "one" / "new"
    assert len(listed) == 2


def test_a_lookup_among_thousands_of_files_takes_a_fraction_of_listing_them(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in range(100):
        (data / f"system{folder}" / "set.000").mkdir(parents=True)
        for name in range(30):
            (data / f"system{folder}" / "set.000" / f"{name}.npy").write_bytes(b"")
    path = put(data / "system50" / "pool.xyz", BODY)
    monkeypatch.setattr(zoo.data.folders.time, "time_ns", lambda now=time.time_ns: now() + 3_600_000_000_000)

    def seconds(call: Callable[[], object], times: int) -> float:
        began = time.process_time()
        for _ in range(times):
            call()
        return (time.process_time() - began) / times

    listing = seconds(lambda: zoo.data.folders._list(data), 5)
    assert find_local(wanted(), [data]) == path
    assert find_local(wanted(b"absent"), [data]) is None
    # measured: 10 ms and 0.6 ms
    assert seconds(lambda: find_local(wanted(), [data]), 50) < listing / 3
    assert seconds(lambda: find_local(wanted(b"absent"), [data]), 50) < listing / 3


def test_obtain_asks_zoo_data_then_the_cache_then_the_network(server: Server, data: Path, tmp_path: Path) -> None:
    put(server.published / "pool.xyz", BODY)
    published = wanted(url=f"{server.url}/pool.xyz")
    cached = obtain(published)
    assert cached == tmp_path / "cache" / "data" / "small" / "pool.xyz"
    assert cached.read_bytes() == BODY
    assert obtain(wanted(url="http://host.invalid/pool.xyz")) == obtain(wanted()) == cached
    local = put(data / "mine", BODY)
    assert obtain(published) == local
    local.unlink()
    cached.write_bytes(BODY[:-1])  # damaged
    assert obtain(published).read_bytes() == BODY
    assert len(server.asked) == 2


def test_a_shared_cache_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.data.local, "fetch_remembering", lambda *given, **named: pytest.fail("wrote into the cache"))
    cached = put(tmp_path / "cache" / "data" / "small" / "pool.xyz", BODY)
    assert obtain(wanted(url="http://host.invalid/pool.xyz")) == cached
    put(cached.with_name("pool.xyz.sha256"), hashlib.sha256(BODY).hexdigest().encode())
    assert obtain(unverified(url="http://host.invalid/pool.xyz")) == cached


def test_an_unverified_download_is_remembered_and_another_content_refused(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(server.published / "pool.xyz", BODY)
    published = unverified(url=f"{server.url}/pool.xyz")
    cached = obtain(published)
    assert (
        f"small/pool.xyz: nobody has verified this file yet; its SHA-256 is {hashlib.sha256(BODY).hexdigest()}" in capsys.readouterr().err
    )
    assert obtain(published) == cached
    assert capsys.readouterr().err == ""
    cached.unlink()
    put(server.published / "pool.xyz", BODY[::-1])
    message = refusal_of(obtain, published)
    assert hashlib.sha256(BODY).hexdigest() in message
    assert hashlib.sha256(BODY[::-1]).hexdigest() in message
    assert not cached.exists()


def test_a_file_that_cannot_be_had_says_what_to_do_and_what_came_near(data: Path) -> None:
    assert "small/pool.xyz: no address is known to fetch it from; get it by hand and put it into a folder of ZOO_DATA" in refusal_of(
        obtain, wanted()
    )
    near = put(data / "old" / "pool.xyz", BODY[:-3])
    message = refusal_of(obtain, wanted(url="http://127.0.0.1:9/pool.xyz"))
    assert "cannot be reached" in message
    assert message.endswith(f"; {near} has that name, but is not it: {len(BODY) - 3} bytes where {len(BODY)} are expected")


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/../../b", ""])
def test_a_card_cannot_write_outside_of_the_cache(server: Server, name: str) -> None:
    put(server.published / "x", BODY)
    assert "is not the name of a file below a folder" in refusal_of(obtain, wanted(filename=name, url=f"{server.url}/x"))
    assert server.asked == []


def entries(files: Mapping[str, bytes] = TREE) -> list[tuple[str | None, int | None, str]]:
    return [(hashlib.sha256(content).hexdigest(), len(content), name) for name, content in files.items()]


def plant(folder: Path, files: Mapping[str, bytes] = TREE) -> Path:
    for name, content in files.items():
        put(folder / name, content)
    return folder


def tree(data: Path, base_url: str | None = None, listed: list[tuple[str | None, int | None, str]] | None = None) -> Path:
    return obtain_tree("hfo2", entries() if listed is None else listed, base_url, "small", [data])


def test_a_tree_is_found_under_any_folder_name_with_what_does_not_matter_beside_it(data: Path) -> None:
    plant(data / "other", {"type.raw": b"7\n"})  # the first file's name alone is no tree
    folder = plant(data / "archive of 2024" / "renamed")
    put(folder / "SOURCE.txt", b"from the web")
    assert tree(data) == folder
    named = plant(data / "zzz" / "hfo2")
    assert tree(data) == named


def test_a_tree_may_be_the_data_folder_itself(data: Path) -> None:
    assert tree(plant(data)) == data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: put(folder / "set.000" / "energy.npy", BODY[:499] + b"!"), "set.000/energy.npy has SHA-256 "),
        (lambda folder: put(folder / "set.000" / "energy.npy", BODY[:499]), "set.000/energy.npy has 499 bytes where 500 are expected"),
        (lambda folder: (folder / "set.000" / "energy.npy").unlink(), "set.000/energy.npy is missing"),
        (lambda folder: put(folder / "set.001" / "energy.npy", b""), "set.001/energy.npy is not part of the set"),
    ],
)
def test_a_changed_tree_is_passed_over_and_named(
    server: Server, data: Path, tmp_path: Path, change: Callable[[Path], object], reason: str
) -> None:
    changed = plant(data / "hfo2")
    assert tree(data) == changed
    change(changed)
    message = refusal_of(tree, data)
    assert "small/hfo2: no address is known" in message
    assert f"; {changed} is not it: {reason}" in message
    plant(server.published / "hfo2")
    downloaded = tree(data, server.url)
    assert downloaded == tmp_path / "cache" / "data" / "small" / "hfo2"
    whole = plant(data / "second")
    assert tree(data) == whole


def test_a_tree_is_downloaded_file_by_file_and_once(server: Server, data: Path) -> None:
    plant(server.published / "hfo2")
    folder = tree(data, server.url)
    assert {name: (folder / name).read_bytes() for name in TREE} == TREE
    assert tree(data, server.url) == tree(data, "http://host.invalid") == tree(data) == folder
    assert len(server.asked) == len(TREE)
    put(folder / "type.raw", b"1 0\n")  # damaged: this file alone comes anew
    assert (tree(data, server.url) / "type.raw").read_bytes() == TREE["type.raw"]
    assert len(server.asked) == len(TREE) + 1


def test_a_tree_download_that_breaks_is_one_line_and_continues_later(server: Server, data: Path) -> None:
    plant(server.published / "hfo2", dict(list(TREE.items())[:2]))
    message = refusal_of(tree, data, server.url)
    assert message.startswith("small/hfo2/set.000/deep er/force.npy: ")
    assert "answered 404" in message
    put(server.published / "hfo2" / "set.000" / "deep er" / "force.npy", b"x" * 900)
    assert "SHA-256" in refusal_of(tree, data, server.url)
    plant(server.published / "hfo2")
    before = len(server.asked)
    tree(data, server.url)
    assert len(server.asked) == before + 1


def test_a_cached_tree_with_files_of_an_older_list_is_refused(server: Server, data: Path) -> None:
    plant(server.published / "hfo2")
    folder = tree(data, server.url)
    put(folder / "set.001" / "energy.npy", b"of an older list")
    message = refusal_of(tree, data, server.url)
    assert message.startswith(f"{folder}: set.001/energy.npy is not part of the set; delete that file")


def test_a_tree_without_checksums_or_with_a_climbing_name_is_refused(data: Path) -> None:
    plant(data / "hfo2")
    message = "its checksum list is empty or lacks a SHA-256"
    assert message in refusal_of(tree, data, listed=[])
    assert message in refusal_of(tree, data, listed=[*entries(), (None, 3, "more.npy")])
    assert "is not the name of a file below a folder" in refusal_of(tree, data, listed=[*entries(), ("0" * 64, 3, "../x")])


def test_a_real_deepmd_tree_is_recognised_whatever_its_folder_is_called(data_folder: Callable[[str], Path], tmp_path: Path) -> None:
    original = data_folder("lam_hfo2")
    copy = tmp_path / "data" / "anything"
    shutil.copytree(original, copy)
    listed = [
        (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size, path.relative_to(original).as_posix())
        for path in sorted(original.rglob("*"))
        if path.is_file() and path.name != "SOURCE.txt"
    ]
    assert len(listed) > 100
    assert tree(tmp_path / "data", listed=listed) == copy
    flipped = bytearray((copy / listed[-1][2]).read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (copy / listed[-1][2]).chmod(0o644)
    (copy / listed[-1][2]).write_bytes(flipped)
    assert f"{listed[-1][2]} has SHA-256" in refusal_of(tree, tmp_path / "data", listed=listed)
