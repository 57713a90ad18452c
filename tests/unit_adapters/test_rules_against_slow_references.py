"""Every rule's fast form against a slow one: the layer run with an adapter, and the gradients of its factors and of the layer's inputs.

A factor in the wrong place, at the wrong scale or transposed gives other numbers here, whatever the rule's own tests count.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from e3nn.o3 import Irreps
from torch import nn
from torch.nn import functional

from adapters.blocks import find_blocks
from adapters.stack import AdapterStack
from tests.families import skip_without
from tests.refusals import refusal_of
from tests.unit_adapters import slow_layers as slow
from tests.unit_adapters.slow_comparison import FULL, LOW_RANK, SPARSE, differences
from tests.unit_adapters.slow_references import biases_of, e3nn_channelled_linear, e3nn_linear, fully_connected, tensor_product
from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.radial import RadialFunction
from zoo.backbones.equiformer_v2.so2 import SO2Convolution
from zoo.backbones.equiformer_v2.so3 import SO3Linear
from zoo.backbones.nequix_model import IrrepsRMSNorm


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    """Layers compute their constants in the default precision."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_irreps(draw: random.Random, kinds: Sequence[str], most: int = 4) -> Irreps:
    """Unsorted, repeated, perhaps without channels."""
    return Irreps([(draw.choice([0, 1, 1, 2, 3]), draw.choice(kinds)) for _ in range(draw.randint(1, most))])


def pairs_of_irreps() -> list[Any]:
    """Cases by hand, and random ones that have a path."""
    by_hand = [
        ("2x0e+3x0e", "4x0e"),  # repeated: one path of simplified irreps
        ("2x0e+3x0e+2x1o+1x1o+2x1o", "2x0e+1x0e+3x1o"),  # repeated on both sides
        ("2x0e+2x1o+3x0e", "2x1o+3x0e"),  # repeated with another between
        ("3x0e+2x1o+2x2e", "2x0e+1x1e"),  # inputs without a counterpart, and an output without one
        ("1x0e+1x1o", "1x0e+1x1o"),  # a single channel
        ("2x0e+0x1o+1x1o", "2x1o+0x0e+1x0e"),  # irreps without channels
    ]
    draw = random.Random(0)
    while len(by_hand) < 26:
        one, other = (random_irreps(draw, ["0e", "0e", "1o", "1e", "2e"]) for _ in range(2))
        if any(a.mul * b.mul and a.ir == b.ir for a in one for b in other):
            by_hand.append((str(one), str(other)))
    return by_hand


@pytest.mark.parametrize(("first", "second"), pairs_of_irreps())
def test_e3nns_linear(first, second):
    irreps = Irreps(first), Irreps(second)
    for normalisation in ("element", "path"):
        layer = o3.Linear(*irreps, biases=biases_of(irreps), path_normalization=normalisation)

        def reference(base, changes, features, normalisation=normalisation):
            return e3nn_linear(irreps, base, changes, features, normalisation)

        assert differences(layer, reference, [irreps[0].randn(3, -1)]) == []


def test_e3nns_linear_from_channels_to_channels():
    irreps = Irreps("2x0e+1x0e+2x1o"), Irreps("2x0e+1x1o")
    for sizes in ((3, 2), (1, 2), (1, 1)):
        layer = o3.Linear(*irreps, f_in=sizes[0], f_out=sizes[1])
        features = irreps[0].randn(2, sizes[0], -1)
        assert differences(layer, lambda base, changes, x: e3nn_channelled_linear(irreps, base, changes, x), [features]) == []


@pytest.mark.parametrize("select", ["l>=1", "l==0", "l==1"])
def test_some_paths_of_a_layer_alone(select):
    """What is left out keeps its weights: gaps between the changes, before them and behind them."""
    irreps = Irreps("2x1o+2x0e+1x2e+1x0e"), Irreps("2x0e+1x1o+2x2e+1x0e")
    chosen = [{**spec, "select": [select]} for spec in (LOW_RANK, SPARSE, FULL)]
    layer, features = o3.Linear(*irreps), irreps[0].randn(2, -1)
    assert differences(layer, lambda base, changes, x: e3nn_linear(irreps, base, changes, x), [features], specs=chosen) == []
    layer, features = SO3Linear(2, 3, 2), torch.randn(2, 9, 2)
    assert differences(layer, lambda base, changes, x: slow.so3_linear("", base, changes, x), [features], specs=chosen) == []


