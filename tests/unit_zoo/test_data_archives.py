"""Members of archives arrive whole, once and where they belong; damaged and hostile archives are one clear line."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.refusals import refusal_of
from zoo.data.archives import obtain_member, taken_out
from zoo.errors import ZooError

# Noise does not compress: a cut in the middle of the archive is a cut in the middle of a file.
NOISE = np.random.default_rng(5).bytes(40_000)
FILES = {"set/a.npy": NOISE, "set/deep/b.npy": b"second", "set/deep/c.npy": b"", "settle/d.npy": b"third", "e.txt": b"fourth"}
KINDS = ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"]


def pack(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    """An archive by the ending of its name, as tar and zip write it: with entries for the folders."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.mkdir("set")
            for name, content in files.items():
                archive.writestr(prefix + name, content)
        return path
    ending = path.name.partition(".tar")[2].lstrip(".")
    with tarfile.open(path, f"w:{ending}") as archive:
        folder = tarfile.TarInfo(f"{prefix}set")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(archive: Path, member: str, destination: Path) -> str:
    """The one line; nothing but locks is left."""
    message = refusal_of(obtain_member, archive, member, destination)
    assert [path.name for path in destination.rglob("*") if not path.name.endswith(".lock")] == []
    return message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_file_and_a_folder_come_out_as_they_went_in(tmp_path: Path, kind: str, prefix: str) -> None:
    archive = pack(tmp_path / f"all.{kind}", FILES, prefix)
    out = tmp_path / "out"
    assert obtain_member(archive, "./e.txt", out).read_bytes() == b"fourth"
    assert obtain_member(archive, "set/a.npy", out).read_bytes() == NOISE
    folder = obtain_member(archive, "set/", out)
    assert folder.name == "set"
    # not settle/d.npy, which begins alike
    assert below(folder) == {"a.npy": NOISE, "deep/b.npy": b"second", "deep/c.npy": b""}
    assert below(obtain_member(archive, "set/deep", out)) == {"b.npy": b"second", "c.npy": b""}


def test_the_kind_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    inner = pack(tmp_path / "inner.zip", {"x": b"inner"})
    # a tar that ends in an uncompressed zip, which a search for zip's end record would take for one
    outer = pack(tmp_path / "outer.tar", {"inner.zip": inner.read_bytes()}).rename(tmp_path / "outer.download")
    assert obtain_member(outer, "inner.zip", tmp_path / "out").read_bytes() == inner.read_bytes()
    assert obtain_member(inner.rename(tmp_path / "named.tar"), "x", tmp_path / "out").read_bytes() == b"inner"


def test_a_member_is_taken_out_once_and_then_needs_no_archive(tmp_path: Path) -> None:
    archive = pack(tmp_path / "all.tar.gz", FILES)
    assert taken_out("set", tmp_path / "out") is None
    first = obtain_member(archive, "set", tmp_path / "out")
    assert taken_out("./set/", tmp_path / "out") == first
    written = first.stat().st_mtime_ns
    archive.unlink()
    assert obtain_member(archive, "set", tmp_path / "out") == first
    assert first.stat().st_mtime_ns == written
    with pytest.raises(ZooError, match=r"all\.tar\.gz: cannot be read \(No such file"):
        obtain_member(archive, "settle", tmp_path / "out")


def test_what_a_kill_left_behind_is_neither_taken_nor_kept(tmp_path: Path) -> None:
    archive = pack(tmp_path / "all.zip", FILES)
    left = tmp_path / "out" / ".set.partial" / "set"
    left.mkdir(parents=True)
    (left / "stale.npy").write_bytes(b"half")
    assert set(below(obtain_member(archive, "set", tmp_path / "out"))) == {"a.npy", "deep/b.npy", "deep/c.npy"}
    assert not left.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.85])
def test_a_truncated_archive_is_one_line_and_leaves_nothing(tmp_path: Path, kind: str, share: float) -> None:
    archive = pack(tmp_path / f"all.{kind}", FILES | {"set/z.npy": NOISE[::-1]})
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    message = refusal(archive, "set", tmp_path / "out")
    assert f"all.{kind}: damaged or cut short (" in message
    assert "fetch it again" in message


