"""Exact counts on the shapes of MACE-MP-0 and MACE-OFF23, by the published rules of ELoRA (C. Wang et al., ICML 2025)."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from zoo.backbones.mace import Mace, random_toy
from zoo.backbones.mace_network import MaceConfig
from zoo.compose import config_root
from zoo.potential import Potential

COMMON: dict[str, Any] = {
    "model": "ScaleShiftMACE",
    "num_polynomial_cutoff": 5,
    "max_ell": 3,
    "interaction_cls": "RealAgnosticResidualInteractionBlock",
    "num_interactions": 2,
    "mlp_irreps": "16x0e",
    "avg_num_neighbors": 60.0,
    "correlation": (3, 3),
    "gate": "silu",
    # the first published models train their Bessel frequencies, which mace 0.3.16 makes buffers of
    "trained_buffers": ("radial_embedding.bessel_fn.bessel_weights",),
}
MP_0_LARGE = {
    **COMMON,
    "r_max": 6.0,
    "num_bessel": 10,
    "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
    "hidden_irreps": "128x0e+128x1o+128x2e",
}
OFF23_MEDIUM = {
    **COMMON,
    "r_max": 5.0,
    "num_bessel": 8,
    "interaction_cls_first": "RealAgnosticInteractionBlock",
    "hidden_irreps": "128x0e+128x1o",
}
ORGANIC = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)
# the reference code leaves the lower orders of the contraction out of its low-rank deltas, and trains them whole
PUBLISHED = {"name": "elora", "rank": 16, "exclude_roles": ["contraction_lower"]}
PRESET = yaml.safe_load((config_root() / "adapter" / "elora_paper.yaml").read_text(encoding="utf-8"))["adapter"]


def cut(shape: dict[str, Any], elements: tuple[int, ...], kept: tuple[int, ...]) -> Mace:
    return random_toy(MaceConfig(**shape, atomic_numbers=elements, atomic_energies_shape=(len(elements),)), 0).restricted_to(kept)


@pytest.fixture(scope="module")
def copper() -> Potential:
    return Potential(cut(MP_0_LARGE, (8, 13, 29, 79), (29,)))


@pytest.fixture(scope="module")
def organic() -> Potential:
    return Potential(cut(OFF23_MEDIUM, ORGANIC, (1, 6, 8)))


def count(potential: Potential, spec: dict[str, Any]) -> int:
    from adapters.method import create_method

    potential.adapters.add("counted", create_method(spec))
    try:
        return potential.adapters.trainable_count
    finally:
        potential.adapters.remove("counted")


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


def test_the_setting_linear_reaches_the_sparse_papers_share_of_off23_medium():
    """0.2318 of 1,428,376 parameters (10 elements): the o3.Linear layers."""
    potential = Potential(random_toy(MaceConfig(**OFF23_MEDIUM, atomic_numbers=ORGANIC, atomic_energies_shape=(10,)), 0))
    assert potential.coverage.trainable_count == 1_428_376
    layers = [block for block in potential.coverage.blocks if block.layer_type == "e3nn.o3._linear.Linear"]
    assert sum(block.numel for block in layers) == 331_152


def test_elora_by_default_reaches_every_matrix_of_a_mace_mp_0_medium_shape():
    shape = {**MP_0_LARGE, "hidden_irreps": "128x0e+128x1o"}
    potential = Potential(random_toy(MaceConfig(**shape, atomic_numbers=ORGANIC, atomic_energies_shape=(10,)), 0))
    potential.adapters.add("elora", "elora")
    reached = potential.adapters.get("elora").blocks
    assert {block.key for block in potential.coverage.blocks} - {block.key for block in reached} == {
        "network.radial_embedding.bessel_fn.bessel_weights/all"
    }
    assert potential.coverage.share(reached) > 0.9999  # all but the 10 Bessel frequencies
    assert {"linear", "tensor_product", "contraction", "contraction_lower", "radial", "embedding", "readout"} == {b.role for b in reached}