def test_layers_without_a_path_have_nothing_to_adapt_and_say_so():
    for layer in (o3.Linear("2x0e", "3x1o"), o3.FullyConnectedTensorProduct("2x0e", "1x1o", "2x2e")):
        coverage = find_blocks(layer)
        assert coverage.blocks == ()
        assert "select none of the model's 0 weight blocks" in refusal_of(lambda c=coverage, m=layer: AdapterStack(m, c).add("a", "full"))


def triples_of_irreps() -> list[Any]:
    by_hand = [
        ("2x0e+1x0e+2x1o", "2x0e", "2x0e+2x1o"),  # the first input repeated: one path of simplified irreps
        ("2x0e+2x1o", "1x0e+2x0e+1x1o", "2x0e+1x0e+2x1o"),  # the second and the output repeated
        ("2x0e+2x1o+1x2e", "1x1e", "2x1o+3x0o"),  # inputs without a path, an output without one
        ("1x0e+1x1o", "1x1o", "1x0e+1x1e+1x2e"),  # single channels
        ("0x0e+2x1o", "2x1o+0x0e", "1x0e+0x1o"),  # irreps without channels
    ]
    draw = random.Random(1)
    while len(by_hand) < 18:
        found = [random_irreps(draw, ["0e", "0o", "1o", "1e", "2e"], 3) for _ in range(3)]
        paths = fully_connected(*found)
        if any(found[0][i].mul * found[1][j].mul * found[2][o].mul for i, j, o, _, _ in paths):
            by_hand.append(tuple(map(str, found)))
    return by_hand


@pytest.mark.parametrize(("first", "second", "out"), triples_of_irreps())
def test_e3nns_fully_connected_tensor_product(first, second, out):
    irreps = Irreps(first), Irreps(second), Irreps(out)
    layer = o3.FullyConnectedTensorProduct(*irreps)
    instructions = fully_connected(*irreps)

    def reference(base, changes, one, other):
        return tensor_product(irreps, instructions, base, changes, (one, other))

    assert differences(layer, reference, [irreps[0].randn(2, -1), irreps[1].randn(2, -1)]) == []


def test_e3nns_tensor_product_in_every_mode_and_with_paths_of_their_own_weight():
    irreps = Irreps("2x0e+2x1o"), Irreps("2x0e+2x1o+3x1o"), Irreps("2x1o+2x0e+4x1e+1x1e+3x0e+3x1o+2x1o")
    instructions = [
        (0, 1, 0, "uvu", 1.0),
        (1, 0, 0, "uvv", 2.0),
        (1, 1, 1, "uuw", 1.0),
        (1, 1, 1, "uuu", 0.5),
        (1, 1, 2, "uvuv", 1.0),
        (1, 1, 3, "uvu<v", 1.0),
        (1, 1, 4, "u<vw", 1.0),
        (0, 2, 5, "uvv", 1.0),
        (1, 0, 6, "uvw", 3.0),
        (0, 1, 6, "uvw", 1.0),
    ]
    layer = o3.TensorProduct(
        *irreps, [(i, j, o, mode, True, weight) for i, j, o, mode, weight in instructions], compile_left_right=True, compile_right=False
    )

    def reference(base, changes, one, other):
        return tensor_product(irreps, instructions, base, changes, (one, other))

    assert differences(layer, reference, [irreps[0].randn(2, -1), irreps[1].randn(2, -1)]) == []


