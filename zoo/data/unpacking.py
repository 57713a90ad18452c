"""Compressed files, read up to a limit that real data never meet: a file of kilobytes can be made to unpack to gigabytes.

Coordinates hardly compress: text of them shrinks to a third or a tenth, and binary numbers less. What grows to more than `MOST_TIMES` its
size is made of one thing repeated, and is refused where it is more than a usual size too, before it is held in memory or written to disk.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from zoo.errors import ZooError, first_line

MOST_TIMES = 200
USUAL_BYTES = 100 * 10**6
LONGEST_LINE = 1 << 24
"""Characters of one line of text; the comment line of a frame has some hundreds, its atoms' lines less."""
DAMAGED = (gzip.BadGzipFile, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, RuntimeError)
"""What unpacking a file raises that is cut off or spoilt; bz2 raises an `OSError` without a number.

A `RuntimeError` is of an archive that says that it has a password, or an unknown method of compression.
"""

_VARIABLE = "ZOO_MAX_UNPACKED_GB"
_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}
SUFFIXES = frozenset(_OPENERS)


def most_unpacked(packed: int, usual: int = USUAL_BYTES) -> int:
    """How many bytes may come of ``packed`` ones: `MOST_TIMES` as many, or ``usual`` or ``$ZOO_MAX_UNPACKED_GB`` if that is more.

    Raises:
        ZooError: where the variable is no number.
    """
    text = os.environ.get(_VARIABLE)
    try:
        allowed = usual if not text else max(usual, int(float(text) * 1e9))
    except (ValueError, OverflowError):
        raise ZooError(f"{_VARIABLE}={text!r} is no number of gigabytes; set it to one, such as 20, or unset it") from None
    return max(allowed, MOST_TIMES * packed)


def too_large(where: object, packed: int, usual: int = USUAL_BYTES) -> ZooError:
    """The refusal of what unpacks to more than `most_unpacked`."""
    return ZooError(
        f"{where}: unpacks to more than {most_unpacked(packed, usual) / 1e6:,.0f} MB from {packed:,} bytes, which no real data do; if you "
        f"trust it, set {_VARIABLE} to the gigabytes it may have"
    )


def check_archive(path: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse a zip archive whose ``members`` claim more than they may: `zipfile` never reads more of a member than it claims."""
    packed = path.stat().st_size
    if sum(member.file_size for member in members) > most_unpacked(packed):
        raise too_large(path, packed)


def check_whole_archive(path: Path) -> None:
    """Refuse a zip archive that claims too much, or a member of which differs from its checksum, which readers of a part never look at.

    Raises:
        ZooError: naming the member.
        zipfile.BadZipFile: for what is no archive, and the rest of `DAMAGED`.
    """
    with zipfile.ZipFile(path) as archive:
        check_archive(path, archive.infolist())
        broken = archive.testzip()
    if broken is not None:
        raise ZooError(f"{path}: is incomplete or damaged ({broken[:100]!r} differs from its checksum); fetch the archive again")


def is_compressed(path: Path) -> bool:
    """Whether the name says so, as it does to ASE."""
    return path.suffix in SUFFIXES


def open_binary(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked where its name says that it is compressed; raises `ZooError` while reading, at the limit."""
    if not is_compressed(path):
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(_Bounded(_OPENERS[path.suffix](path), path)))


def open_text(path: Path, errors: str = "strict") -> io.TextIOWrapper:
    """`open_binary` as UTF-8."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8", errors=errors)


def read_line(stream: IO[str], where: object) -> str:
    """The next line, empty at the end; raises `ZooError` for one that would fill the memory."""
    line = stream.readline(LONGEST_LINE)
    if len(line) == LONGEST_LINE and not line.endswith("\n"):
        raise ZooError(f"{where}: has a line of more than {LONGEST_LINE:,} characters, which is no structure's; is it a file of this kind?")
    return line


def lines_of(path: Path) -> Generator[bytes, None, None]:
    """The lines of a file as bytes, in pieces of at most `LONGEST_LINE`."""
    with open_binary(path) as stream:
        while line := stream.readline(LONGEST_LINE):
            yield line


def check_compressed(path: Path) -> None:
    """Unpack a compressed file once without keeping anything, for a parser that sets itself no limit.

    Raises:
        ZooError: for one that is cut off, damaged, or unpacks to too much.
    """
    if not is_compressed(path):
        return
    try:
        with open_binary(path) as stream:
            while stream.read(1 << 20):
                pass
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ZooError(f"{path}: is cut off or damaged ({first_line(error)}); download or copy it again") from error


class _Bounded(io.RawIOBase):
    """The bytes of an unpacking stream, up to the limit of its file."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self._path = stream, path
        self._packed = path.stat().st_size
        self._left = most_unpacked(self._packed)

    def readable(self) -> bool:
        """Yes, and nothing else."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Some bytes into ``buffer``, as the base class has it."""
        content = self._stream.read1(len(memoryview(buffer)))  # what comes before a cut is still given
        self._left -= len(content)
        if self._left < 0:
            raise too_large(self._path, self._packed)
        memoryview(buffer)[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Closes the stream within too."""
        self._stream.close()
        super().close()
