"""What every registered backbone family promises by itself, on each of its toys: the claims of `zoo.testing`, one test each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo
from adapters.state import base_fingerprint
from zoo.backbones import family_of_checkpoint, load_family
from zoo.potential import Potential
from zoo.testing import BACKBONE_CLAIMS, FAMILY_CLAIMS
from zoo.testing.backbone_claims import (
    check_batching,
    check_coverage,
    check_dropout,
    check_elements,
    check_force_modes,
    check_graph_recipe,
    check_outputs,
    check_smoothness,
    check_symmetries,
    check_toy,
    check_weights_matter,
)
from zoo.testing.backbone_files import check_checkpoint, check_family, check_merged_checkpoint, check_random_weights, check_rebuilt


def test_every_claim_of_the_kit_has_a_test_of_its_own_here():
    asked = {value for name, value in globals().items() if name.startswith("check_")}
    assert asked - {check_toy, check_family} == {*BACKBONE_CLAIMS.values(), *FAMILY_CLAIMS.values()}


def test_the_toy_is_small_and_in_float64_and_its_seed_alone_decides_the_weights(toy, backbone):
    assert int(check_toy(toy.build).note.removesuffix(" weights").replace(",", "")) == sum(p.numel() for p in backbone.parameters())
    family = load_family(toy.family)
    assert str(check_family(family, lambda seed: backbone)) == ", ".join(family.formats)
    assert toy.family == family.name


def test_every_parameter_is_in_one_block_or_has_a_reason(potential):
    assert 0.9 < check_coverage(potential).value <= 1


def test_every_symmetry_claimed_and_the_derivatives_hold(potential, frames):
    assert check_symmetries(potential, frames).value < max(1e-10, potential.backbone.aliasing_floor)


def test_the_outputs_are_those_that_the_backbone_declares(backbone, potential, frames):
    assert (str(check_outputs(potential, frames)) == "energy") == backbone.conservative


def test_forces_are_had_in_the_ways_that_the_backbone_declares_and_in_no_other(backbone, potential, frames):
    assert str(check_force_modes(potential, frames)) == " and ".join(backbone.force_modes)
    assert potential.forces == backbone.force_modes[0]


def test_graphs_are_made_by_one_recipe_and_the_order_of_edges_means_nothing(potential, frames):
    assert check_graph_recipe(potential, frames).value < 1e-11


def test_what_is_left_out_at_random_is_declared_and_can_be_set_and_only_while_training(backbone, potential, frames):
    assert str(check_dropout(potential, frames)) == (", ".join(backbone.dropout_rates.given) or "0")


def test_a_structure_is_predicted_the_same_alone_and_in_any_batch(potential, frames):
    assert check_batching(potential, frames).value < 1e-12


def test_every_known_element_has_an_energy_of_its_own(potential):
    assert check_elements(potential).note == f"{len(potential.backbone.elements)} elements"


def test_the_energy_is_smooth_where_a_neighbour_crosses_the_cutoff_or_the_backbone_says_that_it_jumps(potential):
    assert (check_smoothness(potential).value < 1e-9) == potential.backbone.smooth_cutoff


def test_the_weights_reach_the_outputs_one_and_all(potential, frames):
    reached, _, total = check_weights_matter(potential, frames).note.partition(" of ")
    assert reached == total or potential.backbone.idle_weights


def test_the_familys_own_checkpoint_is_recognised_and_read_back(toy, potential, frames, checkpoint):
    assert check_checkpoint(load_family(toy.family), potential, frames).value < 1e-5
    assert family_of_checkpoint(checkpoint).name == toy.family
    found = zoo.load(checkpoint, head=potential.backbone.head)
    assert found.dtype in (torch.float32, torch.float64)  # the file's: one for all, or the model's own
    assert found.source == str(checkpoint)
    assert found.coverage.table() == potential.coverage.table()
    assert found.base_sha256 == potential.base_sha256  # of values as float32: the same for the float64 original
    for one, other in zip(found.predict(frames), potential.predict(frames), strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-5)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-6)


def test_a_merged_adapter_and_reference_energies_go_into_the_familys_checkpoint(toy, potential, frames):
    assert check_merged_checkpoint(load_family(toy.family), potential, frames).value < 1e-5


def test_an_adapter_file_applied_by_zoo_load_predicts_the_same_bits(twin, frames, checkpoint, tmp_path):
    adapted = Potential(twin)
    adapted.adapters.add("elora", "elora")
    adapted.adapters.randomise("elora", seed=1)
    path = adapted.save_adapter("elora", tmp_path / "adapter.safetensors")
    again = zoo.load(checkpoint, adapter=path, dtype="float64")  # the head comes with the adapter
    for one, other in zip(again.predict(frames), adapted.predict(frames), strict=True):
        assert one.energy == other.energy
        assert np.array_equal(one.forces, other.forces)


def test_constants_of_a_float64_twin_are_computed_in_float64(potential, frames):
    """The rotation error after float32 -> float64 stays at float64's rounding, where a cast would leave 1e-8."""
    assert check_rebuilt(potential, frames).value < max(1e-10, potential.backbone.aliasing_floor)


def test_weights_none_draws_every_trainable_weight_and_keeps_the_statistics(toy, potential, single, checkpoint):
    drawn, _, total = check_random_weights(load_family(toy.family), potential).note.partition(" of ")
    assert 0 < int(drawn) <= int(total)
    loaded = zoo.load(checkpoint, weights=None, head=single.head)
    assert loaded.base_sha256 not in (potential.base_sha256, base_fingerprint(single))
    before = dict(single.named_parameters())
    for name, parameter in loaded.backbone.named_parameters():
        assert name not in loaded.coverage.not_adaptable or torch.equal(parameter, before[name]), name
