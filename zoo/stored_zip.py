"""Zip files of plain stored members: the same content always gives the same bytes, and nothing but such bytes is read back.

Members are stored as they are, in the order of their names, with one fixed date: a file of a few kilobytes cannot unpack to gigabytes, and
two archives of one content are equal. A reader looks at sizes before it copies anything, takes nothing to the disk, and at the end writes
the archive anew from what it read: whatever else a zip file could hide (bytes before, between or behind the members, links, a comment, a
second entry of a name) is then a difference.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping

from zoo.data.paths import safe_parts
from zoo.errors import ZooError

_DATE = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = stat.S_IFREG | 0o644
_UNIX = 3
_ENCRYPTED = 0x1
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError)
_END, _END_BYTES = b"PK\x05\x06", 22
_LARGEST_ENTRY_BYTES = 512
"""Of one line of the table: 46 bytes and a name."""


def stored_zip(members: Mapping[str, bytes]) -> bytes:
    """A zip file of ``members`` (name to content); equal members give equal bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system, info.external_attr = _UNIX, _FILE_MODE << 16
            archive.writestr(info, members[name])
    return stream.getvalue()


def read_stored_zip(content: bytes, where: str, most_bytes: Mapping[str, int] | int, most_members: int = 1000) -> dict[str, bytes]:
    """The members of a file that `stored_zip` wrote.

    Args:
        content: of the whole file.
        where: how errors name it.
        most_bytes: the names that may occur, each with the most bytes of its member; or one limit for members of any name.
        most_members: how many members there may be.

    Raises:
        ZooError: one line for what is no zip file, is damaged or truncated, or holds anything but plain stored members of known names.
    """
    if not content.startswith(b"PK\x03\x04"):
        kind = "a pickle" if content.startswith(b"\x80") else "not a zip file, or has bytes before one"
        raise ZooError(f"{where}: {kind}; write it with zoo submit")
    _check_table(content, where, most_members)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if min((entry.header_offset for entry in entries), default=0) != 0:
                # the table of an npz inside a truncated archive, say, is one too
                raise ZooError(f"{where}: damaged or truncated (its table is not of the whole file); copy it again")
            seen: set[str] = set()
            for entry in entries:
                _check_entry(entry, where, most_bytes, seen)
            if sum(entry.file_size for entry in entries) > len(content):
                raise ZooError(f"{where}: members claim more bytes than the file has, so that they overlap; write it with zoo submit")
            members = {entry.filename: archive.read(entry) for entry in entries}
    except ZooError:
        raise
    except _DAMAGED as error:
        raise ZooError(f"{where}: damaged or truncated ({_first(error)}); copy it again from where zoo submit wrote it") from None
    if stored_zip(members) != content:
        raise ZooError(f"{where}: holds bytes beside its members, or entries in another form than zoo submit writes; write it again")
    return members


def _check_table(content: bytes, where: str, most_members: int) -> None:
    """Look at the table's end before anybody reads the table: a line of 46 bytes becomes an object of a kilobyte."""
    end = content[-_END_BYTES:]
    if len(end) < _END_BYTES or not end.startswith(_END) or end[-2:] != b"\0\0":
        raise ZooError(f"{where}: damaged or truncated, or has bytes behind it (its last {_END_BYTES} are no zip's end); copy it again")
    members, table_bytes = struct.unpack("<H", end[10:12])[0], struct.unpack("<L", end[12:16])[0]
    if members > most_members or table_bytes > most_members * _LARGEST_ENTRY_BYTES:
        raise ZooError(f"{where}: a table of {members} members and {table_bytes} bytes, wanted at most {most_members}; write it anew")
    if content[-_END_BYTES - 20 : -_END_BYTES].startswith(b"PK\x06\x07"):
        raise ZooError(f"{where}: has a second table (zip64), which a file below 4 GB does not need; write it with zoo submit")


def _check_entry(entry: zipfile.ZipInfo, where: str, most_bytes: Mapping[str, int] | int, seen: set[str]) -> None:
    name = entry.filename
    shown = f"{where}: member {name[:80]!r}"
    parts = safe_parts(name)
    if parts is None or "/".join(parts) != name.rstrip("/"):
        raise ZooError(f"{shown} would be written outside of its folder; names are relative, without '..'")
    if name in seen:
        raise ZooError(f"{shown} is there twice; a reader could see one and a checker the other")
    seen.add(name)
    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise ZooError(f"{shown} is a symbolic link; put the file itself there")
    if entry.is_dir() or (stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
        raise ZooError(f"{shown} is a folder or a device; put plain files there")
    if entry.flag_bits & _ENCRYPTED:
        raise ZooError(f"{shown} is encrypted; members are stored as they are")
    if not isinstance(most_bytes, int) and name not in most_bytes:
        raise ZooError(f"{shown} does not belong there (wanted: {', '.join(most_bytes)}); leave it out")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ZooError(f"{shown} is compressed, and a small file could unpack to gigabytes; members are stored as they are")
    limit = most_bytes if isinstance(most_bytes, int) else most_bytes[name]
    if entry.file_size > limit:
        raise ZooError(f"{shown} has {entry.file_size} bytes, wanted at most {limit}")


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
