"""What `docs/architecture.md` promises of every backbone with every adapter method, in float64, errors relative to their scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from torch import Tensor

import zoo
from adapters.activation import ActivationMethod
from adapters.blocks import find_blocks
from adapters.method import create_method
from adapters.state import AdapterManifest, load_into, read_adapter, write_adapter
from tests.contracts.checks import bits, forces_of, is_idle, relative_difference, relative_sizes, rotation_residual
from tests.contracts.toys import Toy, Uncopied, assert_same_state, state_of
from tests.refusals import refusal_of
from zoo.backbones.base import Backbone
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import FLOOR_FACTOR, check_equivariance
from zoo.evaluation.probes import probe_frames
from zoo.graph import AtomGraph, collate
from zoo.potential import Potential


@pytest.fixture
def frames(backbone: Backbone) -> list[Frame]:
    """A molecule and a sheared crystal: on which directions repeat no method depends."""
    return probe_frames(backbone.elements)[::3]


@pytest.fixture(autouse=True)
def there_is_something_to_adapt(toy: Toy, backbone: Backbone, spec: dict[str, Any]) -> None:
    """A method whose kind of weight a network does not have says so; then nothing else is to be asked of the two."""
    method = create_method(spec)
    if any(method.selects(block) for block in find_blocks(backbone, backbone.adapter_roles, backbone.adapter_layers).blocks):
        return
    assert "select none of the model's" in refusal_of(Potential(backbone).adapters.add, spec["name"], method)
    pytest.skip(f"{toy} has no weights for {spec['name']}, which refused")


def with_adapter(potential: Potential, spec: dict[str, Any], relative: float | None = 0.1) -> str:
    """Add the adapter, with random weights of that relative size or (None) untrained; its name."""
    name = spec["name"]
    potential.adapters.add(name, create_method(spec))
    if relative is not None:
        potential.adapters.randomise(name, seed=7, relative=relative)
    return name


def training_loss(potential: Potential, frames: list[Frame]) -> Tensor:
    """Of energies, forces and stresses, with a value that no symmetry makes zero."""
    potential.train()
    results = potential(collate([potential.graph(frame) for frame in frames]))
    weights = torch.linspace(0.5, 1.5, results["forces"].numel(), dtype=torch.float64).reshape(-1, 3)
    stress = results["stress"][~torch.isnan(results["stress"])]
    return (results["energy"] ** 2).sum() + 1e3 * (weights * (results["forces"] - 0.1) ** 2).sum() + stress.square().sum()


def test_an_untrained_adapter_is_the_base_bit_for_bit_or_says_that_it_is_not(potential, frames, spec):
    base = potential.predict(frames)
    with_adapter(potential, spec, relative=None)
    method = potential.adapters.get(spec["name"]).method
    adapted = potential.predict(frames)
    assert potential.adapters.starts_at_base == method.starts_at_base
    if method.starts_at_base:
        assert bits(adapted) == bits(base)
        assert method.start_note.startswith("starts at the base")
    else:
        assert np.abs(forces_of(adapted) - forces_of(base)).max() > 0
        assert method.start_note.startswith("does not start at the base")


def test_an_untrained_adapter_in_training_mode_gives_the_bases_numbers_too(potential, frames, spec):
    graph = collate([potential.graph(frame) for frame in frames])
    base = potential(graph)
    with_adapter(potential, spec, relative=None)
    potential.train()
    adapted = potential(graph)
    if not potential.adapters.starts_at_base:
        assert not torch.equal(adapted["energy"], base["energy"])
        return
    for name, value in base.items():
        torch.testing.assert_close(adapted[name].detach(), value, rtol=1e-13, atol=1e-13, equal_nan=True)


def test_random_adapters_are_large_and_equivariant_unless_they_say_that_they_are_not(backbone, frames, spec):
    potential = Uncopied(backbone)
    base = potential.predict(frames)
    floor = max(1e-10, FLOOR_FACTOR * rotation_residual(potential, frames)) if backbone.aliasing_floor else 1e-10
    method = create_method(spec)
    # readouts of 0.1 and gates of 0.15 move the forces too little; in a direct network with an embedding at every layer even larger ones
    gates = 0.5 if backbone.aliasing_floor else 0.25
    name = with_adapter(potential, spec, relative=0.15 if method.mergeable else gates)
    too_small = {key: size for key, size in relative_sizes(potential, name).items() if not size >= 0.1 - 1e-12}
    assert too_small == {}
    moved = np.linalg.norm(forces_of(potential.predict(frames)) - forces_of(base)) / np.linalg.norm(forces_of(base))
    assert moved >= (0.1 if method.mergeable else 0.04)
    residual = rotation_residual(potential, frames)
    if not method.mergeable and method.equivariant and backbone.aliasing_floor:
        turned = [row.residual for row in check_equivariance(potential, frames).rows if row.test == "rotation" and row.required]
        assert max(turned) < FLOOR_FACTOR * max(1e-10, backbone.aliasing_floor)  # larger features alias more, within what the family states
        potential.adapters.randomise(name, seed=7, relative=0.05)
        residual = rotation_residual(potential, frames)
    report = check_equivariance(potential, frames)
    assert {row.test for row in report.rows} >= {"rotation", "translation", "permutation", "finite differences"}
    failed = [row for row in report.rows if not row.passed]
    if method.equivariant:
        assert residual < floor
        assert failed == [], report.text()
    else:  # the control: by orders of magnitude, and nothing else is wrong with it
        assert {row.test for row in failed} <= {"rotation", "inversion"}, report.text()
        margin = 10 if backbone.aliasing_floor > 1e-6 else 1e6
        assert max(row.residual / row.tolerance for row in failed if row.test == "rotation") > margin


class _AxisReader(Uncopied):
    """A delta that depends on the structure through a number that is no scalar: the x components of the edges."""

    fault: float

    def forward(self, graph: AtomGraph, *, stress: bool = True) -> dict[str, Tensor]:
        gate = 1 + self.fault * graph.edge_vectors()[:, 0].abs().mean()
        methods = [adapter.method for adapter in self.adapters.active_adapters]
        if methods and isinstance(
            method := methods[0], ActivationMethod
        ):  # of which there is no delta: what it makes of a layer's output depends on the axis
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(method, "changed", lambda *given: given[-1] + gate * (type(method).changed(method, *given) - given[-1]))
                return super().forward(graph, stress=stress)
        changed = type(self.adapters).weights(self.adapters)
        own = dict(self.backbone.named_parameters())
        self.adapters.weights = lambda: {n: own[n] + gate * (weight - own[n]) for n, weight in changed.items()}  # type: ignore[method-assign]
        try:
            return super().forward(graph, stress=stress)
        finally:
            del self.adapters.weights


def test_a_delta_that_breaks_the_symmetry_by_a_millionth_is_caught(backbone, frames, spec):
    """By a millionth, or by a hundred times what the base's own aliasing hides."""
    broken = _AxisReader(backbone)
    broken.fault = max(1e-6, 100 * backbone.aliasing_floor)
    with_adapter(broken, spec)
    assert rotation_residual(broken, frames) > 1e-9
    report = check_equivariance(broken, frames)
    assert not report.passed
    assert "rotation" in {row.test for row in report.rows if not row.passed}


