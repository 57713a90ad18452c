"""The layers of EquiformerV2 and of fairchem-core's eSCN-MD: their blocks, degrees and orders, what a selection chooses, and counts."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from e3nn import o3
from torch import Tensor, nn

from adapters.blocks import Coverage, WeightBlock, find_blocks
from adapters.method import create_method
from adapters.stack import AdapterStack
from adapters.state import AdapterManifest, base_fingerprint, load_into, read_adapter, write_adapter
from tests.refusals import refusal_of
from zoo.backbones.equiformer_v2.coefficients import Coefficients, degrees_of_all
from zoo.backbones.equiformer_v2.config import Architecture, parse_config, parse_heads
from zoo.backbones.equiformer_v2.network import build_network
from zoo.backbones.equiformer_v2.so2 import SO2Convolution
from zoo.backbones.equiformer_v2.so3 import SO3Linear

COEFFICIENTS = Coefficients(3, 2)
HEADS_AS_READOUT = {"*energy_block.*": "readout", "*force_block.*": "readout", "*output_heads.*": "readout"}
TINY = {"sphere_channels": 4, "attn_hidden_channels": 4, "ffn_hidden_channels": 5, "edge_channels": 3, "num_heads": 2}
PUBLISHED = {"sphere_channels": 128, "attn_hidden_channels": 64, "ffn_hidden_channels": 128, "edge_channels": 128, "num_heads": 8}


def network_on_meta(lmax: int, mmax: int, layers: int, **settings: object) -> nn.Module:
    fixed = {"norm_type": "layer_norm_sh", "grid_resolution": 18, "use_grid_mlp": True, "attn_alpha_channels": 64}
    sizes = {"lmax_list": [lmax], "mmax_list": [mmax], "num_layers": layers}
    with torch.device("meta"):
        return build_network(Architecture(parse_config({**fixed, **sizes, **settings}, "test")), torch.float32)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return network_on_meta(3, 2, 1, **TINY)


@pytest.fixture(scope="module")
def coverage(tiny) -> Coverage:
    return find_blocks(tiny)


def orders_moved(convolution: SO2Convolution, block: WeightBlock) -> tuple[set[int], bool]:
    """The orders |m| whose coefficients change with the block's weights, and whether the extra scalars do."""
    before, after = _before_and_after(convolution, block, torch.randn(5, COEFFICIENTS.reduced_count, 3, dtype=torch.float64))
    degree, full = COEFFICIENTS.degrees, COEFFICIENTS.index_in_full
    moved = (after.coefficients - before.coefficients).abs().amax(dim=(0, 2)) > 1e-6
    orders = {abs(int(index - d**2 - d)) for index, d, is_moved in zip(full, degree, moved, strict=True) if is_moved}
    return orders, bool(((after.scalars - before.scalars).abs() > 1e-6).any())


def degrees_moved(linear: SO3Linear, block: WeightBlock) -> set[int]:
    before, after = _before_and_after(linear, block, torch.randn(5, 16, 3, dtype=torch.float64))
    return set(degrees_of_all(3)[((after - before).abs().amax(dim=(0, 2)) > 1e-6).numpy()])


@torch.no_grad()
def _before_and_after(layer: nn.Module, block: WeightBlock, features: Tensor) -> tuple[Any, Any]:
    weight = layer.get_parameter(block.parameter)
    kept = weight.clone()
    before = layer(features)
    block.view(weight).add_(1.0)
    after = layer(features)
    weight.copy_(kept)
    return before, after


@pytest.fixture
def convolution() -> SO2Convolution:
    return SO2Convolution(COEFFICIENTS, in_channels=3, out_channels=2, extra_scalars=4).double()


