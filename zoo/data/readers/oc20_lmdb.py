"""The old form of OC20 and OC22: LMDB files of pickled PyG data, one record a structure.

Layout: the keys ``b"0"``, ``b"1"``, ... hold pickled `Data`, and ``b"length"``, where there is one, how many. S2EF records have ``y``
(eV; the adsorption energy in OC20's published files, the total energy in OC22's) and ``force`` (eV/Å), IS2RE and IS2RS ones ``y_init``,
``y_relaxed`` and ``pos_relaxed``; all have ``pos``, ``cell`` (1, 3, 3), ``atomic_numbers``, ``tags``, ``fixed`` and ``sid``. Structures are
slabs, periodic in three directions. The numbers are stored in float32, atomic numbers and tags too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.lmdb_file import LmdbFile, is_sharded, open_lmdb, shard_files, shards
from zoo.data.raw import Chunk, Format, RawFrame, ReadOptions
from zoo.errors import ZooError

_SUFFIX = ".lmdb"
_ALL_RECORDS = 1 << 62
# the file's own name, and the house name under which it is found too; of two with the same house name the first that is there counts
_HOUSE_NAMES = (
    ("y", "energy"),
    ("y_init", "energy"),
    ("force", "forces"),
    ("y_relaxed", "relaxed_energy"),
    ("pos_relaxed", "relaxed_positions"),
)


def system_and_frame(found: Mapping[str, Any]) -> str:
    """The name under which a leaderboard knows a structure: ``"{sid}_{fid}"``, ``"{sid}"`` without frames, empty without either."""
    parts = [found[name] for name in ("sid", "fid") if name in found] if "sid" in found else []
    return "_".join(str(part if isinstance(part, str) else _one_integer(part)) for part in parts)


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    for chunk in _chunks(path, options, _ALL_RECORDS):
        yield from _read_chunk(path, options, chunk)


def _chunks(path: Path, options: ReadOptions, size: int) -> Iterator[Chunk]:
    for file, source in shards(path, _SUFFIX):
        with open_lmdb(file) as records:
            count = _record_count(records, file)
        for first in range(0, count, size):
            yield Chunk(source, first, (file, range(first, min(first + size, count))))


def _read_chunk(path: Path, options: ReadOptions, chunk: Chunk) -> Iterator[RawFrame]:
    from zoo.data.restricted_pickle import RefusedError, fields_of, load_pickle

    file, numbers = chunk.place
    with open_lmdb(file) as records:
        for number in numbers:
            where = f"{file}: record {number}"
            payload = records.get(str(number).encode("ascii"))
            if payload is None:
                raise ZooError(f"{where} is missing, though the file says it holds more; download or copy it again")
            try:
                fields = fields_of(load_pickle(payload, where))
            except RefusedError as refused:
                raise ZooError(f"{where} is {refused}; give an LMDB of pickled PyG Data, as OC20 publishes them") from None
            yield _raw_frame(fields, where, chunk.source)


def _record_count(records: LmdbFile, file: Path) -> int:
    from zoo.data.restricted_pickle import load_pickle

    stated = records.get(b"length")
    count = records.entries if stated is None else load_pickle(stated, f"{file}: its length")
    if not isinstance(count, int):
        raise ZooError(f"{file}: its length is {count!r}, not a number; download or copy it again")
    return count


def _raw_frame(fields: Mapping[str, Any], where: str, source: str) -> RawFrame:
    missing = [name for name in ("pos", "cell", "atomic_numbers") if name not in fields]
    if missing:
        raise ZooError(f"{where} has no {missing[0]!r} (found: {', '.join(sorted(fields)) or 'nothing'}); is it a file of OC20 or OC22?")
    found = dict(fields)
    for own, house in _HOUSE_NAMES:
        if own in fields:
            found.setdefault(house, fields[own])
    fixed, tags = fields.get("fixed"), fields.get("tags")
    in_float32 = any(getattr(found.get(name), "dtype", None) == np.float32 for name in ("forces", "relaxed_positions"))
    return RawFrame(
        numbers=_integers(fields["atomic_numbers"], "atomic_numbers", where),
        positions=np.asarray(fields["pos"], dtype=np.float64),
        cell=np.asarray(fields["cell"], dtype=np.float64).reshape(3, 3),
        pbc=np.ones(3, dtype=bool),
        found=found,
        fixed=None if fixed is None or not np.any(fixed) else _integers(fixed, "fixed", where).astype(bool),
        tags=None if tags is None else _integers(tags, "tags", where),
        identifier=system_and_frame(fields),
        source=source,
        notes=("labels are stored in float32",) if in_float32 else (),
    )


def _integers(values: Any, name: str, where: str) -> NDArray[np.int64]:
    given = np.asarray(values)
    whole = given.astype(np.int64)
    if not np.array_equal(whole, given):
        raise ZooError(f"{where}: {name} holds numbers that are not whole; repair or remove the record")
    return whole


def _one_integer(value: Any) -> int:
    return int(np.asarray(value).reshape(()))


FORMAT = Format(
    name="oc20_lmdb",
    description="OC20's and OC22's LMDB files of pickled PyG data, read without running code from them (.lmdb, or a folder of them)",
    recognises=lambda path: is_sharded(path, _SUFFIX),
    read=_read,
    files=lambda path: shard_files(path, _SUFFIX),
    chunks=_chunks,
    read_chunk=_read_chunk,
)
