"""The pages of LMDB files as read here, against the library; and that no damage to them ends in more than an error."""

from __future__ import annotations

import random
from pathlib import Path

import lmdb
import pytest

from tests.refusals import refusal_of
from zoo.data.lmdb_file import open_lmdb
from zoo.errors import ZooError

SIZES = (0, 1, 30, 700, 2030, 2040, 5000, 20_000)


def written(path: Path, seed: int) -> dict[bytes, bytes]:
    """A file of several transactions with keys of all lengths, values in and out of their pages, and some deleted again."""
    rng = random.Random(seed)
    content: dict[bytes, bytes] = {}
    with lmdb.open(str(path), subdir=False, map_size=2**27, lock=False, sync=False) as environment:
        for count in rng.choices((0, 1, 10, 600), k=3):
            with environment.begin(write=True) as transaction:
                for _ in range(count):
                    key = str(rng.randrange(5000)).encode() if seed % 2 else rng.randbytes(rng.randrange(1, 500))
                    if content and rng.random() < 0.2:
                        key = rng.choice(list(content))
                        transaction.delete(key)
                        del content[key]
                    else:
                        content[key] = rng.randbytes(rng.choice(SIZES))
                        transaction.put(key, content[key])
    return content


@pytest.mark.parametrize("seed", range(8))
def test_every_key_reads_back_as_the_library_wrote_it_and_others_are_absent(seed: int, tmp_path: Path) -> None:
    content, rng = written(tmp_path / "a.lmdb", seed), random.Random(seed)
    with open_lmdb(tmp_path / "a.lmdb") as records:
        assert records.entries == len(content)
        assert {key: records.get(key) for key in content} == content
        others = [rng.randbytes(rng.randrange(1, 40)) for _ in range(200)] + [str(number).encode() for number in range(0, 9000, 50)]
        assert [records.get(key) for key in others] == [content.get(key) for key in others]


def test_a_tree_of_branches_is_among_them(tmp_path: Path) -> None:
    """The control: some of these files are deeper than a leaf."""
    depths = set()
    for seed in range(8):
        written(tmp_path / f"{seed}.lmdb", seed)
        with lmdb.open(str(tmp_path / f"{seed}.lmdb"), subdir=False, readonly=True, lock=False) as environment:
            depths.add(environment.stat()["depth"])
    assert max(depths) >= 3


def test_damage_anywhere_is_an_error_or_another_value(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    content = written(path, 1)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        changed = bytearray(whole)
        for _ in range(rng.choice((1, 8, 64, 512))):
            changed[rng.choice((rng.randrange(len(changed)), rng.randrange(8192)))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(changed[: rng.choice((len(changed), rng.randrange(len(changed))))]))
        try:
            with open_lmdb(path) as records:
                for key in content:
                    records.get(key)
        except ZooError:
            refused += 1
    assert 50 < refused < 150


def test_what_is_no_lmdb_and_what_is_cut_off_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.lmdb"
    written(path, 1)

    def read(one: Path) -> None:
        with open_lmdb(one) as records:
            records.get(b"1")

    path.write_bytes(path.read_bytes()[:-4096])
    assert "a.lmdb: is truncated" in refusal_of(read, path)
    path.write_bytes(b"no database at all" * 1000)
    assert "a.lmdb: cannot be opened as an LMDB" in refusal_of(read, path)
    path.write_bytes(b"short")
    assert "a.lmdb: ends at byte 5" in refusal_of(read, path)
