"""The verbs of a stack beyond adding and removing: deactivate, scale, combine; and threads that share a model."""

from __future__ import annotations

import copy
import re
import threading
import warnings

import numpy as np
import pytest
import torch

from adapters.adapter import Provenance
from adapters.fingerprint import RememberedFingerprint
from adapters.manifest import AdapterManifest, base_fingerprint
from adapters.method import AdapterMethod, create_method
from adapters.stack import AdapterStack
from adapters.state import load_into, read_adapter, write_adapter
from tests.refusals import refusal_of

ELORA = {"name": "elora", "rank": 2}
# low rank everywhere; with dense biases; of another rank and role; dense; thresholded
SPECS = [
    ELORA,
    {"name": "elora", "rank": 3, "alpha": 7.0, "extra_trainable": ["*bias", "norm.*"]},
    {"name": "elora", "rank": 1, "roles": ["radial", "linear"]},
    {"name": "elora", "rank": 3, "dense_substitution": "when_smaller"},
    {"name": "full", "exclude_roles": ["embedding"]},
    {"name": "sparse"},
]


def filled(stack: AdapterStack, *specs: dict[str, object]) -> list[str]:
    """Adapters ``a``, ``b``, ... with random weights, the first of them active alone."""
    names = [chr(ord("a") + number) for number in range(len(specs))]
    for seed, (name, spec) in enumerate(zip(names, specs, strict=True)):
        stack.add(name, create_method(spec))
        stack.randomise(name, seed, relative=0.3)
    stack.activate(names[:1])
    return names


def changes(stack: AdapterStack, *names: str) -> dict[str, torch.Tensor]:
    """What these adapters do to each parameter of the model, zero where nothing."""
    weights = stack.weights_with(names)
    return {name: (weights.get(name, value) - value).detach() for name, value in stack.model.named_parameters()}


def assert_equal_changes(found, expected, tolerance=1e-14):
    assert all(np.abs((found[name] - expected[name]).numpy()).max() <= tolerance for name in expected)


def test_scaling_multiplies_the_delta_and_a_scale_of_one_is_the_adapter_bit_for_bit(stack, toy):
    filled(stack, ELORA)
    whole, bits = changes(stack, "a"), stack.weights()
    stack.scale("a", -0.5)
    assert stack.scale_of("a") == -0.5
    assert_equal_changes(changes(stack, "a"), {name: -0.5 * delta for name, delta in whole.items()})
    stack.scale("a", 0.25)  # replaces the factor, does not multiply it
    assert_equal_changes(changes(stack, "a"), {name: 0.25 * delta for name, delta in whole.items()})
    stack.scale("a", 0)
    assert all(torch.equal(weight, toy.get_parameter(name)) for name, weight in stack.weights().items())
    stack.scale("a", 1)
    assert all(torch.equal(weight, bits[name]) for name, weight in stack.weights().items())


def test_a_scaled_adapter_merges_scaled_and_unmerges_to_the_bit(stack, toy, inputs):
    base = {name: value.clone() for name, value in toy.state_dict().items()}
    filled(stack, ELORA, {"name": "full"})
    stack.activate(["a", "b"])
    stack.scale("b", 0.3)
    attached = stack.call(*inputs)
    stack.merge()
    assert torch.allclose(toy(*inputs), attached, rtol=1e-12, atol=1e-12)
    assert not torch.equal(toy.linear.weight, base["linear.weight"])
    stack.unmerge()
    assert all(torch.equal(value, base[name]) for name, value in toy.state_dict().items())


def test_a_name_that_is_used_again_starts_unscaled(stack):
    filled(stack, ELORA)
    stack.scale("a", 2)
    stack.delete("a")
    filled(stack, ELORA)
    assert stack.scale_of("a") == 1


def test_deactivating_gives_the_base_and_keeps_the_adapters(stack, toy, inputs):
    filled(stack, ELORA)
    assert not torch.equal(stack.call(*inputs), toy(*inputs))
    stack.deactivate()
    assert stack.active == ()
    assert stack.names == ("a",)
    assert torch.equal(stack.call(*inputs), toy(*inputs))