def contractions() -> list[Any]:
    """Irreps, output, highest order, the element of each atom, number of elements."""
    by_hand = [
        ("2x0e+2x1o", "0e", 3, [0, 2, 2, 0], 3),  # of three elements one is missing
        ("1x0e+1x1o", "1o", 3, [0, 0], 1),  # a single channel, a single element
        ("2x0e+2x1o+2x2e", "2e", 2, [2, 1], 3),
        ("2x0e+2x1o", "0e", 1, [1], 2),
        ("2x0e+2x1o+2x2e", "1e", 3, [0, 1], 2),  # without a path of the first order
        ("2x0e+2x1o+2x1o", "1o", 2, [1, 0, 1], 2),  # an irrep twice
    ]
    draw = random.Random(2)
    for _ in range(6):
        channels, elements = draw.randint(1, 3), draw.randint(1, 3)
        kinds = ["0e", *draw.sample(["1o", "1e", "2e", "0o"], draw.randint(1, 2))]
        atoms = [draw.randrange(elements) for _ in range(draw.randint(1, 3))]
        by_hand.append(("+".join(f"{channels}x{kind}" for kind in kinds), draw.choice(kinds), draw.randint(1, 3), atoms, elements))
    return by_hand


def test_paths_of_equal_inputs_that_share_channels_with_their_output_stay_apart():
    irreps = Irreps("2x1o+2x1o"), Irreps("2x0e"), Irreps("2x1o")
    for mode in ("uvu", "uvv", "uuw"):
        instructions = [(0, 0, 0, mode, 1.0), (1, 0, 0, mode, 1.0)]
        layer = o3.TensorProduct(*irreps, [(i, j, o, mode, True, weight) for i, j, o, mode, weight in instructions])

        def reference(base, changes, one, other, instructions=instructions):
            return tensor_product(irreps, instructions, base, changes, (one, other))

        assert differences(layer, reference, [irreps[0].randn(2, -1), irreps[1].randn(2, -1)]) == []


@skip_without("mace")
@pytest.mark.parametrize(("inputs", "out", "correlation", "atoms", "elements"), contractions())
def test_maces_symmetric_contraction(inputs, out, correlation, atoms, elements):
    from mace.modules.symmetric_contraction import Contraction

    irreps = Irreps(inputs)
    layer = Contraction(irreps, Irreps(out), correlation, num_elements=elements)
    one_hot = functional.one_hot(torch.tensor(atoms), elements).to(torch.float64)
    features = torch.randn(len(atoms), irreps[0].mul, sum(irrep.dim for _, irrep in irreps))
    assert differences(layer, lambda base, changes, x: slow.contraction(layer, base, changes, x, atoms), [features], others=[one_hot]) == []


def test_e3nns_radial_network():
    layer = e3nn_nn.FullyConnectedNet([3, 5, 1, 4], functional.silu)

    def reference(base, changes, lengths):
        for number, (size, name) in enumerate(zip([3, 5, 1], layer._modules, strict=True)):
            lengths = slow.weighted_sums(slow.stored_plainly(f"{name}.weight", base, changes), lengths) / size**0.5
            if number < 2:
                lengths = layer.layer0.act(lengths)  # silu over its root mean square
        return lengths

    assert differences(layer, reference, [torch.randn(3, 3)]) == []


@pytest.mark.parametrize("sizes", [(4, 3), (1, 1), (1, 3), (4, 1)])
def test_torchs_linear_layer_and_embedding(sizes):
    for bias in (True, False):
        layer = nn.Linear(*sizes, bias=bias)
        assert differences(layer, lambda base, changes, x: slow.linear("", base, changes, x), [torch.randn(2, 5, sizes[0])]) == []
    elements = torch.tensor([0, sizes[0] - 1, 0])

    def reference(base, changes):
        rows = slow.stored_plainly("weight", base, changes)
        return torch.stack([torch.stack(rows[element]) for element in elements])

    assert differences(nn.Embedding(*sizes), reference, [], others=[elements]) == []


def so2_matrices(base, changes, count, matrix_of) -> list[Any]:
    return [matrix_of(name, base, changes) for name in ("fc_m0.", *(f"so2_m_conv.{order}.fc." for order in range(count)))]


def transposed(name, base, changes):
    return slow.stored_transposed(f"{name}weight", base, changes)


