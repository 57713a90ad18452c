"""AtomGraph meets the traps of PyG by design: counts, per-graph tensors, missing labels, edge rows."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from torch_geometric.data import Batch, Data

from tests.refusals import refusal_of
from zoo.data.frame import Frame
from zoo.graph import AtomGraph, cell_volumes, collate, fully_periodic, multi_atom_without_edges

CUTOFF = 3.0


def graph_of(atoms: Atoms, **labels: object) -> AtomGraph:
    return AtomGraph.from_frame(replace(Frame.unlabelled(atoms), **labels), CUTOFF)


def lonely_tail() -> Atoms:
    """Four atoms whose edges touch only the first two."""
    return Atoms("H4", [[0, 0, 0], [1, 0, 0], [50, 0, 0], [0, 50, 0]])


def test_an_atom_without_an_edge_does_not_shift_the_next_graphs_edges():
    naive = [Data(edge_index=torch.tensor([[0, 1], [1, 0]]), positions=torch.zeros(4, 3)) for _ in range(2)]
    assert Batch.from_data_list(naive).edge_index.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2]]  # the trap: wrong, it should be 4 and 5
    batch = collate([graph_of(lonely_tail()), graph_of(lonely_tail())])
    assert batch.num_nodes == 8
    assert batch.edge_index.tolist() == [[1, 0, 5, 4], [0, 1, 4, 5]]
    assert batch.graph_of_atom.tolist() == [0] * 4 + [1] * 4
    assert batch.atom_counts.tolist() == [4, 4]


def test_per_graph_tensors_stack_along_graphs():
    batch = collate([graph_of(bulk("Cu", a=3.6)), graph_of(molecule("H2O")), graph_of(bulk("NaCl", "rocksalt", a=5.6))])
    assert batch.graph_count == 3
    for name, shape in {"cell": (3, 3, 3), "pbc": (3, 3), "energy": (3,), "stress": (3, 3, 3), "frame_id": (3,)}.items():
        assert tuple(batch[name].shape) == shape, name
    for name in ("positions", "forces"):
        assert tuple(batch[name].shape) == (6, 3), name
    assert batch.edge_shift.shape == (batch.edge_index.shape[1], 3)
    assert fully_periodic(batch).tolist() == [True, False, True]
    np.testing.assert_allclose(cell_volumes(batch.cell).numpy(), [3.6**3 / 4, 0.0, 5.6**3 / 4], atol=1e-9)


def test_a_single_graph_carries_the_leading_dimension():
    graph = graph_of(bulk("Cu", a=3.6))
    assert graph.graph_count == 1
    assert tuple(graph.cell.shape) == tuple(graph.stress.shape) == (1, 3, 3)
    assert graph.graph_of_atom.tolist() == [0]
    assert graph.atom_counts.tolist() == [1]


def test_labels_are_always_there_and_nan_where_unknown():
    forces = np.arange(9.0).reshape(3, 3)
    labelled, bare = graph_of(molecule("H2O"), energy=-2.5, forces=forces), graph_of(molecule("H2O"))
    for order in ([labelled, bare], [bare, labelled]):
        batch = collate(order)
        known = order.index(labelled)
        assert torch.isnan(batch.energy).tolist() == [index != known for index in range(2)]
        assert batch.energy[known] == -2.5
        assert torch.isnan(batch.forces[batch.graph_of_atom != known]).all()
        assert torch.equal(batch.forces[batch.graph_of_atom == known], torch.from_numpy(forces))
        assert torch.isnan(batch.stress).all()


def test_everything_is_kept_in_float64_and_energies_of_thousands_of_ev_keep_their_digits():
    graph = collate([graph_of(molecule("H2O"), energy=-9391.000123456)] * 2)
    for name in ("positions", "cell", "energy", "forces", "stress"):
        assert graph[name].dtype == torch.float64, name
    assert float(graph.energy[1]) == -9391.000123456


def test_the_edge_vector_points_from_the_centre_to_the_neighbour_across_the_cell_wall():
    atoms = Atoms("HO", [[0.1, 0, 0], [3.7, 0, 0]], cell=[4.0, 30, 30], pbc=(True, False, False))
    graph = AtomGraph.from_frame(Frame.unlabelled(atoms), 1.0)
    vectors = {(int(s), int(r)): v for (s, r), v in zip(graph.edge_index.T, graph.edge_vectors().tolist(), strict=True)}
    assert vectors[(1, 0)] == pytest.approx([-0.4, 0, 0])  # from atom 0 to the image of atom 1
    assert vectors[(0, 1)] == pytest.approx([0.4, 0, 0])


def test_edge_vectors_use_each_graphs_own_cell_and_are_differentiable_in_it():
    batch = collate([graph_of(bulk("Cu", a=3.6)), graph_of(bulk("Al", a=4.05))])
    batch.cell = batch.cell.requires_grad_()
    lengths = batch.edge_vectors().norm(dim=1)
    of_graph = batch.graph_of_atom[batch.edge_index[1]]
    nearest = [float(lengths[of_graph == index].min().detach()) for index in range(2)]
    assert nearest == pytest.approx([3.6 / 2**0.5, 4.05 / 2**0.5])
    (gradient,) = torch.autograd.grad(lengths[of_graph == 1].sum(), batch.cell)
    assert gradient[0].abs().max() == 0
    assert gradient[1].abs().max() > 0


def test_graph_structure_survives_the_way_through_a_batch_and_back():
    graphs = [graph_of(molecule("CH4")), graph_of(lonely_tail()), graph_of(bulk("Cu", a=3.6))]
    for index, graph in enumerate(graphs):
        again = Batch.from_data_list(graphs).get_example(index)
        assert torch.equal(again.edge_index, graph.edge_index)
        assert torch.equal(again.cell, graph.cell)
        assert again.num_nodes == graph.num_nodes


def test_a_batch_says_where_each_structure_comes_from():
    frames = [Frame.unlabelled(molecule("H2O"), source="a.xyz", frame_id=k) for k in (4, 9)]
    batch = collate([AtomGraph.from_frame(frame, CUTOFF) for frame in frames])
    assert batch.source == ["a.xyz", "a.xyz"]
    assert batch.frame_id.tolist() == [4, 9]


def test_only_several_atoms_without_a_pair_are_suspicious():
    assert multi_atom_without_edges(graph_of(Atoms("H2", [[0, 0, 0], [30, 0, 0]])))
    assert not multi_atom_without_edges(graph_of(Atoms("Cu")))
    assert not multi_atom_without_edges(graph_of(molecule("H2O")))


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms(), "no atoms"),
        (Atoms("H", [[np.nan, 0, 0]]), "not a number"),
        (Atoms("H", cell=[0, 0, 5.0], pbc=True), "length zero"),
        (Atoms("H", cell=[[3.0, 0, 0], [0, 3.0, 0], [3.0, 3.0, 0]], pbc=True), "linearly dependent"),
        (Atoms("H", cell=[[3.0, 0, 0], [6.0, 0, 0], [0, 0, 3.0]], pbc=[True, True, False]), "linearly dependent"),
    ],
)
def test_impossible_structures_are_refused_by_name(atoms, words):
    refusal = refusal_of(Frame.unlabelled, atoms, source="bad.xyz", frame_id=3)
    assert re.search(words, refusal)
    assert "bad.xyz: frame 3" in refusal


def test_a_cell_row_that_is_not_periodic_may_be_anything():
    frame = Frame.unlabelled(Atoms("H", cell=[[2.5, 0, 0], [0, 2.5, 0], [2.5, 2.5, 0]], pbc=[True, True, False]))
    assert AtomGraph.from_frame(frame, CUTOFF).edge_index.shape[1] > 0


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("HOH", [[0, 0, 0], [1.0, 0, 0], [1.0, 0, 1e-8]]),
        Atoms("HOH", [[1.5, 1, 1], [0, 0, 0], [3.0, 0, 0]], cell=[3.0, 3.0, 3.0], pbc=True),
    ],
)
def test_atoms_at_one_place_are_refused_by_frame_and_number(atoms):
    frame = Frame.unlabelled(atoms, source="bad.xyz", frame_id=3)
    assert "bad.xyz: frame 3 has atoms 1 (O) and 2 (H) at one place" in refusal_of(AtomGraph.from_frame, frame, CUTOFF)
