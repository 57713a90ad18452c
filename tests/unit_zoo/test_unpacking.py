"""What a compressed file may unpack to, and that it is refused at that limit, before it fills memory or disk."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.hostile import write_records
from tests.refusals import refusal_of
from zoo.data.archives import obtain_member, taken_out
from zoo.data.linear_references import read_linear_references
from zoo.data.readers import read_frames
from zoo.data.unpacking import MOST_TIMES, USUAL_BYTES, check_compressed, most_unpacked, open_binary, open_text

ZEROS = bytes(1 << 20)


def compressed_by(compress: Callable[[bytes], bytes], megabytes: int) -> bytes:
    """A stream of zeros; the same short one many times over, as all three formats allow."""
    return compress(ZEROS) * megabytes


COMPRESSIONS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_bomb_is_refused_at_the_limit_and_never_held(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.json{suffix}"
    path.write_bytes(compressed_by(COMPRESSIONS[suffix], 300))
    assert path.stat().st_size * MOST_TIMES < 300 << 20
    tracemalloc.start()
    refusal = refusal_of(check_compressed, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"a.json{suffix}: unpacks to more than" in refusal
    assert "ZOO_MAX_UNPACKED_GB" in refusal
    assert peak < 32 << 20


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_what_is_whole_reads_back_and_what_is_cut_off_says_so(suffix: str, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(200_000)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(COMPRESSIONS[suffix](content))
    with open_binary(path) as stream:
        assert stream.read() == content
    check_compressed(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert f"a{suffix}: is cut off or damaged" in refusal_of(check_compressed, path)


def test_the_limit_is_raised_by_the_variable_and_by_nothing_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_unpacked(10) == USUAL_BYTES
    assert most_unpacked(USUAL_BYTES) == MOST_TIMES * USUAL_BYTES
    monkeypatch.setenv("ZOO_MAX_UNPACKED_GB", "2.5")
    assert most_unpacked(10) == 2_500_000_000
    for text in ("many", "nan", "inf"):
        monkeypatch.setenv("ZOO_MAX_UNPACKED_GB", text)
        assert "is no number of gigabytes" in refusal_of(most_unpacked, 10)


def test_a_bomb_is_read_where_the_variable_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(compressed_by(gzip.compress, 150))
    monkeypatch.setenv("ZOO_MAX_UNPACKED_GB", "1")
    with open_text(path) as stream:
        assert sum(len(piece) for piece in iter(lambda: stream.read(1 << 20), "")) == 150 << 20


def test_an_archive_that_would_fill_the_disk_leaves_nothing(tmp_path: Path) -> None:
    path, out = tmp_path / "set.tar.gz", tmp_path / "out"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("set/a.xyz")
        info.size = 300 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    assert "set.tar.gz: unpacks to more than" in refusal_of(obtain_member, path, "set", out)
    assert taken_out("set", out) is None
    assert [one.name for one in out.iterdir() if one.is_dir()] == []


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_a_flipped_bit_in_the_numbers_of_an_archive_is_found_by_its_checksum(tmp_path: Path) -> None:
    np.savez(tmp_path / "linear.npz", coeff=np.linspace(-1.0, -0.5, 100))
    assert len(read_linear_references(tmp_path / "linear.npz")) == 99
    flipped(tmp_path / "linear.npz", 600)
    assert "differs from its checksum" in refusal_of(read_linear_references, tmp_path / "linear.npz")


def test_a_row_of_a_database_that_explodes_is_named(tmp_path: Path) -> None:
    row = zlib.compress(json.dumps({"numbers": [1], "positions": [[0, 0, 0]]}).encode())
    write_records(tmp_path / "a.aselmdb", {"nextid": zlib.compress(b"3"), "1": row, "2": zlib.compress(bytes(1 << 25), 9)})
    assert "a.aselmdb: row 2: unpacks to more than 17 MB" in refusal_of(read_frames, tmp_path / "a.aselmdb", needs=())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n\nH 0 0 0\n\n1\n\nH 0 0 0\n", "frame 1 comes after an empty line, at which reading stops"),
        ("1\n\nH 0 0 0\nx\n", "frame 1 starts with 'x', not a number of atoms"),
        ("2\n\nH 0 0 0\n", "frame 0 claims 2 atoms, and the file ends after 1"),
        ("1\nProperties=species:S:1:pos:R:300\nH 0 0 0\n", "frame 0 has a line of 8 characters for atom 0, and claims 301 columns"),
    ],
)
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_extended_xyz_that_does_not_hold_what_it_claims_is_refused_in_both_ways(
    text: str, words: str, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.data.cache_choice import CacheChoice
    from zoo.data.conversion import read_source

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.xyz").write_text(text)
    choice = CacheChoice("disk", 1) if cache == "disk" else CacheChoice()
    assert words in refusal_of(read_source, tmp_path / "a.xyz", choice=choice)
    assert [one for one in (tmp_path / "cache").glob("frames/*") if one.is_dir()] == []


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_last_number_that_may_be_cut_short_is_noted(cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.data.cache_choice import CacheChoice
    from zoo.data.conversion import read_source

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    choice = CacheChoice("disk", 1) if cache == "disk" else CacheChoice()
    (tmp_path / "a.xyz").write_text("1\nenergy=1\nH 0 0 0.25\n")
    assert read_source(tmp_path / "a.xyz", choice=choice).notes == ()
    (tmp_path / "a.xyz").write_text("1\nenergy=1\nH 0 0 0.2")
    assert "its last number may be cut short" in read_source(tmp_path / "a.xyz", choice=choice).notes[0]


def test_a_zip_archive_of_structures_is_held_to_what_its_directory_claims(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.xyz", bytes(150 << 20))
    assert "a.zip: unpacks to more than 100 MB" in refusal_of(read_frames, tmp_path / "a.zip")
