"""The arrays of a DeePMD set, from npy or text files, each held to the number of frames and atoms that it must have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.npy_files import read_npy
from zoo.errors import ZooError, first_line

FloatArray = NDArray[np.float64]

_PER_FRAME = {"box": 9, "energy": 1, "virial": 9}
_PER_ATOM = {"coord": 3, "force": 3, "spin": 3, "force_mag": 3, "real_atom_types": 1}
DOCUMENTED = frozenset(_PER_FRAME) | frozenset(_PER_ATOM)


class SetArrays:
    """What one ``set.*`` folder, or the text files of one system, hold: rows of frames, each in the precision of its file.

    Attributes:
        frames: number of frames, that of ``coord``.
        others: arrays of undocumented names, (frames, ...).
    """

    def __init__(self, folder: Path, atoms: int, suffix: str) -> None:
        """Reads every ``.npy`` of ``folder``, or its documented ``.raw`` files, for a system of ``atoms`` atoms; raises `ZooError`."""
        self._folder, self._suffix = folder, suffix
        self._arrays = _npy_arrays(folder) if suffix == ".npy" else _text_arrays(folder)
        if "coord" not in self._arrays:
            raise ZooError(f"{self.file('coord')}: does not exist; a DeePMD system needs the coordinates of its frames")
        coord = self._arrays["coord"]
        self.frames = 1 if coord.ndim == 1 else len(coord)
        for name, array in self._arrays.items():
            self._arrays[name] = self._rows(name, array, atoms)
        self.others = {name: array for name, array in self._arrays.items() if name not in DOCUMENTED}

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def stored(self, name: str) -> NDArray[Any]:
        """(frames, numbers a frame) of a documented array, as its file has it."""
        return self._arrays[name]

    def row(self, name: str, frame: int, shape: tuple[int, ...]) -> FloatArray:
        """The numbers of one frame as float64, so that all arithmetic with them is."""
        numbers: FloatArray = self._arrays[name][frame].astype(np.float64).reshape(shape)
        return numbers

    def file(self, name: str) -> Path:
        """Where an array is stored."""
        return self._folder / f"{name}{self._suffix}"

    def _rows(self, name: str, array: NDArray[Any], atoms: int) -> NDArray[Any]:
        """``array`` as (frames, numbers a frame), where its name is documented."""
        whole_frame = self.frames == 1 and name in DOCUMENTED  # a single frame may lie in a file without an axis of frames
        count = len(array) if array.ndim else 0
        if not whole_frame and count != self.frames:
            raise ZooError(f"{self.file(name)}: holds {count} frames, but coord{self._suffix} {self.frames}; repair the set")
        if name not in DOCUMENTED:
            return array
        if array.dtype.kind not in "fiu":
            raise ZooError(f"{self.file(name)}: holds values of type {array.dtype}; wanted numbers")
        width = _PER_FRAME[name] if name in _PER_FRAME else _PER_ATOM[name] * atoms
        if array.size != self.frames * width:
            per_atom = f", {_PER_ATOM[name]} for each of the {atoms} atoms of type.raw" if name in _PER_ATOM else ""
            raise ZooError(f"{self.file(name)}: has shape {array.shape}, wanted ({self.frames}, {width}){per_atom}; repair the set")
        return array.reshape(self.frames, width)


def _npy_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    return {file.stem: read_npy(file) for file in sorted(folder.glob("*.npy"))}


def _text_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """One line a frame; of undocumented names only the npy form says that they are per frame."""
    arrays: dict[str, NDArray[Any]] = {}
    for file in sorted(folder.glob("*.raw")):
        if file.stem not in DOCUMENTED:
            continue
        try:
            arrays[file.stem] = np.loadtxt(file, ndmin=2)
        except (ValueError, OSError) as error:
            raise ZooError(f"{file}: cannot be read ({first_line(error)}); wanted one line of numbers a frame") from None
    return arrays
