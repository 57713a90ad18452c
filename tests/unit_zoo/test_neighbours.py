"""The neighbour list against a search over every image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from zoo.neighbours import neighbour_list

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
