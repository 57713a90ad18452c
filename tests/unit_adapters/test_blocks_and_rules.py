from __future__ import annotations

import pytest
import torch
from e3nn import o3
from torch import nn

from adapters.blocks import WeightBlock, find_blocks
from adapters.errors import AdapterError
from adapters.rules import _RULES


def _block(coverage, key: str) -> WeightBlock:
    return {block.key: block for block in coverage.blocks}[key]


def test_every_parameter_is_in_blocks_or_has_a_reason(toy):
    coverage = find_blocks(toy)
    names = dict(toy.named_parameters())
    in_blocks = {block.parameter for block in coverage.blocks}
    assert in_blocks | set(coverage.not_adaptable) == set(names)
    assert not in_blocks & set(coverage.not_adaptable)
    assert coverage.not_adaptable == {"frozen": "frozen by the base (requires_grad=False)"}
    for name in in_blocks:
        covered = torch.cat([block.flat_index() for block in coverage.blocks if block.parameter == name])
        assert sorted(covered.tolist()) == list(range(names[name].numel()))
    assert coverage.parameter_count == sum(parameter.numel() for parameter in names.values()) == coverage.trainable_count + 3


def test_a_shared_module_and_a_tied_tensor_are_found_once(toy):
    toy.tied = nn.Linear(8, 8, bias=False)
    toy.tied.weight = toy.head.weight
    parameters = {block.parameter for block in find_blocks(toy).blocks}
    assert "linear.weight" in parameters
    assert "head.weight" in parameters
    assert not any(name.startswith(("linear_again", "tied")) for name in parameters)


def test_roles_come_from_the_rule_and_patterns_override_them(toy):
    by_rule = {block.parameter: block.role for block in find_blocks(toy).blocks}
    expected = {
        "embed.weight": "embedding",
        "mix.weight": "tensor_product",
        "linear.weight": "linear",
        "linear.bias": "bias",
        "radial.layer0.weight": "radial",
        "head.weight": "linear",
        "head.bias": "bias",
        "norm.weight": "norm",
    }
    assert {name: by_rule[name] for name in expected} == expected
    overridden = {block.parameter: block.role for block in find_blocks(toy, {"head.*": "readout", "*": "x"}).blocks}
    assert overridden["head.weight"] == overridden["head.bias"] == "readout"
    assert overridden["mix.weight"] == "x"


def test_linear_blocks_are_e3nns_own_weight_views():
    linear = o3.Linear("5x0e+3x1o+2x2e", "4x2e+7x0e+6x1o")
    views = list(linear.weight_views())
    blocks = find_blocks(linear).blocks
    assert [block.label for block in blocks] == ["0e", "1o", "2e"]
    for block, view in zip(blocks, views, strict=True):
        assert torch.equal(block.view(linear.weight)[0], view)


def test_equal_adjacent_irreps_join_to_the_matrix_of_the_simplified_layer():
    """An unsimplified Linear computes what the simplified one does with the same flat weight: its joined blocks are true matrices."""
    split = o3.Linear("4x0e+3x0e+2x1o+2x1o+2x1o", "5x0e+6x1o")
    simple = o3.Linear(split.irreps_in.simplify(), split.irreps_out)
    simple.weight.data.copy_(split.weight.data)
    features = split.irreps_in.randn(3, -1)
    assert torch.allclose(split(features), simple(features), atol=1e-6)
    joined, reference = find_blocks(split).blocks, find_blocks(simple).blocks
    assert [(block.label, block.shape, block.offset) for block in joined] == [("0e", (1, 7, 5), 0), ("1o", (1, 6, 6), 35)]
    assert [(block.label, block.shape, block.offset) for block in reference] == [(b.label, b.shape, b.offset) for b in joined]


def test_the_worked_mace_example_has_two_blocks():
    linear = o3.Linear("+".join(["128x0e"] * 3 + ["128x1o"] * 4), "128x0e+128x1o")
    assert [(b.label, b.rows, b.cols, b.offset) for b in find_blocks(linear).blocks] == [("0e", 384, 128, 0), ("1o", 512, 128, 49152)]


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        # two outputs interleave the inputs' rows in storage
        (o3.Linear("4x0e+3x0e", "2x0e+5x0e"), [(4, 2), (4, 5), (3, 2), (3, 5)]),
        # path weights 1/sqrt(8) and 1/sqrt(6)
        (o3.Linear("4x0e+3x0e", "5x0e", path_normalization="path"), [(4, 5), (3, 5)]),
        # not neighbours among the inputs
        (o3.Linear("4x0e+2x1o+3x0e", "5x0e"), [(4, 5), (3, 5)]),
    ],
)
def test_paths_that_are_not_one_matrix_stay_apart(layer, shapes):
    blocks = find_blocks(layer).blocks
    if layer.instructions[1].i_in == 2:  # unlike the others, this one is contiguous and of one weight: only adjacency keeps it apart
        assert layer.instructions[0].path_weight == layer.instructions[1].path_weight
    assert [(block.rows, block.cols) for block in blocks] == shapes
    assert [block.label for block in blocks] == ["0e"] + [f"0e.{i}" for i in range(1, len(shapes))]


