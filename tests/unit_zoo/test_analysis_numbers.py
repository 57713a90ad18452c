"""The numbers of an analysis against ones worked out another way: known matrices, NumPy, and what the models themselves do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from adapters.blocks import WeightBlock
from adapters.method import create_method
from tests.direct_family import DirectToy, Settings
from tests.families import installed
from tests.unit_zoo.analysed_toys import toy, toys
from zoo.analysis import Analysis, analyse
from zoo.analysis.changes import BlockChange, Changes
from zoo.analysis.correlation import Moments
from zoo.analysis.species import rows_by_species
from zoo.analysis.spectra import singular_values, stable_rank_of
from zoo.analysis.treemap import Rectangle, squarified
from zoo.backbones.base import Backbone
from zoo.potential import Potential


def adapted(backbone: Backbone, spec: dict[str, object], random: bool = True) -> Potential:
    """The toy with one adapter, with random weights of a stated size where there are deltas."""
    potential = Potential(backbone)
    potential.adapters.add("one", create_method(spec))
    if random:
        potential.adapters.randomise("one", seed=3, relative=0.2)
    return potential


def delta_of(potential: Potential, block: WeightBlock) -> Tensor:
    """(stack, rows, cols), zero where the adapter changes nothing."""
    deltas = potential.adapters.get("one").deltas()
    zero = torch.zeros_like(potential.backbone.get_parameter(block.parameter))
    return block.view(deltas.get(block.parameter, zero)).detach()


def one_minus_r2(before: np.ndarray, after: np.ndarray) -> float:
    return float(1 - np.corrcoef(before.ravel(), after.ravel())[0, 1] ** 2)


@pytest.fixture
def sevennet() -> Backbone:
    return toy("sevennet")


# --- definitions --------------------------------------------------------------------------------------------------------------------


def test_the_rectangles_of_a_treemap_are_the_box_in_parts_of_the_given_sizes() -> None:
    sizes = [6.0, 1.0, 3.0, 6.0, 2.0, 4.0, 2.0, 0.001]
    box = Rectangle(1.0, 2.0, 6.0, 4.0)
    found = squarified(sizes, box)
    for rectangle, size in zip(found, sizes, strict=True):
        assert rectangle.area == pytest.approx(24 * size / sum(sizes), rel=1e-12)
        assert 1 - 1e-9 <= rectangle.x <= rectangle.x + rectangle.width <= 7 + 1e-9
        assert 2 - 1e-9 <= rectangle.y <= rectangle.y + rectangle.height <= 6 + 1e-9
    for one, other in itertools.combinations(found, 2):
        width = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
        height = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
        assert min(width, height) < 1e-9, (one, other)
    # the paper's example, whose worst rectangle has sides of 9 : 5 at most, without the sliver
    assert max(rectangle.aspect_ratio for rectangle in squarified(sizes[:-1], Rectangle(0, 0, 6, 4))) < 3.6
    assert squarified([], box) == []


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, 30.0])
def test_one_minus_r2_is_that_of_numpy_and_keeps_its_digits_where_little_changed(size: float) -> None:
    numbers = np.random.default_rng(0)
    before, change = numbers.normal(2.0, 1.5, 400), size * numbers.normal(0.3, 1.0, 400)
    found = Moments.of(torch.tensor(before), torch.tensor(change)).one_minus_r2
    wide = np.longdouble
    w, d = before.astype(wide) - before.astype(wide).mean(), change.astype(wide) - change.astype(wide).mean()
    exact = (d @ d - (w @ d) ** 2 / (w @ w)) / ((w + d) @ (w + d))
    assert found == pytest.approx(float(exact), rel=1e-12)
    if size >= 1e-3:
        assert found == pytest.approx(one_minus_r2(before, before + change), rel=1e-8)


def test_sums_over_parts_of_a_cell_are_those_of_the_whole() -> None:
    numbers = torch.Generator().manual_seed(1)
    before, change = torch.randn(2, 90, generator=numbers, dtype=torch.float64) + torch.linspace(0, 5, 90, dtype=torch.float64)
    whole = Moments.of(before, change)
    parts = Moments() + Moments.of(before[:7], change[:7]) + Moments.of(before[7:40], change[7:40]) + Moments.of(before[40:], change[40:])
    assert parts.one_minus_r2 == pytest.approx(whole.one_minus_r2, rel=1e-12)
    assert parts.change_over_variance == pytest.approx(whole.change_over_variance, rel=1e-12)
    assert whole.change_over_variance == pytest.approx(float((change**2).sum() / ((before - before.mean()) ** 2).sum()), rel=1e-12)
    assert parts.count == 90


def test_one_minus_r2_is_zero_without_change_blind_to_factors_and_undefined_for_equal_weights() -> None:
    weights = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert Moments.of(weights, None).one_minus_r2 == 0.0
    assert Moments.of(weights, torch.zeros_like(weights)).one_minus_r2 == 0.0
    assert Moments.of(weights, 0.5 * weights + 1).one_minus_r2 == pytest.approx(0, abs=1e-15)
    assert Moments.of(weights, 0.5 * weights + 1).change_over_variance > 0.1
    equal = torch.ones(3, dtype=torch.float64)
    assert Moments.of(equal, weights).one_minus_r2 is None
    assert Moments.of(weights, 5 - weights).one_minus_r2 is None
    assert Moments.of(equal, None).one_minus_r2 == 0.0


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (torch.diag(torch.tensor([3.0, 2.0, 1.0])), 14 / 9),
        (torch.eye(5), 5.0),
        (torch.outer(torch.arange(1.0, 5), torch.arange(2.0, 9)), 1.0),
        (torch.zeros(3, 4), 0.0),
    ],
    ids=["diagonal", "identity", "outer product", "zero"],
)
def test_the_stable_rank_of_known_matrices(matrix: Tensor, expected: float) -> None:
    block = WeightBlock("w", "w", "linear", "", 1, *matrix.shape, 0, (matrix.numel(), matrix.shape[1], 1))
    delta = matrix.double()[None]
    assert stable_rank_of(singular_values(BlockChange(block, delta, delta, None), delta)) == pytest.approx(expected, abs=1e-12)


def test_singular_values_of_a_product_are_those_of_the_matrix_it_makes() -> None:
    numbers = torch.Generator().manual_seed(2)
    left, right = torch.randn(2, 9, 3, generator=numbers).double(), torch.randn(2, 3, 12, generator=numbers).double()
    delta = left @ right
    block = WeightBlock("w", "w", "linear", "", 2, 9, 12, 0, (108, 12, 1))
    found = singular_values(BlockChange(block, delta, delta, (left, right)), delta)
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found.numpy(), np.linalg.svd(delta.numpy(), compute_uv=False)[:, :3], rtol=1e-12)


# --- tables -------------------------------------------------------------------------------------------------------------------------


def assert_counts_and_norms_add_up(potential: Potential, found: Analysis) -> None:
    adapter, coverage = potential.adapters.get("one"), potential.coverage
    assert sum(row.weights for row in found.coverage) == coverage.parameter_count
    assert sum(row.trained for row in found.coverage) == adapter.trainable_count
    assert sum(row.weights for row in found.r2_paths) == coverage.trainable_count
    adapted_count = sum(block.numel for block in adapter.blocks)
    assert sum(row.weights for row in found.coverage if row.status == "adapted") == adapted_count
    assert sum(row.adapted for row in found.sparsity) == sum(row.weights for row in found.irreps) == adapted_count
    of_elements = [block for block in coverage.blocks if rows_by_species(block, potential.backbone)]
    known = len(potential.backbone.elements) / len(potential.backbone.species_order)
    assert sum(row.weights for row in found.r2_species) == pytest.approx(known * sum(block.numel for block in of_elements))
    total = sum(float(delta.detach().square().sum()) for delta in adapter.deltas().values())
    assert total > 0
    assert sum(row.delta_norm**2 for row in found.irreps) == pytest.approx(total, rel=1e-12)
    bases = sum(float(block.view(potential.backbone.get_parameter(block.parameter)).square().sum()) for block in adapter.blocks)
    assert sum(row.base_norm**2 for row in found.irreps) == pytest.approx(bases, rel=1e-12)


def assert_ranks_are_numpys(potential: Potential, found: Analysis) -> None:
    rows = {(row.parameter, row.block): row for row in found.stable_rank}
    for block in potential.adapters.get("one").blocks:
        if block.structure != "matrix":
            assert (block.parameter, block.label) not in rows
            continue
        matrices = delta_of(potential, block).numpy()
        values = np.linalg.svd(matrices, compute_uv=False)
        expected = np.mean([np.linalg.norm(matrix) ** 2 / np.linalg.norm(matrix, 2) ** 2 for matrix in matrices])
        row = rows.pop((block.parameter, block.label))
        assert row.stable_rank == pytest.approx(expected, rel=1e-10)
        assert row.rank == max(np.linalg.matrix_rank(matrix) for matrix in matrices)
        assert row.spectral_norm == pytest.approx(values.max(), rel=1e-10)
        listed = [one.singular_value for one in found.singular_values if (one.parameter, one.block) == (block.parameter, block.label)]
        kept = len(listed) // block.stack
        np.testing.assert_allclose(np.reshape(listed, (block.stack, kept)), values[:, :kept], rtol=1e-8, atol=1e-12)
        assert values[:, kept:].max(initial=0) < 1e-12 * values.max()
    assert not rows


@pytest.mark.parametrize(("name", "variant"), toys())
def test_the_tables_of_every_family_add_up_and_are_numpys(name: str, variant: str) -> None:
    spec = {"name": "elora", "rank": 2, **({"extra_trainable": ["*bias"]} if name == "uma" else {})}
    potential = adapted(toy(name, variant), spec)
    found = analyse(potential)
    assert_counts_and_norms_add_up(potential, found)
    assert_ranks_are_numpys(potential, found)
    assert found.notes == ()
    assert all(row.one_minus_r2 is None or 0 <= row.one_minus_r2 <= 1 for row in (*found.r2_paths, *found.r2_species))
    assert any(row.one_minus_r2 for row in found.r2_species)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "elora", "rank": 2, "magnitude": True},
        {"name": "elora", "rank": 3, "alpha": 5.0, "ranks": {"readout": 1}},
        {"name": "full"},
        {"name": "sparse", "setting": "every"},
        {"name": "lora-mace"},
        {"name": "freeze", "up_to": 1},
    ],
    ids=str,
)
def test_the_tables_of_every_kind_of_delta_add_up_and_are_numpys(spec: dict[str, object], sevennet: Backbone) -> None:
    potential = adapted(sevennet, spec)
    found = analyse(potential)
    assert_counts_and_norms_add_up(potential, found)
    assert_ranks_are_numpys(potential, found)


@pytest.mark.parametrize("name", installed("sevennet", "mace"))
def test_one_minus_r2_of_an_element_is_that_of_its_slice_of_the_weights(name: str) -> None:
    """The slices by the packages' own shapes: (in, elements, out) of a tensor product, (elements, paths, channels) of a contraction."""
    backbone = toy(name)
    potential = adapted(backbone, {"name": "full"})
    deltas = potential.adapters.get("one").deltas()
    cell: tuple[int, str, str]
    if name == "sevennet":
        parameter, shape, axis = "network.0_self_connection_intro.fc_tensor_product.weight", (8, 5, 12), 1
        cell = (1, "tensor_product", "s")
    else:
        parameter, shape, axis = "network.products.0.symmetric_contractions.contractions.1.weights_max", (5, 4, 4), 0
        cell = (1, "contraction", "p")
    before = backbone.get_parameter(parameter).detach().reshape(shape).numpy()
    after = before + deltas[parameter].detach().reshape(shape).numpy()
    found = {row.species: row for row in analyse(potential).r2_species if (row.layer, row.role, row.channel) == cell}
    assert list(found) == ["H", "C", "O", "Cu", "Au"]
    for place, symbol in enumerate(found):
        expected = one_minus_r2(before.take(place, axis), after.take(place, axis))
        assert found[symbol].one_minus_r2 == pytest.approx(expected, rel=1e-6)
        assert found[symbol].weights == before.take(place, axis).size