@pytest.fixture
def linear() -> SO3Linear:
    layer = SO3Linear(3, 2, lmax=3).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def test_an_so2_convolution_is_one_matrix_an_order_which_moves_that_order_alone(convolution):
    blocks = find_blocks(convolution).blocks
    assert [(b.parameter, b.order, b.role, b.shape) for b in blocks] == [
        ("fc_m0.weight", 0, "so2", (1, 12, 12)),  # 4 degrees x 3 channels -> 4 scalars and 4 degrees x 2 channels
        ("fc_m0.bias", 0, "bias", (1, 1, 12)),
        ("so2_m_conv.0.fc.weight", 1, "so2", (1, 9, 12)),  # 3 degrees x 3 channels -> W_r and W_i of 3 degrees x 2 channels
        ("so2_m_conv.1.fc.weight", 2, "so2", (1, 6, 8)),
    ]
    assert [block.path for block in blocks if block.order] == ["|m| = 1, [W_r; W_i]: 9 -> 12", "|m| = 2, [W_r; W_i]: 6 -> 8"]
    for block in blocks:
        assert orders_moved(convolution, block) == ({block.order}, block.order == 0)
        assert block.degree is None
        if block.structure == "matrix":
            weight = convolution.get_parameter(block.parameter)
            assert torch.equal(block.view(weight)[0], weight.T)


def test_the_columns_of_an_orders_block_are_w_r_and_then_w_i(convolution):
    """From coefficients of +m alone, W_r makes +m and W_i makes -m."""
    block = find_blocks(convolution).blocks[2]
    features = torch.zeros(1, COEFFICIENTS.reduced_count, 3, dtype=torch.float64)
    features[0, 4:7] = 1.0  # order +1, behind the four degrees of order 0
    weight = convolution.so2_m_conv[0].fc.weight
    for columns, moved in ((slice(0, 6), [True, False]), (slice(6, 12), [False, True])):
        with torch.no_grad():
            before = convolution(features).coefficients[0]
            block.view(weight)[0, :, columns] += 1.0
            change = convolution(features).coefficients[0] - before
        assert [bool((change[rows].abs() > 1e-6).all()) for rows in (slice(4, 7), slice(7, 10))] == moved


def test_an_so3_linear_is_one_matrix_a_degree_which_moves_that_degree_alone(linear):
    blocks = find_blocks(linear).blocks
    assert [(b.key, b.degree, b.role, b.shape) for b in blocks] == [
        *[(f"weight/l{degree}", degree, "so3", (1, 3, 2)) for degree in range(4)],
        ("bias/all", 0, "bias", (1, 1, 2)),
    ]
    for block in blocks:
        assert degrees_moved(linear, block) == {block.degree}
        assert block.order is None
    for block in blocks[:4]:
        assert torch.equal(block.view(linear.weight)[0], linear.weight[block.degree].T)


def test_planted_blocks_that_reach_over_degrees_or_orders_are_seen(linear, convolution):
    degree_1 = find_blocks(linear).blocks[1]
    for fault in (replace(degree_1, offset=degree_1.offset + 3), replace(degree_1, strides=(6, 6, 1)), replace(degree_1, stack=2)):
        assert degrees_moved(linear, fault) != {1}
    order_1 = find_blocks(convolution).blocks[2]
    assert orders_moved(convolution, replace(order_1, parameter="so2_m_conv.1.fc.weight", cols=4)) != ({1}, False)


def test_every_parameter_has_its_role(coverage):
    roles = Counter((block.role, re.sub(r"\.\d+\.|\.\d+$", ".", block.parameter.removeprefix("blocks.0."))) for block in coverage.blocks)
    found = {name: role for role, name in roles}
    assert found["ga.so2_conv_1.fc_m0.weight"] == found["ga.so2_conv_2.so2_m_conv.fc.weight"] == "so2"
    assert found["ga.proj.weight"] == found["ffn.so3_linear_1.weight"] == "so3"
    assert found["ffn.grid_mlp.weight"] == "grid"
    assert found["ffn.scalar_mlp.weight"] == "scalar"
    assert found["edge_degree_embedding.rad_func.net.weight"] in {"radial", "norm"}
    assert found["sphere_embedding.weight"] == found["ga.source_embedding.weight"] == "embedding"
    assert found["ga.alpha_dot"] == "attention"
    assert found["norm_1.affine_weight"] == found["norm.norm_l0.bias"] == found["ga.alpha_norm.weight"] == "norm"
    assert coverage.roles == ("attention", "bias", "embedding", "grid", "norm", "radial", "scalar", "so2", "so3")
    assert coverage.not_adaptable == {}
    radial = {block.path for block in coverage.blocks if block.role == "radial"}
    assert radial == {"606 -> 3", "3 -> 3", "3 -> 16", "3 -> 72"}  # 4 degrees x 4; (4 + 3 + 2) degrees of the orders x 2 x 4


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"use_gate_act": True, "use_grid_mlp": False}, {"gating_linear": "scalar"}),
        ({"use_grid_mlp": False}, {"gating_linear": "scalar"}),
        ({"use_grid_mlp": False, "use_sep_s2_act": False}, {}),
        ({"norm_type": "rms_norm_sh"}, {"affine_bias": "norm"}),
        ({"norm_type": "layer_norm"}, {"affine_bias": "norm"}),
        ({"use_attn_renorm": False}, {}),
    ],
)
def test_ablated_networks_have_a_rule_for_each_layer_too(settings, expected):
    coverage = find_blocks(network_on_meta(3, 2, 1, **{**TINY, **settings}))
    assert "other" not in coverage.roles
    assert "linear" not in coverage.roles
    for part, role in expected.items():
        weights = [block for block in coverage.blocks if part in block.parameter and not block.parameter.endswith("linear.bias")]
        assert {(block.role, block.degree) for block in weights} == {(role, 0)}