CONVOLUTIONS = [(2, 2, (2, 2), 0), (2, 1, (1, 3), 2), (3, 2, (2, 1), 1), (0, 0, (3, 2), 2), (1, 1, (1, 1), 0)]


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize(("lmax", "mmax", "channels", "extra"), CONVOLUTIONS)
def test_equiformers_so2_convolution(lmax, mmax, channels, extra, radial):
    layer = SO2Convolution(Coefficients(lmax, mmax), *channels, extra)
    plain = slow.SO2(lmax, mmax, channels, extra)

    def joined(stack, tensors):
        result = stack.call(*tensors)
        return torch.cat([result.scalars.reshape(3, extra), result.coefficients.flatten(1)], dim=1)

    def reference(base, changes, features, *weights):
        bias = slow.vector("fc_m0.bias", base, changes)
        return plain(so2_matrices(base, changes, mmax, transposed), bias, features, *weights)

    inputs = [torch.randn(3, len(plain.places), channels[0])]
    if radial:
        inputs.append(torch.randn(3, sum((lmax + 1 - order) * channels[0] for order in range(mmax + 1))))
    assert differences(layer, reference, inputs, call=joined) == []


@skip_without("uma")
@pytest.mark.parametrize(("lmax", "mmax", "channels", "extra"), CONVOLUTIONS)
def test_fairchems_so2_convolution_with_its_radial_function(lmax, mmax, channels, extra):
    from fairchem.core.models.uma.nn.so2_layers import SO2_Convolution

    sizes = SimpleNamespace(m_size=[lmax + 1 - order for order in range(mmax + 1)])
    layer = SO2_Convolution(channels[0], channels[1], lmax, mmax, sizes, False, [4, 3], extra or None)
    plain = slow.SO2(lmax, mmax, channels, extra)

    def joined(stack, tensors):
        result = stack.call(*tensors)
        return torch.cat([result[1], result[0].flatten(1)], dim=1) if extra else result.flatten(1)

    def reference(base, changes, features, edges):
        radial = slow.perceptron(layer.rad_func.net, "rad_func.net.", base, changes, edges)
        bias = slow.vector("fc_m0.bias", base, changes)
        return plain(so2_matrices(base, changes, mmax, transposed), bias, features, radial)

    assert differences(layer, reference, [torch.randn(3, len(plain.places), channels[0]), torch.randn(3, 4)], call=joined) == []


@skip_without("uma")
@pytest.mark.parametrize("experts", [1, 3])
def test_umas_so2_convolution_of_mixed_experts(experts):
    from fairchem.core.models.uma.nn.mole import MOLE
    from fairchem.core.models.uma.nn.so2_layers import SO2_Convolution

    sizes = SimpleNamespace(m_size=[3, 2, 1])
    layer = SO2_Convolution(2, 1, 2, 2, sizes, extra_m0_output_channels=2)
    mixing = SimpleNamespace(expert_mixing_coefficients=torch.rand(2, experts), mole_sizes=torch.tensor([1, 2]), ac_start_idx=0)
    layer.fc_m0 = MOLE(experts, layer.fc_m0.in_features, layer.fc_m0.out_features, mixing, bias=True)
    for of_order in layer.so2_m_conv:
        of_order.fc = MOLE(experts, of_order.fc.in_features, of_order.fc.out_features, mixing, bias=False)
    of_edge = mixing.expert_mixing_coefficients[[0, 1, 1]]  # one edge of the first system, two of the second
    plain = slow.SO2(2, 2, (2, 1), 2)

    def reference(base, changes, features):
        matrices = so2_matrices(base, changes, 2, lambda name, base, changes: slow.mixed_experts(name, base, changes, of_edge))
        return plain(matrices, slow.vector("fc_m0.bias", base, changes), features)

    def joined(stack, tensors):
        coefficients, scalars = stack.call(*tensors)
        return torch.cat([scalars, coefficients.flatten(1)], dim=1)

    assert differences(layer, reference, [torch.randn(3, len(plain.places), 2)], call=joined) == []


@pytest.mark.parametrize(("channels", "lmax"), [((3, 2), 2), ((1, 1), 3), ((2, 3), 0)])
@pytest.mark.parametrize("package", ["here", pytest.param("fairchem", marks=skip_without("uma"))])
def test_so3_linear_layers(package, channels, lmax):
    if package == "here":
        layer: nn.Module = SO3Linear(*channels, lmax)
    else:
        from fairchem.core.models.uma.nn.so3_layers import SO3_Linear

        layer = SO3_Linear(*channels, lmax)
    features = torch.randn(2, (lmax + 1) ** 2, channels[0])
    assert differences(layer, lambda base, changes, x: slow.so3_linear("", base, changes, x), [features]) == []


