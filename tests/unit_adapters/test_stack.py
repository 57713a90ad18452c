from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from e3nn import o3
from torch import nn
from torch.func import functional_call

from adapters.blocks import WeightBlock, find_blocks
from adapters.errors import AdapterError
from adapters.layout import ParameterLayout
from adapters.method import create_method
from adapters.stack import AdapterStack
from tests.refusals import refusal_of

METHODS = [
    {"name": "elora", "rank": 2},
    {
        "name": "elora",
        "rank": 3,
        "alpha": 7.0,
        "initialisation": "scaled",
        "dense_substitution": "when_smaller",
        "extra_trainable": ["*bias"],
    },
    {"name": "full"},
    {"name": "readout"},
    {"name": "sparse", "setting": "every", "start": "base"},
    {"name": "sparse"},
    {"name": "sparse", "form": "printed"},
]
AT_BASE = METHODS[:5]


def _name(spec) -> str:
    return "-".join(str(value) for value in spec.values())


@pytest.mark.parametrize("spec", AT_BASE, ids=_name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_untrained_adapter_equals_the_base_bit_for_bit(toy, inputs, spec, dtype):
    toy.to(dtype)
    stack = AdapterStack(toy, find_blocks(toy, {"head.*": "readout"}))
    inputs = tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in inputs)
    stack.add("a", create_method(spec))
    weights = stack.weights()
    assert weights
    assert stack.starts_at_base
    assert all(torch.equal(value, toy.get_parameter(name)) for name, value in weights.items())
    assert torch.equal(stack.call(*inputs), toy(*inputs))
    stack.randomise("a", 1)
    assert not torch.equal(stack.call(*inputs), toy(*inputs))


@pytest.mark.parametrize("spec", METHODS[5:], ids=_name)
def test_random_start_of_sparse_says_that_it_is_not_the_base(stack, toy, spec):
    adapter = stack.add("a", create_method(spec))
    assert not stack.starts_at_base
    assert "does not start at the base" in adapter.method.start_note
    assert any(not torch.equal(value, toy.get_parameter(name)) for name, value in stack.weights().items())


@pytest.mark.parametrize("spec", METHODS, ids=_name)
def test_merged_equals_unmerged_and_unmerge_restores_every_bit(stack, toy, inputs, spec):
    base = {name: value.clone() for name, value in toy.state_dict().items()}
    before = toy(*inputs)
    stack.add("a", create_method(spec))
    stack.randomise("a", 3, relative=0.3)
    unmerged = stack.call(*inputs)
    deltas = {name: delta.detach() for name, delta in stack.get("a").deltas().items()}
    stack.merge()
    assert stack.is_merged
    assert stack.weights() == {}
    assert torch.allclose(toy(*inputs), unmerged, rtol=1e-12, atol=1e-12)
    # the control: subtracting the delta again would not restore the base
    assert any(not torch.equal(toy.get_parameter(name).detach() - delta, base[name]) for name, delta in deltas.items())
    stack.unmerge()
    assert all(torch.equal(value, base[name]) for name, value in toy.state_dict().items())
    stack.delete("a")
    assert torch.equal(stack.call(*inputs), before)


@pytest.mark.parametrize("spec", METHODS, ids=_name)
def test_batched_deltas_equal_a_loop_over_blocks(stack, toy, spec):
    adapter = stack.add("a", create_method(spec))
    stack.randomise("a", 2)
    expected = {name: torch.zeros_like(toy.get_parameter(name)) for name in adapter.parameter_names}
    for position, block in enumerate(adapter.blocks):
        own = {**adapter.own_factors(position), **adapter.layer_factors(position)}
        alone = adapter.method.delta({factor: tensor.detach()[None] for factor, tensor in own.items()})
        block.view(expected[block.parameter]).copy_(alone.reshape(block.shape))
    deltas = adapter.deltas()
    assert deltas.keys() == expected.keys()
    assert all(torch.allclose(deltas[name], expected[name], rtol=1e-14, atol=1e-14) for name in deltas)


