"""The neighbours EquiformerV2 hears are those that upstream's stored edge lists hold, in both of its modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from tests.unit_zoo.equiformer_v2_golden import CASES, FORMS, read_architecture, read_case, read_network
from zoo.backbones.equiformer_v2.backbone import EquiformerV2, structures_of
from zoo.backbones.equiformer_v2.config import Architecture, EquiformerV2Config
from zoo.backbones.equiformer_v2.network import build_network
from zoo.data.frame import Frame
from zoo.graph import AtomGraph, collate


@pytest.fixture(scope="module")
def folder(golden_folder) -> Path:
    return golden_folder("equiformer_v2")


def graph_of(structures: list[Atoms], config: EquiformerV2Config) -> AtomGraph:
    """By the recipe of a network of this configuration, however small."""
    small = {"num_layers": 1, "sphere_channels": 2, "attn_hidden_channels": 2, "ffn_hidden_channels": 2, "edge_channels": 2}
    small |= {"lmax_list": (1,), "mmax_list": (1,), "grid_resolution": 8}
    recipe = EquiformerV2(build_network(Architecture(config.model_copy(update=small)), torch.float64), {}, None).graph_recipe
    return collate([AtomGraph.from_frame(Frame.unlabelled(atoms), recipe) for atoms in structures])


def stored_structures(stored: dict[str, torch.Tensor]) -> list[Atoms]:
    atoms_of = [stored["batch"] == number for number in range(len(stored["natoms"]))]
    return [
        Atoms(stored["atomic_numbers"][chosen], stored["pos"][chosen].numpy(), cell=cell.numpy(), pbc=pbc.numpy())
        for chosen, cell, pbc in zip(atoms_of, stored["cell"], stored["pbc"], strict=True)
    ]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_stored_edges_are_reproduced_in_their_order(folder, form, case):
    stored, config = read_case(folder, form, case), read_architecture(folder, form).config
    graph = graph_of(stored_structures(stored), config)
    assert torch.equal(graph.edge_index, stored["edge_index"])
    assert torch.equal(graph.edge_shift, stored["cell_offsets"])
    vectors = structures_of(graph, torch.float64).edge_vectors
    assert (vectors - stored["mid_edge_distance_vec"]).abs().max() < 2e-6  # upstream's are float32's


def test_the_two_modes_differ_on_the_slab(folder):
    strict, loose = (len(read_case(folder, form, "slab")["cell_offsets"]) for form in FORMS)
    assert (strict, loose) == (280, 301)


@pytest.mark.parametrize("form", FORMS)
def test_outputs_do_not_change_when_atoms_leave_the_cell_by_lattice_vectors(folder, form):
    stored, network = read_case(folder, form, "slab"), read_network(folder, form, torch.float64)
    (inside,) = stored_structures(stored)
    outside = inside.copy()
    outside.positions += np.random.default_rng(0).integers(-3, 4, (len(inside), 3)) @ inside.cell.array
    assert np.abs(outside.positions - inside.positions).max() > 5
    with torch.no_grad():
        first, second = (
            network(structures_of(graph_of([atoms], network.architecture.config), torch.float64)) for atoms in (inside, outside)
        )
    for name, value in first.items():
        assert (second[name] - value).abs().max() < 1e-6, name  # ties and the frames' aliasing are all that may change


@pytest.mark.parametrize("strict", [True, False])
def test_a_cell_of_one_atom_hears_images_of_itself(strict):
    config = EquiformerV2Config(max_neighbors=20, max_radius=12.0, enforce_max_neighbors_strictly=strict)
    graph = graph_of([bulk("Cu")], config)
    structures = structures_of(graph, torch.float64)
    distances = structures.edge_vectors.norm(dim=1) / np.sqrt(0.5) / 3.61
    if strict:  # shells of 12 and 6, then two of the 24 that are equally far
        assert len(distances) == 20
        assert (distances > 1.5).sum() == 2
    else:
        assert len(distances) == 12 + 6 + 24


def test_few_neighbours_are_all_kept_and_an_isolated_atom_has_none():
    config = EquiformerV2Config(max_neighbors=20, max_radius=5.0)
    dimer, atom = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]), Atoms("Cu", [[0, 0, 0]])
    assert structures_of(graph_of([dimer], config), torch.float32).edge_index.tolist() == [[1, 0], [0, 1]]
    assert structures_of(graph_of([atom], config), torch.float32).edge_vectors.shape == (0, 3)


def test_a_neighbour_at_the_cutoff_is_kept():
    config = EquiformerV2Config(max_neighbors=20, max_radius=5.0)
    for distance, count in ((5.0, 2), (5.0005, 0)):
        graph = graph_of([Atoms("CO", [[0, 0, 0], [0, 0, distance]])], config)
        assert graph.edge_index.shape[1] == count


def test_edge_vectors_carry_gradients_to_positions_and_cell(folder):
    config = read_architecture(folder, "mono").config
    graph = graph_of(stored_structures(read_case(folder, "mono", "slab")), config)
    graph.positions.requires_grad_()
    graph.cell.requires_grad_()
    structures_of(graph, torch.float64).edge_vectors.pow(2).sum().backward()
    assert graph.positions.grad.abs().max() > 0.1
    assert graph.cell.grad.abs().max() > 0.1
