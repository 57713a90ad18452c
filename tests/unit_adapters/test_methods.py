from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from adapters.blocks import WeightBlock, find_blocks
from adapters.method import create_method, method_names
from adapters.sparse import decay_for, soft_threshold, threshold_after
from adapters.stack import AdapterStack
from tests.refusals import refusal_of

MATRIX = WeightBlock("w", "0e", "linear", "0e -> 0e", 1, 200, 300, 0, (60000, 300, 1))


def _logit(value: float) -> float:
    return math.log(value / (1 - value))


def test_every_method_is_registered_by_its_name():
    assert method_names() == ("bias", "bottleneck", "elora", "freeze", "full", "lora-mace", "mmea", "readout", "sparse")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "elra",
            r"unknown adapter method 'elra'; did you mean 'elora'\? known: bias, bottleneck, elora, freeze, full, .*, sparse",
        ),
        ({"name": "elora", "rnk": 4}, r"adapter\.rnk: elora has no such setting; did you mean 'rank'\?"),
        ({"name": "elora", "rank": 0}, r"adapter\.rank: .*greater than or equal to 1 \(found: 0\)"),
        (
            {"name": "elora", "initialisation": "xavier"},
            r"adapter\.initialisation: .*'reference', 'scaled', 'kaiming' or 'orthogonal'.*'xavier'",
        ),
        ({"name": "sparse", "form": "printed", "start": "base"}, r"adapter sparse: form='printed' masks"),
        ({"rank": 4}, "no 'name'"),
    ],
)
def test_a_wrong_configuration_is_one_line_with_the_nearest_name(spec, message):
    assert re.search(message, refusal_of(create_method, spec))


@pytest.mark.parametrize("spec", [{"name": "elora", "rank": 3, "roles": ["linear"]}, {"name": "sparse", "sigma": 0.02}, {"name": "full"}])
def test_a_method_comes_back_from_its_own_settings(spec):
    method = create_method(spec)
    again = create_method({"name": method.name, **method.config_dict})
    assert again.config == method.config
    assert all(method.config_dict[key] == value for key, value in spec.items() if key != "name")


@pytest.mark.parametrize(("initialisation", "deviation"), [("reference", 1.0), ("scaled", 0.25)])
def test_elora_draws_a_with_the_stated_width_and_b_zero(initialisation, deviation):
    method = create_method({"name": "elora", "rank": 16, "initialisation": initialisation})
    factors = method.initial_factors(MATRIX, torch.Generator().manual_seed(0), torch.float32)
    assert factors["A"].shape == (200, 16)
    assert factors["B"].shape == (16, 300)
    assert float(factors["A"].std()) == pytest.approx(deviation, rel=0.05)
    assert not factors["B"].any()


def test_elora_delta_is_alpha_over_r_times_a_b():
    method = create_method({"name": "elora", "rank": 4, "alpha": 10})
    a, b = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)
    expected = 2.5 * np.einsum("bir,bro->bio", a.numpy(), b.numpy())
    assert np.allclose(method.delta({"A": a, "B": b}).numpy(), expected, rtol=1e-13)


def test_elora_deltas_have_rank_r_in_every_path_and_dense_ones_do_not(stack):
    for spec, is_low in (({"name": "elora", "rank": 2}, True), ({"name": "full", "roles": ["linear", "tensor_product"]}, False)):
        adapter = stack.add("a", create_method(spec))
        stack.randomise("a", 1)
        for delta, block in zip(adapter.block_deltas(), adapter.blocks, strict=True):
            if min(block.rows, block.cols) > 2:
                assert (np.linalg.matrix_rank(delta.detach().numpy().reshape(block.rows, block.cols)) == 2) == is_low
        stack.delete("a")