@pytest.mark.parametrize("relative", [1e-5, 0.1, 50.0])  # the least is far within a sparse delta's threshold
@pytest.mark.parametrize("spec", METHODS, ids=_name)
def test_random_adapter_weights_reach_the_wanted_share_of_every_block(stack, toy, spec, relative):
    adapter = stack.add("a", create_method(spec))
    stack.randomise("a", seed=4, relative=relative)
    for delta, block in zip(adapter.block_deltas(), adapter.blocks, strict=True):
        base = float(block.view(toy.get_parameter(block.parameter)).norm()) or 1.0
        assert relative <= float(delta.detach().norm()) / base <= 2 * relative


@pytest.mark.parametrize("spec", METHODS, ids=_name)
def test_random_adapters_are_equivariant_and_a_broken_one_is_caught(stack, toy, inputs, spec):
    features, species, lengths = inputs
    stack.add("a", create_method(spec))
    stack.randomise("a", 6, relative=0.3)
    irreps = o3.Irreps("8x0e+4x1e")
    rotation = irreps.D_from_matrix(o3.rand_matrix(dtype=torch.float64))

    def residual() -> float:
        turned = stack.call(features @ rotation.T, species, lengths)
        plain = stack.call(features, species, lengths)
        return float((turned - plain @ rotation.T).detach().abs().max() / plain.detach().abs().max())

    assert residual() < 1e-10
    buffer = next(buffer for name, buffer in toy.named_buffers() if "_w3j_1_1_1" in name)
    buffer[0, 1, 2] *= 1.1
    assert residual() > 1e-4


def test_shared_modules_and_tied_tensors_are_changed_everywhere_and_left_as_they_were(toy, inputs):
    toy.norm_bias_twin = nn.LayerNorm(8).double()
    toy.norm_bias_twin.bias = toy.head.bias
    parameters = dict(toy.named_parameters(remove_duplicate=False))
    stack = AdapterStack(toy, find_blocks(toy))
    stack.add("a", "full")
    stack.randomise("a", 1)
    adapted = stack.call(*inputs)
    assert {name: id(value) for name, value in toy.named_parameters(remove_duplicate=False)} == {n: id(p) for n, p in parameters.items()}
    assert set(stack._places["head.bias"]) == {"head.bias", "norm_bias_twin.bias"}
    stack.merge()
    assert torch.equal(toy(*inputs), adapted)
    stack.unmerge()
    # the control: torch's own tying leaves the substitute behind
    functional_call(toy, stack.weights(), inputs)
    assert toy.linear.weight is not parameters["linear.weight"]


def test_gradients_reach_every_factor_and_not_the_base(stack, toy, inputs):
    stack.add("a", create_method({"name": "elora", "rank": 2, "extra_trainable": ["*bias", "norm.*"]}))
    stack.randomise("a", 1)
    stack.call(*inputs).square().sum().backward()
    assert all(tensor.grad is not None and bool(tensor.grad.any()) for tensor in stack.parameters())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in toy.parameters())


def test_the_dense_delta_gets_the_gradient_of_plain_fine_tuning(toy, inputs):
    coverage = find_blocks(toy)
    toy(*inputs).square().sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in toy.named_parameters() if parameter.requires_grad}
    stack = AdapterStack(toy, coverage)
    stack.add("a", "full")
    stack.call(*inputs).square().sum().backward()
    for key, tensor in stack.get("a").tensors.items():
        parameter, label, _ = key.split("/")
        block = next(block for block in coverage.blocks if (block.parameter, block.label) == (parameter, label))
        assert torch.allclose(tensor.grad.reshape(block.shape), block.view(expected[parameter]), rtol=1e-12, atol=1e-13)


def test_active_deltas_add_up_and_inactive_ones_do_not_count(stack, toy):
    for name, seed in (("a", 1), ("b", 2)):
        stack.add(name, create_method({"name": "elora", "rank": 2}), seed=seed)
        stack.randomise(name, seed)
    name = "mix.weight"
    deltas = [stack.get(adapter).deltas()[name] for adapter in ("a", "b")]
    assert torch.allclose(stack.weights()[name], toy.get_parameter(name) + deltas[0] + deltas[1], rtol=1e-14)
    both = stack.trainable_count
    stack.activate(["b"])
    assert stack.active == ("b",)
    assert stack.names == ("a", "b")
    assert stack.trainable_count == both / 2
    assert torch.equal(stack.weights()[name], toy.get_parameter(name) + deltas[1])
    stack.activate([])
    assert stack.weights() == {}
    assert stack.param_groups(1e-3, 0.0) == []


