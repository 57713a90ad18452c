"""Adapters made of others, on every toy: the exact sum, and the sum compressed to a rank, as files that the potential takes back."""

from __future__ import annotations

import pytest

from adapters.method import create_method
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import FLOOR_FACTOR
from zoo.evaluation.probes import probe_frames
from zoo.potential import Potential
from zoo.testing.measures import bits, relative_difference, rotation_residual


@pytest.fixture
def frames(backbone) -> list[Frame]:
    """A molecule and a sheared crystal."""
    return probe_frames(backbone.elements)[::3]


@pytest.fixture
def two(potential: Potential) -> Potential:
    """A low-rank adapter that trains all vectors too, and one that is dense on a part of the model."""
    potential.adapters.add("low", create_method({"name": "elora", "rank": 2, "extra_trainable": "reference"}))
    potential.adapters.add("dense", create_method({"name": "full", "exclude_roles": ["embedding"]}))
    for seed, name in enumerate(potential.adapters.names):
        potential.adapters.randomise(name, seed)
    return potential


def test_the_linear_combination_is_the_scaled_adapters_together(two, frames):
    two.adapters.scale("low", 0.7)
    two.adapters.scale("dense", -0.4)
    expected = two.predict(frames)
    two.adapters.combine({"low": 0.7, "dense": -0.4}, into="sum")
    two.adapters.activate(["sum"])
    assert relative_difference(two.predict(frames), expected) < 1e-12
    two.adapters.combine({"low": 0.7, "dense": 0.4}, into="other")
    two.adapters.activate(["other"])
    assert relative_difference(two.predict(frames), expected) > 1e-3


def test_the_compressed_combination_is_equivariant_and_comes_back_from_its_file_bit_for_bit(two, frames, tmp_path):
    two.adapters.deactivate()
    base, own_error = two.predict(frames), rotation_residual(two, frames)
    compressed = two.adapters.combine({"low": 0.5, "dense": 0.5}, into="small", method="svd", rank=2)
    two.adapters.activate(["small"])
    found = two.predict(frames)
    assert relative_difference(found, base) > 1e-3
    assert rotation_residual(two, frames) < (max(1e-10, FLOOR_FACTOR * own_error) if two.backbone.aliasing_floor else 1e-10)
    assert compressed.method.config_dict["rank"] == 2
    two.save_adapter("small", tmp_path / "small.safetensors")
    two.load_adapter(tmp_path / "small.safetensors", "again")
    two.adapters.activate(["again"])
    assert bits(two.predict(frames)) == bits(found)


def test_full_rank_compresses_nothing(two, frames):
    expected = two.predict(frames, adapters=["dense"] * len(frames))
    highest = max(min(block.rows, block.cols) for block in two.coverage.blocks if block.structure == "matrix")
    two.adapters.combine({"dense": 1.0}, into="all", method="svd", rank=highest)
    two.adapters.activate(["all"])
    assert relative_difference(two.predict(frames), expected) < 1e-11