def test_what_an_adapter_does_not_reach_is_unchanged_to_the_digit(sevennet: Backbone) -> None:
    found = analyse(adapted(sevennet, {"name": "elora", "rank": 2, "roles": ["readout"]}))
    assert {row.role for row in found.r2_paths if row.one_minus_r2 != 0} == {"readout"}
    assert {row.one_minus_r2 for row in found.r2_species} == {0.0}
    assert {row.status for row in found.coverage if row.role == "linear"} == {"not adapted"}
    assert {row.role for row in found.irreps} == {"readout"}


@pytest.mark.parametrize("form", ["str", "printed"])
def test_zeros_and_thresholds_are_those_that_the_sparse_method_reports(form: str, sevennet: Backbone) -> None:
    potential = adapted(sevennet, {"name": "sparse", "setting": "every", "form": form, "threshold_start": 0.01}, random=False)
    adapter = potential.adapters.get("one")
    report, found = adapter.method.report(adapter), analyse(potential).sparsity
    zeros, count = sum(row.zeros for row in found), sum(row.adapted for row in found)
    assert 0.5 < zeros / count < 0.9
    assert zeros / count == pytest.approx(report["sparsity_layerwise"], abs=1e-12)
    assert 1 - (count - zeros) / potential.coverage.trainable_count == pytest.approx(report["sparsity_total"], abs=1e-12)
    assert all(row.threshold == pytest.approx(0.01) for row in found)
    dense = analyse(adapted(toy("sevennet"), {"name": "full"})).sparsity
    assert {(row.sparsity, row.threshold) for row in dense} == {(0.0, None)}