def test_heads_are_the_readout_under_the_backbones_patterns_and_keep_degrees_and_orders(tiny, coverage):
    patterned = {block.key: block for block in find_blocks(tiny, HEADS_AS_READOUT).blocks}
    for block in coverage.blocks:
        is_head = block.parameter.startswith(("energy_block.", "force_block."))
        assert patterned[block.key] == (replace(block, role="readout", layer=2) if is_head else block)


def test_hydras_heads_are_the_readout_too_and_nothing_is_without_a_rule():
    stress = {"module": "rank2_symmetric_head", "output_name": "stress", "use_source_target_embedding": True, "decompose": True}
    heads = parse_heads({"energy": {}, "forces": {}, "stress": stress}, "test")
    config = parse_config({**TINY, "lmax_list": [3], "mmax_list": [2], "num_layers": 1, "grid_resolution": 18}, "test")
    with torch.device("meta"):
        network = build_network(Architecture(config, heads), torch.float32)
    assert "other" not in find_blocks(network).roles
    blocks = find_blocks(network, HEADS_AS_READOUT).blocks
    assert {block.parameter.split(".")[0] for block in blocks if block.role == "readout"} == {"output_heads"}
    assert {block.role for block in blocks if block.parameter.startswith("output_heads.")} == {"readout"}


@pytest.mark.parametrize("norm_type", ["layer_norm_sh", "rms_norm_sh", "layer_norm"])
def test_norms_have_a_vector_a_degree(norm_type):
    blocks = find_blocks(network_on_meta(3, 2, 1, **TINY, norm_type=norm_type)).blocks
    scales = [block for block in blocks if block.parameter == "norm.affine_weight"]
    first = 1 if norm_type == "layer_norm_sh" else 0
    assert [(b.label, b.degree, b.offset) for b in scales] == [(f"l{d}", d, (d - first) * 4) for d in range(first, 4)]
    assert {block.degree for block in blocks if block.parameter in {"norm.norm_l0.weight", "norm.affine_bias"}} == {0}


@pytest.mark.parametrize(
    ("select", "degrees", "orders"),
    [
        ((), {None, 0, 1, 2, 3}, {None, 0, 1, 2}),
        (("m<=1",), {None, 0, 1, 2, 3}, {None, 0, 1}),
        (("l>=1",), {None, 1, 2, 3}, {None, 0, 1, 2}),
        (("l==0",), {None, 0}, {None, 0, 1, 2}),
        (("l != 2", " m > 1"), {None, 0, 1, 3}, {None, 2}),
        (("l>=1", "l<3", "m<1"), {None, 1, 2}, {None, 0}),
    ],
)
def test_a_condition_concerns_the_blocks_that_have_the_number(tiny, coverage, select, degrees, orders):
    chosen = AdapterStack(tiny, coverage).add("a", create_method({"name": "full", "select": select})).blocks
    assert {block.degree for block in chosen} == degrees
    assert {block.order for block in chosen} == orders
    without = {block.key for block in coverage.blocks if block.degree is None and block.order is None}
    assert without <= {block.key for block in chosen}
    wanted = [block for block in coverage.blocks if block.degree in degrees and block.order in orders]
    assert [block.key for block in chosen] == [block.key for block in wanted]


