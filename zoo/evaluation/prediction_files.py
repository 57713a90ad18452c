"""Predictions of test frames as one npz: float64, frames in the order of their protocol, each with the hash of its content.

Keys, for a test set T (percent-encoded where it is no plain name), F frames and M atoms in all of them:

====================  ===========  =======  ======================================================================
``T/energies``        (F,)         float64  eV, total
``T/forces``          (M, 3)       float64  eV/Å, frame after frame
``T/stresses``        (F, 3, 3)    float64  eV/Å^3 in ASE's sign, NaN for frames without; absent where no frame has one
``T/atom_counts``     (F,)         int64
``T/frame_sha256``    (F, 32)      uint8    `zoo.data.splits.frame_sha256` of structure and labels
====================  ===========  =======  ======================================================================

``numpy.load`` reads the file. What a stranger sent is read here instead: nothing is unpickled, and no header is believed before the bytes
behind it have been counted.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import FloatArray, Frame
from zoo.data.npy_files import parse_npy
from zoo.data.splits import frame_sha256
from zoo.errors import ZooError
from zoo.evaluation.predictions import Predictions, check_same_frames
from zoo.files import write_atomically
from zoo.stored_zip import read_stored_zip, stored_zip

LARGEST_PREDICTIONS_BYTES = 2**30
_SUFFIX = ".npy"
_DTYPES = {"energies": "<f8", "forces": "<f8", "stresses": "<f8", "atom_counts": "<i8", "frame_sha256": "|u1"}
_SHAPES: dict[str, tuple[int, ...]] = {"energies": (), "forces": (3,), "stresses": (3, 3), "atom_counts": (), "frame_sha256": (32,)}
_OPTIONAL = ("stresses",)


@dataclass(frozen=True)
class SavedPredictions:
    """One test set's predictions as a file holds them.

    Attributes:
        energies: (F,) eV.
        forces: (M, 3) eV/Å of all frames.
        stresses: (F, 3, 3) eV/Å^3, or None.
        atom_counts: (F,) atoms of each frame; their sum is M.
        frame_sha256: F hashes in hexadecimal.
    """

    energies: FloatArray
    forces: FloatArray
    stresses: FloatArray | None
    atom_counts: NDArray[np.int64]
    frame_sha256: tuple[str, ...]

    def of_frames(self, frames: Sequence[Frame]) -> Predictions:
        """As predictions for ``frames``, which `difference_of_frames` has compared."""
        forces = np.split(self.forces, np.cumsum(self.atom_counts)[:-1])
        stresses: Sequence[FloatArray | None] = [None] * len(frames)
        if self.stresses is not None:
            stresses = [None if np.isnan(stress).all() else stress for stress in self.stresses]
        return Predictions(tuple(frame.name for frame in frames), self.energies, tuple(forces), tuple(stresses))

    def difference_of_frames(self, frames: Sequence[Frame]) -> str | None:
        """How the frames that were predicted differ from ``frames`` in the order of their protocol; None where they are the same."""
        wanted = [frame_sha256(frame) for frame in frames]
        if list(self.frame_sha256) == wanted:
            return None
        if sorted(self.frame_sha256) == sorted(wanted):
            return "the frames are those of the protocol in another order, so that predictions stand beside the wrong labels"
        if len(self.frame_sha256) != len(wanted):
            return f"predictions for {len(self.frame_sha256)} frames, the protocol has {len(wanted)}"
        shared = len(set(wanted).intersection(self.frame_sha256))
        return f"predictions of other frames: {shared} of {len(wanted)} are those of the protocol"


def predictions_npz(frames: Mapping[str, Sequence[Frame]], predictions: Mapping[str, Predictions]) -> bytes:
    """The file's content for test set to frames, and test set to predictions; equal predictions give equal bytes.

    Raises:
        ZooError: where the two are not of the same test sets and frames.
    """
    members: dict[str, bytes] = {}
    for test_set, tested in frames.items():
        if test_set not in predictions:
            raise ZooError(f"no predictions of the test set {test_set!r}; predict every test set")
        predicted = predictions[test_set]
        check_same_frames(predicted, tested)
        arrays: dict[str, NDArray[Any]] = {
            "energies": predicted.energies,
            "forces": np.concatenate([*predicted.forces, np.empty((0, 3))]),
            "atom_counts": np.array([len(frame) for frame in tested]),
            "frame_sha256": np.array([list(bytes.fromhex(frame_sha256(frame))) for frame in tested]).reshape(-1, 32),
        }
        if any(stress is not None for stress in predicted.stresses):
            unknown = np.full((3, 3), np.nan)
            arrays["stresses"] = np.array([unknown if stress is None else stress for stress in predicted.stresses])
        for name, values in arrays.items():
            members[f"{quote(test_set, safe='')}/{name}{_SUFFIX}"] = _npy(values, _DTYPES[name])
    return stored_zip(members)


def write_predictions(path: Path, frames: Mapping[str, Sequence[Frame]], predictions: Mapping[str, Predictions]) -> None:
    """Write `predictions_npz`, whole or not at all; raises `ZooError` as that, and where the file cannot be written."""
    content = predictions_npz(frames, predictions)
    write_atomically(path, lambda partial: partial.write_bytes(content))


def parse_predictions(content: bytes, where: str) -> dict[str, SavedPredictions]:
    """Test set to predictions, from the content of a file that nobody has looked at.

    Raises:
        ZooError: one line for what is no such file, holds objects (which would be unpickled), arrays of another type or shape than stated
            above, or numbers that are not finite.
    """
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    for member, data in read_stored_zip(content, where, LARGEST_PREDICTIONS_BYTES).items():
        encoded, _, name = member.rpartition("/")
        name = name.removesuffix(_SUFFIX)
        if not encoded or name not in _DTYPES or not member.endswith(_SUFFIX) or quote(unquote(encoded), safe="") != encoded:
            raise ZooError(f"{where}: array {member[:80]!r} does not belong there (wanted: TEST SET/{', '.join(_DTYPES)})")
        arrays.setdefault(unquote(encoded), {})[name] = _parsed_npy(data, f"{where}: {member[:-4]}", name)
    return {test_set: _joined(found, f"{where}: {test_set[:80]!r}") for test_set, found in arrays.items()}


def _joined(found: Mapping[str, NDArray[Any]], where: str) -> SavedPredictions:
    missing = [name for name in _DTYPES if name not in found and name not in _OPTIONAL]
    if missing:
        raise ZooError(f"{where} lacks {missing[0]}; write it with zoo submit")
    count, atom_counts = len(found["energies"]), found["atom_counts"]
    lengths = {name: len(values) for name, values in found.items() if name != "forces"}
    if set(lengths.values()) != {count} or count == 0:
        raise ZooError(f"{where}: arrays of {lengths} frames; give one entry a frame in each")
    if atom_counts.min() < 1 or int(atom_counts.sum()) != len(found["forces"]):
        raise ZooError(f"{where}: forces on {len(found['forces'])} atoms, where atom_counts add up to {int(atom_counts.sum())}")
    for name in ("energies", "forces"):
        if not np.isfinite(found[name]).all():
            raise ZooError(f"{where}: {name} hold numbers that are not finite; the model has diverged")
    stresses = found.get("stresses")
    if stresses is not None and not (np.isfinite(stresses) | np.isnan(stresses).all(axis=(1, 2), keepdims=True)).all():
        raise ZooError(f"{where}: stresses hold numbers that are not finite; the model has diverged")
    hashes = tuple(bytes(row).hex() for row in found["frame_sha256"])
    return SavedPredictions(found["energies"], found["forces"], stresses, atom_counts, hashes)


def _npy(values: NDArray[Any], dtype: str) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(values, dtype=dtype), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _parsed_npy(data: bytes, where: str, name: str) -> NDArray[Any]:
    array = parse_npy(data, where)
    if array.dtype.str != _DTYPES[name] or array.shape[1:] != _SHAPES[name] or array.ndim != 1 + len(_SHAPES[name]):
        wanted = ("F", *_SHAPES[name])
        raise ZooError(
            f"{where} has type {array.dtype.str} and shape {array.shape}, wanted {_DTYPES[name]} and {wanted}; write it with zoo submit"
        )
    if _npy(array, _DTYPES[name]) != data:
        raise ZooError(f"{where} is .npy in another form than zoo submit writes (version, order or header); write it again")
    return array
