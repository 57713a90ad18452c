"""SevenNet's checkpoint files, read without running anything from them unless the user says so."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct
from sevenn.checkpoint import SevenNetCheckpoint

from zoo.errors import ZooError, first_line

# every global that SevenNet's published checkpoints name: NumPy arrays of the per-element shift and scale, and nothing that runs code
_SAFE_GLOBALS: list[Any] = [
    np.ndarray,
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
]
_DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError)


class SafeCheckpoint(SevenNetCheckpoint):
    """Upstream's checkpoint tool box on a payload that was read without running anything from the file."""

    def __init__(self, path: Path, payload: dict[str, Any]) -> None:
        super().__init__(path)
        self._payload = payload

    def _load(self) -> None:
        from sevenn.checkpoint import _config_cp_routine

        self._config_original = self._payload["config"]
        self._model_state_dict = self._payload["model_state_dict"]
        self._config = _config_cp_routine(self._config_original)
        self._loaded = True


def read_payload(path: Path, trust_pickle: bool) -> dict[str, Any]:
    """The checkpoint as plain tensors, arrays and values.

    Args:
        path: of the file.
        trust_pickle: read a file that would run code all the same.

    Raises:
        ZooError: a damaged file, one that would run code, or one that is not a SevenNet checkpoint.
    """
    _check_archive(path)
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust_pickle:
            raise ZooError(
                f"{path}: the file would run code when loaded ({_first_forbidden_global(error)}); "
                "if you trust where it comes from, pass trust_pickle=True (backbone.trust_pickle=true)"
            ) from None
        payload = torch.load(path, map_location="cpu", weights_only=False)
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ZooError(f"{path}: cannot be read as a SevenNet checkpoint ({first_line(error)}); fetch the file again") from None
    if not isinstance(payload, dict) or not {"config", "model_state_dict"} <= set(payload):
        found = ", ".join(map(str, payload)) if isinstance(payload, dict) else type(payload).__name__
        raise ZooError(
            f"{path}: a SevenNet checkpoint holds 'config' and 'model_state_dict' (found: {found}); pass the file that sevenn wrote"
        )
    return payload


def _check_archive(path: Path) -> None:
    """Refuse a damaged file: torch does not look at the archive's CRC-32 sums, and would load a flipped bit as a weight."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except _DAMAGED as error:
        raise ZooError(f"{path}: cannot be read as a SevenNet checkpoint ({first_line(error)}); fetch the file again") from None
    if damaged is not None:
        raise ZooError(f"{path}: damaged checkpoint ({damaged} does not match its CRC-32); fetch the file again")


def _first_forbidden_global(error: Exception) -> str:
    words = str(error).split("GLOBAL ")
    return f"it names {words[1].split()[0]}" if len(words) > 1 else "it is not a plain weights file"


def recognises(path: Path) -> bool:
    """Whether ``path`` looks like a file that sevenn wrote; its pickle is searched as bytes, not loaded."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return bool(pickles) and b"model_state_dict" in archive.read(pickles[0])
    except _DAMAGED:
        return False  # a damaged archive: no family reads it
