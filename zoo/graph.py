"""AtomGraph: the one representation of a structure that every backbone reads.

Fields, for N atoms, E edges and G graphs (a single structure has G = 1):

====================  ===========  =========================================================
``atomic_numbers``    (N,)         int64
``positions``         (N, 3)       Å
``cell``              (G, 3, 3)    Å, rows are lattice vectors
``pbc``               (G, 3)       bool
``edge_index``        (2, E)       row 0 the neighbour (sender), row 1 the centre (receiver)
``edge_shift``        (E, 3)       integer cell offsets of the sender
``energy``            (G,)         eV, total, float64
``forces``            (N, 3)       eV/Å
``stress``            (G, 3, 3)    eV/Å^3, ASE's sign
``magnetic_moments``  (N, 3)       μ_B, collinear ones along z
``magnetic_forces``   (N, 3)       eV/μ_B
``fixed``             (N,)         bool, held in place by the calculation
``tags``              (N,)         int64, OC20's 0 subsurface, 1 surface, 2 adsorbate
``charge``            (G,)         int64, total charge, e
``spin``              (G,)         int64, multiplicity 2S + 1, 0 where it is not stated
====================  ===========  =========================================================

Labels are always present and NaN where unknown, so that PyG's collate can neither drop them nor fail on a mixed batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch, Data

from zoo.data.frame import Frame
from zoo.edges import GraphRecipe as GraphRecipe
from zoo.edges import edges_of


class AtomGraph(Data):
    """A structure, or a batch of them, with its neighbour list and labels (see the module's table).

    What there is one of per structure has a first dimension of one, along which PyG joins it.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        # PyG would also offset any other key that contains "index" or equals "batch"
        return self.num_nodes if key == "edge_index" else 0

    @classmethod
    def from_frame(cls, frame: Frame, recipe: GraphRecipe | float) -> AtomGraph:
        """Build the neighbour list of ``frame`` and carry its labels over; positions and labels are kept in float64.

        Args:
            frame: the structure.
            recipe: of a backbone (`zoo.backbones.base.Backbone.graph_recipe`); a number is a cutoff in Å within which all pairs are kept.

        Raises:
            ZooError: for two atoms at one place, for which no model has a direction.
        """
        return cls.of_edges(frame, *edges_of(frame, recipe if isinstance(recipe, GraphRecipe) else GraphRecipe(recipe)))

    @classmethod
    def of_edges(cls, frame: Frame, edge_index: NDArray[np.int64], edge_shift: NDArray[np.int64]) -> AtomGraph:
        """The graph of ``frame`` with edges that are known: ``edge_index`` (2, E) and ``edge_shift`` (E, 3) of `zoo.edges.edges_of`."""
        graph = cls(
            atomic_numbers=torch.from_numpy(frame.atomic_numbers),
            positions=torch.from_numpy(frame.positions),
            cell=torch.from_numpy(frame.cell)[None],  # (1, 3, 3)
            pbc=torch.from_numpy(frame.pbc)[None],  # (1, 3)
            edge_index=torch.from_numpy(edge_index),
            edge_shift=torch.from_numpy(edge_shift),
            energy=torch.tensor([frame.energy], dtype=torch.float64),
            forces=torch.from_numpy(frame.forces),
            stress=torch.from_numpy(frame.stress)[None],  # (1, 3, 3)
            magnetic_moments=_known_or_nan(frame.magnetic_moments, len(frame)),
            magnetic_forces=_known_or_nan(frame.magnetic_forces, len(frame)),
            fixed=torch.from_numpy(~frame.free),
            tags=torch.zeros(len(frame), dtype=torch.long) if frame.tags is None else torch.from_numpy(frame.tags),
            charge=torch.tensor([frame.charge]),
            spin=torch.tensor([frame.spin]),
            frame_id=torch.tensor([frame.frame_id]),
        )
        graph.source = frame.source
        graph.level_of_theory = frame.level_of_theory
        # PyG guesses num_nodes from edge_index otherwise, and an atom without an edge shifts the next graph's edges
        graph.num_nodes = len(frame)
        return graph

    @property
    def name(self) -> str:
        """How errors name a single structure, as `zoo.data.frame.Frame.name`."""
        return f"{self.source}: frame {int(self.frame_id)}"

    @property
    def graph_count(self) -> int:
        """G: how many structures the (batched) graph holds."""
        return int(self.cell.shape[0])

    @property
    def graph_of_atom(self) -> Tensor:
        """(N,) index of the structure each atom belongs to."""
        batch = self.get("batch")
        if batch is None:
            return torch.zeros(self.num_nodes, dtype=torch.long, device=self.positions.device)
        assert isinstance(batch, Tensor)
        return batch

    @property
    def atom_counts(self) -> Tensor:
        """(G,) number of atoms of each structure."""
        return torch.bincount(self.graph_of_atom, minlength=self.graph_count)

    def edge_vectors(self) -> Tensor:
        """(E, 3) Å: from the centre (receiver) to the neighbour (sender), differentiable in positions and cell."""
        sender, receiver = self.edge_index
        cell_of_edge = self.cell[self.graph_of_atom[receiver]]  # (E, 3, 3)
        offsets = torch.einsum("ei,eij->ej", self.edge_shift.to(self.cell.dtype), cell_of_edge)  # (E, 3)
        edge_vectors: Tensor = self.positions[sender] - self.positions[receiver] + offsets
        return edge_vectors


def _known_or_nan(values: NDArray[np.float64] | None, count: int) -> Tensor:
    """(N, 3) the values, NaN where there are none."""
    return torch.full((count, 3), torch.nan, dtype=torch.float64) if values is None else torch.from_numpy(values)


def collate(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """Join structures into one batched `AtomGraph` with G = ``len(graphs)``."""
    batch: AtomGraph = Batch.from_data_list(list(graphs))
    return batch


def cell_volumes(cell: Tensor) -> Tensor:
    """(G,) Å^3 from cells (G, 3, 3)."""
    volumes: Tensor = torch.linalg.det(cell).abs()
    return volumes


def fully_periodic(graph: AtomGraph) -> Tensor:
    """(G,) bool: periodic in all three directions, the only case in which a stress is defined here."""
    return graph.pbc.all(dim=1)  # type: ignore[no-any-return]


def multi_atom_without_edges(graph: AtomGraph) -> bool:
    """True for a structure of several atoms in which no pair is within the cutoff: a wrong unit or cell, not physics."""
    return int(graph.num_nodes) > 1 and int(graph.edge_index.shape[1]) == 0


def as_float_array(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A detached float64 NumPy copy on the CPU."""
    return tensor.detach().to("cpu", torch.float64).numpy().copy()
