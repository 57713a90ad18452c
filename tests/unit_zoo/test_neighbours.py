"""The neighbour list against a search over every image."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from zoo.data.frame import Frame
from zoo.graph import AtomGraph, GraphRecipe
from zoo.neighbours import nearest, neighbour_list

CUTOFF = 4.0
PERIODICITIES = list(itertools.product([False, True], repeat=3))


def brute_force(positions, cell, pbc, cutoff) -> dict[tuple[int, ...], np.ndarray]:
    """(neighbour, centre, shift) -> vector from centre to neighbour, of all images within the cutoff."""
    periodic = [axis for axis in range(3) if pbc[axis]]
    reach = cutoff + np.linalg.norm(np.ptp(positions, axis=0))
    counts = [0, 0, 0]
    for axis in periodic:
        others = np.array([cell[other] for other in periodic if other != axis]).reshape(-1, 3)
        basis = np.linalg.qr(others.T)[0]
        height = np.linalg.norm(cell[axis] - basis @ (basis.T @ cell[axis]))  # between the planes of images
        counts[axis] = int(np.ceil(reach / height)) + 1
    shifts = np.array(list(itertools.product(*[range(-count, count + 1) for count in counts])))
    offsets = shifts @ np.where(np.array(pbc)[:, None], cell, 0.0)
    found = {}
    for centre, neighbour in itertools.product(range(len(positions)), repeat=2):
        vectors = positions[neighbour] + offsets - positions[centre]
        for k in np.flatnonzero(np.linalg.norm(vectors, axis=1) < cutoff):
            if neighbour != centre or shifts[k].any():
                found[(neighbour, centre, *map(int, shifts[k]))] = vectors[k]
    return found


@pytest.mark.parametrize("pbc", PERIODICITIES, ids=lambda pbc: "".join("T" if p else "F" for p in pbc))
def test_every_image_is_found_in_skewed_cells_for_atoms_anywhere(pbc):
    """Cells down to 1.5 Å, far smaller than the cutoff, and atoms several cells outside."""
    generator = np.random.default_rng(PERIODICITIES.index(pbc))
    tried = edges = 0
    while tried < 12:
        cell = np.diag(generator.uniform(1.5, 5.0, 3)) + generator.uniform(-1.0, 1.0, (3, 3))
        if abs(np.linalg.det(cell)) < 4:
            continue
        tried += 1
        if tried % 2:
            cell = np.where(np.array(pbc)[:, None], cell, 0.0)  # as ASE gives it where there is no lattice vector
        positions = generator.uniform(-6.0, 6.0, (generator.integers(1, 5), 3))
        edge_index, edge_shift = neighbour_list(positions, cell, np.array(pbc), CUTOFF)
        found = [tuple(map(int, (*edge_index[:, k], *edge_shift[k]))) for k in range(edge_index.shape[1])]
        expected = brute_force(positions, cell, pbc, CUTOFF)
        assert len(found) == len(set(found))
        assert set(found) == set(expected)
        edges += len(found)
        sender, receiver = edge_index
        vectors = positions[sender] + edge_shift @ cell - positions[receiver]
        for key, vector in zip(found, vectors, strict=True):
            np.testing.assert_allclose(vector, expected[key], atol=1e-12)
    assert edges > 20 * sum(pbc)


def test_the_first_row_is_the_neighbour_and_the_vector_points_to_it():
    positions = np.array([[0.2, 0.0, 0.0], [3.6, 0.0, 0.0]])
    edge_index, edge_shift = neighbour_list(positions, np.diag([4.0, 20.0, 20.0]), np.array([True, False, False]), 1.0)
    assert edge_index.tolist() == [[1, 0], [0, 1]]
    # atom 1 of the previous cell stands 0.6 Å to the left of atom 0
    assert edge_shift.tolist() == [[-1, 0, 0], [1, 0, 0]]


def test_pairs_at_the_cutoff_are_left_out():
    positions = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    aperiodic = (np.zeros((3, 3)), np.zeros(3, dtype=bool))
    assert neighbour_list(positions, *aperiodic, 2.0)[0].shape == (2, 0)
    assert neighbour_list(positions, *aperiodic, 2.0 + 1e-9)[0].shape == (2, 2)


def test_one_atom_alone_has_no_edge_and_the_types_stay():
    edge_index, edge_shift = neighbour_list(np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, dtype=bool), CUTOFF)
    assert edge_index.shape == (2, 0)
    assert edge_shift.shape == (0, 3)
    assert edge_index.dtype == edge_shift.dtype == np.int64


def test_the_order_is_by_centre_neighbour_and_shift_and_does_not_change():
    generator = np.random.default_rng(3)
    positions, cell = generator.uniform(0, 6, (6, 3)), np.diag([6.0, 5.0, 4.0])
    first = neighbour_list(positions, cell, np.ones(3, dtype=bool), CUTOFF)
    second = neighbour_list(positions.copy(), cell.copy(), np.ones(3, dtype=bool), CUTOFF)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    keys = [(centre, neighbour, *shift) for (neighbour, centre), shift in zip(first[0].T.tolist(), first[1].tolist(), strict=True)]
    assert keys == sorted(keys)


def kept_one_by_one(centre, squared_distances, count, strict) -> set[int]:
    """The rule of nearest neighbours as a person would apply it."""
    kept = set()
    for atom in set(centre.tolist()):
        own = sorted(np.flatnonzero(centre == atom), key=lambda pair: (squared_distances[pair], pair))
        reach = np.inf if len(own) <= count else squared_distances[own[count]] + 0.01
        kept |= set(own[:count] if strict else [pair for pair in own if squared_distances[pair] <= reach])
    return kept


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("count", [1, 4, 12, 100])
def test_the_nearest_neighbours_are_those_that_one_by_one_choosing_keeps(count, strict):
    generator = np.random.default_rng(count)
    centre = np.sort(generator.integers(0, 9, 120))
    squared_distances = generator.choice([1.0, 2.25, 2.255, 2.5, 4.0, 4.02, 9.0], 120)  # many ties, and shells closer than the tolerance
    stays = nearest(centre, squared_distances, count, strict)
    assert set(np.flatnonzero(stays)) == kept_one_by_one(centre, squared_distances, count, strict)
    assert stays.all() == (np.bincount(centre).max() <= count)


def test_between_equally_far_neighbours_the_first_is_kept_whatever_the_rounding():
    exact = np.array([4.0, 4.0, 4.0, 1.0])
    rounded = exact * (1 + 1e-14 * np.array([1, -1, 0, 0]))
    for lengths in (exact, rounded):
        assert nearest(np.zeros(4, dtype=np.int64), lengths, 2, strict=True).tolist() == [True, False, False, True]
        assert nearest(np.zeros(4, dtype=np.int64), lengths, 2, strict=False).all()  # the whole shell, since the first left out is in it


def test_a_limit_makes_a_directed_graph_and_none_keeps_every_pair():
    line = Frame.unlabelled(Atoms("H3", [[0, 0, 0], [1.0, 0, 0], [2.5, 0, 0]]))
    edges = {limit: AtomGraph.from_frame(line, GraphRecipe(4.0, limit)).edge_index.T.tolist() for limit in (1, 2, None)}
    assert edges[1] == [[1, 0], [0, 1], [1, 2]]  # atom 2 has atom 1 as its neighbour, and atom 1 has not atom 2
    assert edges[2] == edges[None] == AtomGraph.from_frame(line, 4.0).edge_index.T.tolist()
    crystal = Frame.unlabelled(bulk("Cu", cubic=True))
    strict, shells = (AtomGraph.from_frame(crystal, GraphRecipe(5.0, 14, strict)).edge_index[1].bincount() for strict in (True, False))
    assert strict.tolist() == [14] * 4
    assert shells.tolist() == [18] * 4  # 12 at a/sqrt(2) and the whole shell of 6 at a


@pytest.mark.parametrize("case", ["slab", "ethanol", "batch"])
@pytest.mark.parametrize(("form", "strict"), [("mono_L4M2", True), ("hydra_L4M2", False)])
def test_the_edges_are_those_of_fairchem_1_10_in_both_of_its_ways(form, strict, case, golden_folder):
    folder = golden_folder("equiformer_v2") / "golden"
    settings = json.loads((folder / f"{form}_config.json").read_text())
    golden = np.load(folder / f"{form}_{case}.npz")
    recipe = GraphRecipe(settings["max_radius"], settings["max_neighbors"], strict)
    found, first = set(), 0
    for count, cell, pbc in zip(golden["natoms"], golden["cell"], golden["pbc"].reshape(-1, 3), strict=True):
        atoms = Atoms(golden["atomic_numbers"][first : first + count], golden["pos"][first : first + count], cell=cell, pbc=pbc)
        graph = AtomGraph.from_frame(Frame.unlabelled(atoms), recipe)
        rows = np.concatenate([graph.edge_index.numpy().T + first, graph.edge_shift.numpy()], axis=1)
        found |= set(map(tuple, rows.tolist()))
        first += count
    expected = set(map(tuple, np.concatenate([golden["edge_index"].T, golden["cell_offsets"]], axis=1).astype(int).tolist()))
    assert len(expected) == golden["edge_index"].shape[1]
    assert found == expected