def test_a_scaled_adapter_is_analysed_as_it_acts(sevennet: Backbone) -> None:
    potential = adapted(sevennet, {"name": "elora", "rank": 2})
    whole = analyse(potential)
    potential.adapters.scale("one", -0.5)
    half = analyse(potential)
    for one, other in zip(whole.irreps, half.irreps, strict=True):
        assert other.delta_norm == pytest.approx(0.5 * one.delta_norm, rel=1e-12)
    for value, other_value in zip(whole.singular_values, half.singular_values, strict=True):
        assert other_value.singular_value == pytest.approx(0.5 * value.singular_value, rel=1e-12)


def test_a_model_without_weights_of_single_elements_says_so() -> None:
    found = analyse(adapted(DirectToy(Settings()), {"name": "full"}))
    assert found.r2_species == ()
    assert found.r2_paths
    assert found.notes == ("no weights belong to single elements: 1 - R^2 is by path alone",)


def test_a_method_on_activations_has_a_coverage_and_a_note(sevennet: Backbone) -> None:
    potential = adapted(sevennet, {"name": "mmea"})
    found = analyse(potential)
    assert len(found.notes) == 1
    assert "instead of their weights" in found.notes[0]
    assert (found.r2_paths, found.stable_rank, found.irreps, found.sparsity) == ((), (), (), ())
    assert sum(row.trained for row in found.coverage) == potential.adapters.get("one").trainable_count
    assert {row.status for row in found.coverage} == {"output adapted", "not adapted", "not adaptable"}


