"""Methods that change activations: their equations against NumPy, the layouts of features, and hooks that leave nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from e3nn import o3
from torch import nn

from adapters.blocks import find_blocks
from adapters.features import LayerFeatures, flattened, groups_of, joined, split
from adapters.method import create_method
from adapters.stack import AdapterStack
from tests.refusals import refusal_of
from zoo.backbones.equiformer_v2.so3 import SO3Linear

IN, OUT = "4x0e+2x0o+3x1o+2x0e+2x2e", "3x0e+2x1o+2x0o+2x0e+1x2e+2x1o"


def stack_on(layer: nn.Module, **settings: object) -> AdapterStack:
    stack = AdapterStack(layer, find_blocks(layer))
    stack.add("a", create_method(settings))
    stack.randomise("a", 3, relative=0.5)
    return stack.eval()


def linear(irreps_in: str = IN, irreps_out: str = OUT) -> o3.Linear:
    torch.manual_seed(0)
    return o3.Linear(irreps_in, irreps_out).double()


def features_of(irreps: str, count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, o3.Irreps(irreps).dim, generator=generator, dtype=torch.float64)


def as_numpy(stack: AdapterStack) -> dict[str, np.ndarray]:
    return {key.rpartition("/")[2]: tensor.detach().numpy() for key, tensor in stack.get("a").tensors.items()}


def network(factors: dict[str, np.ndarray], numbers: np.ndarray) -> np.ndarray:
    hidden = numbers @ factors["down"] + factors["down_bias"]
    return hidden / (1 + np.exp(-hidden)) @ factors["up"] + factors["up_bias"]


@pytest.mark.parametrize("scaling", ["exponential", "residual"])
def test_mmea_adds_to_scalars_and_scales_every_other_irrep_by_gates_of_the_input_scalars(scaling):
    layer = linear()
    base, inputs = layer(features_of(IN)).detach().numpy(), features_of(IN)
    stack = stack_on(layer, name="mmea", rank=3, scaling=scaling)
    found = stack.call(inputs).detach().numpy()
    scalars = np.concatenate([inputs[:, :4], inputs[:, 15:17]], axis=1)  # the 0e of the input; the 0o change sign under inversion
    gammas = network(as_numpy(stack), scalars)
    expected, start, channel = [], 0, 0
    for multiplicity, irrep in o3.Irreps(OUT):
        for _ in range(multiplicity):
            own, gamma = base[:, start : start + irrep.dim], gammas[:, channel : channel + 1]
            factor = np.exp(gamma) if scaling == "exponential" else 1 + gamma
            expected.append(own + gamma if str(irrep) == "0e" else own * factor)
            start, channel = start + irrep.dim, channel + 1
    assert np.allclose(found, np.concatenate(expected, axis=1), rtol=1e-12, atol=1e-14)
    assert gammas.shape[1] == 12  # one a channel
    assert np.abs(found - base).max() > 0.1


@pytest.mark.parametrize(("name", "equivariant"), [("mmea", True), ("bottleneck", False)])
def test_gates_are_equivariant_under_rotations_and_inversion_and_the_bottleneck_is_not(name, equivariant):
    stack = stack_on(linear(), name=name)
    assert create_method(name).equivariant == equivariant
    inputs = features_of(IN)
    torch.manual_seed(2)
    for rotation in (o3.rand_matrix().double(), -torch.eye(3, dtype=torch.float64)):
        turn_in, turn_out = (o3.Irreps(irreps).D_from_matrix(rotation) for irreps in (IN, OUT))
        difference = (stack.call(inputs @ turn_in.T) - stack.call(inputs) @ turn_out.T).abs().max()
        assert (difference < 1e-6) == equivariant  # e3nn's rotation matrices are of float32
        assert equivariant or difference > 0.1


def test_the_bottleneck_is_the_published_equation_across_all_components():
    layer, inputs = linear(), features_of(IN)
    base = layer(inputs).detach().numpy()
    stack = stack_on(layer, name="bottleneck", rank=4)
    assert np.allclose(stack.call(inputs).detach().numpy(), base + network(as_numpy(stack), base), rtol=1e-12, atol=1e-14)


def test_so3_linears_are_gated_degree_by_degree():
    torch.manual_seed(0)
    layer = SO3Linear(3, 2, 2).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    inputs = torch.randn(4, 9, 3, dtype=torch.float64)
    base = layer(inputs).detach().numpy()
    stack = stack_on(layer, name="mmea", rank=3)
    found = stack.call(inputs).detach().numpy()
    gammas = network(as_numpy(stack), inputs[:, 0].numpy()).reshape(4, 3, 2)  # (N, degree, channel)
    expected = base * np.exp(np.repeat(gammas, [1, 3, 5], axis=1))
    expected[:, 0] = base[:, 0] + gammas[:, 0]
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layout", ["irreps", "degrees", "strided"])
def test_features_are_split_into_groups_and_joined_again(layout):
    irreps = o3.Irreps("4x0e+4x1o+4x2e") if layout != "irreps" else o3.Irreps("3x0e+2x1o+1x0e+2x0o")
    groups = groups_of(irreps)
    shape = {"irreps": (5, irreps.dim), "degrees": (5, 9, 4), "strided": (5, 4, 9)}[layout]
    features = torch.randn(shape)
    parts = split(features, groups, layout)
    assert [part.shape for part in parts] == [(5, multiplicity, 2 * degree + 1) for multiplicity, degree, _ in groups]
    assert torch.equal(joined(parts, layout), features)
    layer = LayerFeatures(groups, groups, layout)
    assert flattened(features, layout).shape == (5, layer.output_dim)
    scalars = {"irreps": lambda: torch.cat([features[:, :3], features[:, 9:10]], 1), "degrees": lambda: features[:, 0]}
    assert torch.equal(layer.scalars_in(features), scalars.get(layout, lambda: features[..., 0])())


def test_features_of_edges_are_scaled_and_nothing_is_added_so_that_they_vanish_at_the_cutoff():
    groups = ((3, 0, 1), (3, 1, -1))
    factors = create_method("mmea").random_factors(LayerFeatures(groups, groups, "strided"), torch.Generator().manual_seed(0), 0.5)
    inputs, nothing = torch.randn(4, 3, 4, dtype=torch.float64), torch.zeros(4, 3, 4, dtype=torch.float64)
    on_edges, on_atoms = (
        create_method("mmea").changed(LayerFeatures(groups, groups, "strided", on_edges=edges), factors, inputs, nothing)
        for edges in (True, False)
    )
    assert not on_edges.any()
    assert on_atoms[..., 0].abs().min() > 0


class Broken(o3.Linear):
    """A layer whose forward pass fails."""

    def forward(self, *_: object) -> torch.Tensor:
        raise RuntimeError("broken")


def test_hooks_are_on_the_layers_for_a_forward_pass_alone_even_where_it_fails():
    layer = linear()
    hooks: list[int] = []
    layer.register_forward_hook(lambda *_: hooks.append(len(layer._forward_hooks)))
    stack = stack_on(layer, name="mmea")
    stack.call(features_of(IN))
    assert hooks == [2]  # the test's own and the adapter's
    assert len(layer._forward_hooks) == 1
    failing = Broken(IN, OUT).double()
    with pytest.raises(RuntimeError, match="broken"):
        stack_on(failing, name="mmea").call(features_of(IN))
    assert len(failing._forward_hooks) == 0


def test_activation_adapters_act_in_the_order_in_which_they_are_active():
    layer, inputs = linear(), features_of(IN)
    stack = stack_on(layer, name="mmea")
    stack.add("b", "bottleneck")
    stack.randomise("b", 5, relative=0.5)
    both = stack.call(inputs)
    stack.activate(["b", "a"])
    assert not torch.allclose(stack.call(inputs), both)
    stack.activate(["a"])
    after_gates = stack.call(inputs).detach().numpy()
    factors = {key.rpartition("/")[2]: tensor.detach().numpy() for key, tensor in stack.get("b").tensors.items()}
    assert np.allclose(both.detach().numpy(), after_gates + network(factors, after_gates), rtol=1e-12)


def test_weights_and_activations_change_together_and_only_weights_merge():
    layer, inputs = linear(), features_of(IN)
    stack = stack_on(layer, name="mmea")
    gates_alone = stack.call(inputs)
    stack.add("low", create_method({"name": "elora", "rank": 2}))
    stack.randomise("low", 1)
    assert not torch.allclose(stack.call(inputs), gates_alone)
    message = refusal_of(stack.merge)
    assert message == (
        "adapter method mmea changes activations, which no change of weights can stand for: it cannot be merged; keep it attached"
    )
    assert stack.get("a").deltas() == {}
    stack.activate(["low"])
    stack.merge()
    stack.unmerge()


def test_factors_train_and_the_base_does_not(toy, inputs):
    """On a model with every layer type: the two o3.Linear, one of them registered twice, are the layers with features."""
    stack = AdapterStack(toy, find_blocks(toy))
    adapter = stack.add("a", "mmea")
    assert {key.partition("/")[0] for key in adapter.tensors} == {"linear.weight"}
    stack.randomise("a", 1)
    stack.train()
    stack.call(*inputs).square().sum().backward()
    assert all(tensor.grad.abs().max() > 0 for tensor in adapter.tensors.values())
    assert all(parameter.grad is None for parameter in toy.parameters())
    stack.eval()
    assert not stack.call(*inputs).requires_grad


def test_a_layer_without_scalars_has_no_gates():
    vectors = linear("3x1o", "2x1o")
    stack = AdapterStack(vectors, find_blocks(vectors))
    assert "select none of the model's 1 weight blocks" in refusal_of(stack.add, "a", "mmea")
    assert stack.add("a", "bottleneck").trainable_count == 6 * 16 + 16 + 16 * 6 + 6