def test_conditions_and_roles_choose_together_and_degrees_can_have_their_own_ranks(tiny, coverage):
    stack = AdapterStack(tiny, coverage)
    for name, rank, condition in (("low", 1, "l==0"), ("high", 3, "l>=1")):
        adapter = stack.add(name, create_method({"name": "elora", "rank": rank, "roles": ["so3"], "select": [condition]}))
        assert {(block.role, block.degree) for block in adapter.blocks} == {("so3", d) for d in ([0] if name == "low" else [1, 2, 3])}
        assert {tensor.shape[1] for key, tensor in adapter.tensors.items() if key.endswith("/A")} == {rank}
        delta = adapter.deltas()["blocks.0.ga.proj.weight"]
        assert delta.shape == (4, 4, 32)


def test_degrees_that_are_not_chosen_keep_the_bases_weights(linear):
    stack = AdapterStack(linear, find_blocks(linear))
    stack.add("a", create_method({"name": "elora", "rank": 1, "select": ["l>=2"]}))
    stack.randomise("a", 0)
    delta = stack.get("a").deltas()["weight"]
    assert [bool(part.any()) for part in delta] == [False, False, True, True]
    tensors = stack.get("a").tensors
    assert torch.allclose(delta[3], (tensors["weight/l3/A"] @ tensors["weight/l3/B"]).T, atol=1e-15)


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("m=2", r"adapter\.select: 'm=2' is no condition: wanted l or m, one of <= >= == != < > and a whole number, as in 'm<=2'"),
        ("k<=2", r"'k<=2' is no condition"),
        ("l>=one", r"'l>=one' is no condition"),
        ("l>=4", r"adapter\.select: no degree of the model fulfils 'l>=4'; its weights have l = 0, 1, 2, 3; choose among them"),
        ("m<0", r"no order of the model fulfils 'm<0'; its weights have m = 0, 1, 2"),
    ],
)
def test_a_wrong_condition_is_one_line(tiny, coverage, select, message):
    stack = AdapterStack(tiny, coverage)
    assert re.search(message, refusal_of(lambda: stack.add("a", create_method({"name": "elora", "select": ["l>=0", select]}))))


def test_a_condition_on_a_number_that_no_weight_has_is_refused(stack):
    refusal = refusal_of(lambda: stack.add("a", create_method({"name": "elora", "select": ["m<=2"]})))
    assert "'m<=2', but no weight of the model has a known order m" in refusal


def test_weights_of_e3nns_layers_have_the_degree_of_what_they_make():
    linear = find_blocks(o3.Linear("4x0e+3x1o+2x2e", "5x0e+6x1o+2x2e", biases=True)).blocks
    assert [(block.label, block.degree) for block in linear] == [("0e", 0), ("1o", 1), ("2e", 2), ("0e", 0)]
    product = find_blocks(o3.FullyConnectedTensorProduct("4x0e+3x1o", "2x0e+2x1o", "5x0e+6x1o")).blocks
    assert {(block.path, block.degree) for block in product} >= {("1o x 1o -> 0e", 0), ("0e x 1o -> 1o", 1)}
    assert {block.order for block in linear + product} == {None}
    model = nn.Sequential(o3.Linear("4x0e+3x1o", "4x0e+3x1o"))
    chosen = AdapterStack(model, find_blocks(model)).add("a", create_method({"name": "elora", "rank": 1, "select": ["l>=1"]}))
    assert [block.key for block in chosen.blocks] == ["0.weight/1o"]


