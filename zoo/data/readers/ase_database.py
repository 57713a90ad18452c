"""ASE databases: SQLite (``.db``) and fairchem's LMDB form (``.aselmdb``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zoo.data.raw import Format, RawFrame, ReadOptions
from zoo.data.readers.ase_files import labels_of_atoms


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    from ase.db import connect

    for row in connect(str(path), type="db").select():
        atoms = row.toatoms()
        yield RawFrame.of_atoms(atoms, labels_of_atoms(atoms, {**row.data, **row.key_value_pairs}))


FORMAT = Format(
    name="ase_database",
    description="ASE databases (SQLite, .db)",
    recognises=lambda path: path.is_file() and path.suffix == ".db",
    read=_read,
)