@pytest.mark.parametrize("first", range(len(SPECS)))
@pytest.mark.parametrize("second", range(len(SPECS)))
def test_the_linear_combination_is_the_weighted_sum_of_the_deltas(stack, first, second):
    filled(stack, SPECS[first], SPECS[second])
    combined = stack.combine({"a": 0.75, "b": -0.5}, into="c")
    one, other = changes(stack, "a"), changes(stack, "b")
    assert_equal_changes(changes(stack, "c"), {name: 0.75 * one[name] - 0.5 * other[name] for name in one})
    assert max(float(delta.abs().max()) for delta in changes(stack, "c").values()) > 1e-3
    assert combined.method.name == ("elora" if first < 4 and second < 4 else "full")
    assert stack.active == ("a",)  # else its parts would count twice


@pytest.mark.parametrize("spec", [{"alpha": 7.0, "ranks": {"radial": 1, "*/1e": 3}}, {"magnitude": True}], ids=["ranks", "magnitude"])
def test_a_combination_holds_elora_deltas_whose_blocks_differ_in_rank_or_are_no_product(stack, spec):
    filled(stack, {**ELORA, **spec}, ELORA)
    stack.combine({"a": 0.75, "b": -0.5}, into="c")
    one, other = changes(stack, "a"), changes(stack, "b")
    assert_equal_changes(changes(stack, "c"), {name: 0.75 * one[name] - 0.5 * other[name] for name in one})


def test_combined_elora_adapters_have_their_ranks_added_up(stack):
    filled(stack, ELORA, {"name": "elora", "rank": 3})
    tensors = stack.combine({"a": 0.5, "b": 0.5}, into="c").tensors
    assert {tensor.shape[-1] for key, tensor in tensors.items() if key.endswith("/A")} == {5}


@pytest.mark.parametrize("rank", [1, 3, 50])
def test_the_compressed_combination_is_the_truncated_svd_of_the_sum_in_each_block(stack, rank):
    filled(stack, SPECS[1], SPECS[4])
    combined = stack.combine({"a": 0.5, "b": 2.0}, into="c", method="svd", rank=rank)
    one, other, found = changes(stack, "a"), changes(stack, "b"), changes(stack, "c")
    assert combined.method.name == "elora"
    assert combined.method.config_dict["rank"] == rank
    truncated = 0
    for block in stack.coverage.blocks:
        total = (0.5 * block.view(one[block.parameter]) + 2 * block.view(other[block.parameter])).numpy()
        dense = [np.linalg.svd(matrix, full_matrices=False) for matrix in total]
        nearest = np.stack([(left[:, :rank] * values[:rank]) @ right[:rank] for left, values, right in dense])
        truncated += block.structure == "matrix" and not np.allclose(nearest, total, atol=1e-6)
        expected = nearest if block.structure == "matrix" else total
        np.testing.assert_allclose(block.view(found[block.parameter]).numpy(), expected, atol=1e-13)
    assert bool(truncated) == (rank < 50)


def test_a_combination_is_an_ordinary_adapter_file(stack, inputs, tmp_path):
    filled(stack, ELORA, {"name": "full"})
    combined = stack.combine({"a": 1.0, "b": 1.0}, into="c", method="svd", rank=2)
    stack.activate(["c"])
    expected = stack.call(*inputs)
    config = combined.method.config_dict
    manifest = AdapterManifest(method="elora", config=config, base_card="toy", base_family="toy", base_sha256=base_fingerprint(stack.model))
    write_adapter(tmp_path / "c.safetensors", combined, manifest)
    stack.delete("c")
    load_into(stack, "d", *read_adapter(tmp_path / "c.safetensors"))
    stack.activate(["d"])
    assert torch.equal(stack.call(*inputs), expected)


