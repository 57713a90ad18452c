"""ASE databases: SQLite (``.db``) and the LMDB form that fairchem publishes OC20, OMat and others in (``.aselmdb``).

Layout of the latter: the key ``b"nextid"`` holds the first unused row number, ``b"deleted_ids"`` the rows that are gone, and ``b"1"``,
``b"2"``, ... the rows; every value is ASE's JSON, compressed with zlib. It is read here and not through ASE's `connect`, which would open a
file for writing, would end the process on a truncated one, and needs the drivers of two database servers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.lmdb_file import LmdbFile, is_sharded, open_lmdb, shard_files, shards
from zoo.data.raw import Chunk, Format, RawFrame, ReadOptions
from zoo.data.readers.ase_files import labels_of_atoms
from zoo.data.readers.oc20_lmdb import system_and_frame
from zoo.data.unpacking import most_unpacked, too_large
from zoo.errors import ZooError, first_line

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

_LMDB_SUFFIX = ".aselmdb"
_ROWS_AT_ONCE = 1_000
# a frame of 100,000 atoms
_USUAL_ROW_BYTES = 1 << 24


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    if not is_sharded(path, _LMDB_SUFFIX):
        yield from (_raw_frame(row, "") for row in _sqlite_rows(path))
        return
    for file, source in shards(path, _LMDB_SUFFIX):
        with open_lmdb(file) as records:
            for row in _lmdb_rows(records, file, _row_numbers(records, file)):
                yield _raw_frame(row, source)


def _sqlite_rows(path: Path) -> Iterator[AtomsRow]:
    """In the order of their numbers, some at a time: ASE holds all that it selects at once, undecoded."""
    from ase.db import connect

    database, last = connect(str(path), type="db"), 0
    while rows := list(database.select([("id", ">", last)], limit=_ROWS_AT_ONCE)):
        yield from rows
        last = rows[-1].id


def _files(path: Path) -> Sequence[Path]:
    """With SQLite's log of what is written and not yet in the file, where another program left one."""
    if is_sharded(path, _LMDB_SUFFIX):
        return shard_files(path, _LMDB_SUFFIX)
    return [one for one in (path, path.with_name(f"{path.name}-wal")) if one.is_file()]


def _chunks(path: Path, options: ReadOptions, size: int) -> Iterator[Chunk] | None:
    return _chunks_of_lmdb(path, size) if is_sharded(path, _LMDB_SUFFIX) else None


def _chunks_of_lmdb(path: Path, size: int) -> Iterator[Chunk]:
    for file, source in shards(path, _LMDB_SUFFIX):
        with open_lmdb(file) as records:
            numbers = _row_numbers(records, file)
        for first in range(0, len(numbers), size):
            yield Chunk(source, first, (file, numbers[first : first + size]))


def _read_chunk(path: Path, options: ReadOptions, chunk: Chunk) -> Iterator[RawFrame]:
    file, numbers = chunk.place
    with open_lmdb(file) as records:
        for row in _lmdb_rows(records, file, numbers):
            yield _raw_frame(row, chunk.source)


def _raw_frame(row: AtomsRow, source: str) -> RawFrame:
    atoms = row.toatoms()
    beside = {**row.data, **row.key_value_pairs}
    found = labels_of_atoms(atoms, beside)
    # fairchem keeps what its Atoms have in info here
    ionic = {name: beside[name] for name in ("charge", "spin") if name in beside and name not in atoms.info}
    return RawFrame.of_atoms(atoms, found, source=source, identifier=system_and_frame(found), **ionic)


def _row_numbers(records: LmdbFile, file: Path) -> Sequence[int]:
    next_number = _decoded(records.get(b"nextid"), f"{file}: its row count ('nextid')")
    deleted = records.get(b"deleted_ids")
    left_out = set() if deleted is None else {int(one) for one in _decoded(deleted, f"{file}: its list of deleted rows")}
    if not isinstance(next_number, int) or next_number - 1 - len(left_out) > records.entries:
        raise ZooError(f"{file}: says that its next row is {next_number!r:.30}, and has {records.entries} entries; copy the file again")
    numbers = range(1, next_number)
    return [number for number in numbers if number not in left_out] if left_out else numbers


def _lmdb_rows(records: LmdbFile, file: Path, numbers: Sequence[int]) -> Iterator[AtomsRow]:
    from ase.db.row import AtomsRow

    for number in numbers:
        yield AtomsRow({**_decoded(records.get(str(number).encode("ascii")), f"{file}: row {number}"), "id": number})


def _decoded(value: bytes | None, where: str) -> Any:
    from ase.io.jsonio import decode

    if value is None:
        raise ZooError(f"{where} is missing; is it complete, and an ASE database?")
    try:
        return decode(_decompressed(value, where).decode("utf-8"))
    except ZooError:
        raise
    except (zlib.error, ValueError, RecursionError) as error:
        raise ZooError(f"{where} is damaged ({first_line(error)}); download or copy the file again") from error


def _decompressed(value: bytes, where: str) -> bytes:
    limit = most_unpacked(len(value), _USUAL_ROW_BYTES)
    decompressor = zlib.decompressobj()
    content = decompressor.decompress(value, limit)
    if decompressor.unconsumed_tail:
        raise too_large(where, len(value), _USUAL_ROW_BYTES)
    if not decompressor.eof:
        raise zlib.error("it is cut off")
    return content


FORMAT = Format(
    name="ase_database",
    description="ASE databases (SQLite, .db; LMDB as fairchem publishes it, .aselmdb or a folder of them)",
    recognises=lambda path: (path.is_file() and path.suffix == ".db") or is_sharded(path, _LMDB_SUFFIX),
    read=_read,
    files=_files,
    chunks=_chunks,
    read_chunk=_read_chunk,
)
