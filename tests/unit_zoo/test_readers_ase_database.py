"""ASE's databases: SQLite, and the LMDB form in which fairchem publishes OC20 and others; and the published files that are here."""

from __future__ import annotations

import json
import re
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ase.db
import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.io.jsonio import encode

from tests.refusals import refusal_of
from tests.structures import slab
from zoo.data.readers import read_frames


def write_aselmdb(path: Path, images: Iterable[Atoms], deleted: tuple[int, ...] = (), **extra: Any) -> Path:
    """The documented layout, from ASE's JSON of a row alone."""
    environment = lmdb.open(str(path), subdir=False, map_size=2**26, lock=False)
    with environment.begin(write=True) as transaction:
        number = 0
        for number, atoms in enumerate(images, 1):
            row = {
                "numbers": atoms.numbers,
                "positions": atoms.positions,
                "cell": atoms.cell.array,
                "pbc": atoms.pbc,
                "tags": atoms.get_tags(),
                "constraints": [one.todict() for one in atoms.constraints],
                "calculator": "unknown",
                "calculator_parameters": {},
                "energy": atoms.calc.results["energy"],
                "forces": atoms.calc.results["forces"],
                "unique_id": f"{number:032x}",
                "key_value_pairs": {"sid": 40 + number, "fid": 3},
                "data": {"nads": 1},
                "ctime": 26.0,
                "mtime": 26.0,
                **extra,
            }
            if number not in deleted:
                transaction.put(f"{number}".encode(), zlib.compress(encode(row).encode()))
        transaction.put(b"nextid", zlib.compress(json.dumps(number + 1).encode()))
        if deleted:
            transaction.put(b"deleted_ids", zlib.compress(json.dumps(list(deleted)).encode()))
    environment.close()
    return path


def assert_slabs(frames: list[Any], numbers: Iterable[int]) -> None:
    for frame, number in zip(frames, numbers, strict=True):
        atoms = slab(number)
        np.testing.assert_array_equal(frame.positions, atoms.positions)
        np.testing.assert_array_equal(frame.cell, atoms.cell.array)
        np.testing.assert_array_equal(frame.forces[1:], atoms.calc.results["forces"][1:])
        assert frame.energy == atoms.calc.results["energy"]
        assert frame.fixed.tolist() == [True, False, False, False]
        assert frame.tags.tolist() == [0, 1, 1, 2]


def test_an_ase_lmdb_reads_back_exactly_without_its_deleted_rows(tmp_path):
    path = write_aselmdb(tmp_path / "rows.aselmdb", [slab(number) for number in range(12)], deleted=(3,))
    frames = read_frames(path, needs=("energy", "forces"))
    assert_slabs(frames, [0, 1, *range(3, 12)])
    assert [frame.identifier for frame in frames][:3] == ["41_3", "42_3", "44_3"]
    assert len(read_frames(tmp_path)) == 11


def test_what_fairchems_own_writer_wrote_reads_back_exactly(tmp_path):
    pytest.importorskip("ase_db_backends.aselmdb")
    with ase.db.connect(tmp_path / "rows.aselmdb", type="aselmdb") as database:
        for number in range(12):
            database.write(slab(number), data={"sid": number, "fid": 0})
    frames = read_frames(tmp_path / "rows.aselmdb")
    assert_slabs(frames, range(12))
    assert frames[7].identifier == "7_0"


def spoilt_row(path: Path, key: bytes, value: bytes | None) -> None:
    environment = lmdb.open(str(path), subdir=False, map_size=2**26, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(key, value) if value is not None else transaction.delete(key)
    environment.close()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (b"2", b"not compressed", "row 2 is damaged"),
        (b"2", zlib.compress(b"{not json"), "row 2 is damaged"),
        (b"2", zlib.compress(b'{"__ase_objtype__": "os.system"}'), "row 2 is damaged"),
        (b"2", None, "row 2 is missing"),
        (b"nextid", None, "nextid.* is missing"),
    ],
)
def test_a_damaged_ase_lmdb_is_one_line(key, value, words, tmp_path):
    path = write_aselmdb(tmp_path / "rows.aselmdb", [slab(0), slab(1), slab(2)])
    assert len(read_frames(path)) == 3
    spoilt_row(path, key, value)
    refusal = refusal_of(read_frames, path)
    assert re.search(words, refusal)
    assert "rows.aselmdb" in refusal


def test_a_truncated_ase_lmdb_and_a_file_of_another_kind_are_one_line(tmp_path):
    path = write_aselmdb(tmp_path / "rows.aselmdb", [slab(number) for number in range(40)])
    path.write_bytes(path.read_bytes()[:-4096])
    assert "is truncated" in refusal_of(read_frames, path)
    (tmp_path / "other.aselmdb").write_text("three\nwords\nhere\n" * 1000)
    assert "cannot be opened as an LMDB" in refusal_of(read_frames, tmp_path / "other.aselmdb")


def test_an_ase_lmdb_is_read_without_write_access_and_leaves_nothing_beside_it(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    write_aselmdb(folder / "rows.aselmdb", [slab(0)])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.chmod(stat.S_IREAD)
    folder.chmod(stat.S_IREAD | stat.S_IEXEC)
    try:
        assert len(read_frames(folder / "rows.aselmdb")) == 1
    finally:
        folder.chmod(stat.S_IRWXU)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_published_ase_files_load(data_folder):
    oxides = read_frames(data_folder("oxides_ft") / "oxides.db", needs=("energy", "forces"))
    with ase.db.connect(data_folder("oxides_ft") / "oxides.db") as database:
        rows = list(database.select())
    assert len(oxides) == len(rows) == 295
    assert [frame.energy for frame in oxides] == [row.energy for row in rows]
    oc20 = data_folder("oc20")
    assert len(read_frames(oc20 / "atoms.json")) == 1
    assert len(read_frames(oc20 / "random1447590.traj")) == 47
