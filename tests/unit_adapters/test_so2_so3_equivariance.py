"""Random adapter weights keep SO(2) convolutions, SO(3) linears and the whole of EquiformerV2 equivariant; planted faults do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from adapters.blocks import find_blocks
from adapters.method import create_method
from adapters.stack import AdapterStack
from zoo.backbones.equiformer_v2.coefficients import Coefficients, degrees_of_all
from zoo.backbones.equiformer_v2.config import Architecture, parse_config
from zoo.backbones.equiformer_v2.harmonics import solid_harmonics
from zoo.backbones.equiformer_v2.network import Structures, build_network
from zoo.backbones.equiformer_v2.so2 import Convolved, OrderConvolution, SO2Convolution
from zoo.backbones.equiformer_v2.so3 import SO3Linear

COEFFICIENTS = Coefficients(3, 2)
METHODS = ({"name": "elora", "rank": 2}, {"name": "full"}, {"name": "elora", "rank": 1, "select": ["l>=1", "m>=1"]})
TURNS = Rotation.random(20, random_state=1)


def representation(rotation: Rotation, lmax: int) -> Tensor:
    """(S, S) how coefficients change under the rotation: from the harmonics of rotated points, by least squares."""
    points = np.random.default_rng(0).normal(size=(300, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    before, after = (np.stack(solid_harmonics(*p.T, lmax), axis=1) for p in (points, rotation.apply(points)))
    return torch.from_numpy(np.linalg.lstsq(before, after, rcond=None)[0].T)


def error_of_so2(call: Callable[[Tensor], Convolved]) -> float:
    """By how much the layer and turns about y (the edge's axis) do not commute, of coefficients and scalars of size 1."""
    features = torch.randn(6, COEFFICIENTS.reduced_count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = COEFFICIENTS.index_in_full
    expected, errors = call(features), []
    for angle in (0.3, 1.7, 4.0):
        turn = representation(Rotation.from_rotvec([0, angle, 0]), COEFFICIENTS.lmax)
        assert not turn[:, chosen][np.setdiff1d(np.arange(16), chosen)].abs().max() > 1e-13  # the orders kept turn among themselves
        turn = turn[chosen][:, chosen]
        found = call(turn @ features)
        errors += [(found.coefficients - turn @ expected.coefficients).abs().max(), (found.scalars - expected.scalars).abs().max()]
    assert expected.coefficients.abs().max() > 0.1
    return float(torch.stack(errors).max())


def error_of_so3(call: Callable[[Tensor], Tensor]) -> float:
    """By how much the layer and rotations do not commute."""
    features = torch.randn(6, 16, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turns = [representation(turn, 3) for turn in TURNS[:5]]
    expected = call(features)
    assert expected.abs().max() > 0.1
    return float(torch.stack([(call(turn @ features) - turn @ expected).abs().max() for turn in turns]).max())


def with_random_adapter(model: nn.Module, spec: dict[str, Any], relative: float = 1.0, seed: int = 0) -> AdapterStack:
    stack = AdapterStack(model, find_blocks(model)).eval()
    stack.add("a", create_method(spec))
    stack.randomise("a", seed, relative)
    return stack


@pytest.fixture
def convolution() -> SO2Convolution:
    torch.manual_seed(0)
    return SO2Convolution(COEFFICIENTS, in_channels=3, out_channels=2, extra_scalars=4).double()


@pytest.fixture
def linear() -> SO3Linear:
    torch.manual_seed(0)
    layer = SO3Linear(3, 2, lmax=3).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@pytest.mark.parametrize("spec", METHODS)
def test_an_so2_convolution_with_any_delta_commutes_with_turns_about_the_edge(convolution, spec):
    stack = with_random_adapter(convolution, {key: value for key, value in spec.items() if key != "select"})
    assert error_of_so2(stack.call) < 1e-12
    features = torch.ones(1, COEFFICIENTS.reduced_count, 3, dtype=torch.float64)
    assert (stack.call(features).coefficients - convolution(features).coefficients).abs().max() > 0.1  # the delta is there


@pytest.mark.parametrize("spec", METHODS)
def test_an_so3_linear_with_any_delta_commutes_with_rotations(linear, spec):
    stack = with_random_adapter(linear, {**spec, "select": ["l>=1"]} if "select" in spec else spec)
    assert error_of_so3(stack.call) < 1e-12
    features = torch.ones(1, 16, 3, dtype=torch.float64)
    assert (stack.call(features) - linear(features)).abs().max() > 0.1


def _beside_the_layer(fault: str, layer: OrderConvolution, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """A low-rank branch beside the layer, as a wrapper would add it, which combines its rows in another way than the layer does."""
    (features,) = inputs  # (E, 2, n C_in)
    factors = torch.randn(features.shape[2] + layer.fc.out_features, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    products = (features @ factors[: features.shape[2]]) @ factors[features.shape[2] :].T
    real, imaginary = products.chunk(2, dim=2)
    plus, minus = {
        "as the layer combines them": (real[:, 0] - imaginary[:, 1], real[:, 1] + imaginary[:, 0]),
        "W_i with the wrong sign": (real[:, 0] + imaginary[:, 1], real[:, 1] + imaginary[:, 0]),
        "rows of W_r for +m and of W_i for -m": (real[:, 0], imaginary[:, 1]),
        "+m alone": (real[:, 0], torch.zeros_like(real[:, 1])),
    }[fault]
    return output + torch.stack([plus, minus], dim=1).view(output.shape)


@pytest.mark.parametrize(
    ("fault", "is_legal"),
    [
        ("as the layer combines them", True),
        ("W_i with the wrong sign", False),
        ("rows of W_r for +m and of W_i for -m", False),
        ("+m alone", False),
    ],
)
def test_a_delta_that_mixes_the_rows_of_w_r_and_w_i_otherwise_is_caught(convolution, fault, is_legal):
    convolution.so2_m_conv[0].register_forward_hook(lambda *call: _beside_the_layer(fault, *call))
    error = error_of_so2(with_random_adapter(convolution, {"name": "elora", "rank": 2}).call)
    assert (error < 1e-12) == is_legal
    assert is_legal or error > 0.1


@pytest.mark.parametrize("fault", ["from degree 1 to degree 0", "from degree 2 to degree 1", "a matrix for each coefficient"])
def test_a_delta_that_couples_degrees_or_parts_them_is_caught(linear, fault):
    generator = torch.Generator().manual_seed(1)
    of_coefficients = torch.zeros(16, 16, dtype=torch.float64)
    degrees = degrees_of_all(3)
    if fault.startswith("from"):
        source, target = (int(word) for word in fault.split() if word.isdigit())
        rows, columns = np.ix_(degrees == target, degrees == source)
        of_coefficients[rows, columns] = 0.1
    else:
        of_coefficients = torch.diag(torch.randn(16, generator=generator, dtype=torch.float64))
    channels = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    linear.register_forward_hook(lambda _, inputs, output: output + torch.einsum("ij,njc,oc->nio", of_coefficients, inputs[0], channels))
    assert error_of_so3(with_random_adapter(linear, {"name": "elora", "rank": 2}).call) > 0.1


def random_network(lmax: int, mmax: int, grid: int, channels: int) -> nn.Module:
    """Two layers, random weights, float64."""
    widths = dict.fromkeys(("sphere_channels", "attn_hidden_channels", "ffn_hidden_channels", "edge_channels"), channels)
    heads = {"num_heads": 2, "attn_alpha_channels": 8, "attn_value_channels": 8}
    fixed = {"norm_type": "layer_norm_sh", "use_grid_mlp": True, "weight_init": "uniform", "max_radius": 6.0, "max_num_elements": 9}
    sizes = {"lmax_list": [lmax], "mmax_list": [mmax], "num_layers": 2, "grid_resolution": grid}
    torch.manual_seed(0)
    network = build_network(Architecture(parse_config({**fixed, **heads, **widths, **sizes}, "test")), torch.float64)
    return network.eval()


def ethanol(rotation: Rotation | None = None) -> Structures:
    """All pairs within the cutoff of 6 Å, at positions that are not symmetric."""
    atoms = molecule("CH3CH2OH")
    positions = atoms.positions + np.random.default_rng(3).normal(scale=0.1, size=atoms.positions.shape)
    positions = torch.from_numpy(positions if rotation is None else rotation.apply(positions))
    target, source = torch.tensor([(i, j) for i in range(len(atoms)) for j in range(len(atoms)) if i != j]).T
    return Structures(
        atomic_numbers=torch.from_numpy(atoms.numbers),
        edge_index=torch.stack([source, target]),
        edge_vectors=positions[source] - positions[target],
        graph_of_atom=torch.zeros(len(atoms), dtype=torch.long),
        graph_count=1,
    )


@torch.no_grad()
def force_error(call: Callable[[Structures], dict[str, Tensor]]) -> float:
    """The largest difference of a force from the rotated one, over 20 rotations, in the model's unit: what the sphere's grid aliases."""
    forces = call(ethanol())["forces"]
    assert 0.01 < forces.abs().max() < 10
    rotated = [forces @ torch.from_numpy(turn.as_matrix()).T for turn in TURNS]
    errors = [(call(ethanol(turn))["forces"] - expected).abs().max() for turn, expected in zip(TURNS, rotated, strict=True)]
    return float(torch.stack(errors).max())


def errors_with_adapters(network: nn.Module, seeds: int, relative: float = 0.1) -> tuple[float, list[float]]:
    """Of the base, and with each of so many random adapters on every matrix of it."""
    stack = AdapterStack(network, find_blocks(network)).eval()
    adapted = []
    for seed in range(seeds):
        stack.add(f"seed_{seed}", create_method({"name": "elora", "rank": 4}))
        stack.randomise(f"seed_{seed}", seed, relative)
        stack.activate([f"seed_{seed}"])
        with torch.no_grad():
            change = stack.call(ethanol())["forces"] - network(ethanol())["forces"]
        assert change.abs().max() > 1e-3
        adapted.append(force_error(stack.call))
    return force_error(network), adapted


@pytest.mark.parametrize(("grid", "bound"), [(18, 1e-7), (32, 1e-11)])
def test_at_low_degrees_forces_turn_with_the_structure_whatever_the_adapter(grid, bound):
    base, adapted = errors_with_adapters(random_network(2, 2, grid, channels=8), seeds=2)
    assert max(base, *adapted) < bound


def test_a_random_adapter_leaves_the_force_error_at_the_bases_own_aliasing():
    base, adapted = errors_with_adapters(random_network(4, 2, 18, channels=16), seeds=2)
    assert 1e-7 < base < 1e-3
    assert max(adapted) < 3 * base


def test_a_layer_of_the_network_that_couples_degrees_is_far_above_its_aliasing():
    network = random_network(4, 2, 18, channels=16)
    base = force_error(network)

    def leak(_: nn.Module, __: object, output: Tensor) -> Tensor:
        return torch.cat([output[:, :1] + output[:, 1:2], output[:, 1:]], dim=1)  # a component of degree 1 into degree 0

    network.blocks[1].ffn.so3_linear_2.register_forward_hook(leak)
    assert force_error(with_random_adapter(network, {"name": "elora", "rank": 4}, 0.1).call) > 30 * base  # 3 are allowed


@pytest.mark.slow
@pytest.mark.parametrize(("lmax", "mmax", "bound"), [(4, 2, 1e-7), (6, 2, 1e-4), (6, 3, 1e-4)])
def test_on_a_fine_grid_the_force_error_vanishes_with_random_adapters_too(lmax, mmax, bound):
    base, adapted = errors_with_adapters(random_network(lmax, mmax, 32, channels=16), seeds=3)
    coarse = force_error(random_network(lmax, mmax, 18, channels=16))
    assert max(base, *adapted) < bound < coarse
