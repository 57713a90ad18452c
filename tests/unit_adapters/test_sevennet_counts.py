"""Exact counts on SevenNet-0, whose weights ship in the sevenn wheel (FACTS of the papers' rules: ELoRA counts on simplified irreps)."""

from __future__ import annotations

import pytest
import torch

from adapters.blocks import Coverage, find_blocks
from adapters.method import create_method
from adapters.stack import AdapterStack

ROLES = {"*onehot_to_feature_x*": "embedding", "*reduce_*": "readout"}


@pytest.fixture(scope="module")
def sevennet() -> tuple[torch.nn.Module, Coverage]:
    from sevenn.util import load_checkpoint

    model = load_checkpoint("7net-0").build_model()
    return model, find_blocks(model, ROLES)


def test_all_842440_trainable_parameters_are_in_blocks(sevennet):
    model, coverage = sevennet
    assert coverage.trainable_count == 842_440
    assert len({block.parameter for block in coverage.blocks}) == 34
    assert coverage.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    assert set(coverage.not_adaptable.values()) == {"frozen by the base (requires_grad=False)"}
    assert coverage.roles == ("embedding", "linear", "radial", "radial_basis", "readout")
    assert sum(block.structure == "matrix" for block in coverage.blocks) == 55


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ({"name": "full"}, 842_440),
        ({"name": "readout"}, 8_256),
        ({"name": "elora", "rank": 16}, 231_456),
        ({"name": "elora", "rank": 4}, 57_864),
        ({"name": "elora", "rank": 16, "dense_substitution": "when_smaller"}, 227_280),
        ({"name": "elora", "rank": 4, "dense_substitution": "when_smaller"}, 57_668),
        ({"name": "elora", "rank": 16, "extra_trainable": ["*basis_function.coeffs"]}, 231_456 + 8),
        ({"name": "sparse"}, 596_160 + 18),  # every o3.Linear, 70.8 % of the weights, and a threshold for each
        ({"name": "sparse", "setting": "every"}, 842_440 + 34),
    ],
)
def test_trainable_counts_are_the_published_ones(sevennet, spec, count):
    stack = AdapterStack(*sevennet)
    stack.add("a", create_method(spec))
    assert stack.trainable_count == count
    assert sum(parameter.numel() for parameter in stack.parameters()) == count


def test_the_file_of_a_rank_4_adapter_has_less_than_300_kb(tmp_path):
    """What `zoo.load("sevennet-0")` saves, manifest and block table included."""
    import zoo

    potential = zoo.load("sevennet-0", adapter={"name": "elora", "rank": 4})
    potential.adapters.randomise("elora", 0)
    size = potential.save_adapter("elora", tmp_path / "adapter.safetensors").stat().st_size
    numbers = 4 * potential.adapters.trainable_count
    assert numbers == 4 * 57_864
    assert numbers < size < 300_000
