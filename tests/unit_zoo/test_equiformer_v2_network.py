"""EquiformerV2 without stored numbers: symmetries, the paper's ablations, gradients, and cases at the edge."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from e3nn import o3
from torch import Tensor

from zoo.backbones.equiformer_v2 import grid as grid_module
from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.config import Architecture, EquiformerV2Config, parse_heads
from zoo.backbones.equiformer_v2.grid import SphereGrid
from zoo.backbones.equiformer_v2.harmonics import solid_harmonics
from zoo.backbones.equiformer_v2.heads import joined_stress
from zoo.backbones.equiformer_v2.network import HydraNetwork, MonolithicNetwork, Structures, build_network
from zoo.backbones.equiformer_v2.normalisers import Normaliser, in_ev_and_angstrom
from zoo.backbones.equiformer_v2.rotation import EdgeFrames, swap_matrix, unit_vectors

SMALL = EquiformerV2Config(
    max_radius=6.0, num_layers=2, sphere_channels=6, attn_hidden_channels=8, num_heads=2, attn_alpha_channels=4, attn_value_channels=3,
    ffn_hidden_channels=6, lmax_list=(3,), mmax_list=(2,), grid_resolution=32, edge_channels=8, norm_type="layer_norm_sh",
    use_grid_mlp=True, weight_init="uniform",
)  # fmt: skip
ABLATIONS = {
    "published": {},
    "s2 instead of separable s2": {"use_sep_s2_act": False},
    "no mlp on the sphere": {"use_grid_mlp": False},
    "neither": {"use_sep_s2_act": False, "use_grid_mlp": False},
    "gate": {"use_gate_act": True, "use_grid_mlp": False},
    "gate with an mlp on the sphere": {"use_gate_act": True},
    "no renormalisation of attention": {"use_attn_renorm": False},
    "layer norm": {"norm_type": "layer_norm"},
    "root mean square norm": {"norm_type": "rms_norm_sh"},
    "all orders": {"mmax_list": (3,)},
    "normal weights": {"weight_init": "normal"},
}


def network_of(config: EquiformerV2Config = SMALL, seed: int = 0) -> MonolithicNetwork:
    torch.manual_seed(seed)
    network = build_network(Architecture(config), torch.float64)
    with torch.no_grad():  # fresh embeddings of elements are nearly zero, and fresh norms change nothing
        for name, parameter in network.named_parameters():
            if "embedding" in name or "norm" in name:
                parameter.add_(0.5 * torch.randn_like(parameter))
    assert isinstance(network, MonolithicNetwork)
    return network.eval()


def cluster(positions: Tensor, graph_of_atom: Tensor | None = None) -> Structures:
    """All pairs of atoms of one structure, sorted by centre."""
    graphs = torch.zeros(len(positions), dtype=torch.long) if graph_of_atom is None else graph_of_atom
    centre, neighbour = ((graphs[:, None] == graphs) & ~torch.eye(len(positions), dtype=torch.bool)).nonzero().T
    vectors = positions[neighbour] - positions[centre]
    numbers = torch.tensor([1, 6, 8, 29])[torch.arange(len(positions)) % 4]
    return Structures(numbers, torch.stack([neighbour, centre]), vectors, graphs, int(graphs.max()) + 1)


def random_positions(count: int = 6, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.rand(count, 3, generator=generator, dtype=torch.float64)


def random_rotation(seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    quarter, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return quarter * torch.linalg.det(quarter).sign()


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_ablation_turns_with_the_structure(name):
    network, positions, rotation = network_of(SMALL.model_copy(update=ABLATIONS[name])), random_positions(), random_rotation()
    with torch.no_grad():
        first, second = network(cluster(positions)), network(cluster(positions @ rotation.T))
    assert (second["energy"] - first["energy"]).abs().max() < 1e-7
    scale = first["forces"].abs().max()
    aliasing = 1e-4 if name == "normal weights" else 1e-6  # larger weights make sharper functions on the sphere
    assert (second["forces"] - first["forces"] @ rotation.T).abs().max() < aliasing * scale
    assert (second["forces"] - first["forces"]).abs().max() > 0.1 * scale


def test_ablations_are_different_networks():
    with torch.no_grad():
        energies = [
            network_of(SMALL.model_copy(update=change))(cluster(random_positions()))["energy"].item() for change in ABLATIONS.values()
        ]
    assert len({round(energy, 9) for energy in energies}) == len(ABLATIONS)


def test_gates_are_exactly_equivariant_and_a_sparse_grid_is_not():
    positions, rotation = random_positions(), random_rotation()
    errors = {}
    for name, changes in (("gate", {"use_gate_act": True, "use_grid_mlp": False}), ("grid", {"grid_resolution": 8})):
        network = network_of(SMALL.model_copy(update=changes))
        with torch.no_grad():
            first, second = network(cluster(positions)), network(cluster(positions @ rotation.T))
        errors[name] = float((second["forces"] - first["forces"] @ rotation.T).abs().max() / first["forces"].abs().max())
    assert errors["gate"] < 1e-13
    assert errors["grid"] > 1e-7


def test_the_gauge_does_not_matter_on_a_fine_grid():
    network, structures = network_of(), cluster(random_positions())
    gauge = torch.linspace(0, 6, structures.edge_index.shape[1], dtype=torch.float64)
    with torch.no_grad():
        own = network(structures)
        turned = network(Structures(**{**vars(structures), "gauge": gauge}))
    for name, value in own.items():
        assert (turned[name] - value).abs().max() < 1e-9, name


def test_a_batch_of_unequal_structures_gives_what_each_gives_alone():
    network, first, second = network_of(), random_positions(4), random_positions(6, seed=5)
    graphs = torch.tensor([0] * 4 + [1] * 6)
    joined = cluster(torch.cat([first, second]), graphs)
    alone = [cluster(first), cluster(second)]
    assert network.edges(alone[0]).edges_per_atom == 3
    assert network.edges(joined).edges_per_atom is None
    joined = Structures(torch.cat([one.atomic_numbers for one in alone]), *list(vars(joined).values())[1:])
    with torch.no_grad():
        together, apart = network(joined), [network(one) for one in alone]
    for name, value in together.items():
        assert (value - torch.cat([one[name] for one in apart])).abs().max() < 1e-14, name


def energy_of(network: MonolithicNetwork, positions: Tensor, attached: bool = True) -> Tensor:
    return network(replace(cluster(positions), attached=attached), ("energy",))["energy"].sum()


@pytest.mark.parametrize("config", [SMALL, SMALL.model_copy(update={"norm_type": "rms_norm_sh", "use_grid_mlp": False})])
def test_with_attached_frames_the_gradient_is_that_of_finite_differences(config):
    network, positions = network_of(config), random_positions(5)
    positions[1] = positions[0] + torch.tensor([0.0, 1.3, 0.0])  # an edge along y, where the frames' angle about y has no meaning
    errors = {}
    for attached in (True, False):
        (gradient,) = torch.autograd.grad(energy_of(network, positions.requires_grad_(), attached), positions)
        numerical = torch.zeros_like(gradient)
        with torch.no_grad():
            for atom in range(5):
                for axis in range(3):
                    step = torch.zeros_like(positions)
                    step[atom, axis] = 2e-5  # a hundredth of the Gaussians' width would be too much
                    values = [energy_of(network, positions + factor * step) for factor in (-2, -1, 1, 2)]
                    numerical[atom, axis] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / 24e-5
        errors[attached] = float((gradient - numerical).abs().max() / numerical.abs().max())
    assert errors[True] < 1e-7
    assert errors[False] > 1e-3


def test_forces_that_are_gradients_can_be_trained_on():
    network, positions = network_of(), random_positions(4).requires_grad_()
    (forces,) = torch.autograd.grad(energy_of(network, positions), positions, create_graph=True)
    weight = network.blocks[0].ga.so2_conv_1.fc_m0.weight
    (gradient,) = torch.autograd.grad(forces.pow(2).sum(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = []
    for step in (-1e-6, 1e-6):
        with torch.no_grad():
            weight.add_(step * direction)
        (moved,) = torch.autograd.grad(energy_of(network, positions), positions)
        values.append(moved.pow(2).sum().item())
        with torch.no_grad():
            weight.sub_(step * direction)
    assert (values[1] - values[0]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_the_activation_on_the_sphere_has_its_first_and_second_derivatives(monkeypatch):
    grid = SphereGrid(Coefficients(2, 1), "|m|", 8, torch.float64)
    features = torch.randn(5, 7, 2, dtype=torch.float64, requires_grad=True)
    whole = grid.silu(features)
    monkeypatch.setattr(grid_module, "_VALUES_IN_CACHE", 64 * 2 * 2)
    assert len(grid_module.in_parts(features, grid.to_grid)) == 3
    plain = torch.matmul(grid.from_grid.T, torch.nn.functional.silu(torch.matmul(grid.to_grid, features)))
    assert (grid.silu(features) - plain).abs().max() < 1e-15
    assert (whole - plain).abs().max() < 1e-15
    assert torch.autograd.gradcheck(grid.silu, features)
    assert torch.autograd.gradgradcheck(grid.silu, features)


def test_an_isolated_atom_and_an_empty_part_of_a_batch_have_energies():
    network = network_of()
    with torch.no_grad():
        alone = network(cluster(torch.zeros(1, 3, dtype=torch.float64)))
        beside = network(cluster(torch.cat([torch.zeros(1, 3, dtype=torch.float64), random_positions(3)]), torch.tensor([0, 1, 1, 1])))
    assert alone["energy"].shape == (1,)
    assert torch.equal(alone["forces"], torch.zeros(1, 3, dtype=torch.float64))
    assert beside["energy"][0] == pytest.approx(float(alone["energy"]), abs=1e-14)


def test_every_weight_gets_a_gradient_but_those_that_no_output_depends_on():
    network = network_of()
    outputs = network(cluster(random_positions()))
    (outputs["energy"].sum() + outputs["forces"].pow(2).sum()).backward()
    dead = {name for name, value in network.named_parameters() if value.grad is None}
    without_effect = ("energy_block.so3_linear_1", "energy_block.grid_mlp", "force_block.proj.bias")
    assert dead == {name for name, _ in network.named_parameters() if name.startswith(without_effect)}
    unmoved = {name for name, value in network.named_parameters() if value.grad is not None and value.grad.abs().max() == 0}
    assert unmoved == {"force_block.so2_conv_2.so2_m_conv.1.fc.weight"}  # a vector has no |m| = 2


def test_the_energy_is_that_of_the_whole_feed_forward_network():
    features = torch.randn(3, 16, 6, dtype=torch.float64)
    for changes in ABLATIONS.values():
        block = network_of(SMALL.model_copy(update=changes)).energy_block
        assert (block.scalars(features) - block(features)[:, 0]).abs().max() < 1e-14


def test_inference_mode_and_weights_from_outside_give_the_same_outputs():
    network, structures = network_of(), cluster(random_positions())
    with torch.no_grad():
        wanted = network(structures)
    with torch.inference_mode():
        inferred = network(structures)
    doubled = {name: 2 * value for name, value in network.named_parameters()}
    moved = torch.func.functional_call(network, doubled, (structures,))
    back = torch.func.functional_call(network, {name: value / 2 for name, value in doubled.items()}, (structures,))
    for name, value in wanted.items():
        assert torch.equal(inferred[name], value), name
        assert torch.equal(back[name], value), name
        assert (moved[name] - value).abs().max() > 1e-3, name


def test_stochastic_depth_is_drawn_for_each_structure_and_off_in_evaluation():
    network = network_of(SMALL.model_copy(update={"drop_path_rate": 0.5, "alpha_drop": 0.0}))
    one = random_positions(3)
    structures = cluster(one.repeat(64, 1), torch.arange(64).repeat_interleave(3))
    structures = Structures(torch.tensor([1, 6, 8]).repeat(64), *list(vars(structures).values())[1:])
    with torch.no_grad():
        assert network(structures)["energy"].std() < 1e-14
        energies = network.train()(structures)["energy"]
    drawn = len({round(float(energy), 10) for energy in energies})
    assert 8 < drawn <= 16  # two blocks with two branches each


@pytest.mark.parametrize(("lmax", "mmax"), [(3, 1), (4, 4), (6, 2)])
def test_rotations_bring_edges_onto_y_wherever_they_point(lmax, mmax):
    directions = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    directions[3:] *= -1
    slanted = torch.tensor([[1e-9, 1, 0], [0, -1, 1e-7], [1e-200, 1, 0], [0.3, 0.9, 0.3], [0.1, 0.2, -0.7]], dtype=torch.float64)
    directions = torch.cat([directions, unit_vectors(slanted)])
    coefficients = Coefficients(lmax, mmax)
    rows = EdgeFrames(coefficients, torch.float64)(directions).into
    assert (rows @ rows.transpose(1, 2) - torch.eye(coefficients.reduced_count)).abs().max() < 1e-13
    harmonics = torch.stack(solid_harmonics(*directions.unbind(1), lmax), dim=1)  # (E, S)
    along = torch.bmm(rows, harmonics[:, :, None])[:, :, 0]
    wanted = torch.zeros_like(along)
    wanted[:, : lmax + 1] = torch.sqrt((2 * torch.arange(lmax + 1).double() + 1) / (4 * math.pi))  # those of y itself
    assert (along - wanted).abs().max() < 1e-13


@pytest.mark.parametrize("gauged", [False, True])
def test_rotations_are_those_of_the_harmonics_up_to_degree_11(gauged):
    directions = unit_vectors(torch.randn(20, 3, dtype=torch.float64))
    gauge = torch.linspace(-3, 3, 20, dtype=torch.float64) if gauged else None
    vectors_only, everything = Coefficients(1, 1), Coefficients(11, 11)
    matrices = EdgeFrames(vectors_only, torch.float64)(directions, gauge).into[:, np.argsort(vectors_only.index_in_full)][:, 1:, 1:]
    rows = EdgeFrames(everything, torch.float64)(directions, gauge).into[:, np.argsort(everything.index_in_full)]
    points = unit_vectors(torch.randn(20, 3, dtype=torch.float64))
    before = torch.stack(solid_harmonics(*points.unbind(1), 11), dim=1)
    after = torch.stack(solid_harmonics(*torch.bmm(matrices, points[:, :, None])[:, :, 0].unbind(1), 11), dim=1)
    assert torch.linalg.det(matrices) == pytest.approx(torch.ones(20).double())
    assert (torch.bmm(rows, before[:, :, None])[:, :, 0] - after).abs().max() < 1e-13


def test_outputs_are_brought_to_ev_and_angstrom():
    structures = cluster(random_positions(4))
    outputs = {"energy": torch.tensor([2.0]), "forces": torch.ones(4, 3)}
    outputs |= {"stress_isotropic": torch.ones(1, 1), "stress_anisotropic": torch.zeros(1, 5)}
    three = Normaliser(torch.tensor(0.5, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64))
    values = in_ev_and_angstrom(outputs, {"energy": three, "stress_isotropic": three}, torch.arange(30.0) / 10, structures)
    assert values["energy"].tolist() == pytest.approx([2 * 3 + 0.5 + (1 + 6 + 8 + 29) / 10])
    assert values["energy"].dtype == torch.float64
    assert torch.equal(values["forces"], outputs["forces"].double())
    assert torch.allclose(values["stress"], 3.5 / math.sqrt(3) * torch.eye(3, dtype=torch.float64))
    assert set(in_ev_and_angstrom({"energy": outputs["energy"]}, {}, None, structures)) == {"energy"}


def test_harmonics_and_swaps_are_e3nns():
    vectors = torch.tensor([[0.3, -1.2, 0.7], [0.0, 0.5, 0.0], [-1.0, 0.1, 2.0]], dtype=torch.float64)
    ours = torch.stack(solid_harmonics(*vectors.unbind(1), 11), dim=1)
    assert (ours / o3.spherical_harmonics(list(range(12)), vectors, normalize=False) - 1).nan_to_num(0).abs().max() < 1e-11
    swapped = torch.stack(solid_harmonics(vectors[:, 1], vectors[:, 0], -vectors[:, 2], 11), dim=1)
    for degree in range(12):
        swap, part = swap_matrix(degree), slice(degree**2, (degree + 1) ** 2)
        assert np.abs(swap @ swap - np.eye(2 * degree + 1)).max() < 1e-15
        assert np.abs(swap - swap.T).max() < 1e-15
        assert np.abs(ours[:, part].numpy() @ swap - swapped[:, part].numpy()).max() < 1e-14 * float(ours[:, part].abs().max())


def test_the_grid_gives_back_what_it_was_given():
    for lmax in (2, 4, 6):
        grid = SphereGrid(Coefficients(lmax, lmax), "degree", 18, torch.float64)
        assert (grid.from_grid.T @ grid.to_grid - torch.eye((lmax + 1) ** 2)).abs().max() < 1e-14


def test_stress_is_joined_as_a_tensor_that_turns():
    rotation = random_rotation()
    anisotropic, isotropic = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 1, dtype=torch.float64)
    stress = joined_stress(isotropic, anisotropic)
    assert torch.equal(stress, stress.transpose(1, 2))
    assert (stress.diagonal(dim1=1, dim2=2).sum(1) / math.sqrt(3) - isotropic[:, 0]).abs().max() < 1e-15
    assert (stress.pow(2).sum((1, 2)) - isotropic.pow(2)[:, 0] - anisotropic.pow(2).sum(1)).abs().max() < 1e-14
    points = unit_vectors(torch.randn(9, 3, dtype=torch.float64))
    harmonics = [torch.stack(solid_harmonics(*vectors.unbind(1), 2)[4:], dim=1) for vectors in (points, points @ rotation.T)]
    of_degree_2 = torch.linalg.lstsq(harmonics[0], harmonics[1]).solution.T  # (5, 5)
    turned = rotation @ stress @ rotation.T
    assert (joined_stress(isotropic, anisotropic @ of_degree_2.T) - turned).abs().max() < 1e-13


def test_the_hydra_form_is_the_monolithic_one_under_other_names():
    heads = parse_heads({"energy": {"module": "equiformer_v2_energy_head"}, "forces": {"module": "equiformer_v2_force_head"}}, "test")
    network, hydra = network_of(), build_network(Architecture(SMALL, heads), torch.float64).eval()
    assert isinstance(hydra, HydraNetwork)
    hydra.load_state_dict(dict(zip(hydra.state_dict(), network.state_dict().values(), strict=True)))
    with torch.no_grad():
        first, second = network(cluster(random_positions())), hydra(cluster(random_positions()))
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.equal(second[name], value), name
