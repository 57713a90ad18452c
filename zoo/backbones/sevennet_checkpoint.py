"""SevenNet's checkpoint files, read without running anything from them unless the user says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct
from sevenn.checkpoint import SevenNetCheckpoint

from zoo.backbones.torch_archive import check_archive, load_archive, searchable_pickle
from zoo.errors import ZooError

# every global that SevenNet's published checkpoints name: NumPy arrays of the per-element shift and scale, and nothing that runs code
_SAFE_GLOBALS: list[Any] = [
    np.ndarray,
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
]
_KIND = "a SevenNet checkpoint"


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
    check_archive(path, _KIND)
    payload = load_archive(path, _KIND, trust_pickle, _SAFE_GLOBALS)
    if not isinstance(payload, dict) or not {"config", "model_state_dict"} <= set(payload):
        found = ", ".join(map(str, payload)) if isinstance(payload, dict) else type(payload).__name__
        raise ZooError(
            f"{path}: a SevenNet checkpoint holds 'config' and 'model_state_dict' (found: {found}); pass the file that sevenn wrote"
        )
    return payload


def recognises(path: Path) -> bool:
    """Whether ``path`` looks like a file that sevenn wrote; its pickle is searched as bytes, not loaded."""
    content = searchable_pickle(path)
    return b"model_state_dict" in content and b"MLIPInferenceCheckpoint" not in content  # fairchem's records have that name too
