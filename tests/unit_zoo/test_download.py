"""Downloads against a real HTTP server on this machine: resumed, verified, and never half in place."""

from __future__ import annotations

import errno
import hashlib
import http.client
import multiprocessing
import os
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

import zoo.download
from tests.refusals import refusal_of
from zoo.cache import cache_root, data_roots
from zoo.download import fetch, fetch_remembering
from zoo.errors import ZooError

BODY = bytes(range(256)) * 1200
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body`; cuts the next `cuts` answers after a third, and ignores ranges where told so."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.cuts, self.ranges, self.requests = BODY, 0, True, []
        self.tag = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted.group(1)) if wanted and self.server.ranges else 0
        self.server.requests.append(start)
        if self.path != "/file.bin":
            self.send_error(404)
            return
        if start >= len(self.server.body) and start:
            self.send_error(416)
            return
        body = self.server.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.server.body) - 1}/{len(self.server.body)}")
        self.send_header("Content-Length", str(len(body)))
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 3]
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    serving = Server()
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield serving
    serving.shutdown()
    serving.server_close()


def left_behind(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_a_whole_file_arrives_and_a_second_call_asks_nobody(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.bin"
    assert fetch(server.url, target, sha256=SHA256, size=len(BODY)) == target
    assert target.read_bytes() == BODY
    fetch(server.url, target, sha256=SHA256, size=len(BODY))
    assert server.requests == [0]
    assert left_behind(target.parent) == {"file.bin"}


def test_a_damaged_file_in_place_is_replaced(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(BODY[:-1] + b"!")
    fetch(server.url, target, sha256=SHA256)
    assert target.read_bytes() == BODY


def test_a_transfer_that_breaks_off_continues_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = 1
    fetch(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.requests == [0, len(BODY) // 3]


def test_a_transfer_that_keeps_breaking_off_leaves_a_part_for_the_next_run(server: Server, tmp_path: Path) -> None:
    server.cuts = 3
    assert re.search(r"broke off 3 times .*run again", refusal_of(fetch, server.url, tmp_path / "file.bin", sha256=SHA256))
    assert left_behind(tmp_path) == {"file.bin.part"}
    fetch(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.requests[-1] > 0


@pytest.mark.parametrize(
    ("first", "then", "continued"), [('"1"', '"1"', True), ('"1"', '"2"', False), ("", "", False), ('W/"1"', 'W/"1"', False)]
)
def test_the_part_of_an_unverified_file_is_continued_only_if_its_tag_is_the_same(
    server: Server, tmp_path: Path, first: str, then: str, continued: bool
) -> None:
    server.cuts, server.tag = 3, first
    assert "broke off 3 times" in refusal_of(fetch, server.url, tmp_path / "file.bin", sha256=None)
    server.tag, server.body = then, BODY if continued else BODY[::-1]  # another version of the same size
    fetch(server.url, tmp_path / "file.bin", sha256=None)
    assert (tmp_path / "file.bin").read_bytes() == server.body
    assert left_behind(tmp_path) == {"file.bin"}
    assert (server.requests[-1] > 0) == continued


def test_a_connection_that_fails_below_http_keeps_what_arrived(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = http.client.HTTPResponse.read, 0

    def broken(self: http.client.HTTPResponse, amount: int | None = None) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ssl.SSLError("EOF occurred in violation of protocol")
        return original(self, amount)

    monkeypatch.setattr(http.client.HTTPResponse, "read", broken)
    fetch(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.requests == [0, 1 << 16]


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.bin.part").write_bytes(BODY[:1000])
    fetch(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.requests == [0]  # in one go, not after a failed check


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * (len(BODY) + 5), b"x" * len(BODY)])
def test_a_part_of_another_file_is_thrown_away_and_fetched_anew(server: Server, tmp_path: Path, stale: bytes) -> None:
    (tmp_path / "file.bin.part").write_bytes(stale)
    fetch(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_wrong_checksum_names_both_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.body = BODY[:-1] + b"!"
    refusal = refusal_of(fetch, server.url, tmp_path / "file.bin", sha256=SHA256)
    assert SHA256 in refusal
    assert hashlib.sha256(server.body).hexdigest() in refusal
    assert left_behind(tmp_path) == set()


def test_a_wrong_size_is_refused_where_no_checksum_is_known(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=f"{len(BODY)} bytes where 7 are expected"):
        fetch(server.url, tmp_path / "file.bin", sha256=None, size=7)
    assert left_behind(tmp_path) == set()


def test_an_md5_is_demanded_where_no_sha256_is_known(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    fetch(server.url, target, sha256=None, md5=MD5.upper())
    assert target.read_bytes() == BODY
    fetch(server.url, target, sha256=None, md5=MD5)
    assert server.requests == [0]
    target.unlink()
    server.body = BODY[:-1] + b"!"
    assert re.search(
        f"MD5 {hashlib.md5(server.body).hexdigest()} where {MD5} is expected", refusal_of(fetch, server.url, target, sha256=None, md5=MD5)
    )
    assert left_behind(tmp_path) == set()


def test_a_sha256_goes_before_an_md5(server: Server, tmp_path: Path) -> None:
    fetch(server.url, tmp_path / "file.bin", sha256=SHA256, md5="0" * 32)
    with pytest.raises(ZooError, match="SHA-256"):
        fetch(server.url, tmp_path / "other.bin", sha256="0" * 64, md5=MD5)


def test_an_unverified_file_is_trusted_on_first_use_and_must_stay_the_same(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "file.bin"
    fetch_remembering(server.url, target, sha256=None, description="the set")
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "the set: nobody has verified this file yet" in told
    assert SHA256 in told
    assert (tmp_path / "file.bin.sha256").read_text() == SHA256
    fetch_remembering(server.url, target, sha256=None)
    assert server.requests == [0]
    target.write_bytes(BODY[:-1] + b"?")  # damaged on this disk: the same file is fetched again
    fetch_remembering(server.url, target, sha256=None)
    assert target.read_bytes() == BODY
    target.unlink()
    server.body = BODY[:-1] + b"!"
    assert re.search(
        rf"where {SHA256} is expected.*delete .*file\.bin\.sha256", refusal_of(fetch_remembering, server.url, target, sha256=None)
    )
    assert left_behind(tmp_path) == {"file.bin.sha256"}
    assert "nobody" not in capsys.readouterr().err
    (tmp_path / "file.bin.sha256").unlink()  # what the message says
    assert fetch_remembering(server.url, target, sha256=None).read_bytes() == server.body


def test_a_published_checksum_is_demanded_instead_of_a_remembered_one(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.bin.sha256").write_text("0" * 64)
    fetch_remembering(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert "nobody" not in capsys.readouterr().err


def test_a_spoilt_memory_of_the_first_download_is_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.sha256").write_text("")
    with pytest.raises(ZooError, match=r"file\.bin\.sha256: holds '' where a SHA-256 is expected; delete it"):
        fetch_remembering(server.url, tmp_path / "file.bin", sha256=None)
    assert server.requests == []


def test_a_file_larger_than_the_disk_is_refused_before_a_byte_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = len(BODY) - 1
    monkeypatch.setattr(zoo.download.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    assert re.search(
        r"0\.000307 GB are to be downloaded, but .* has 0\.000307 GB free.*ZOO_CACHE",
        refusal_of(fetch, server.url, tmp_path / "file.bin", sha256=SHA256),
    )
    assert left_behind(tmp_path) == set()
    # what is there already needs no room
    (tmp_path / "file.bin.part").write_bytes(BODY[:1])
    fetch(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_missing_page_and_an_unreachable_host_say_how_to_do_without(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"answered 404.*ZOO_DATA"):
        fetch(server.url + ".gone", tmp_path / "file.bin", sha256=SHA256)
    with pytest.raises(ZooError, match=r"cannot be reached.*by hand.*ZOO_DATA"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", sha256=SHA256)
    assert left_behind(tmp_path) == set()


def test_a_file_address_is_copied_and_other_schemes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "origin").write_bytes(BODY)
    fetch((tmp_path / "origin").as_uri(), tmp_path / "copy", sha256=SHA256)
    assert (tmp_path / "copy").read_bytes() == BODY
    with pytest.raises(ZooError, match="not an address"):
        fetch("ftp://host/file", tmp_path / "other", sha256=None)


def test_a_full_disk_is_one_line_and_frees_what_was_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zoo.download.os, "fsync", full)
    with pytest.raises(ZooError, match=r"No space left.*ZOO_CACHE"):
        fetch(server.url, tmp_path / "file.bin", sha256=SHA256)
    assert left_behind(tmp_path) == set()


def _fetch_in_process(url: str, target: Path) -> None:
    fetch(url, target, sha256=SHA256)


def test_two_processes_at_once_transfer_once(server: Server, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=_fetch_in_process, args=(server.url, tmp_path / "file.bin")) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.requests == [0]


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ZOO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "equizoo"
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "equizoo"


def test_a_misspelt_data_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_DATA", f"{tmp_path}{os.pathsep}")
    assert data_roots() == [tmp_path]
    monkeypatch.setenv("ZOO_DATA", f"{tmp_path}{os.pathsep}{tmp_path / 'absent'}")
    with pytest.raises(ZooError, match="absent"):
        data_roots()
