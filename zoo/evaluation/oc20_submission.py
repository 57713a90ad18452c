"""Predictions of OC20's four test splits as the npz that the public OC20 leaderboard takes.

For each split S of ``id``, ``ood_ads``, ``ood_cat``, ``ood_both``: ``S_ids`` (F,) the structures' names (``SID_FID`` for S2EF, ``SID`` for
IS2RE), sorted and each once, as upstream's own writer has them; ``S_energy`` (F,) eV. For S2EF also ``S_forces`` (M, 3) eV/Å of all free
atoms of all frames, and ``S_chunk_idx`` (F - 1,), where ``numpy.split`` cuts them into frames. Atoms that were held fixed are left out, for
they are not scored. The models must predict adsorption energies (``oc20/s2ef``, ``oc20/is2re``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.evaluation.predictions import Predictions, check_same_frames
from zoo.files import write_atomically

SPLITS = ("id", "ood_ads", "ood_cat", "ood_both")
Task = Literal["oc20_s2ef", "oc20_is2re"]


def check_splits(inputs: Mapping[str, object]) -> None:
    """Raise `ZooError` unless ``inputs`` names the four splits and nothing else."""
    if set(inputs) != set(SPLITS):
        raise ZooError(
            f"the OC20 leaderboard takes the test splits {', '.join(SPLITS)} together, found: {', '.join(inputs) or 'none'}; "
            "pass input={id: FILE, ood_ads: FILE, ood_cat: FILE, ood_both: FILE}"
        )


def leaderboard_arrays(split: str, frames: Sequence[Frame], predictions: Predictions, task: Task) -> dict[str, NDArray[Any]]:
    """The arrays of one split.

    Args:
        split: its name.
        frames: with their own names (`Frame.identifier`) and fixed atoms; labels are not used.
        predictions: for these frames.
        task: ``oc20_s2ef`` for energies and forces, ``oc20_is2re`` for energies of relaxed structures.

    Raises:
        ZooError: a frame without a name, or a name that comes twice.
    """
    check_same_frames(predictions, frames)
    parts = 2 if task == "oc20_s2ef" else 1
    for frame in frames:
        if not frame.identifier or (parts == 2 and "_" not in frame.identifier):
            wanted = "sid and fid" if parts == 2 else "sid"
            raise ZooError(f"{frame.name}: has no {wanted}, by which the leaderboard knows it; give OC20's own LMDB of the {split} split")
    names = np.array([frame.identifier for frame in frames])
    ids, order = np.unique(names, return_index=True)
    if len(ids) < len(names):
        raise ZooError(f"{split}: {len(names) - len(ids)} structures have a name that another one has; give every structure once")
    arrays: dict[str, NDArray[Any]] = {f"{split}_ids": ids, f"{split}_energy": predictions.energies[order].astype(np.float32)}
    if task == "oc20_s2ef":
        free = [predictions.forces[index][frames[index].free] for index in order]
        arrays[f"{split}_forces"] = np.concatenate(free).astype(np.float32)
        arrays[f"{split}_chunk_idx"] = np.cumsum([len(forces) for forces in free])[:-1]
    return arrays


def write_leaderboard_file(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the npz, whole or not at all; raises `ZooError` where it cannot be written or is not named ``.npz``."""
    if path.suffix != ".npz":
        raise ZooError(f"output={path}: the OC20 leaderboard takes an .npz; name it so")

    named: dict[str, Any] = dict(arrays)

    def write(partial: Path) -> None:
        with partial.open("wb") as stream:  # numpy would add a suffix to a path
            np.savez_compressed(stream, **named)

    write_atomically(path, write)
