"""What `docs/architecture.md` promises of every backbone with every adapter method, in float64, errors relative to their scale.

The claims are those of `zoo.testing`, one test each; a method whose kind of weight a network does not have must say so.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ase.data import chemical_symbols

import zoo
from adapters.method import create_method
from adapters.state import load_into, read_adapter
from tests.refusals import refusal_of
from zoo.data.frame import Frame
from zoo.potential import Potential
from zoo.testing import METHOD_CLAIMS, Toy, attached
from zoo.testing.measures import bits, relative_difference
from zoo.testing.method_claims import (
    check_combination,
    check_config,
    check_counts,
    check_detaching,
    check_file,
    check_merging,
    check_precisions,
    check_shared_tensors,
    check_start,
    check_start_in_training,
)
from zoo.testing.method_symmetry import check_planted_fault, check_symmetry
from zoo.testing.method_training import check_gradients, check_learning, check_training_step
from zoo.testing.trial import NAME, has_weights_for, method_frames


@pytest.fixture
def frames(potential: Potential) -> list[Frame]:
    """A molecule and a sheared crystal: on which directions repeat no method depends."""
    return method_frames(potential)


@pytest.fixture(autouse=True)
def there_is_something_to_adapt(request: pytest.FixtureRequest) -> None:
    """A method whose kind of weight a network does not have says so; then nothing else is to be asked of the two."""
    if not {"spec", "toy"} <= set(request.fixturenames):
        return
    toy, spec, potential = (request.getfixturevalue(name) for name in ("toy", "spec", "potential"))
    method = create_method(spec)
    if not has_weights_for(method, potential.coverage):
        assert "select none of the model's" in refusal_of(potential.adapters.add, spec["name"], method)
        pytest.skip(f"{toy} has no weights for {spec['name']}, which refused")


def test_every_claim_of_the_kit_has_a_test_of_its_own_here():
    asked = {value for name, value in globals().items() if name.startswith("check_")}
    assert asked == set(METHOD_CLAIMS.values())


def test_an_untrained_adapter_is_the_base_bit_for_bit_or_says_that_it_is_not(potential, frames, spec):
    assert (check_start(potential, spec, frames).value == 0) == create_method(spec).starts_at_base


def test_an_untrained_adapter_in_training_mode_gives_the_bases_numbers_too(potential, frames, spec):
    assert (check_start_in_training(potential, spec, frames).value < 1e-13) == create_method(spec).starts_at_base


def test_random_adapters_are_large_and_equivariant_unless_they_say_that_they_are_not(potential, frames, spec):
    residual = check_symmetry(potential, spec, frames).value
    if potential.backbone.aliasing_floor == 0:
        assert (residual < 1e-10) == create_method(spec).equivariant
        assert create_method(spec).equivariant or residual > 1e-4


def test_a_delta_that_breaks_the_symmetry_by_a_millionth_is_caught(potential, frames, spec):
    assert check_planted_fault(potential, spec, frames).value > 1e-9


def test_merged_equals_unmerged_or_is_refused(potential, frames, spec):
    found = check_merging(potential, spec, frames)
    assert found.value < 1e-12 if create_method(spec).mergeable else str(found) == "refused"


def test_deactivating_unmerging_and_deleting_restore_every_bit(potential, frames, spec):
    assert check_detaching(potential, spec, frames).value == 0


def test_a_saved_adapter_attached_again_predicts_the_same_bits(potential, frames, spec):
    assert check_file(potential, spec, frames).value == 0


def test_zoo_load_takes_the_file_with_its_reference_energies_and_its_level_of_theory(
    toy: Toy, potential: Potential, frames: list[Frame], spec: dict[str, Any], checkpoint, tmp_path
):
    symbol = chemical_symbols[int(frames[0].atomic_numbers[0])]
    with attached(potential, spec):
        potential.set_reference_shifts({int(frames[0].atomic_numbers[0]): 0.25})
        potential.level_of_theory = "a test's"
        path = potential.save_adapter(NAME, tmp_path / "adapter.safetensors")
        manifest = read_adapter(path)[0]
        assert (manifest.base_family, manifest.reference_energies) == (toy.family, {symbol: 0.25})
        expected = potential.predict(frames)
        potential.adapters.delete(NAME)
        load_into(potential.adapters, NAME, *read_adapter(path))
        assert bits(potential.predict(frames)) == bits(expected)
    in_float32 = zoo.load(checkpoint, adapter=str(path), dtype="float32")  # head, energies and level of theory come with the file
    assert in_float32.level_of_theory == "a test's"
    assert in_float32.dtype == torch.float32
    assert 0 < relative_difference(in_float32.predict(frames), expected) < 1e-3


def test_only_declared_tensors_get_a_gradient_and_move(potential, frames, spec):
    moved, _, declared = check_training_step(potential, spec, frames).note.partition(" of ")
    assert 0 < int(moved) <= int(declared)
    assert moved == declared or potential.backbone.idle_weights


def test_training_from_the_start_lowers_the_loss(potential, frames, spec):
    assert 0 < check_learning(potential, spec, frames).value < 1


def test_gradients_are_those_of_the_loss(potential, frames, spec):
    """Directional derivative against a central difference, in each way to forces: the double backward reaches the adapter correctly."""
    # the paper's gradient of the threshold (Eqs. 2, 3) and the straight-through one are not the derivative, by design
    by_design = spec.get("form") == "printed" or spec.get("start") == "base"
    assert (check_gradients(potential, spec, frames).value < 1e-5) != by_design


def test_the_copy_in_another_precision_agrees(potential, frames, spec):
    assert 0 < check_precisions(potential, spec, frames).value < 1e-3


def test_the_count_is_what_trains_and_lies_within_the_coverage(potential, spec):
    assert 0 < check_counts(potential, spec).value <= 1


def test_a_tensor_at_two_places_has_one_delta_that_both_see(potential, frames, spec):
    assert check_shared_tensors(potential, spec, frames).value == 0


def test_two_adapters_of_one_method_combine_exactly_or_are_refused(potential, frames, spec):
    found = check_combination(potential, spec, frames)
    assert found.value < 1e-12 if create_method(spec).mergeable else str(found) == "refused"


def test_the_settings_of_a_method_are_plain_and_give_it_back(spec):
    assert check_config(Potential(Toy("direct_toy").build(0)), spec).value == 0
