"""The contracts at real size: networks of the shapes of MACE-MP-0 medium and NequIP's foundation models, 89 elements, random weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from ase.build import bulk
from ase.data import chemical_symbols
from torch import Tensor

import zoo
from adapters.method import create_method
from benchmarks.shapes import MATERIALS_PROJECT, mace_shape
from tests.contracts.checks import force_change, save_and_attach_again, small_frames, weights_without_gradient
from zoo.backbones.base import Backbone
from zoo.backbones.nequip import NequIPFramework
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import check_equivariance
from zoo.potential import Potential
from zoo.testing.measures import Uncopied, assert_same_state, bits, relative_difference, relative_sizes, rotation_residual, state_of

pytestmark = pytest.mark.slow

SYMBOLS = [chemical_symbols[number] for number in MATERIALS_PROJECT]


def mace_mp_0_medium() -> Backbone:
    return mace_shape("mace-mp-0-medium", MATERIALS_PROJECT)


def nequip_large() -> Backbone:
    """NequIP's own preset ``L``, of its foundation models: 6 layers, l up to 3."""
    config = {
        "_target_": "nequip.model.PresetNequIPGNNModel",
        "preset": "L",
        "seed": 0,
        "model_dtype": "float64",
        "type_names": SYMBOLS,
        "r_max": 6.0,
        "avg_num_neighbors": 3.0,
        "per_type_energy_scales": 1.0,
        "per_type_energy_shifts": {symbol: -0.01 * index for index, symbol in enumerate(SYMBOLS)},
    }
    return NequIPFramework(config, torch.float64)


def a_coefficient_of(backbone: Backbone) -> Tensor:
    """One number through which a component of a harmonic would feed a scalar; zero by symmetry."""
    buffers = dict(backbone.named_buffers())
    if backbone.family == "mace":
        return next(b for n, b in buffers.items() if "products.0" in n and n.endswith("U_matrix_2"))[..., 0, 1, 0]
    return next(b for n, b in buffers.items() if "layer1" in n and "_coefficients_" in n)[4, 0]


@pytest.fixture(scope="module", params=[mace_mp_0_medium, nequip_large], ids=lambda build: build.__name__)
def potential(request: pytest.FixtureRequest) -> Potential:
    return Uncopied(request.param())


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Small, for they run in float64 on one thread: a molecule of three elements and a sheared ionic crystal."""
    return small_frames(bulk("LiF", "rocksalt", a=4.1))


@pytest.fixture
def adapted(potential: Potential) -> Iterator[Potential]:
    """With random ELoRA weights on every matrix; they are taken off again, and the base is then what it was."""
    before = state_of(potential.backbone)
    potential.adapters.add("elora", create_method({"name": "elora", "rank": 16}))
    potential.adapters.randomise("elora", seed=3)
    yield potential
    potential.adapters.unmerge()
    if "elora" in potential.adapters.names:
        potential.adapters.delete("elora")
    assert_same_state(state_of(potential.backbone), before)


def test_every_parameter_is_adaptable_and_elora_reaches_every_matrix(potential):
    coverage = potential.coverage
    assert len(potential.backbone.elements) == 89
    assert coverage.trainable_count == coverage.parameter_count == sum(p.numel() for p in potential.backbone.parameters()) > 4_000_000
    assert coverage.not_adaptable == {}
    assert {block.parameter for block in coverage.blocks} == set(coverage.sizes)
    assert "other" not in coverage.roles
    potential.adapters.add("elora", "elora")
    try:
        reached = potential.adapters.get("elora").blocks
        left_out = {block.key for block in coverage.blocks} - {block.key for block in reached}
        assert left_out <= {"network.radial_embedding.bessel_fn.bessel_weights/all"}  # ten frequencies, no matrix
        assert coverage.share(reached) == pytest.approx(1.0, abs=1e-5)
    finally:
        potential.adapters.delete("elora")


@pytest.mark.parametrize("spec", [{"name": "elora"}, {"name": "full"}, {"name": "readout"}, {"name": "sparse", "start": "base"}])
def test_attached_and_untrained_is_the_base_bit_for_bit_and_detaching_restores_every_bit(potential, frames, spec):
    base, before = potential.predict(frames), state_of(potential.backbone)
    potential.adapters.add("fresh", create_method(spec))
    try:
        assert potential.adapters.starts_at_base
        assert bits(potential.predict(frames)) == bits(base)
        potential.adapters.randomise("fresh", seed=2)
        assert relative_difference(potential.predict(frames), base) > 1e-3
        potential.adapters.merge()
        changed = {name for name, value in state_of(potential.backbone).items() if not torch.equal(value, before[name])}
        assert changed == set(potential.adapters.get("fresh").parameter_names)
        potential.adapters.unmerge()
    finally:
        potential.adapters.delete("fresh")
    assert_same_state(state_of(potential.backbone), before)
    assert bits(potential.predict(frames)) == bits(base)


def test_random_elora_rotates_to_1e_10_and_moves_the_forces_by_a_tenth(adapted, frames):
    assert min(relative_sizes(adapted, "elora").values()) >= 0.1 - 1e-12
    assert force_change(adapted, "elora", frames) > 0.1
    assert rotation_residual(adapted, frames) < 1e-10


def test_symmetry_and_derivatives_hold_with_random_elora_and_a_wrong_coefficient_is_caught(adapted, frames):
    report = check_equivariance(adapted, frames)
    assert report.passed, report.text()
    assert report.symmetry == "O(3)"
    coefficient = a_coefficient_of(adapted.backbone)
    original = coefficient.clone()
    try:
        coefficient += 1e-4
        broken = check_equivariance(adapted, frames[:1])
    finally:
        coefficient.copy_(original)
    assert {"rotation"} <= {row.test for row in broken.rows if not row.passed} <= {"rotation", "inversion"}


def test_merged_elora_equals_attached_to_1e_12(adapted, frames):
    attached = adapted.predict(frames)
    adapted.adapters.merge()
    merged = adapted.predict(frames)
    adapted.adapters.unmerge()
    assert relative_difference(merged, attached) < 1e-12
    assert bits(adapted.predict(frames)) == bits(attached)


def test_a_saved_elora_attached_again_predicts_the_samebits(adapted, frames, tmp_path):
    expected = adapted.predict(frames)
    assert force_change(adapted, "elora", frames) > 0.1
    save_and_attach_again(adapted, "elora", tmp_path / "adapter.safetensors")
    assert bits(adapted.predict(frames)) == bits(expected)


def test_merged_elora_goes_into_the_familys_file_and_is_read_back_bit_for_bit(adapted, frames, tmp_path):
    adapted.adapters.merge()
    merged = adapted.predict(frames)
    adapted.adapters.unmerge()
    adapted.save_upstream_checkpoint(tmp_path / "merged.file")
    assert bits(zoo.load(tmp_path / "merged.file").predict(frames)) == bits(merged)


def test_every_weight_gets_a_gradient_from_forces(potential):
    """All but what belongs to elements that are not there."""
    assert weights_without_gradient(potential) == set()
