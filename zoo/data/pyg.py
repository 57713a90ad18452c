"""To PyG's data sets and back: our graphs behind its loaders, splits and transforms, and any of its sets as our frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch_geometric.data import Data, InMemoryDataset

from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.labels import labelled_frame
from zoo.data.loader import GraphDataset
from zoo.data.readers.pyg_files import as_plain, raw_frame_of_fields
from zoo.errors import ZooError
from zoo.graph import AtomGraph, GraphRecipe


class FrameDataset(InMemoryDataset):
    """`AtomGraph`s as PyG keeps them in memory, for its ``DataLoader``, its splits (``dataset[10:20]``, ``shuffle``) and transforms.

    ``FrameDataset.save(list(dataset), path)`` writes a file that the format ``pyg_files`` reads.

    Args:
        graphs: at least one.
        transform: applied to every graph that is taken out.

    Raises:
        ZooError: no graphs.
    """

    def __init__(self, graphs: Sequence[AtomGraph], transform: Callable[[AtomGraph], AtomGraph] | None = None) -> None:
        super().__init__(root=None, transform=transform)
        if not graphs:
            raise ZooError("a PyG data set needs at least one graph; give frames")
        self.data, self.slices = self.collate(list(graphs))


def in_memory_dataset(frames: Sequence[Frame], recipe: GraphRecipe | float) -> InMemoryDataset:
    """The graphs of ``frames`` as a PyG data set.

    Args:
        frames: at least one.
        recipe: which pairs are edges, such as ``potential.backbone.graph_recipe``; a number is a cutoff in Å.

    Raises:
        ZooError: no frames, or a frame of several atoms without any pair within the cutoff.
    """
    return FrameDataset(list(GraphDataset(frames, recipe if isinstance(recipe, GraphRecipe) else GraphRecipe(recipe))))


def frames_of(dataset: Iterable[Data], keys: LabelKeys | None = None) -> list[Frame]:
    """The structures of a PyG data set, or of a list of `Data`, in the house units.

    Args:
        dataset: graphs with the fields that `raw_frame_of_fields` lists; its unit is for ``keys`` to say (PyG's MD17: kcal/mol).
        keys: names and units of the labels.

    Raises:
        ZooError: as `labelled_frame` and `raw_frame_of_fields`.
    """
    keys = keys or LabelKeys()
    return [_frame(data, index, keys) for index, data in enumerate(dataset)]


def _frame(data: Data, index: int, keys: LabelKeys) -> Frame:
    fields = as_plain(data.to_dict())
    raw = raw_frame_of_fields(fields, f"dataset: graph {index}")
    number = int(np.asarray(fields["frame_id"]).reshape(-1)[0]) if "frame_id" in fields else index
    name = keys.forces_key
    if name is not None and name in raw.found and raw.fixed is not None:
        forces = np.asarray(raw.found[name])
        if forces.shape == raw.positions.shape and np.isnan(forces[raw.fixed]).all():
            # a graph of ours whose fixed atoms have no forces: the zeros are left out again by what is set beside them
            raw = replace(raw, found={**raw.found, name: np.where(raw.fixed[:, None], 0.0, forces)})
            keys = keys.model_copy(update={"fixed_atoms": "left_out"})
    return labelled_frame(raw, raw.source or "dataset", number, keys, needs=())
