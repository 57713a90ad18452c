"""What a copy on disk is named by: every file that its frames follow from, however it is reached, and no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pytest
from ase.db.core import Database
from ase.io import write

from tests.refusals import lacks, refusal_of
from tests.structures import slab
from tests.unit_zoo.test_readers_ase_database import write_aselmdb
from zoo.data import conversion
from zoo.data.cache_choice import CacheChoice
from zoo.data.conversion import read_source
from zoo.data.raw import files_below
from zoo.data.readers import ase_database, pyg_files, read_file
from zoo.data.readers.ase_files import FORMAT as ASE_FILES

ON_DISK = CacheChoice("disk", 2)
DEEPMD_SYSTEM = {"energy": (3,), "coord": (3, 6), "force": (3, 6), "box": (3, 9)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def copies(cache: Path) -> int:
    return sum(one.is_dir() for one in (cache / "frames").iterdir())


def deepmd_system(folder: Path) -> Path:
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("0\n0\n")
    (folder / "type_map.raw").write_text("Cu\n")
    random = np.random.default_rng(0)
    for name, shape in DEEPMD_SYSTEM.items():
        values = np.tile(8 * np.eye(3).reshape(-1), (3, 1)) if name == "box" else 3 * random.random(shape)
        np.save(folder / "set.000" / f"{name}.npy", values)
    return folder


def test_what_lies_behind_a_link_is_part_of_the_source(tmp_path, cache):
    real, linked = deepmd_system(tmp_path / "real"), tmp_path / "linked"
    linked.mkdir()
    for one in real.iterdir():
        (linked / one.name).symlink_to(one)
    before = [frame.energy for frame in read_source(linked, choice=ON_DISK).frames]
    energies = np.load(real / "set.000/energy.npy")
    np.save(real / "set.000/energy.npy", energies + 1)
    after = [frame.energy for frame in read_source(linked, choice=ON_DISK).frames]
    assert after == [frame.energy for frame in read_file(linked).frames] != before
    assert copies(cache) == 2


def test_links_that_go_round_end(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/gone").symlink_to(tmp_path / "nowhere")
    assert files_below(tmp_path / "a") == [tmp_path / "a/b/file"]


def test_what_lies_beside_the_shards_of_a_folder_changes_no_copy(tmp_path, cache, monkeypatch):
    folder = tmp_path / "shards"
    folder.mkdir()
    write_aselmdb(folder / "a.aselmdb", [slab(number) for number in range(3)])
    read_source(folder, choice=ON_DISK)
    (folder / "a.aselmdb-lock").write_bytes(b"who reads")  # as every other reader leaves it
    (folder / "notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(conversion._Conversion, "build", lambda *_: pytest.fail("it was converted again"))
        read_source(folder, choice=ON_DISK)
    shutil.copy(folder / "a.aselmdb", folder / "b.aselmdb")
    assert len(read_source(folder, choice=ON_DISK).frames) == 6
    assert copies(cache) == 2


def test_what_a_pyg_set_was_made_from_is_no_part_of_it(tmp_path):
    for name in ("raw/download.zip", "processed/data.pt", "processed/pre_filter.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert pyg_files.FORMAT.files(tmp_path) == [tmp_path / "processed/data.pt"]
    assert pyg_files.FORMAT.files(tmp_path / "processed/data.pt") == [tmp_path / "processed/data.pt"]


def test_a_database_with_rows_in_its_log_is_another_source(tmp_path):
    path = tmp_path / "rows.db"
    path.write_bytes(b"some pages")
    assert ase_database.FORMAT.files(path) == [path]
    log = tmp_path / "rows.db-wal"
    log.write_bytes(b"some more")
    assert ase_database.FORMAT.files(path) == [path, log]


def test_a_database_is_read_some_rows_at_a_time_in_its_order(tmp_path, monkeypatch):
    path, images = tmp_path / "rows.db", [slab(number) for number in range(11)]
    with ase.db.connect(path) as database:
        for atoms in images:
            database.write(atoms)
        database.delete([2, 5, 6, 7])
    expected = [row.energy for row in ase.db.connect(path).select()]
    assert len(expected) == 7
    limits = []
    select: Callable[..., object] = Database.select

    def watched(self: Database, *words: object, **options: object) -> object:
        limits.append(options.get("limit"))
        return select(self, *words, **options)

    monkeypatch.setattr(Database, "select", watched)
    monkeypatch.setattr(ase_database, "_ROWS_AT_ONCE", 3)
    assert [frame.energy for frame in read_file(path).frames] == expected
    assert limits == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "2\nProperties=species:S:1:pos:R:3:junk:R:2000000000 energy=1.0\nCu 0 0 0\nAu 0 0 2.5\n",
            "has a line of 9 characters for atom 0, and claims 2000000004 columns",
        ),
        ("2000000000\nProperties=species:S:1:pos:R:3 energy=1.0\nCu 0 0 0\nAu 0 0 2.5\n", "claims 2000000000 atoms"),
    ],
    ids=["columns", "atoms"],
)
@pytest.mark.parametrize("vectors", ["", "VEC1 5 0 0\nVEC2 0 5 0\nVEC3 0 0 5\n"], ids=["plain", "vectors"])
def test_what_headers_claim_is_checked_in_pieces_too(tmp_path, monkeypatch, text, said, vectors):
    monkeypatch.setattr(conversion, "_FRAMES_OF_A_PIECE", 2)
    path = tmp_path / "claims.xyz"
    path.write_text(("2\nProperties=species:S:1:pos:R:3 energy=1.0\nCu 0 0 0\nAu 0 0 2.5\n" + vectors) * 5 + text)
    assert ASE_FILES.chunks is not None
    refusals = {refusal_of(read_file, path), refusal_of(read_source, path, choice=ON_DISK)}
    assert len(refusals) == 1
    assert f"frame 5 {said}" in refusals.pop()


def test_a_source_that_changes_while_it_is_read_leaves_no_copy(tmp_path, cache, monkeypatch):
    folder = tmp_path / "shards"
    folder.mkdir()
    write_aselmdb(folder / "a.aselmdb", [slab(number) for number in range(3)])
    joined = conversion._joined

    def meanwhile(held: Any) -> Any:
        shutil.copy(folder / "a.aselmdb", folder / "b.aselmdb")
        return joined(held)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_joined", meanwhile)
        assert not lacks(refusal_of(read_source, folder, choice=CacheChoice("disk", 1)), str(folder), "changed while it was read")
    assert copies(cache) == 0
    assert len(read_source(folder, choice=ON_DISK).frames) == 6


def test_a_source_that_stays_in_memory_against_the_users_word_says_so(tmp_path):
    path = tmp_path / "POSCAR"
    write(path, slab(1), format="vasp")
    assert read_file(path).notes == read_source(path, choice=CacheChoice("auto")).notes
    assert any("stays in memory" in note for note in read_source(path, choice=ON_DISK).notes)
