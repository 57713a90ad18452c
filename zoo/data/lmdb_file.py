"""LMDB files, read page by page here: no lock file, no write access, and no page that the library would believe.

The library maps a file into memory and follows its page numbers unchecked, so that one flipped bit or a missing end kills the process with
no exception to catch. Here every page is read as a slice of the file, and a number that leads out of it is an error. What is read is the
layout of LMDB 0.9 on 64-bit little-endian machines, one database without duplicates:

- a page begins with its number (u64), padding (u16), flags (u16) and the bounds of its free room (2 u16), or its length (u32) where it
  begins a value that has pages of its own;
- pages 0 and 1 are the metas: magic, version, address (u64), map size (u64), two databases, last page (u64), transaction (u64); the newer
  transaction counts. A database is padding (u32, in the first one the page size), flags (u16), depth (u16), four counts (u64), the last of
  which is that of the entries, and its root page (u64);
- a node is two u16 and its flags (u16), which together are the child's page in a branch, and in a leaf the value's size with flags, the
  key's size (u16), the key and the value, or the number of its first page.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from zoo.errors import ZooError

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER_BYTES = 16
_META = struct.Struct("<IIQQ IHHQQQQQ IHHQQQQQ QQ")
_HEAD = struct.Struct("<QHHHH")
_NODE = struct.Struct("<HHHH")
_NUMBER = struct.Struct("<Q")
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_IN_PAGES_OF_ITS_OWN = 1
_NO_PAGE = 2**64 - 1
_DEEPEST = 32
_PAGES_HELD = 512


class _Node(NamedTuple):
    """One entry of a page: the child's page in a branch; in a leaf, where its value is."""

    child: int
    size: int
    begin: int
    is_apart: bool


class _Page(NamedTuple):
    """A branch or a leaf: its keys in order, and their nodes."""

    is_leaf: bool
    keys: list[bytes]
    nodes: list[_Node]


