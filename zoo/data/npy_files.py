"""NumPy's ``.npy`` and ``.npz`` files: plain numbers, each array with all the bytes that its header claims and not one more.

NumPy itself leaves bytes behind an array unread, so that a piece that was doubled, which shifts every number after it, would pass.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from zoo.data.unpacking import DAMAGED, check_whole_archive
from zoo.errors import ZooError, first_line

# of headers that are no dictionary, and of shapes that no memory holds
_BROKEN = (*DAMAGED, ValueError, SyntaxError, TokenError, TypeError, KeyError, MemoryError, OverflowError, RecursionError)
_LONGEST_REASON = 200
_SUFFIX = ".npy"


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file.

    Raises:
        ZooError: for pickled objects, for what is no whole array, and for more than one.
    """
    with path.open("rb") as stream:
        return _read(stream, os.fstat(stream.fileno()).st_size, str(path))


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.npz`` file by name.

    Raises:
        ZooError: for pickled objects, a file that is no archive, one that unpacks to too much, and a member that is damaged or no whole
            array.
    """
    with path.open("rb") as stream:
        if stream.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
            raise ZooError(f"{path}: holds one bare array where an archive of named ones is wanted; write it with numpy.savez")
    try:
        check_whole_archive(path)
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename.removesuffix(_SUFFIX): _member(archive, member, path)
                for member in archive.infolist()
                if member.filename.endswith(_SUFFIX)
            }
    except DAMAGED as error:
        raise ZooError(f"{path}: is incomplete or damaged ({_reason(error)}); fetch the archive again") from error


def parse_npy(content: bytes, where: str) -> NDArray[Any]:
    """The array of a ``.npy`` file's content; ``where`` is how errors name it. Raises `ZooError` as `read_npy`."""
    return _read(io.BytesIO(content), len(content), where)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    with archive.open(member) as stream:
        return _read(stream, member.file_size, f"{path}: {member.filename[:100]!r}")


def _read(stream: IO[bytes], size: int, where: str) -> NDArray[Any]:
    """The one array in ``size`` bytes."""
    try:
        version = npy.read_magic(stream)
        shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
        if dtype.hasobject:
            raise ValueError("it holds pickled Python objects, which can run code")
        wanted = stream.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
        if wanted != size:
            raise ValueError(f"it has {size} bytes, and its header, of shape {shape}, wants {wanted}")
        stream.seek(0)
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    except _BROKEN as error:
        wanted_file = "wanted a whole npy file of numbers, every frame of one shape, without pickled objects"
        raise ZooError(f"{where}: cannot be read ({_reason(error)}); {wanted_file}") from error
    return array


def _reason(error: Exception) -> str:
    return first_line(error)[:_LONGEST_REASON].rstrip(".")