def test_dense_substitution_replaces_exactly_the_blocks_where_low_rank_is_no_smaller(stack):
    adapter = stack.add(
        "a", create_method({"name": "elora", "rank": 4, "dense_substitution": "when_smaller", "extra_trainable": ["norm.*"]})
    )
    kinds = {block.key: adapter.method.kind(block) for block in adapter.blocks}
    assert kinds["head.weight/weight"] == "dense_substitution"  # 4 (8 + 8) = 8 * 8: a tie goes to the dense delta
    assert kinds["mix.weight/0ex0e->0e"] == "low_rank"  # 4 (48 + 8) < 48 * 8
    assert kinds["norm.weight/all"] == "extra_trainable"
    counts = adapter.trainable_by_kind
    assert counts["extra_trainable"] == 16
    assert sum(counts.values()) == adapter.trainable_count
    assert all(("D" in adapter.own_factors(i)) == (kinds[block.key] != "low_rank") for i, block in enumerate(adapter.blocks))


def test_roles_and_exclude_roles_choose_the_blocks(stack):
    adapter = stack.add("a", create_method({"name": "full", "roles": ["linear", "radial", "bias"], "exclude_roles": ["bias"]}))
    assert {block.role for block in adapter.blocks} == {"linear", "radial"}
    readout = stack.add("b", "readout")
    assert {block.parameter for block in readout.blocks} == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("setting", "parameters"),
    [("linear", {"linear.weight", "linear.bias"}), ("fctp", {"mix.weight"}), ("all", {"linear.weight", "linear.bias", "mix.weight"})],
)
def test_sparse_settings_are_the_papers_layers(stack, setting, parameters):
    adapter = stack.add("a", create_method({"name": "sparse", "setting": setting}))
    assert set(adapter.parameter_names) == parameters
    assert {key for key in adapter.tensors if key.endswith("/tau")} == {f"{name}/*/tau" for name in parameters}


def test_soft_threshold_is_equation_2():
    values = np.array([-0.5, -0.1, 0.0, 0.1, 0.3])
    expected = np.sign(values) * np.maximum(np.abs(values) - 0.1, 0)
    assert np.allclose(soft_threshold(torch.tensor(values), torch.tensor(0.1, dtype=torch.float64)).numpy(), expected)


def test_sparse_start_is_the_papers():
    method = create_method("sparse")
    raw = method.initial_factors(MATRIX, torch.Generator().manual_seed(0), torch.float64)["D"]
    assert float(raw.std()) == pytest.approx(0.01, rel=0.02)
    tau = method.layer_factors(MATRIX, torch.Generator(), torch.float64)["tau"]
    assert float(torch.sigmoid(tau)) == pytest.approx(0.001, rel=1e-12)


