"""The contracts on the real SevenNet-0, whose weights ship with its package: what issue 2 promises in figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from scipy.spatial.transform import Rotation

import zoo
from adapters.method import create_method
from adapters.state import AdapterManifest, load_into, read_adapter, write_adapter
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import check_equivariance
from zoo.evaluation.transformations import transform_frame
from zoo.potential import Potential

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
    generator = np.random.default_rng(1)
    salt = bulk("NaCl", "rocksalt", a=5.6)
    salt.set_cell(salt.cell.array @ (np.eye(3) + 0.06 * generator.standard_normal((3, 3))), scale_atoms=True)
    structures = [molecule("CH3OH"), fcc111("Cu", (1, 1, 2), vacuum=6.0), salt]
    for atoms in structures:
        atoms.positions += 0.08 * generator.standard_normal(atoms.positions.shape)
    return [Frame.unlabelled(atoms, source=atoms.get_chemical_formula()) for atoms in structures]


@pytest.fixture
def adapted(double: Potential):
    """SevenNet-0 in float64 with random ELoRA weights; the adapter is taken off again afterwards."""
    double.adapters.add("elora", create_method(ELORA))
    double.adapters.randomise("elora", seed=3)
    yield double
    double.adapters.unmerge()
    double.adapters.remove("elora")


def _worst(found, expected) -> float:
    """Largest difference of forces over the frames' largest force."""
    scale = max(np.abs(p.forces).max() for p in expected)
    return max(float(np.abs(a.forces - b.forces).max()) for a, b in zip(found, expected, strict=True)) / scale


def _bits(predictions) -> list[object]:
    return [(p.energy, p.forces.tobytes(), None if p.stress is None else p.stress.tobytes()) for p in predictions]


def _state(potential: Potential) -> dict[str, torch.Tensor]:
    backbone = potential.backbone
    return {name: tensor.detach().clone() for name, tensor in [*backbone.named_parameters(), *backbone.named_buffers()]}


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
        single.adapters.remove("counted")


@pytest.mark.parametrize("spec", [ELORA, {"name": "full"}, {"name": "readout"}, {"name": "sparse", "start": "base", "setting": "every"}])
def test_attached_and_untrained_is_the_base_bit_for_bit_in_float32_and_detaching_restores_every_bit(single, frames, spec):
    base, before = single.predict(frames), _state(single)
    single.adapters.add("fresh", create_method(spec))
    try:
        assert single.adapters.starts_at_base
        assert _bits(single.predict(frames)) == _bits(base)
        single.adapters.randomise("fresh", seed=2)
        assert _bits(single.predict(frames)) != _bits(base)
        single.adapters.merge()
        assert not all(torch.equal(value, before[name]) for name, value in _state(single).items())
        single.adapters.unmerge()
    finally:
        single.adapters.remove("fresh")
    assert _state(single).keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in _state(single).items())
    assert _bits(single.predict(frames)) == _bits(base)


def test_random_elora_rotates_to_1e_10_and_moves_the_forces_by_a_tenth(adapted, frames):
    deltas = adapted.adapters.get("elora").deltas()
    base = dict(adapted.backbone.named_parameters())
    shares = [
        float(block.view(deltas[block.parameter].detach()).norm() / block.view(base[block.parameter]).norm())
        for block in adapted.adapters.get("elora").blocks
    ]
    assert min(shares) >= 0.1
    predictions = adapted.predict(frames)
    adapted.adapters.activate([])
    moved = _worst(adapted.predict(frames), predictions)
    adapted.adapters.activate(["elora"])
    assert moved > 0.1
    rotation = Rotation.from_rotvec([0.4, 0.9, -1.3]).as_matrix()
    rotated = adapted.predict([transform_frame(frame, rotation) for frame in frames])
    forces_scale = max(np.abs(p.forces).max() for p in predictions)
    for found, own in zip(rotated, predictions, strict=True):
        assert abs(found.energy - own.energy) / len(own.forces) / forces_scale < 1e-10
        assert np.abs(found.forces - own.forces @ rotation.T).max() / forces_scale < 1e-10
        if own.stress is not None:
            assert np.abs(found.stress - rotation @ own.stress @ rotation.T).max() / np.abs(own.stress).max() < 1e-10


def test_the_check_passes_with_random_elora_and_differs_under_inversion_as_so3_may(adapted, frames):
    report = check_equivariance(adapted, frames[::2])
    assert report.passed, report.text()
    inversion = [row for row in report.rows if row.test == "inversion"]
    assert inversion
    assert not any(row.required for row in inversion)
    assert max(row.residual for row in inversion) > 1e-6  # SevenNet-0 is all even parity: SO(3), and really not O(3)


class _OnAConstant(Potential):
    """A delta that lands on Clebsch-Gordan coefficients instead of a weight; its copy is itself, for a copy would compute them anew."""

    def to_dtype(self, dtype: torch.dtype) -> Potential:
        assert dtype == self.dtype
        return self


def test_a_delta_that_lands_on_a_clebsch_gordan_coefficient_is_caught(double, frames):
    broken = _OnAConstant(double.backbone)
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
    assert _worst(merged, unmerged) < 1e-12
    for one, other in zip(merged, unmerged, strict=True):
        assert one.energy == pytest.approx(other.energy, rel=1e-12)
        assert one.stress is None or np.abs(one.stress - other.stress).max() < 1e-12 * np.abs(other.stress).max()
    assert _bits(adapted.predict(frames)) == _bits(unmerged)


def test_a_saved_elora_attached_again_predicts_the_same_bits(adapted, frames, tmp_path):
    expected = adapted.predict(frames)
    path = tmp_path / "adapter.safetensors"
    manifest = AdapterManifest(
        method="elora",
        config=adapted.adapters.get("elora").method.config_dict,
        base_card="sevennet-0",
        base_family="sevennet",
        base_sha256=adapted.base_sha256,
    )
    write_adapter(path, adapted.adapters.get("elora"), manifest)
    adapted.adapters.remove("elora")
    assert _worst(adapted.predict(frames), expected) > 0.1
    load_into(adapted.adapters, "elora", *read_adapter(path))
    assert _bits(adapted.predict(frames)) == _bits(expected)


def test_every_weight_of_sevennet_0_gets_a_gradient_from_forces(double):
    frame = Frame.unlabelled(Atoms("CO", [[0, 0, 0], [0.1, 0.2, 1.2]]))
    double.adapters.add("full", "full")
    try:
        double.train()
        double(double.graph(frame))["forces"].square().sum().backward()
        tensors = double.adapters.get("full").tensors
        dead = {key for key, tensor in tensors.items() if tensor.grad is None or not tensor.grad.abs().max() > 0}
    finally:
        double.eval()
        double.adapters.remove("full")
    assert dead == set()