@skip_without("uma")
def test_umas_force_head_uses_one_degree_of_its_stack():
    from fairchem.core.models.uma.escn_md import Linear_Force_Head

    layer = Linear_Force_Head(SimpleNamespace(sphere_channels=3))

    def reference(base, changes, features):
        return slow.so3_linear("linear.", base, changes, features[:, :4], as_one_stack=True)[:, 1:4, 0]

    def forces(stack, tensors):
        return stack.call({}, {"node_embedding": tensors[0]})["forces"]

    assert differences(layer, reference, [torch.randn(2, 9, 3)], call=forces) == []


def test_equiformers_radial_function_of_lengths_and_elements():
    layer = RadialFunction(2, 3)
    embeddings = nn.Embedding(4, 2), nn.Embedding(4, 2)
    source, target = torch.tensor([0, 3, 1]), torch.tensor([1, 1, 2])

    def reference(base, changes, gaussians):
        joined = torch.cat([gaussians, embeddings[0].weight.detach()[source], embeddings[1].weight.detach()[target]], dim=1)
        return slow.perceptron(layer.net, "net.", base, changes, joined)

    def run(stack, tensors):
        edges = SimpleNamespace(gaussians=tensors[0], source_elements=source, target_elements=target)
        return stack.call(edges, *(embedding.requires_grad_(False) for embedding in embeddings))

    assert differences(layer, reference, [torch.randn(3, layer.net[0].in_features - 4)], call=run) == []


@skip_without("uma")
def test_fairchems_radial_function():
    from fairchem.core.models.uma.nn.radial import RadialMLP

    layer = RadialMLP([4, 3, 5, 2])
    assert differences(layer, lambda base, changes, x: slow.perceptron(layer.net, "net.", base, changes, x), [torch.randn(3, 4)]) == []


@skip_without("nequip")
@pytest.mark.parametrize("bias", [True, False])
def test_nequips_linear_layer(bias):
    from nequip.nn.mlp import ScalarLinearLayer

    layer = ScalarLinearLayer(4, 3, alpha=0.7, bias=bias)
    assert differences(layer, lambda base, changes, x: slow.scalar_linear(layer, base, changes, x), [torch.randn(2, 4)]) == []


@skip_without("allegro")
@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize(
    ("irreps", "channels"),
    [
        (("1x0e+1x1o", "1x0e+1x1o", "1x0e+1x1o"), 3),
        (("1x0e+1x1o+1x1o", "1x0e+1x1o", "1x1o+1x0e+1x1e"), 1),  # repeated, a single channel
        (("1x0e+1x1o+1x2e", "1x1o", "1x1o"), 2),  # an input with no way to the output
        (("1x0e+1x1o", "1x0e+1x1o", "1x1e"), 2),  # one path
    ],
)
def test_allegros_tensor_product(irreps, channels, coupled):
    from allegro.nn._strided import Contracter

    first, second, out = map(Irreps, irreps)
    layer = Contracter(first, second, out, mul=channels, path_channel_coupling=coupled)
    centres = [0, 1, 1]

    def reference(base, changes, one, other):
        return slow.allegro_product((first, second, out), base, changes, (one, other), centres)

    has_matrix = layer.weights.ndim == 2
    inputs = [torch.randn(3, channels, first.dim), torch.randn(2, channels, second.dim)]
    specs = [LOW_RANK, SPARSE, FULL] if has_matrix else [SPARSE, FULL]
    assert differences(layer, reference, inputs, others=[torch.tensor(centres)], specs=specs) == []


def test_nequixs_norm_has_a_weight_for_each_copy_of_an_irrep():
    irreps = Irreps("3x0e+1x1o+2x2e")
    layer, features, specs = IrrepsRMSNorm(irreps), irreps.randn(3, -1), [SPARSE, FULL]
    assert differences(layer, lambda base, changes, x: slow.irreps_rms_norm(irreps, base, changes, x), [features], specs=specs) == []