def test_a_tar_cut_between_two_members_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    archive = pack(tmp_path / "all.tar", FILES)
    content = archive.read_bytes()
    with tarfile.open(archive) as read:
        boundary = read.getmember("settle/d.npy").offset
    archive.write_bytes(content[:boundary])
    with tarfile.open(archive) as read:  # Python's own reader sees nothing
        assert read.getnames() == ["set", "set/a.npy", "set/deep/b.npy", "set/deep/c.npy"]
    assert "its end is missing" in refusal(archive, "set", tmp_path / "out")
    archive.write_bytes(content[: boundary + 200])
    assert "its end is missing" in refusal(archive, "set", tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_a_flipped_byte_inside_a_compressed_or_summed_file_is_found(tmp_path: Path, kind: str) -> None:
    archive = pack(tmp_path / f"all.{kind}", FILES)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0x10
    archive.write_bytes(content)
    assert "damaged or cut short" in refusal(archive, "set/a.npy", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>\n<html>not found</html>\n" * 30, b"PK\x03\x04 and then nothing"])
def test_what_is_no_archive_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "page.tar").write_bytes(content)
    assert "page.tar: damaged or cut short" in refusal(tmp_path / "page.tar", "set", tmp_path / "out")


def test_an_absent_member_names_a_few_that_are_there(tmp_path: Path) -> None:
    archive = pack(tmp_path / "all.tar.xz", FILES | {"empty/": b""})
    assert "has no file 'sets' or below it; it holds set/a.npy, set/deep/b.npy, set/deep/c.npy, settle/d.npy and" in refusal(
        archive, "sets", tmp_path / "out"
    )
    only_folders = pack(tmp_path / "bare.tar", {})
    assert "has no file 'set' or below it; it holds nothing" in refusal(only_folders, "set", tmp_path / "out")


@pytest.mark.parametrize("member", ["", ".", "/set", "../set", "set/../../x", "set\\x"])
def test_a_member_that_leads_elsewhere_is_refused(tmp_path: Path, member: str) -> None:
    assert "is not a path inside an archive" in refusal(pack(tmp_path / "all.tar", FILES), member, tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("name", ["set/../../evil", "set/deep/../../../../evil", "set/..\\..\\evil"])
def test_a_name_that_climbs_out_of_the_wanted_folder_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    archive = pack(tmp_path / f"all.{kind}", FILES | {name: b"evil"})
    destination = tmp_path / "far" / "down" / "out"
    assert "leads out of the archive, which is never taken out" in refusal(archive, "set", destination)
    assert not list(tmp_path.rglob("evil"))
    assert obtain_member(archive, "e.txt", destination).read_bytes() == b"fourth"  # the rest is as good as ever


@pytest.mark.parametrize("name", ["../evil", "/evil", "../../set/evil"])
def test_a_name_outside_of_the_wanted_folder_is_not_even_looked_at(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / "all.tar", FILES | {name: b"evil"})
    assert "evil" not in below(obtain_member(archive, "set", tmp_path / "down" / "out"))
    assert not list(tmp_path.rglob("evil"))


def _tar_link(kind: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, "w") as archive:
            link = tarfile.TarInfo("set/link")
            link.type, link.linkname = kind, "/etc"
            archive.addfile(link)
            info = tarfile.TarInfo("set/link/evil")  # through the link
            info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))

    return write


def _zip_link(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("set/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (_tar_link(tarfile.SYMTYPE), "a link"),
        (_tar_link(tarfile.LNKTYPE), "a link"),
        (_tar_link(tarfile.FIFOTYPE), "a special file"),
        (_tar_link(tarfile.CHRTYPE), "a special file"),
        (_zip_link, "a link"),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, write: Callable[[Path], None], what: str) -> None:
    write(tmp_path / "all")
    assert f"'set/link' is {what}, which is never taken out" in refusal(tmp_path / "all", "set", tmp_path / "out")


def test_a_destination_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    archive = pack(tmp_path / "all.tar", FILES)
    assert re.search(r"cannot be written .*ZOO_CACHE", refusal_of(obtain_member, archive, "set", tmp_path / "file" / "out"))