def test_merged_equals_unmerged_or_is_refused_and_unmerging_and_removing_restore_every_bit(potential, frames, spec):
    before = state_of(potential.backbone)
    base = potential.predict(frames)
    name = with_adapter(potential, spec)
    adapted = potential.predict(frames)
    assert relative_difference(adapted, base) > 1e-2  # else equality would show nothing
    if potential.adapters.get(name).method.mergeable:
        potential.adapters.merge()
        merged = potential.predict(frames)
        assert {key for key, value in state_of(potential.backbone).items() if not torch.equal(value, before[key])} == set(
            potential.adapters.get(name).parameter_names
        )
        assert relative_difference(merged, adapted) < 1e-12
        potential.adapters.unmerge()
    else:
        assert "cannot be merged; keep it attached" in refusal_of(potential.adapters.merge)
        assert not potential.adapters.is_merged
    assert_same_state(state_of(potential.backbone), before)
    assert bits(potential.predict(frames)) == bits(adapted)
    potential.adapters.activate([])
    assert bits(potential.predict(frames)) == bits(base)
    potential.adapters.activate([name])
    potential.adapters.delete(name)
    assert_same_state(state_of(potential.backbone), before)
    assert bits(potential.predict(frames)) == bits(base)


def test_a_saved_adapter_attached_again_predicts_the_same_bits(toy, potential, frames, spec, checkpoint, tmp_path):
    name = with_adapter(potential, spec)
    potential.set_reference_shifts({int(frames[0].atomic_numbers[0]): 0.25})
    method = potential.adapters.get(name).method
    manifest = AdapterManifest(
        method=method.name,
        config=method.config_dict,
        base_card=str(checkpoint),
        base_family=toy.family,
        base_sha256=potential.base_sha256,
        head=potential.backbone.head,
        reference_energies={chemical_symbols[int(frames[0].atomic_numbers[0])]: 0.25},
        level_of_theory="a test's",
    )
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, potential.adapters.get(name), manifest)
    expected = potential.predict(frames)
    potential.adapters.delete(name)
    assert relative_difference(potential.predict(frames), expected) > 1e-2
    load_into(potential.adapters, name, *read_adapter(path))
    assert bits(potential.predict(frames)) == bits(expected)
    in_float32 = zoo.load(checkpoint, adapter=str(path), dtype="float32")  # head, energies and level of theory come with the file
    assert in_float32.level_of_theory == "a test's"
    assert in_float32.dtype == torch.float32
    assert 0 < relative_difference(in_float32.predict(frames), expected) < 1e-3


