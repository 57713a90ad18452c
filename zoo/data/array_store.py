"""Flat arrays in a folder of the cache: written once, checked whole whenever they are opened, and mapped into memory.

A store is a folder of ``.npy`` files and a ``manifest.json`` with the shape and the CRC-32 of each. What lacks its manifest, or differs
from it, is no store and is built anew (`zoo.data.store_builder`).
"""

from __future__ import annotations

import io
import json
import math
import mmap
import os
import stat
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from zoo.data.store_check import is_plain
from zoo.data.store_use import Hold, hold
from zoo.errors import ZooError, first_line

Array = NDArray[Any]

_LAYOUT = 1
MANIFEST = "manifest.json"
_BLOCK_BYTES = 1 << 22
_LONGEST_MANIFEST = 1 << 28  # it names every source of a data set, of which there may be a million


# A file may change twice within one tick of the file system's clock: what was checked while it was this young is checked again.
_SETTLED_NANOSECONDS = 1_000_000_000
_verified: dict[Path, dict[str, tuple[int, ...]]] = {}


class BrokenStoreError(Exception):
    """What lies there is no whole store; says how it differs."""


class StoreWriter:
    """Appends to the arrays of a store that is being built."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._growing: dict[str, _Growing] = {}

    def append(self, arrays: Mapping[str, Array]) -> None:
        """Add rows to each array; the first call with a name decides its type and row shape."""
        for name, rows in arrays.items():
            if name not in self._growing:
                self._growing[name] = _Growing((self._folder / f"{name}.npy").open("wb"), rows.dtype.newbyteorder("<"), rows.shape[1:])
            self._growing[name].append(rows)

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Write the final headers and the manifest, and flush everything to disk."""
        arrays = {name: growing.finish() for name, growing in self._growing.items()}
        content = {"layout": _LAYOUT, "arrays": arrays, "meta": dict(meta)}
        with (self._folder / MANIFEST).open("w", encoding="utf-8") as stream:
            json.dump({**content, "crc32": _crc_of_json(content)}, stream)
            _flush(stream)

    def close(self) -> None:
        """Close what is still open after an error."""
        for growing in self._growing.values():
            with suppress(OSError):  # of a full disk, once more: what was written is thrown away
                growing.stream.close()


@dataclass
class _Growing:
    """One ``.npy`` file whose length is known at its end: NumPy leaves room in the header for that."""

    stream: IO[bytes]
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    rows: int = 0
    crc: int = 0

    def __post_init__(self) -> None:
        self._header()
        self._begin = self.stream.tell()

    def append(self, rows: Array) -> None:
        given = np.ascontiguousarray(rows, dtype=self.dtype)
        assert given.shape[1:] == self.row_shape
        content = given.tobytes()
        self.stream.write(content)
        self.crc = zlib.crc32(content, self.crc)
        self.rows += len(given)

    def finish(self) -> dict[str, Any]:
        self.stream.seek(0)
        self._header()
        assert self.stream.tell() == self._begin
        _flush(self.stream)
        self.stream.close()
        with Path(self.stream.name).open("rb") as written:
            header = written.read(self._begin)
        return {
            "dtype": self.dtype.str,
            "shape": [self.rows, *self.row_shape],
            "header_bytes": self._begin,
            "crc32": [zlib.crc32(header), self.crc],
        }

    def _header(self) -> None:
        self.stream.write(_header(self.dtype.str, (self.rows, *self.row_shape)))


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What a ``.npy`` file begins with; as long for any number of rows."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _flush(stream: IO[Any]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _crc_of_json(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


