"""Which blocks are of which layer, and what freezing and the bias method make of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adapters.blocks import find_blocks
from adapters.method import create_method
from adapters.stack import AdapterStack
from tests.refusals import refusal_of
from zoo.backbones import load_family


class Deep(nn.Module):
    """An embedding, three layers, a norm behind them and a readout, in the names that MACE uses."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 5)
        self.interactions = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))
        self.norm = nn.LayerNorm(5)
        self.readout = nn.Linear(5, 1)

    def forward(self, species: torch.Tensor) -> torch.Tensor:
        features = self.embed(species)
        for layer in self.interactions:
            features = torch.tanh(layer(features))
        return self.readout(self.norm(features))


def deep_stack() -> AdapterStack:
    torch.manual_seed(0)
    model = Deep().double()
    return AdapterStack(model, find_blocks(model, {"readout.*": "readout"}, r"interactions\.(\d+)\."))


def test_layers_count_from_the_embedding_to_the_readout():
    layers = {block.parameter: block.layer for block in deep_stack().coverage.blocks}
    assert layers == {
        "embed.weight": 0,
        **{f"interactions.{layer}.{name}": layer + 1 for layer in range(3) for name in ("weight", "bias")},
        "norm.weight": 4,
        "norm.bias": 4,
        "readout.weight": 4,
        "readout.bias": 4,
    }


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("mace", {"node_embedding.": 0, "interactions.0.": 1, "products.0.": 1, "interactions.1.": 2, "products.1.": 2, "readouts.0.": 3}),
        ("sevennet", {"edge_embedding.": 0, "onehot_to_feature_x.": 0, "0_convolution.": 1, "1_self_interaction_2.": 2, "reduce_": 3}),
        ("nequip", {"type_embed.": 0, "layer0_convnet.": 1, "layer1_convnet.": 2, "per_atom_energy_readout.": 3}),
        ("allegro", {"radial_chemical_embed.": 0, "tensor_embed.": 0, "latents.0": 1, "tps.2": 3, "latents.2": 3, "edge_readout.": 4}),
        ("nequix", {"layers.0.linear_1.": 0, "layers.0.linear_2.": 1, "layers.1.skip.": 2, "readout.": 3}),
        (
            "equiformer_v2",
            {"sphere_embedding.": 0, "edge_degree_embedding.": 0, "blocks.0.ga.so2": 1, "energy_block.": 2, "network.norm.": 2},
        ),
    ],
)
def test_each_family_says_which_layer_its_weights_are_of(family, layers):
    backbone = load_family(family).toy(0)
    blocks = find_blocks(backbone, backbone.adapter_roles, backbone.adapter_layers).blocks
    for part, layer in layers.items():
        found = {block.layer for block in blocks if part in block.parameter}
        assert found == {layer}, (part, found)


@pytest.mark.parametrize("up_to", [0, 1, 3])
def test_layers_up_to_k_are_frozen_and_all_behind_train(up_to):
    stack = deep_stack()
    adapter = stack.add("a", create_method({"name": "freeze", "up_to": up_to}))
    assert {block.key for block in adapter.blocks} == {block.key for block in stack.coverage.blocks if block.layer > up_to}
    assert {block.layer for block in adapter.blocks} == set(range(up_to + 1, 5))
    frozen = {name for name, _ in stack.model.named_parameters()} - set(adapter.parameter_names)
    stack.train()
    stack.call(torch.arange(4)).square().sum().backward()
    assert all(tensor.grad.abs().max() > 0 for tensor in adapter.tensors.values())
    assert len(frozen) == 1 + 2 * up_to


def test_frozen_names_parameters_and_roles_narrow_the_rest():
    adapter = deep_stack().add("a", create_method({"name": "freeze", "frozen": ["*.1.weight", "norm.*"], "exclude_roles": ["bias"]}))
    assert set(adapter.parameter_names) == {"interactions.0.weight", "interactions.2.weight", "readout.weight", "readout.bias"}


