"""The contracts on the real SevenNet-0, whose weights ship with its package: what issue 2 promises in figures."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk, fcc111

import zoo
from adapters.method import create_method
from tests.contracts.checks import force_change, save_and_attach_again, small_frames, weights_without_gradient
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import check_equivariance
from zoo.potential import Potential
from zoo.testing.measures import Uncopied, assert_same_state, bits, relative_difference, relative_sizes, rotation_residual, state_of

ELORA = {"name": "elora", "rank": 16}


@pytest.fixture(scope="module")
def single() -> Potential:
    return zoo.load("sevennet-0")


@pytest.fixture(scope="module")
def double(single: Potential) -> Potential:
    return single.to_dtype(torch.float64)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Small, for they run in float64 on one thread: a molecule, a slab of one layer and a sheared ionic crystal."""
    return small_frames(bulk("NaCl", "rocksalt", a=5.6), fcc111("Cu", (1, 1, 2), vacuum=6.0))


@pytest.fixture
def adapted(double: Potential):
    """SevenNet-0 in float64 with random ELoRA weights; the adapter is taken off again afterwards."""
    double.adapters.add("elora", create_method(ELORA))
    double.adapters.randomise("elora", seed=3)
    yield double
    double.adapters.unmerge()
    double.adapters.delete("elora")


def test_all_842440_trainable_parameters_are_accounted_for(single):
    coverage = single.coverage
    assert coverage.trainable_count == single.card.parameter_count == 842_440
    assert set(coverage.not_adaptable.values()) == {"frozen by the base (requires_grad=False)"}
    assert {block.parameter for block in coverage.blocks} | set(coverage.not_adaptable) == set(coverage.sizes)
    assert coverage.parameter_count == sum(p.numel() for p in single.backbone.parameters())
    assert coverage.roles == ("embedding", "linear", "radial", "radial_basis", "readout")


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        (ELORA, 231_456),
        ({"name": "elora", "rank": 4}, 57_864),
        ({"name": "elora", "rank": 16, "dense_substitution": "when_smaller"}, 227_280),
        ({"name": "elora", "rank": 4, "dense_substitution": "when_smaller"}, 57_668),
        ({"name": "readout"}, 8_256),
        ({"name": "full"}, 842_440),
    ],
)
def test_zoo_loaded_sevennet_0_trains_exactly_the_published_counts(single, spec, count):
    single.adapters.add("counted", create_method(spec))
    try:
        assert single.adapters.trainable_count == count
        assert sum(p.numel() for p in single.parameters() if p.requires_grad) == count
    finally:
        single.adapters.delete("counted")


@pytest.mark.parametrize("spec", [ELORA, {"name": "full"}, {"name": "readout"}, {"name": "sparse", "start": "base", "setting": "every"}])
def test_attached_and_untrained_is_the_base_bit_for_bit_in_float32_and_detaching_restores_every_bit(single, frames, spec):
    base, before = single.predict(frames), state_of(single.backbone)
    single.adapters.add("fresh", create_method(spec))
    try:
        assert single.adapters.starts_at_base
        assert bits(single.predict(frames)) == bits(base)
        single.adapters.randomise("fresh", seed=2)
        assert bits(single.predict(frames)) != bits(base)
        single.adapters.merge()
        assert not all(torch.equal(value, before[name]) for name, value in state_of(single.backbone).items())
        single.adapters.unmerge()
    finally:
        single.adapters.delete("fresh")
    assert_same_state(state_of(single.backbone), before)
    assert bits(single.predict(frames)) == bits(base)


def test_random_elora_rotates_to_1e_10_and_moves_the_forces_by_a_tenth(adapted, frames):
    assert min(relative_sizes(adapted, "elora").values()) >= 0.1
    assert force_change(adapted, "elora", frames) > 0.1
    assert rotation_residual(adapted, frames) < 1e-10


def test_the_check_passes_with_random_elora_and_differs_under_inversion_as_so3_may(adapted, frames):
    report = check_equivariance(adapted, frames[::2])
    assert report.passed, report.text()
    inversion = [row for row in report.rows if row.test == "inversion"]
    assert inversion
    assert not any(row.required for row in inversion)
    assert max(row.residual for row in inversion) > 1e-6  # SevenNet-0 is all even parity: SO(3), and really not O(3)


def test_a_delta_that_lands_on_a_clebsch_gordan_coefficient_is_caught(double, frames):
    broken = Uncopied(double.backbone)  # a real copy would compute the coefficients anew
    coefficients = next(b for n, b in double.backbone.named_buffers() if "1_convolution" in n and "_coefficients_" in n)
    assert check_equivariance(broken, frames[:1]).passed
    original = coefficients.clone()
    try:
        coefficients[4, 0] += 1e-4  # a harmonic of l = 2 now feeds a scalar
        report = check_equivariance(broken, frames[:1])
    finally:
        coefficients.copy_(original)
    assert {row.test for row in report.rows if not row.passed} == {"rotation"}  # the other symmetries and the derivatives still hold
    assert max(row.residual for row in report.rows if row.test == "rotation") > 1e-8


def test_merged_elora_equals_unmerged_to_1e_12(adapted, frames):
    unmerged = adapted.predict(frames)
    adapted.adapters.merge()
    merged = adapted.predict(frames)
    adapted.adapters.unmerge()
    assert relative_difference(merged, unmerged) < 1e-12
    assert bits(adapted.predict(frames)) == bits(unmerged)


def test_a_saved_elora_attached_again_predicts_the_samebits(adapted, frames, tmp_path):
    expected = adapted.predict(frames)
    assert force_change(adapted, "elora", frames) > 0.1
    save_and_attach_again(adapted, "elora", tmp_path / "adapter.safetensors")
    assert bits(adapted.predict(frames)) == bits(expected)


def test_every_weight_of_sevennet_0_gets_a_gradient_from_forces(double):
    assert weights_without_gradient(double) == set()