@dataclass
class ArrayStore:
    """The arrays of one store, mapped into memory and read-only.

    Pages that were read count as this process's memory until `release`. In another process, or after a fork, they are mapped anew.

    Attributes:
        folder: where they lie.
        meta: what the builder said about them.
    """

    folder: Path
    meta: dict[str, Any]
    _layout: dict[str, tuple[str, tuple[int, ...], int]]
    _arrays: dict[str, Array] = field(default_factory=dict, repr=False)
    _maps: list[mmap.mmap] = field(default_factory=list, repr=False)
    _process: int = 0
    _held: Hold | None = field(default=None, repr=False)

    def __contains__(self, name: object) -> bool:
        return name in self._layout

    def __getitem__(self, name: str) -> Array:
        if self._process != os.getpid():
            self._arrays, self._maps, self._process = {}, [], os.getpid()
        if name not in self._arrays:
            self._arrays[name] = self._mapped(name)
        return self._arrays[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}, "_maps": [], "_process": 0, "_held": None}

    def release(self) -> None:
        """Let the system take back the pages that were read; they stay valid."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for one in self._maps:
                one.madvise(mmap.MADV_DONTNEED)

    def _mapped(self, name: str) -> Array:
        dtype, shape, begin = self._layout[name]
        count = math.prod(shape)
        if count == 0:
            return np.empty(shape, dtype)
        try:
            with (self.folder / f"{name}.npy").open("rb") as stream:
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ZooError(f"{self.folder}: went from the cache while it was in use ({error.strerror or error}); start again") from error
        self._maps.append(mapped)
        return np.frombuffer(mapped, np.dtype(dtype), count, begin).reshape(shape)


def open_store(folder: Path) -> ArrayStore:
    """A store, every byte of it compared with its checksums.

    Raises:
        BrokenStoreError: where it is not whole.
    """
    try:
        if _state(folder / MANIFEST)[2] > _LONGEST_MANIFEST:
            raise BrokenStoreError(f"{MANIFEST} is too large for one")
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        crc = content.pop("crc32")
        if crc != _crc_of_json(content) or content["layout"] != _LAYOUT:
            raise BrokenStoreError(f"{MANIFEST} differs from its checksum")
        arrays: dict[str, Any] = content["arrays"]
        for name, one in arrays.items():
            if not is_plain(name, one):
                raise BrokenStoreError(f"{MANIFEST} describes {name[:40]!r} as no array")
        began, states = time.time_ns(), {name: _state(folder / f"{name}.npy") for name in arrays}
        states[MANIFEST] = (crc, 0, 0)
        if _verified.get(folder) != states:
            with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:  # checksums are computed outside of Python's lock
                list(pool.map(lambda name: _check_file(folder / f"{name}.npy", arrays[name]), arrays))
            if all(max(state[-2:]) < began - _SETTLED_NANOSECONDS for state in states.values()):
                _verified[folder] = states
        layout = {name: (one["dtype"], tuple(one["shape"]), one["header_bytes"]) for name, one in arrays.items()}
        return ArrayStore(folder, dict(content["meta"]), layout, _held=hold(folder / MANIFEST))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenStoreError(first_line(error) or type(error).__name__) from None


def _state(path: Path) -> tuple[int, ...]:
    """What changes with the content of a file; the last two are times in ns."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise BrokenStoreError(f"{path.name} is no file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check_file(path: Path, wanted: Mapping[str, Any]) -> None:
    if wanted["header_bytes"] != len(header := _header(wanted["dtype"], tuple(wanted["shape"]))):
        raise BrokenStoreError(f"{path.name} has no header of its shape")
    size = wanted["header_bytes"] + math.prod(wanted["shape"]) * np.dtype(wanted["dtype"]).itemsize
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size != size:
            raise BrokenStoreError(f"{path.name} has {os.fstat(stream.fileno()).st_size} bytes where {size} are expected")
        # the header apart, since it is written last; it says what the manifest says, to other readers
        if stream.read(len(header)) != header:
            raise BrokenStoreError(f"{path.name} is another array than {MANIFEST} says")
        found = [zlib.crc32(header), 0]
        while block := stream.read(_BLOCK_BYTES):
            found[1] = zlib.crc32(block, found[1])
    if found != wanted["crc32"]:
        raise BrokenStoreError(f"{path.name} differs from its checksum")