def test_only_declared_tensors_get_a_gradient_and_move(potential, frames, spec):
    name = with_adapter(potential, spec)
    before = state_of(potential.backbone)
    tensors = potential.adapters.get(name).tensors
    starts = {key: tensor.detach().clone() for key, tensor in tensors.items()}
    assert {id(p) for p in potential.parameters() if p.requires_grad} == {id(tensor) for tensor in tensors.values()}
    groups = potential.adapters.param_groups(1e-3, 0.0)
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(tensor) for tensor in tensors.values())
    optimizer = torch.optim.AdamW(groups)
    potential.adapters.before_forward()
    training_loss(potential, frames).backward()
    dead = [key for key, tensor in tensors.items() if tensor.grad is None or not tensor.grad.abs().max() > 0]
    assert dead == [key for key in tensors if is_idle(potential.backbone, key.rpartition("/")[0])]
    optimizer.step()
    potential.adapters.after_step()
    assert [key for key, tensor in tensors.items() if torch.equal(tensor, starts[key]) and key not in dead] == []
    assert [n for n, p in potential.backbone.named_parameters() if p.grad is not None] == []
    assert_same_state(state_of(potential.backbone), before)


def test_training_from_the_start_lowers_the_loss(potential, frames, spec):
    with_adapter(potential, spec, relative=None)  # a start from which nothing can be learnt would be a dead adapter
    optimizer = torch.optim.AdamW(potential.adapters.param_groups(2e-3, 0.0))
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        potential.adapters.before_forward()
        loss = training_loss(potential, frames)
        loss.backward()
        optimizer.step()
        potential.adapters.after_step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_gradients_are_those_of_the_loss(potential, frames, spec):
    """Directional derivative against a central difference, in each way to forces: the double backward reaches the adapter correctly."""
    # the paper's gradient of the threshold (Eqs. 2, 3) and the straight-through one are not the derivative, by design
    by_design = spec.get("form") == "printed" or spec.get("start") == "base"
    name = with_adapter(potential, spec, relative=0.01 if by_design else 0.1)  # small: many weights then lie within their threshold
    for forces in potential.backbone.force_modes:
        potential.forces = forces
        found, expected = _directional_derivatives(potential, potential.adapters.get(name).tensors, frames)
        assert (found == pytest.approx(expected, rel=1e-5)) != by_design


def _directional_derivatives(potential: Potential, tensors: dict[str, Tensor], frames: list[Frame]) -> tuple[float, float]:
    """Of the training loss along a random change of an adapter: by a difference, and by the gradient."""
    potential.zero_grad()
    training_loss(potential, frames).backward()
    generator = torch.Generator().manual_seed(3)
    direction = {
        key: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * tensor.detach().abs().mean()
        for key, tensor in tensors.items()
    }
    expected = sum(float((tensor.grad * direction[key]).sum()) for key, tensor in tensors.items() if tensor.grad is not None)
    step, losses = 1e-6, []
    for sign in (1, -2):  # to +step, then to -step
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor += sign * step * direction[key]
        losses.append(training_loss(potential, frames).item())
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor += step * direction[key]
    return (losses[0] - losses[1]) / (2 * step), expected


def test_the_copy_in_another_precision_agrees(potential, frames, spec):
    name = with_adapter(potential, spec)
    potential.set_reference_shifts({int(frames[0].atomic_numbers[0]): -3.0})
    adapted = potential.predict(frames)
    assert bits(potential.to_dtype(torch.float64).predict(frames)) == bits(adapted)
    single = potential.to_dtype(torch.float32)
    assert single.adapters.active == (name,)
    assert single.dtype == torch.float32
    assert 0 < relative_difference(single.predict(frames), adapted) < 1e-3
    assert bits(potential.predict(frames)) == bits(adapted)  # the original is untouched


def test_the_count_is_what_trains_and_lies_within_the_coverage(potential, spec):
    name = with_adapter(potential, spec)
    adapter = potential.adapters.get(name)
    assert adapter.trainable_count == sum(p.numel() for p in potential.parameters() if p.requires_grad)
    assert sum(adapter.trainable_by_kind.values()) == adapter.trainable_count
    assert {block.key for block in adapter.blocks} <= {block.key for block in potential.coverage.blocks}
    assert set(adapter.parameter_names) <= set(potential.coverage.sizes)