def test_settings_and_files_without_conditions_are_as_before_and_with_them_come_back(linear, tmp_path):
    assert "select" not in create_method("elora").config_dict
    stack = AdapterStack(linear, find_blocks(linear))
    stack.add("a", create_method({"name": "elora", "rank": 1, "select": ["l >= 2"]}))
    stack.randomise("a", 0)
    method = stack.get("a").method
    manifest = AdapterManifest(
        method="elora", config=method.config_dict, base_card="x", base_family="x", base_sha256=base_fingerprint(linear)
    )
    write_adapter(tmp_path / "a.safetensors", stack.get("a"), manifest)
    read, tensors = read_adapter(tmp_path / "a.safetensors")
    assert read.config["select"] == ["l>=2"]
    assert set(tensors) == {f"weight/l{degree}/{factor}" for degree in (2, 3) for factor in "AB"}
    assert set(read.blocks[0].model_dump()) == {"key", "parameter", "label", "role", "path", "shape"}
    other = AdapterStack(linear, find_blocks(linear.requires_grad_()))
    load_into(other, "b", read, tensors)
    assert torch.equal(other.weights()["weight"], stack.weights()["weight"])


def test_the_sparse_methods_layers_are_so3_linears_and_so2_convolutions(tiny, coverage):
    stack = AdapterStack(tiny, coverage)
    for setting, weights in (("linear", {"so3"}), ("fctp", {"so2"}), ("all", {"so2", "so3"})):
        chosen = stack.add(setting, create_method({"name": "sparse", "setting": setting})).blocks
        assert {block.role for block in chosen} - {"bias"} == weights


# SPEC of the published checkpoints, section 16: [out, in] of each kind of matrix and how many there are, for 153M; the others have the
# same channels (2 x 128 -> 64 with 8 x 64 logits and 64 gates -> 8 x 16 -> 128)
SO2 = {
    "153M": (6, 3, 20, [(1024, 1792), (768, 1536), (640, 1280), (512, 1024), (896, 448), (1536, 384), (1280, 320), (1024, 256)]),
    "base": (6, 2, 12, [(1024, 1792), (768, 1536), (640, 1280), (896, 448), (1536, 384), (1280, 320)]),
    "31M": (4, 2, 8, [(896, 1280), (512, 1024), (384, 768), (640, 320), (1024, 256), (768, 192)]),
}


@pytest.mark.parametrize(
    ("size", "total", "share"), [("153M", 153_602_690, "86.87%"), ("base", 83_164_802, "86.93%"), ("31M", 31_058_690, "81.37%")]
)
def test_every_so2_and_so3_weight_of_the_published_sizes_is_reached(size, total, share):
    lmax, mmax, layers, shapes = SO2[size]
    so2 = [(layers + 1, *shape) for shape in shapes]  # the force head is one more attention
    so3 = [((lmax + 1) * count, *shape) for count, shape in ((3 * layers + 1, (128, 128)), (2, (1, 128)))]
    radial_outputs = [(layers + 1, sum(inputs for _, inputs in shapes[: mmax + 1])), (1, 128 * (lmax + 1))]
    radial = [(layers + 2, 128, 856), (layers + 2, 128, 128), *[(count, out, 128) for count, out in radial_outputs]]
    table = {"so2": so2, "so3": so3, "radial": radial, "grid": [(3 * (layers + 1), 128, 128)], "scalar": [(layers + 1, 128, 128)]}
    table["embedding"] = [(2 * (layers + 2) + 1, 90, 128)]
    network = network_on_meta(lmax, mmax, layers, **PUBLISHED, attn_value_channels=16)
    coverage = find_blocks(network)
    assert coverage.parameter_count == coverage.trainable_count == total
    for role, matrices in table.items():
        found = [(block.cols, block.rows) for block in coverage.blocks if block.role == role]
        expected = [(out, inputs) for count, out, inputs in matrices for _ in range(count)]
        assert Counter(map(frozenset, found)) == Counter(map(frozenset, expected))
        assert role == "embedding" or Counter(found) == Counter(expected)
    equivariant = sum(count * out * inputs for count, out, inputs in so2 + so3)
    assert f"{equivariant / total:.2%}" == share
    stack = AdapterStack(network, coverage)
    for roles in (("so2", "so3"), tuple(table)):
        adapter = stack.add("-".join(roles), create_method({"name": "elora", "rank": 16, "roles": roles}))
        trained = sum(16 * count * (out + inputs) for role in roles for count, out, inputs in table[role])
        assert adapter.trainable_count == trained
    assert stack.add("everything", "elora").trainable_count == trained
