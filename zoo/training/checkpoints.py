"""Checkpoints that a kill cannot break: written whole, read without unpickling code, and the best weights kept until replaced."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.backbones.torch_archive import DAMAGED_ARCHIVE, require_stored
from zoo.errors import ZooError, first_line
from zoo.files import write_atomically

LAST = "last.ckpt"
_CHECKSUM = "equizoo_sha256"
# what Lightning and `zoo.training.module` read back
_PARTS: dict[str, type] = {
    **dict.fromkeys(("global_step", "epoch"), int),
    **dict.fromkeys(("equizoo", "state_dict", "loops", "callbacks"), dict),
    **dict.fromkeys(("optimizer_states", "lr_schedulers"), list),
}
_OWN_PARTS: dict[str, type] = {
    "identity": dict,
    **dict.fromkeys(("ema", "plateau"), object),
    **dict.fromkeys(("reference_shifts", "random_state"), Tensor),
    "cuda_random_state": list,
}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written to a temporary name and renamed, and read with ``weights_only=True``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` atomically; raises `ZooError` on a full disk."""
        write_atomically(Path(path), lambda partial: torch.save(checkpoint, partial))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint of plain tensors and values; raises `ZooError` for anything else."""
        try:
            with zipfile.ZipFile(path) as archive:
                require_stored(archive)
                broken = archive.testzip()  # torch.load does not look at the checksums
        except DAMAGED_ARCHIVE as error:
            raise _not_ours(path, first_line(error)) from None
        if broken is not None:
            raise _not_ours(path, f"wrong checksum of {broken[:100]}")
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise _not_ours(path, "it holds more than tensors and plain values") from None
        except Exception as error:  # whatever a damaged pickle makes the reader stumble over
            raise _not_ours(path, first_line(error)[:200]) from None
        if (wrong := _wrong_part(checkpoint)) is not None:
            raise _not_ours(path, f"its {wrong} is not what a run leaves")
        return checkpoint


def _wrong_part(checkpoint: Any) -> str | None:
    """The first part that is absent or of another kind, where a resumed run would stumble over it."""
    if not isinstance(checkpoint, dict):
        return "content"
    wrong = _first_wrong(checkpoint, _PARTS) or _first_wrong(checkpoint["equizoo"], _OWN_PARTS)
    if wrong is not None:
        return wrong
    return None if all(isinstance(value, Tensor) for value in checkpoint["state_dict"].values()) else "state_dict"


def _first_wrong(parts: Mapping[str, Any], kinds: Mapping[str, type]) -> str | None:
    return next((name for name, kind in kinds.items() if name not in parts or not isinstance(parts[name], kind)), None)


def _not_ours(path: object, reason: str) -> ZooError:
    return ZooError(f"{path}: not a checkpoint of this program, or damaged ({reason}); delete it and run again from the start")


def kept_weights_path(folder: Path, step: int) -> Path:
    """Where the weights kept at ``step`` are."""
    return folder / f"kept-{step:08d}.safetensors"


def write_kept_weights(folder: Path, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Keep ``tensors`` (`TrainingConfig.keep`); older ones stay until `drop_older_weights`."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = save(plain, metadata={_CHECKSUM: _sha256(plain)})
    write_atomically(kept_weights_path(folder, step), lambda partial: partial.write_bytes(content))


def drop_older_weights(folder: Path, step: int) -> None:
    """Delete kept weights other than ``step``'s, once a checkpoint that refers to them is on disk."""
    for path in folder.glob("kept-*.safetensors"):
        if path != kept_weights_path(folder, step):
            path.unlink(missing_ok=True)


def read_kept_weights(folder: Path, step: int) -> dict[str, Tensor]:
    """The tensors of `write_kept_weights`; raises `ZooError` where the file is missing or damaged."""
    path = kept_weights_path(folder, step)
    try:
        with safe_open(path, framework="pt") as file:
            stated = (file.metadata() or {}).get(_CHECKSUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise _spoilt_weights(path, f"cannot be read ({first_line(error)})") from None
    if stated is not None and stated != _sha256(tensors):  # runs of an older version have none
        raise _spoilt_weights(path, "differ from their checksum")
    return tensors


def _spoilt_weights(path: Path, what: str) -> ZooError:
    return ZooError(f"{path}: the kept weights {what}; delete the run folder and run again")


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