def test_a_method_on_activations_and_weights_has_tables_of_the_weights(sevennet: Backbone) -> None:
    potential = adapted(sevennet, {"name": "mmea", "rank": 2, "elsewhere": "elora", "elsewhere_rank": 2})
    found = analyse(potential)
    assert len(found.notes) == 1
    assert {row.status for row in found.coverage} >= {"output adapted", "adapted"}
    reached = {(row.parameter, row.block) for row in found.coverage if row.status == "adapted"}
    assert {(row.parameter, row.block) for row in found.stable_rank} <= reached
    assert sum(row.adapted for row in found.sparsity) == sum(row.weights for row in found.coverage if row.status == "adapted") > 0


def test_which_adapter_is_meant_has_to_be_clear(sevennet: Backbone) -> None:
    potential = adapted(sevennet, {"name": "full"})
    potential.adapters.add("two", "elora")
    with pytest.raises(ValueError, match="active adapters: one, two, wanted one to analyse"):
        analyse(potential)
    assert analyse(potential, "two").title.startswith("elora")
    potential.adapters.deactivate()
    with pytest.raises(ValueError, match="active adapters: none"):
        analyse(potential)
    potential.adapters.activate(["one"])
    potential.adapters.merge()
    with pytest.raises(ValueError, match="merged into the weights"):
        Changes(potential)
    potential.adapters.unmerge()
