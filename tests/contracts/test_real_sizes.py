"""The contracts at real size: networks of the shapes of MACE-MP-0 medium and NequIP's foundation models, 89 elements, random weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import chemical_symbols
from scipy.spatial.transform import Rotation
from torch import Tensor

import zoo
from adapters.method import create_method
from adapters.state import AdapterManifest, load_into, read_adapter, write_adapter
from benchmarks.shapes import MATERIALS_PROJECT, mace_shape
from tests.contracts.toys import Uncopied, assert_same_state, state_of
from zoo.backbones.base import Backbone
from zoo.backbones.nequip import NequIPFramework
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import check_equivariance
from zoo.evaluation.transformations import transform_frame
from zoo.potential import Potential, Prediction

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
    generator = np.random.default_rng(1)
    salt = bulk("LiF", "rocksalt", a=4.1)
    salt.set_cell(salt.cell.array @ (np.eye(3) + 0.06 * generator.standard_normal((3, 3))), scale_atoms=True)
    structures = [molecule("CH3OH"), salt]
    for atoms in structures:
        atoms.positions += 0.08 * generator.standard_normal(atoms.positions.shape)
    return [Frame.unlabelled(atoms, source=atoms.get_chemical_formula()) for atoms in structures]


@pytest.fixture
def adapted(potential: Potential) -> Iterator[Potential]:
    """With random ELoRA weights on every matrix; they are taken off again, and the base is then what it was."""
    before = state_of(potential.backbone)
    potential.adapters.add("elora", create_method({"name": "elora", "rank": 16}))
    potential.adapters.randomise("elora", seed=3)
    yield potential
    potential.adapters.unmerge()
    if "elora" in potential.adapters.names:
        potential.adapters.remove("elora")
    assert_same_state(state_of(potential.backbone), before)


def _worst(found: list[Prediction], expected: list[Prediction]) -> float:
    """Largest difference of energies per atom, forces and stress, over the frames' largest force or stress."""
    scale = max(np.abs(p.forces).max() for p in expected)
    parts = [abs(a.energy - b.energy) / len(b.forces) / scale for a, b in zip(found, expected, strict=True)]
    parts += [np.abs(a.forces - b.forces).max() / scale for a, b in zip(found, expected, strict=True)]
    parts += [
        np.abs(a.stress - b.stress).max() / np.abs(b.stress).max()
        for a, b in zip(found, expected, strict=True)
        if a.stress is not None and b.stress is not None
    ]
    return float(max(parts))


def _bits(predictions: list[Prediction]) -> list[object]:
    return [(p.energy, p.forces.tobytes(), None if p.stress is None else p.stress.tobytes()) for p in predictions]


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
        potential.adapters.remove("elora")


@pytest.mark.parametrize("spec", [{"name": "elora"}, {"name": "full"}, {"name": "readout"}, {"name": "sparse", "start": "base"}])
def test_attached_and_untrained_is_the_base_bit_for_bit_and_detaching_restores_every_bit(potential, frames, spec):
    base, before = potential.predict(frames), state_of(potential.backbone)
    potential.adapters.add("fresh", create_method(spec))
    try:
        assert potential.adapters.starts_at_base
        assert _bits(potential.predict(frames)) == _bits(base)
        potential.adapters.randomise("fresh", seed=2)
        assert _worst(potential.predict(frames), base) > 1e-3
        potential.adapters.merge()
        changed = {name for name, value in state_of(potential.backbone).items() if not torch.equal(value, before[name])}
        assert changed == set(potential.adapters.get("fresh").parameter_names)
        potential.adapters.unmerge()
    finally:
        potential.adapters.remove("fresh")
    assert_same_state(state_of(potential.backbone), before)
    assert _bits(potential.predict(frames)) == _bits(base)


def test_random_elora_rotates_to_1e_10_and_moves_the_forces_by_a_tenth(adapted, frames):
    deltas = adapted.adapters.get("elora").deltas()
    base = dict(adapted.backbone.named_parameters())
    shares = [
        float(block.view(deltas[block.parameter].detach()).norm() / block.view(base[block.parameter]).norm())
        for block in adapted.adapters.get("elora").blocks
    ]
    assert min(shares) >= 0.1 - 1e-12
    predictions = adapted.predict(frames)
    adapted.adapters.activate([])
    assert _worst(adapted.predict(frames), predictions) > 0.1
    adapted.adapters.activate(["elora"])
    rotation = Rotation.from_rotvec([0.4, 0.9, -1.3]).as_matrix()
    expected = [
        Prediction(p.energy, p.forces @ rotation.T, None if p.stress is None else rotation @ p.stress @ rotation.T) for p in predictions
    ]
    assert _worst(adapted.predict([transform_frame(frame, rotation) for frame in frames]), expected) < 1e-10


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
    assert _worst(merged, attached) < 1e-12
    assert _bits(adapted.predict(frames)) == _bits(attached)


def test_a_saved_elora_attached_again_predicts_the_same_bits(adapted, frames, tmp_path):
    expected = adapted.predict(frames)
    path = tmp_path / "adapter.safetensors"
    manifest = AdapterManifest(
        method="elora",
        config=adapted.adapters.get("elora").method.config_dict,
        base_card="a real size",
        base_family=adapted.backbone.family,
        base_sha256=adapted.base_sha256,
        base_convention=adapted.backbone.convention,
    )
    write_adapter(path, adapted.adapters.get("elora"), manifest)
    adapted.adapters.remove("elora")
    assert _worst(adapted.predict(frames), expected) > 0.1
    load_into(adapted.adapters, "elora", *read_adapter(path))
    assert _bits(adapted.predict(frames)) == _bits(expected)


def test_merged_elora_goes_into_the_familys_file_and_is_read_back_bit_for_bit(adapted, frames, tmp_path):
    adapted.adapters.merge()
    merged = adapted.predict(frames)
    adapted.adapters.unmerge()
    adapted.save_upstream_checkpoint(tmp_path / "merged.file")
    assert _bits(zoo.load(tmp_path / "merged.file").predict(frames)) == _bits(merged)


def test_every_weight_gets_a_gradient_from_forces(potential):
    """Of one pair of carbon and oxygen: all but what belongs to other elements alone."""
    frame = Frame.unlabelled(Atoms("CO", [[0, 0, 0], [0.1, 0.2, 1.2]]))
    potential.adapters.add("full", "full")
    try:
        potential.train()
        potential(potential.graph(frame))["forces"].square().sum().backward()
        tensors = potential.adapters.get("full").tensors
        dead = {key for key, tensor in tensors.items() if tensor.grad is None or not tensor.grad.abs().max() > 0}
    finally:
        potential.eval()
        potential.adapters.remove("full")
    assert dead == set()
