"""Which irrep and which element weights belong to, against what the models do when these weights change."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms

from adapters.blocks import find_blocks
from tests.families import needs, skip_without
from tests.unit_zoo.analysed_toys import toy, toys
from zoo.analysis.channels import Channel, parts_of
from zoo.analysis.species import rows_by_species
from zoo.backbones.base import Backbone
from zoo.backbones.equiformer_v2.coefficients import Coefficients
from zoo.backbones.equiformer_v2.so2 import SO2Convolution
from zoo.data.frame import Frame
from zoo.graph import AtomGraph, collate
from zoo.potential import Potential


def energy(backbone: Backbone, symbols: str) -> float:
    positions = [[0.0, 0.0, 0.0], [1.1, 0.2, 0.1], [-0.3, 1.2, 0.4]]
    graph = AtomGraph.from_frame(Frame.unlabelled(Atoms(symbols, positions)), backbone.graph_recipe)
    with torch.no_grad():
        return float(backbone(collate([graph]))["energy"])


@pytest.mark.parametrize(("name", "variant"), toys())
def test_weights_of_an_element_change_only_structures_that_hold_it(name: str, variant: str) -> None:
    backbone = toy(name, variant)
    water, oxide = energy(backbone, "OHH"), energy(backbone, "OCuCu")
    blocks = [block for block in Potential(backbone).coverage.blocks if rows_by_species(block, backbone)]
    assert blocks
    moved = 0
    for block in blocks:
        rows = rows_by_species(block, backbone)
        assert list(rows) == sorted(backbone.elements)
        assert len({int(row) for one in rows.values() for row in one}) == sum(map(len, rows.values()))
        weights = block.view(backbone.get_parameter(block.parameter).detach())
        saved = weights.clone()
        weights[:, rows[29]] *= 1.5
        assert energy(backbone, "OHH") == pytest.approx(water, rel=1e-13), block.key
        moved += energy(backbone, "OCuCu") != pytest.approx(oxide, rel=1e-10)
        weights.copy_(saved)
    assert moved >= 0.5 * len(blocks)  # what belongs to copper matters where there is copper, but for weights of outputs no energy reads


@skip_without("nequip")
def test_weights_behind_an_embedding_belong_to_no_element() -> None:
    backbone = toy("nequip")
    blocks = Potential(backbone).coverage.blocks
    assert {block.role for block in blocks if rows_by_species(block, backbone)} == {"embedding"}
    assert any(block.role == "tensor_product" for block in blocks)


def test_parts_of_an_so2_convolution_are_the_degrees_and_orders_that_they_make() -> None:
    torch.manual_seed(0)
    coefficients = Coefficients(3, 2)
    convolution = SO2Convolution(coefficients, in_channels=4, out_channels=5, extra_scalars=3).double()
    counts = coefficients.degree_counts  # of m = 0, 1, 2
    features = torch.randn(2, sum(counts) + sum(counts[1:]), 4, dtype=torch.float64)
    # the output's coefficients: those of m = 0 by degree, then +1, -1, +2, -2
    made = [(order + place, order) for order, count in enumerate(counts) for _ in range(2 if order else 1) for place in range(count)]
    model = torch.nn.Module()
    model.layer = convolution
    blocks = [block for block in find_blocks(model).blocks if block.role == "so2"]
    before = convolution(features)
    seen = set()
    for block in blocks:
        for part in parts_of(block, model):
            weights = block.view(model.get_parameter(block.parameter).detach())
            saved = weights.clone()
            for columns in part.of(weights):
                columns.add_(torch.randn(columns.shape, dtype=torch.float64))
            after = convolution(features)
            weights.copy_(saved)
            changed = {made[row] for row in range(len(made)) if not torch.equal(after.coefficients[:, row], before.coefficients[:, row])}
            assert changed == {(part.channel.degree, part.channel.order)}
            assert torch.equal(after.scalars, before.scalars) == (part.channel != Channel(0, order=0))
            seen |= changed
    assert seen == set(made)


@pytest.mark.parametrize(("name", "variant"), toys())
def test_every_output_of_every_block_is_in_one_part(name: str, variant: str) -> None:
    backbone = toy(name, variant)
    for block in Potential(backbone).coverage.blocks:
        counts = torch.zeros(block.cols)
        for part in parts_of(block, backbone):
            for columns in part.of(counts):
                columns.add_(1)
        assert bool((counts == 1).all()), block.key


@pytest.mark.parametrize(
    ("name", "irreps"),
    [
        ("mace", {"0e", "1o", "2e", "none"}),
        ("sevennet", {"0e", "1e", "none"}),
        ("equiformer_v2", {"l=0", "l=1", "l=2", "l=0 m=0", "l=1 m=0", "l=2 m=0", "l=1 m=1", "l=2 m=1", "none"}),
        ("uma", {"l=0", "l=1", "l=2", "l=0 m=0", "l=1 m=0", "l=2 m=0", "l=1 m=1", "l=2 m=1", "none"}),
    ],
)
def test_the_irreps_that_a_family_has(name: str, irreps: set[str]) -> None:
    needs(name)
    backbone = toy(name)
    assert {part.channel.irrep for block in Potential(backbone).coverage.blocks for part in parts_of(block, backbone)} == irreps
