"""Exact counts on the shapes of MACE-MP-0 and MACE-OFF23, by the published rules of ELoRA (C. Wang et al., ICML 2025)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml

from adapters.method import create_method
from benchmarks.shapes import MATERIALS_PROJECT, ORGANIC, mace_shape
from zoo.config_groups import config_root
from zoo.potential import Potential

# the reference code leaves the lower orders of the contraction out of its low-rank deltas, and trains them whole
PUBLISHED = {"name": "elora", "rank": 16, "exclude_roles": ["contraction_lower"]}
PRESET, MMEA_PRESET = (
    yaml.safe_load((config_root() / "adapter" / f"{name}_paper.yaml").read_text(encoding="utf-8"))["adapter"] for name in ("elora", "mmea")
)


@pytest.fixture(scope="module")
def copper() -> Potential:
    return Potential(mace_shape("mace-mp-0-large", (8, 13, 29, 79)).restricted_to([29]))


@pytest.fixture(scope="module")
def organic() -> Potential:
    return Potential(mace_shape("mace-off23-medium", ORGANIC).restricted_to([1, 6, 8]))


def count(potential: Potential, spec: dict[str, Any]) -> int:
    potential.adapters.add("counted", create_method(spec))
    try:
        return potential.adapters.trainable_count
    finally:
        potential.adapters.delete("counted")


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [({"name": "full"}, 723_866), ({"name": "readout"}, 2_192), (PUBLISHED, 173_456), (PRESET, 176_666)],
    ids=["full", "readout", "elora", "the preset elora_paper"],
)
def test_counts_on_mace_mp_0_large_cut_to_copper_are_the_published_ones(copper, spec, wanted):
    assert count(copper, spec) == wanted


@pytest.mark.parametrize(
    ("spec", "wanted"), [({"name": "full"}, 751_896), ({"name": "readout"}, 2_192), (PUBLISHED, 169_344)], ids=["full", "readout", "elora"]
)
def test_counts_on_mace_off23_medium_cut_to_h_c_o_are_the_published_ones(organic, spec, wanted):
    assert count(organic, spec) == wanted


def test_mmea_counts_on_mace_off23_medium_cut_to_h_c_o_are_the_published_ones(organic):
    """201,258 at r = 32 and 151,354 at r = 16, which are gates and ELoRA of r = 16 on all that is no equivariant linear layer."""
    assert count(organic, MMEA_PRESET) == 151_354
    assert count(organic, {**MMEA_PRESET, "rank": 32}) == 201_258
    assert count(organic, {"name": "mmea", "rank": 32}) - count(organic, {"name": "mmea", "rank": 16}) == 201_258 - 151_354


@pytest.mark.parametrize("rank", [4, 16])
def test_lora_mace_trains_as_many_numbers_as_mace_itself(rank):
    import copy

    from mace.modules.lora import inject_lora

    potential = Potential(mace_shape("mace-mp-0-medium", ORGANIC))
    network = copy.deepcopy(potential.backbone.network)
    inject_lora(network, rank=rank)
    upstream = sum(parameter.numel() for name, parameter in network.named_parameters() if ".lora_" in name)
    assert count(potential, {"name": "lora-mace", "rank": rank}) == upstream


def test_the_setting_linear_reaches_the_sparse_papers_share_of_off23_medium():
    """0.2318 of 1,428,376 parameters (10 elements): the o3.Linear layers; both counts of sparsity are in the ratio of the paper's rows."""
    potential = Potential(mace_shape("mace-off23-medium", ORGANIC))
    adapter = potential.adapters.add("sparse", create_method({"name": "sparse", "setting": "linear", "threshold_start": 0.005}))
    shares = adapter.method.report(adapter)
    assert 0.1 < shares["sparsity_layerwise"] < 0.9
    assert (1 - shares["sparsity_total"]) / (1 - shares["sparsity_layerwise"]) == pytest.approx(0.2318, abs=5e-5)
    assert potential.coverage.trainable_count == 1_428_376
    layers = [block for block in potential.coverage.blocks if block.layer_type == "e3nn.o3._linear.Linear"]
    assert sum(block.numel for block in layers) == 331_152


def test_the_setting_contraction_reaches_the_symmetric_contractions_of_all_orders():
    potential = Potential(mace_shape("mace-off23-medium", ORGANIC))
    adapter = potential.adapters.add("sparse", create_method({"name": "sparse", "setting": "contraction"}))
    assert {block.role for block in adapter.blocks} == {"contraction", "contraction_lower"}
    assert sum(block.numel for block in adapter.blocks) == 124_160 + 21_760


def test_elora_by_default_reaches_every_matrix_of_a_mace_mp_0_medium_shape():
    potential = Potential(mace_shape("mace-mp-0-medium", ORGANIC))
    potential.adapters.add("elora", "elora")
    reached = potential.adapters.get("elora").blocks
    assert {block.key for block in potential.coverage.blocks} - {block.key for block in reached} == {
        "network.radial_embedding.bessel_fn.bessel_weights/all"
    }
    assert potential.coverage.share(reached) > 0.9999  # all but the 10 Bessel frequencies
    assert {"linear", "tensor_product", "contraction", "contraction_lower", "radial", "embedding", "readout"} == {b.role for b in reached}


def test_the_file_of_a_rank_4_adapter_on_mace_mp_0_medium_has_less_than_a_megabyte(tmp_path):
    """In float32, the precision of the published model."""
    network = mace_shape("mace-mp-0-medium", MATERIALS_PROJECT)
    potential = Potential(network).to_dtype(torch.float32)
    potential.adapters.add("elora", create_method({"name": "elora", "rank": 4}))
    potential.adapters.randomise("elora", 0)
    size = potential.save_adapter("elora", tmp_path / "adapter.safetensors").stat().st_size
    assert potential.adapters.trainable_count == 167_108
    assert 4 * 167_108 < size < 1_000_000