def test_the_seed_alone_decides_the_start(stack, toy):
    torch.manual_seed(1)
    first = {key: tensor.detach().clone() for key, tensor in stack.add("a", "elora", seed=5).tensors.items()}
    state = torch.random.get_rng_state()
    again = stack.add("b", "elora", seed=5).tensors
    other = stack.add("c", "elora", seed=6).tensors
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    toy.float()
    single = AdapterStack(toy, stack.coverage).add("a", "elora", seed=5).tensors
    assert all(torch.equal(first[key].float(), single[key]) for key in first)


def test_the_stack_holds_the_adapters_alone(stack, toy):
    stack.add("a", "elora")
    assert sum(parameter.numel() for parameter in stack.parameters()) == stack.trainable_count == stack.get("a").trainable_count
    assert not any(parameter is base for parameter in stack.parameters() for base in toy.parameters())


def test_a_deep_copy_works_on_the_copied_model(stack, toy, inputs):
    holder = nn.ModuleDict({"model": toy, "stack": stack})
    stack.add("a", "full")
    stack.randomise("a", 1)
    copied = copy.deepcopy(holder)
    before = stack.call(*inputs)
    assert copied["stack"].model is copied["model"]
    assert copied["stack"].model is not toy
    copied["stack"].merge()
    assert torch.equal(copied["model"](*inputs), before)
    assert not stack.is_merged
    copied.float()
    assert copied["stack"].get("a").tensors["linear.weight/0e/D"].dtype == torch.float32


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda stack: stack.get("elara"), r"no adapter 'elara' on this model; did you mean 'elora'\?"),
        (lambda stack: stack.add("elora", "full"), "in use"),
        (lambda stack: stack.add("a/b", "full"), "wanted letters"),
        (lambda stack: stack.add("keys", "full"), "ModuleDict"),
        (lambda stack: stack.activate(["x"]), "no adapter 'x'"),
        (lambda stack: stack.add("b", create_method({"name": "full", "roles": ["radia"]})), "did you mean 'radial'"),
        (lambda stack: stack.add("b", create_method({"name": "full", "roles": ["radial"], "exclude_roles": ["radial"]})), "select none"),
        (lambda stack: stack.add("b", create_method({"name": "elora", "extra_trainable": ["nrm.*"]})), "matches no adaptable parameter"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_the_stack_as_it_was(stack, action, message):
    stack.add("elora", "elora")
    assert re.search(message, refusal_of(action, stack))
    assert stack.names == stack.active == ("elora",)


def test_nothing_changes_while_merged(stack):
    stack.add("a", "full")
    stack.merge()
    for action in (lambda: stack.add("b", "full"), lambda: stack.delete("a"), lambda: stack.activate([]), stack.merge):
        with pytest.raises(AdapterError, match="unmerge"):
            action()


def test_the_coverage_of_another_model_is_refused(toy):
    with pytest.raises(AdapterError, match="the coverage is of another model"):
        AdapterStack(toy, find_blocks(nn.Linear(2, 3)))


def test_any_strided_blocks_are_assembled_where_they_lie():
    """A (4, 6) tensor as two interleaved column blocks, one transposed: no layout of the rules, but within the contract."""
    blocks = [
        WeightBlock("w", "even", "x", "", 1, 4, 3, 0, (24, 6, 2)),
        WeightBlock("w", "odd", "x", "", 1, 3, 4, 1, (24, 2, 6)),
    ]
    layout = ParameterLayout(blocks, torch.Size((4, 6)))
    assembled = layout.assemble([torch.arange(12.0), torch.arange(12.0) + 100]).numpy()
    assert np.array_equal(assembled[:, ::2], np.arange(12.0).reshape(4, 3))
    assert np.array_equal(assembled[:, 1::2], np.arange(12.0).reshape(3, 4).T + 100)


def test_gaps_between_adapted_runs_are_zero():
    blocks = [WeightBlock("w", str(offset), "x", "", 1, 1, 2, offset, (2, 2, 1)) for offset in (6, 2)]
    assembled = ParameterLayout(blocks, torch.Size((3, 3))).assemble([torch.ones(2), 2 * torch.ones(2)])
    assert assembled.reshape(-1).tolist() == [0, 0, 2, 2, 0, 0, 1, 1, 0]