@pytest.mark.parametrize("form", ["str", "printed"])
def test_sparse_gradients_are_those_of_equation_2(form):
    """Against finite differences in D and tau of S itself; the printed form differentiates at the D before the shrinking."""
    method = create_method({"name": "sparse", "form": form})
    start = torch.tensor([[-0.5, -0.05, 0.02, 0.3]], dtype=torch.float64)
    tau = torch.tensor([_logit(0.1)], dtype=torch.float64)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)

    def loss(raw: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
        return (weights * soft_threshold(raw, torch.sigmoid(logit))).sum()

    step = 1e-6
    expected_tau = float(loss(start, tau + step) - loss(start, tau - step)) / (2 * step)
    expected_raw = [float(loss(start + step * unit, tau) - loss(start - step * unit, tau)) / (2 * step) for unit in torch.eye(4).double()]
    raw = soft_threshold(start, torch.sigmoid(tau)) if form == "printed" else start
    raw, tau = nn.Parameter(raw.clone()), nn.Parameter(tau)
    delta = method.delta({"D": raw, "tau": tau})
    assert torch.allclose(delta, soft_threshold(start, torch.tensor(0.1)))
    (weights * delta).sum().backward()
    assert np.allclose(raw.grad.numpy()[0], expected_raw, atol=1e-8)
    assert float(tau.grad) == pytest.approx(expected_tau, rel=1e-6)


def test_a_start_at_zero_learns_through_the_straight_through_gradient_alone():
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    tau = torch.tensor([_logit(0.001)], dtype=torch.float64)
    plain = soft_threshold(zero, torch.sigmoid(tau))
    assert not torch.autograd.grad(plain.sum(), zero)[0].any()  # the control: without it there is no way out of zero
    delta = create_method({"name": "sparse", "start": "base"}).delta({"D": zero, "tau": tau})
    assert not delta.any()
    assert torch.equal(torch.autograd.grad(delta.sum(), zero)[0], torch.ones(1, 3, dtype=torch.float64))


def _one_layer(form: str) -> tuple[AdapterStack, torch.optim.Optimizer]:
    model = nn.Linear(20, 30, bias=False).double()
    stack = AdapterStack(model, find_blocks(model))
    stack.add("a", create_method({"name": "sparse", "setting": "every", "form": form, "threshold_start": 0.005}))
    return stack, torch.optim.SGD(stack.param_groups(0.0, 0.0))


def test_printed_form_shrinks_survivors_at_every_step_and_str_keeps_them():
    start = _one_layer("str")[0].get("a").tensors["weight/weight/D"].detach().clone()
    for form, rounds in (("printed", 3), ("str", 0)):
        stack, _ = _one_layer(form)
        raw = stack.get("a").tensors["weight/weight/D"]
        for _ in range(2):  # Eq. 2 before the first forward and after each step
            stack.after_step()
        expected = torch.sign(start) * torch.relu(start.abs() - rounds * 0.005)
        assert torch.allclose(raw, expected, atol=1e-15)
        assert torch.equal(raw, start) == (form == "str")


def test_printed_form_never_revives_a_pruned_entry_and_str_does_when_the_threshold_falls():
    for form, revived in (("printed", False), ("str", True)):
        stack, optimizer = _one_layer(form)
        adapter = stack.get("a")
        pruned = adapter.deltas()["weight"] == 0
        assert 0 < int(pruned.sum()) < pruned.numel()
        optimizer.param_groups[0]["lr"] = 1.0
        (adapter.deltas()["weight"] * 0.01).sum().backward()
        optimizer.step()
        with torch.no_grad():
            adapter.tensors["weight/*/tau"].fill_(-30.0)
        stack.after_step()
        assert bool((adapter.deltas()["weight"][pruned] != 0).any()) == revived


def test_momentum_leaves_no_pruned_entry_of_the_printed_form_between_steps():
    stack, _ = _one_layer("printed")
    raw = stack.get("a").tensors["weight/weight/D"]
    pruned = raw.detach() == 0
    with torch.no_grad():
        raw += 0.004  # as momentum does: less than the threshold
    assert not (raw.detach() == 0).any()
    stack.after_step()
    assert pruned.any()
    assert not raw.detach()[pruned].any()
    assert stack.report()["sparsity_layerwise"] == pytest.approx(float((raw == 0).double().mean()))


def test_thresholds_train_with_a_rate_and_decay_of_their_own(stack):
    stack.add("a", create_method({"name": "sparse", "tau_learning_rate": 0.5, "tau_weight_decay": 0.3}))
    entries, thresholds = stack.param_groups(1e-3, 1e-8)
    assert (entries["lr"], entries["weight_decay"], thresholds["lr"], thresholds["weight_decay"]) == (1e-3, 1e-8, 0.5, 0.3)
    assert stack.requires_decoupled_weight_decay
    assert sum(tensor.numel() for tensor in thresholds["params"]) == 3
    assert {id(tensor) for group in (entries, thresholds) for tensor in group["params"]} == {id(tensor) for tensor in stack.parameters()}
    # equation 4 without a gradient: tau -> (1 - eta lambda) tau, here under torch's own AdamW
    optimizer = torch.optim.AdamW([entries, thresholds])
    tau = stack.get("a").tensors["mix.weight/*/tau"]
    before = float(tau.detach())
    tau.grad = torch.zeros_like(tau)
    optimizer.step()
    assert float(tau.detach()) == pytest.approx(before * (1 - 0.5 * 0.3), rel=1e-12)


def test_reported_sparsity_is_counted_on_the_deltas(stack, toy):
    adapter = stack.add("a", create_method({"name": "sparse", "threshold_start": 0.01}))
    base = {name: value.detach().clone() for name, value in toy.named_parameters()}
    changed = sum(int((value != base[name]).sum()) for name, value in stack.weights().items())
    adapted = sum(block.numel for block in adapter.blocks)
    trainable = sum(value.numel() for value in base.values()) - 3  # three are frozen by the model
    report = stack.report()
    assert 0.3 < report["sparsity_layerwise"] < 0.95
    assert report["sparsity_layerwise"] == pytest.approx(1 - changed / adapted)
    assert report["sparsity_total"] == pytest.approx(1 - changed / trainable)
    assert report["threshold_min"] == report["threshold_max"] == pytest.approx(0.01)
    stack.add("b", "full")
    assert "a/sparsity_total" in stack.report()


def test_elora_ranks_are_those_of_the_path_else_of_the_role_else_the_common_one(stack):
    settings = {"name": "elora", "rank": 2, "ranks": {"linear": 1, "*/1e": 3, "radial": 5}, "alpha": 6.0}
    adapter = stack.add("a", create_method(settings))
    ranks = {block.key: adapter.own_factors(position)["A"].shape[-1] for position, block in enumerate(adapter.blocks)}
    assert ranks["linear.weight/1e"] == 3
    assert ranks["linear.weight/0e"] == 1
    assert ranks["radial.layer0.weight/weight"] == 5
    assert ranks["mix.weight/0ex0e->0e"] == 2
    stack.randomise("a", 0)
    for position, (block, delta) in enumerate(zip(adapter.blocks, adapter.block_deltas(), strict=True)):
        own = adapter.own_factors(position)
        expected = 6.0 / ranks[block.key] * own["A"] @ own["B"]  # alpha / r with the block's own r
        assert torch.allclose(delta.reshape(expected.shape), expected, rtol=1e-13)


def test_elora_ranks_that_name_nothing_or_contradict_each_other_are_refused(stack):
    for ranks, message in (
        ({"linaer": 3}, "adapter.ranks: 'linaer' is no role and matches no path of the model; did you mean 'linear'"),
        ({"*/1e": 3, "linear.*": 2}, "adapter.ranks: linear.weight/1e gets the ranks [2, 3]; narrow the patterns"),
    ):
        assert message in refusal_of(stack.add, "a", create_method({"name": "elora", "ranks": ranks}))


def test_elora_draws_a_uniform_or_with_orthonormal_columns_where_asked():
    def start(initialisation: str, block: WeightBlock = MATRIX) -> torch.Tensor:
        method = create_method({"name": "elora", "rank": 16, "initialisation": initialisation})
        return method.initial_factors(block, torch.Generator().manual_seed(0), torch.float64)["A"]

    uniform = start("kaiming")
    assert float(uniform.abs().max()) == pytest.approx(1 / math.sqrt(200), rel=1e-2)
    assert float(uniform.std()) == pytest.approx(1 / math.sqrt(600), rel=0.05)
    orthogonal = start("orthogonal")
    assert torch.allclose(orthogonal.T @ orthogonal, torch.eye(16, dtype=torch.float64), atol=1e-12)
    flat = start("orthogonal", WeightBlock("w", "0e", "linear", "0e -> 0e", 1, 5, 300, 0, (1500, 300, 1)))
    assert torch.allclose(flat @ flat.T, torch.eye(5, dtype=torch.float64), atol=1e-12)


def test_elora_with_magnitude_is_doras_equation(stack, toy):
    """(1 + g) |W| V / |V| column by column, in NumPy, against the weights that the model runs with."""
    adapter = stack.add("a", create_method({"name": "elora", "rank": 2, "alpha": 3.0, "magnitude": True, "roles": ["linear", "radial"]}))
    base = {name: value.detach().clone() for name, value in toy.named_parameters()}
    assert all(torch.equal(value, base[name]) for name, value in stack.weights().items())  # step 0 is the base, bit for bit
    stack.randomise("a", 0, relative=0.5)
    weights = stack.weights()
    for position, block in enumerate(adapter.blocks):
        factors = {name: tensor.detach().numpy() for name, tensor in adapter.own_factors(position).items()}
        before = block.view(base[block.parameter])[0].numpy()
        direction = before + 1.5 * factors["A"] @ factors["B"]
        lengths = np.linalg.norm(before, axis=0) * (1 + factors["g"][0])
        expected = lengths * direction / np.linalg.norm(direction, axis=0)
        assert np.allclose(block.view(weights[block.parameter].detach())[0].numpy(), expected, rtol=1e-12, atol=1e-14)
        assert not np.allclose(expected, direction, rtol=1e-2)


def test_magnitude_leaves_a_column_of_zeros_to_a_and_b():
    model = nn.Linear(4, 3, bias=False).double()
    with torch.no_grad():
        model.weight[1] = 0.0  # an output that the base does not have
    stack = AdapterStack(model, find_blocks(model))
    adapter = stack.add("a", create_method({"name": "elora", "rank": 2, "magnitude": True}))
    assert torch.equal(stack.weights()["weight"], model.weight)
    (stack.weights()["weight"] * torch.arange(12.0).reshape(3, 4)).sum().backward()
    assert all(bool(torch.isfinite(tensor.grad).all()) for tensor in adapter.tensors.values())
    with torch.no_grad():
        adapter.tensors["weight/weight/B"].fill_(0.5)
    low_rank = adapter.tensors["weight/weight/A"] @ adapter.tensors["weight/weight/B"]
    assert torch.allclose(stack.weights()["weight"][1], low_rank[:, 1], rtol=1e-13)


@pytest.mark.parametrize(("steps", "decay", "end"), [(200, 0.3, 0.022), (1000, 0.3, 0.415), (200, 0.01, 0.00115)])
def test_decay_alone_takes_the_threshold_where_the_published_decays_take_it(steps, decay, end):
    """By arithmetic, and by torch's own AdamW with gradients of zero."""
    assert threshold_after(0.001, decay, steps, 1e-2) == pytest.approx(end, rel=1e-2)
    assert decay_for(0.001, threshold_after(0.001, decay, steps, 1e-2), steps, 1e-2) == pytest.approx(decay, rel=1e-9)
    tau = nn.Parameter(torch.tensor(_logit(0.001), dtype=torch.float64))
    optimizer = torch.optim.AdamW([tau], lr=1e-2, weight_decay=decay)
    tau.grad = torch.zeros_like(tau)
    for _ in range(steps):
        optimizer.step()
    assert float(torch.sigmoid(tau.detach())) == pytest.approx(threshold_after(0.001, decay, steps, 1e-2), rel=1e-9)


@pytest.mark.parametrize("steps", [50, 2000])
def test_a_wanted_threshold_is_reached_in_runs_of_any_length(stack, steps):
    adapter = stack.add("a", create_method({"name": "sparse", "threshold_end": 0.05, "steps": steps}))
    optimizer = torch.optim.AdamW(stack.param_groups(1e-3, 0.0))
    for key, tensor in adapter.tensors.items():
        tensor.grad = torch.zeros_like(tensor) if key.endswith("/tau") else None
    for _ in range(steps):
        optimizer.step()
    report = stack.report()
    assert report["threshold_min"] == pytest.approx(0.05, rel=1e-9)
    assert report["threshold_max"] == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize("settings", [{"threshold_end": 0.1}, {"steps": 10}, {"threshold_end": 0.001, "steps": 10}])
def test_a_wanted_threshold_that_no_decay_reaches_is_refused(settings):
    assert "threshold_end" in refusal_of(create_method, {"name": "sparse", **settings})