def test_reference_energies_are_combined_as_the_deltas_are(stack):
    filled(stack, ELORA, ELORA, ELORA)
    assert stack.combine({"a": 1.0, "b": 1.0}, into="none").provenance is None
    stack.get("a").provenance = Provenance({"H": 1.0, "O": -2.0}, "PBE")
    stack.get("b").provenance = Provenance({"H": 3.0}, "r2SCAN")
    provenance = stack.combine({"a": 0.5, "b": 0.25, "c": 1.0}, into="d").provenance
    assert provenance.reference_energies == {"H": 1.25, "O": -1.0}
    assert provenance.level_of_theory == "PBE + r2SCAN"
    assert provenance.training == {"combined": {"a": 0.5, "b": 0.25, "c": 1.0}, "combination": "linear"}


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda stack: stack.scale("x", 1.0), "no adapter 'x'"),
        (lambda stack: stack.scale("a", float("nan")), "wanted a finite number"),
        (lambda stack: stack.activate("a"), r"pass \['a'\]"),
        (lambda stack: stack.combine({}, into="c"), "no adapters to combine"),
        (lambda stack: stack.combine({"a": 1.0, "x": 1.0}, into="c"), "no adapter 'x'"),
        (lambda stack: stack.combine({"a": float("inf")}, into="c"), "wanted a finite number"),
        (lambda stack: stack.combine({"a": 1.0}, into="b"), "in use"),
        (lambda stack: stack.combine({"a": 1.0}, into="c", method="ties"), "unknown method 'ties'; known: linear, svd"),
        (lambda stack: stack.combine({"a": 1.0}, into="c", method="svd"), "found rank=None; pass rank=1 or more"),
        (lambda stack: stack.combine({"a": 1.0}, into="c", method="svd", rank=0), "found rank=0"),
        (lambda stack: stack.combine({"a": 1.0}, into="c", rank=4), "leave rank out"),
        (lambda stack: stack.add("training", "elora"), "adapter name 'training'"),  # an attribute of every module, of no class
        (lambda stack: stack.combine({"a": 1.0}, into="training"), "adapter name 'training'"),
        (lambda stack: stack.add("c", create_method({"name": "elora", "alpha": float("inf")})), "adapter.alpha: .*finite"),
        (lambda stack: stack.add("c", create_method({"name": "sparse", "sigma": float("inf")})), "adapter.sigma: .*finite"),
        (
            lambda stack: stack.add("c", create_method({"name": "freeze", "rate_factors": {"*": float("inf")}})),
            "adapter.rate_factors.*finite",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_the_stack_as_it_was(stack, action, message):
    filled(stack, ELORA, ELORA)
    found = refusal_of(action, stack)
    assert re.search(message, found)
    assert stack.names == ("a", "b")
    assert stack.active == ("a",)


def test_scaling_and_combining_wait_until_nothing_is_merged(stack):
    filled(stack, ELORA)
    stack.merge()
    for action in (lambda: stack.scale("a", 2.0), lambda: stack.combine({"a": 1.0}, into="b"), stack.deactivate):
        assert "unmerge" in refusal_of(action)


def test_a_method_that_changes_activations_is_neither_scaled_nor_combined_nor_merged(stack, monkeypatch):
    filled(stack, ELORA)
    monkeypatch.setattr(type(stack.get("a").method), "mergeable", False)
    for action, word in (
        (lambda: stack.scale("a", 2.0), "scaled"),
        (lambda: stack.combine({"a": 1.0}, into="b"), "combined"),
        (stack.merge, "merged"),
    ):
        assert f"cannot be {word}" in refusal_of(action)
    assert not stack.is_merged


def test_no_method_claims_a_product_that_is_not_its_delta(stack):
    filled(stack, *SPECS)
    products = 0
    for name in stack.names:
        adapter = stack.get(name)
        for position, (block, delta) in enumerate(zip(adapter.blocks, adapter.block_deltas(), strict=True)):
            product = adapter.method.as_product(adapter.own_factors(position))
            if product is not None:
                products += 1
                torch.testing.assert_close((product[0] @ product[1]).reshape(block.shape), delta.reshape(block.shape))
    assert products
    assert AdapterMethod.as_product(stack.get("a").method, {}) is None


def test_the_remembered_fingerprint_sees_every_change_and_hashes_no_more_than_it_must(toy, monkeypatch):
    calls = []
    monkeypatch.setattr("adapters.fingerprint.base_fingerprint", lambda model: calls.append(1) or base_fingerprint(model))
    remembered = RememberedFingerprint(toy)
    for _ in range(3):
        assert remembered() == base_fingerprint(toy)
    assert len(calls) == 1
    moves = [
        lambda: toy.linear.weight.requires_grad_(False).add_(1e-3),  # counted by torch
        lambda: toy.linear.weight.data.view(-1)[3:4].mul_(1.001),  # not counted
        lambda: toy.norm.bias.detach().numpy().__setitem__(2, 0.5),  # not torch's doing at all
        lambda: setattr(toy.head, "weight", torch.nn.Parameter(toy.head.weight.detach() + 1)),
    ]
    for number, move in enumerate(moves):
        before = remembered()
        move()
        assert remembered() == base_fingerprint(toy)
        assert remembered() != before
        assert len(calls) == number + 2
    toy.float()  # the values stay, and with them the fingerprint
    assert remembered() == base_fingerprint(toy)
    toy.convention = "other signs"
    assert remembered() == base_fingerprint(toy)


def test_a_deep_copys_fingerprint_is_its_own(stack, toy):
    holder = torch.nn.ModuleDict({"model": toy, "stack": stack})
    before = stack.fingerprint()
    copied = copy.deepcopy(holder)
    with torch.no_grad():
        copied["model"].linear.weight[0] += 1
    assert copied["stack"].fingerprint() == base_fingerprint(copied["model"])
    assert stack.fingerprint() == before


def test_threads_that_share_a_model_get_what_they_would_alone(stack, toy, inputs):
    """Each thread runs, merges, switches and scales as it likes, holding the model while it needs one state."""
    names = filled(stack, ELORA, {"name": "full"}, {"name": "elora", "rank": 1})
    base = {name: value.clone() for name, value in toy.state_dict().items()}
    expected = {}
    for name in names:
        stack.activate([name])
        expected[name] = stack.call(*inputs).detach()
    stack.activate([])
    wrong: list[str] = []
    plain: list[torch.Tensor] = []

    def work(name: str) -> None:
        for turn in range(30):
            with stack.exclusive():
                stack.activate([name])
                if turn % 3 == 0:
                    stack.merge()
                    stack.unmerge()
                if not torch.equal(stack.call(*inputs).detach(), expected[name]):
                    wrong.append(name)
                stack.deactivate()

    def look() -> None:
        for _ in range(90):
            plain.append(stack.call(*inputs).detach())  # whatever is active: some adapter's numbers or the base's, never a mixture

    threads = [threading.Thread(target=work, args=(name,)) for name in names] + [threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    known = [*expected.values(), toy(*inputs).detach()]
    assert all(any(torch.equal(one, other) for other in known) for one in plain)
    assert all(torch.equal(value, base[name]) for name, value in toy.state_dict().items())


def test_without_the_lock_threads_would_see_each_others_weights(stack, toy, inputs, monkeypatch):
    """The control of the test above: one thread looks while another's call is under way."""
    filled(stack, ELORA)
    inside, seen = threading.Event(), threading.Event()
    honest = toy.forward
    outside: list[bool] = []
    own = toy.linear.weight

    def slow(*args):
        inside.set()
        seen.wait(5)
        return honest(*args)

    def look() -> None:
        inside.wait(5)
        outside.append(toy.linear.weight is own)  # bypasses the stack
        seen.set()

    monkeypatch.setattr(toy, "forward", slow)
    thread = threading.Thread(target=look)
    thread.start()
    stack.call(*inputs)
    thread.join()
    assert outside == [False]
    waits: list[bool] = []
    seen.clear()
    inside.clear()

    def through_the_stack() -> None:
        inside.wait(5)
        with stack.exclusive():
            waits.append(toy.linear.weight is own)

    thread = threading.Thread(target=through_the_stack)
    thread.start()
    threading.Timer(0.2, seen.set).start()
    stack.call(*inputs)
    thread.join()
    assert waits == [True]


def test_energies_of_several_zeros_that_add_up_are_warned_of(stack):
    for name in ("a", "b"):
        stack.add(name, "full")
        stack.get(name).provenance = Provenance({"H": 1.0})
    with pytest.warns(UserWarning, match="a, b each bring reference energies.*forces are not concerned"):
        stack.activate(["a", "b"])
    stack.scale("a", 0.25)
    stack.scale("b", 0.75)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack.activate(["b", "a"])
        stack.activate(["b"])
