"""One file or folder out of a tar or zip archive, taken out once, whole, and never outside its destination."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import quote

from zoo.data.paths import safe_parts
from zoo.data.unpacking import most_unpacked, too_large
from zoo.errors import ZooError, first_line
from zoo.locks import one_at_a_time

_FOLDER = "folder"
_COPY_BYTES = 1 << 20
_NAMES_SHOWN = 4
_TAR_BLOCK_BYTES = 512
# RuntimeError and ValueError: a password, a compression of the future, fields that are no numbers
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error, struct.error, EOFError)
_UNREADABLE = (*_DAMAGED, RuntimeError, ValueError)


@dataclass(frozen=True)
class _Entry:
    """One name in an archive; ``open`` is None for everything but a plain file."""

    name: str
    kind: str
    open: Callable[[], IO[bytes] | None] | None = None


def obtain_member(archive_path: Path, member: str, destination: Path) -> Path:
    """The file ``member`` of an archive, or the folder with everything below it; taken out at the first call.

    Only plain files and folders are written, by the names checked here, into an empty folder that is renamed when the archive was read to
    its end without an error; so nothing lands elsewhere, and no half of it is ever found.

    Args:
        archive_path: a tar (plain, gz, bz2, xz) or zip file, told apart by content.
        member: a path inside the archive, with or without a leading ``./``.
        destination: the folder for this very archive. What was taken out before is not compared with the archive again: an archive of
            other content wants another folder.

    Returns:
        The path of the file or folder; its name is the last part of ``member``.

    Raises:
        ZooError: a member that is not in the archive, is a link or leads out of it, a damaged or truncated archive, or a full disk.
    """
    parts, own = _home(member, destination)
    if not own.is_dir():
        try:
            destination.mkdir(parents=True, exist_ok=True)
            waiting = f"zoo: another process is taking {member} out of {archive_path}; waiting for it"
            with one_at_a_time(own.with_name(f".{own.name}.lock"), waiting):
                if not own.is_dir():
                    _extract(archive_path, parts, own)
        except OSError as error:
            raise ZooError(f"{destination}: cannot be written ({error}); free space or choose another folder with ZOO_CACHE") from error
    return own / parts[-1]


def taken_out(member: str, destination: Path) -> Path | None:
    """What `obtain_member` returned for ``member`` in an earlier call, for which the archive need not be there; else None."""
    parts, own = _home(member, destination)
    return own / parts[-1] if own.is_dir() else None


def _home(member: str, destination: Path) -> tuple[tuple[str, ...], Path]:
    """The parts of a member's name, and the folder that holds nothing but it."""
    parts = safe_parts(member)
    if parts is None:
        raise ZooError(f"{member!r} is not a path inside an archive; write it relative, with '/', and without '..'")
    # a folder of its own for each member: a file taken out alone must not pass for the folder around it
    return parts, destination / quote("/".join(parts), safe="")


def _extract(archive_path: Path, wanted: tuple[str, ...], target: Path) -> None:
    unfinished = target.with_name(f".{target.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a kill
    unfinished.mkdir()
    try:
        seen = _copy_entries(archive_path, wanted, unfinished)
        if not any(unfinished.iterdir()):
            some = ", ".join(seen[:_NAMES_SHOWN]) or "nothing"
            more = f" and {len(seen) - _NAMES_SHOWN} more" if len(seen) > _NAMES_SHOWN else ""
            raise ZooError(f"{archive_path}: has no file {'/'.join(wanted)!r} or below it; it holds {some}{more}: correct the name")
        os.rename(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copy_entries(archive_path: Path, wanted: tuple[str, ...], folder: Path) -> list[str]:
    """Write what is wanted below ``folder``; returns the names of all files in the archive, which is read to its end."""
    seen = []
    read = _zip_entries if _is_zip(archive_path) else _tar_entries
    packed = archive_path.stat().st_size
    left = most_unpacked(packed)
    try:
        with closing(read(archive_path)) as entries:
            for entry in entries:
                if entry.kind == _FOLDER:
                    continue
                seen.append(entry.name)
                if PurePosixPath(entry.name).parts[: len(wanted)] == wanted:
                    left -= _copy(archive_path, entry, folder, len(wanted) - 1, left)
                    if left < 0:
                        raise too_large(archive_path, packed)
    except ZooError:
        raise
    except (*_UNREADABLE, OSError) as error:
        # bz2 reports damage as an OSError without a number; one with a number is the disk's
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ZooError(f"{archive_path}: damaged or cut short ({first_line(error)}); delete it and fetch it again") from error
    return seen


def _copy(archive_path: Path, entry: _Entry, folder: Path, dropped: int, most: int) -> int:
    """Write one file below ``folder``, without the first ``dropped`` parts of its name, until it has more than ``most`` bytes.

    Returns:
        How many were written.
    """
    parts = safe_parts(entry.name)
    if parts is None or entry.open is None:
        why = "leads out of the archive" if parts is None else f"is a {entry.kind}"
        raise ZooError(f"{archive_path}: {entry.name!r} {why}, which is never taken out; unpack it by hand if you trust it")
    source = entry.open()
    assert source is not None
    path = folder.joinpath(*parts[dropped:])
    path.parent.mkdir(parents=True, exist_ok=True)
    with source, path.open("wb") as sink:
        while sink.tell() <= most and (block := source.read(_COPY_BYTES)):
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
        return sink.tell()


def _is_zip(archive_path: Path) -> bool:
    try:
        with archive_path.open("rb") as stream:
            return stream.read(2) == b"PK"
    except OSError as error:
        raise ZooError(f"{archive_path}: cannot be read ({error.strerror or error}); check its name and permissions") from error


def _tar_entries(archive_path: Path) -> Generator[_Entry, None, None]:
    with tarfile.open(archive_path) as archive:
        while (info := archive.next()) is not None:
            if info.isreg():
                yield _Entry(info.name, "file", partial(archive.extractfile, info))
            else:
                yield _Entry(info.name, _FOLDER if info.isdir() else "link" if info.issym() or info.islnk() else "special file")
        stream = archive.fileobj
        assert stream is not None
        # tarfile takes the end of the file for the end of the archive, which a cut between two members would pass
        if stream.tell() < archive.offset + _TAR_BLOCK_BYTES:
            raise tarfile.ReadError("its end is missing")
        while stream.read(_COPY_BYTES):  # the checksums of gz, bz2 and xz come last
            pass


def _zip_entries(archive_path: Path) -> Generator[_Entry, None, None]:
    with zipfile.ZipFile(archive_path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                yield _Entry(info.filename, _FOLDER)
            elif stat.S_ISLNK(info.external_attr >> 16):
                yield _Entry(info.filename, "link")
            else:
                yield _Entry(info.filename, "file", partial(archive.open, info))