def test_the_soft_form_is_a_group_for_each_rate_and_moves_the_first_layers_less():
    stack = deep_stack()
    config = {"name": "freeze", "layer_decay": 0.5, "rate_factors": {"norm.*": 0.1, "norm.bias": 2.0}}
    adapter = stack.add("a", create_method(config))
    rates = {id(tensor): group["lr"] for group in stack.param_groups(1e-2, 1e-4) for tensor in group["params"]}
    found = {key.rpartition("/")[0]: rates[id(tensor)] for key, tensor in adapter.tensors.items()}
    assert found["readout.weight/weight"] == pytest.approx(1e-2)
    assert found["interactions.2.weight/weight"] == pytest.approx(0.5e-2)
    assert found["interactions.0.bias/all"] == pytest.approx(0.125e-2)
    assert found["norm.weight/all"] == pytest.approx(1e-3)
    assert found["norm.bias/all"] == pytest.approx(2e-3)
    assert {group["weight_decay"] for group in stack.param_groups(1e-2, 1e-4)} == {1e-4}
    rates_of_groups = [group["lr"] for group in stack.param_groups(1e-2, 1e-4)]
    assert rates_of_groups == sorted(set(rates.values()), reverse=True)
    optimizer = torch.optim.AdamW(stack.param_groups(1e-2, 0.0))
    stack.train()
    stack.call(torch.arange(4)).square().sum().backward()
    optimizer.step()  # the first step of Adam is the rate itself
    for key, tensor in adapter.tensors.items():
        assert float(tensor.detach().abs().max()) == pytest.approx(found[key.rpartition("/")[0]], rel=1e-3), key


def test_other_methods_have_one_group_with_the_runs_rate():
    stack = deep_stack()
    stack.add("a", "full")
    (group,) = stack.param_groups(1e-2, 0.0)
    assert group["lr"] == 1e-2
    assert len(group["params"]) == len(stack.coverage.blocks)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"up_to": 4}, "adapter.up_to: 4 freezes all of the model's layers, which are 0 (embedding), 1 to 3 (interaction) and 4 (readout)"),
        ({"frozen": ["interaction.*"]}, "adapter.frozen: 'interaction.*' matches no adaptable parameter of the model; did you mean"),
        ({"rate_factors": {"head": 0.1}}, "adapter.rate_factors: 'head' matches no adaptable parameter"),
    ],
)
def test_what_the_model_does_not_have_is_refused(settings, message):
    assert message in refusal_of(deep_stack().add, "a", create_method({"name": "freeze", **settings}))


def test_a_factor_of_zero_is_refused_for_freezing():
    assert "name it in adapter.frozen instead" in refusal_of(create_method, {"name": "freeze", "rate_factors": {"embed.*": 0}})


def test_a_decay_towards_zero_knows_one_rate_and_works_behind_frozen_layers():
    for soft in ({"layer_decay": 0.5}, {"rate_factors": {"embed.*": 0.5}}):
        assert "decay_towards=zero decays all weights at the run's rate" in refusal_of(
            create_method, {"name": "freeze", "decay_towards": "zero", **soft}
        )
    stack = deep_stack()
    adapter = stack.add("a", create_method({"name": "freeze", "up_to": 2, "decay_towards": "zero"}))
    before = {name: weight.detach().clone() for name, weight in stack.weights().items()}
    stack.before_step(0.1, 0.5)
    assert (
        set(before)
        == set(adapter.parameter_names)
        == {"interactions.2.weight", "interactions.2.bias"}
        | {f"{layer}.{name}" for layer in ("norm", "readout") for name in ("weight", "bias")}
    )
    for name, weight in stack.weights().items():
        assert torch.allclose(weight, 0.95 * before[name], rtol=1e-12)


def test_a_group_without_decay_is_parted_by_rate_like_any_other():
    stack = deep_stack()
    adapter = stack.add("a", create_method({"name": "freeze", "no_decay": ["norm"], "rate_factors": {"norm.bias": 0.5, "embed.*": 2.0}}))
    groups = stack.param_groups(1e-2, 0.1)
    assert groups[0]["lr"] == 1e-2  # the run's own rate comes first
    decays = {id(tensor): (group["lr"], group["weight_decay"]) for group in groups for tensor in group["params"]}
    found = {key: decays[id(tensor)] for key, tensor in adapter.tensors.items()}
    assert len(decays) == len(adapter.tensors)
    assert found["norm.bias/all/D"] == (pytest.approx(5e-3), 0.0)
    assert found["norm.weight/all/D"] == (pytest.approx(1e-2), 0.0)
    assert found["readout.weight/weight/D"] == (pytest.approx(1e-2), 0.1)


def test_bias_trains_biases_and_norms_alone_and_refuses_a_network_without():
    stack = deep_stack()
    adapter = stack.add("a", "bias")
    biases = {f"interactions.{layer}.bias" for layer in range(3)}
    assert set(adapter.parameter_names) == {*biases, "norm.weight", "norm.bias", "readout.bias"}  # the readout's too, whatever its role
    bare = nn.Sequential(nn.Linear(3, 3, bias=False))
    assert "select none of the model's 1 weight blocks" in refusal_of(AdapterStack(bare, find_blocks(bare)).add, "a", "bias")