class LmdbFile:
    """The keys and values of one file.

    Args:
        stream: of the file.
        path: names it in errors.

    Attributes:
        entries: how many keys the file says that it has.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self._size = stream, path, stream.seek(0, 2)
        self._page_bytes, self._depth, self.entries, self._root, self._last = self._newest_meta()
        if self._size < (self._last + 1) * self._page_bytes:
            raise ZooError(f"{path}: is truncated ({self._size} of {(self._last + 1) * self._page_bytes} bytes); download or copy it again")
        self._page = lru_cache(_PAGES_HELD)(self._parsed)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None where there is none; raises `ZooError` where the way there is damaged."""
        if self._root == _NO_PAGE:
            return None
        number = self._root
        for _ in range(self._depth - 1):
            branch = self._page(number)
            if branch.is_leaf:
                self._refuse(f"page {number} is a leaf where a branch is expected")
            # the first key of a branch stands for everything below the second
            number = branch.nodes[max(bisect_right(branch.keys, key, 1) - 1, 0)].child
        leaf = self._page(number)
        if not leaf.is_leaf:
            self._refuse(f"page {number} is no leaf, at the depth where leaves are")
        place = bisect_right(leaf.keys, key) - 1
        return self._value(number, leaf.nodes[place]) if place >= 0 and leaf.keys[place] == key else None

    def _newest_meta(self) -> tuple[int, int, int, int, int]:
        """(bytes of a page, depth, entries, root, last page)."""
        metas = [self._meta(0)]
        page_bytes = metas[0][4]
        if page_bytes not in (2**power for power in range(9, 17)):
            self._refuse(f"its pages have {page_bytes} bytes")
        metas.append(self._meta(page_bytes))
        newest = max(metas, key=lambda meta: int(meta[21]))
        flags, depth, entries, root, last = newest[13], newest[14], newest[18], newest[19], newest[20]
        if flags or depth > _DEEPEST or newest[4] != page_bytes or (root != _NO_PAGE and not depth):
            self._refuse("it holds a database of a kind that is not read here")
        return page_bytes, depth, entries, root, last

    def _meta(self, begin: int) -> tuple[int, ...]:
        content = self._bytes(begin, _HEADER_BYTES + _META.size)
        flags = _HEAD.unpack_from(content)[2]
        fields = _META.unpack_from(content, _HEADER_BYTES)
        if flags != _META_PAGE or fields[:2] != (_MAGIC, _VERSION):
            raise ZooError(f"{self._path}: cannot be opened as an LMDB (no header of one); is it complete, and an LMDB?")
        return fields

    def _parsed(self, number: int) -> _Page:
        content = self._bytes(self._place(number), self._page_bytes)
        own, _, flags, lower, upper = _HEAD.unpack_from(content)
        count = (lower - _HEADER_BYTES) // 2
        if own != number or flags not in (_BRANCH, _LEAF) or count < 1 or not lower <= upper <= len(content):
            self._refuse(f"page {number} is none of its tree")
        keys, nodes = [], []
        for begin in struct.unpack_from(f"<{count}H", content, _HEADER_BYTES):
            if begin < lower or begin + _NODE.size > len(content):
                self._refuse(f"page {number} points out of itself")
            low, high, node_flags, key_bytes = _NODE.unpack_from(content, begin)
            key_end = begin + _NODE.size + key_bytes
            child, size = low | high << 16 | node_flags << 32, low | high << 16
            is_apart = node_flags == _IN_PAGES_OF_ITS_OWN
            held = 0 if flags == _BRANCH else _NUMBER.size if is_apart else size
            if key_end + held > len(content) or (flags == _LEAF and node_flags > _IN_PAGES_OF_ITS_OWN):
                self._refuse(f"page {number} holds an entry that does not fit into it")
            keys.append(content[key_end - key_bytes : key_end])
            nodes.append(_Node(child, size, key_end, is_apart))
        if any(first >= second for first, second in zip(keys[flags == _BRANCH :], keys[1 + (flags == _BRANCH) :], strict=False)):
            self._refuse(f"the keys of page {number} are not in order")
        return _Page(flags == _LEAF, keys, nodes)

    def _value(self, number: int, node: _Node) -> bytes:
        begin = self._place(number) + node.begin
        if not node.is_apart:
            return self._bytes(begin, node.size)
        first: int = _NUMBER.unpack(self._bytes(begin, _NUMBER.size))[0]
        place = self._place(first)
        own, _, flags = struct.unpack("<QHH", self._bytes(place, 12))
        if own != first or flags != _OVERFLOW:
            self._refuse(f"page {first} does not begin a value")
        return self._bytes(place + _HEADER_BYTES, node.size)

    def _place(self, number: int) -> int:
        if not 2 <= number <= self._last:
            self._refuse(f"it names page {number}, and its last one is {self._last}")
        return number * self._page_bytes

    def _bytes(self, begin: int, count: int) -> bytes:
        if begin + count > self._size:
            raise ZooError(f"{self._path}: ends at byte {self._size}, before what it says it holds; is it complete, and an LMDB?")
        self._stream.seek(begin)
        return self._stream.read(count)

    def _refuse(self, what: str) -> NoReturn:
        raise ZooError(f"{self._path}: is damaged ({what}); download or copy it again")


@contextmanager
def open_lmdb(path: Path) -> Iterator[LmdbFile]:
    """One LMDB file, opened to be read.

    Raises:
        ZooError: a file that is no LMDB, or shorter than it says.
    """
    with path.open("rb", buffering=0) as stream:
        yield LmdbFile(stream, path)


def shards(path: Path, suffix: str) -> list[tuple[Path, str]]:
    """The files of a data set with their names within its folder, in that order; a file by itself has an empty name."""
    return [(file, file.name) for file in sorted(path.glob(f"*{suffix}"))] if path.is_dir() else [(path, "")]


def shard_files(path: Path, suffix: str) -> list[Path]:
    """What the frames follow from: not what lies beside, such as the lock file that every other reader of an LMDB changes."""
    return [file for file, _ in shards(path, suffix)]


def is_sharded(path: Path, suffix: str) -> bool:
    """Whether ``path`` is a file of that suffix, or a folder with one."""
    return any(path.glob(f"*{suffix}")) if path.is_dir() else path.suffix == suffix