def test_channelled_linear_is_a_stack_of_matrices():
    linear = o3.Linear("4x0e+3x1o", "2x0e+5x1o", f_in=2, f_out=3)
    for position, block in enumerate(find_blocks(linear).blocks):
        assert torch.equal(block.view(linear.weight), linear.weight_view_for_instruction(position).reshape(6, block.rows, block.cols))


def test_tensor_product_blocks_are_e3nns_own_weight_views():
    product = o3.FullyConnectedTensorProduct("4x0e+3x1o", "2x0e+2x1o", "5x0e+6x1o")
    views = list(product.weight_views())
    blocks = find_blocks(product).blocks
    assert len(blocks) == len(views) == 4
    for block, view in zip(blocks, views, strict=True):
        assert torch.equal(block.view(product.weight)[0], view.reshape(-1, view.shape[-1]))
    assert "1o x 1o -> 0e" in {block.path for block in blocks}


def test_elementwise_connections_are_vectors_and_mixing_ones_matrices():
    instructions = [(0, 0, 0, "uuu", True), (0, 0, 1, "uvu", True), (0, 0, 0, "uuu", False)]
    product = o3.TensorProduct("4x0e", "4x0e", "4x0e+4x0e", instructions, internal_weights=True, shared_weights=True)
    assert [(b.structure, b.rows, b.cols) for b in find_blocks(product).blocks] == [("vector", 1, 4), ("matrix", 4, 4)]


def test_torch_linear_is_a_transposed_view():
    linear = nn.Linear(3, 5)
    block = _block(find_blocks(linear), "weight/weight")
    assert torch.equal(block.view(linear.weight)[0], linear.weight.T)
    block.view(linear.weight.data).zero_()
    assert not linear.weight.any()


def test_subclasses_use_their_parents_rule_and_parametrised_weights_are_not_mistaken():
    class Special(nn.Linear):
        pass

    assert find_blocks(Special(3, 5)).blocks[0].role == "linear"
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 5))
    assert {block.role for block in find_blocks(normed).blocks} == {"bias", "other"}


def test_a_rule_that_misses_weights_is_refused(monkeypatch):
    name = "torch.nn.modules.linear.Linear"
    original = _RULES[name]
    monkeypatch.setitem(_RULES, name, lambda module: [WeightBlock("weight", "w", "linear", "", 1, 2, 5, 0, (10, 1, 2))])
    with pytest.raises(AdapterError, match=r"weight: its 1 blocks cover 10 of 15 weights"):
        find_blocks(nn.Linear(3, 5))
    monkeypatch.setitem(_RULES, name, lambda module: [b for b in original(module) for _ in range(2)])
    with pytest.raises(AdapterError, match="unique ones"):
        find_blocks(nn.Linear(3, 5))


def test_the_report_states_shares_and_reasons(toy):
    coverage = find_blocks(toy)
    table = coverage.table()
    assert "tensor_product" in table
    assert "not adaptable: 3 parameters in 1 tensors, frozen by the base" in table
    assert f"{coverage.trainable_count:,}" in table
    assert coverage.share(coverage.blocks) == 1.0


def test_integer_and_empty_parameters_are_listed_with_their_reason():
    model = nn.Module()
    model.counts = nn.Parameter(torch.arange(3), requires_grad=False)
    model.nothing = nn.Parameter(torch.empty(0))
    assert find_blocks(model).not_adaptable == {"counts": "not real floating-point numbers", "nothing": "empty"}


def test_a_scripted_layer_is_accounted_for_though_it_hides_its_paths():
    model = nn.Sequential(torch.jit.script(nn.Linear(3, 5)), nn.Linear(5, 2))
    coverage = find_blocks(model)
    assert {block.key: block.role for block in coverage.blocks}["0.weight/all"] == "other"
    assert coverage.trainable_count == sum(parameter.numel() for parameter in model.parameters())
