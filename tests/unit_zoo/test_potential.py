"""Potential: energies, forces and stress of anything from a lone atom to a crystal, alone and in batches."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from tests.refusals import refusal_of
from zoo.backbones import load_family
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.graph import collate
from zoo.potential import Potential


@pytest.fixture
def potential() -> Potential:
    return Potential(load_family("sevennet").toy(0))


def rattled(atoms: Atoms) -> Atoms:
    atoms.positions += 0.1 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    return atoms


def structures() -> list[Atoms]:
    return [
        Atoms("Cu"),
        rattled(molecule("CH3OH")),
        rattled(fcc111("Cu", (1, 1, 3), vacuum=6.0)),
        rattled(bulk("CuAu", "rocksalt", a=5.2)),
        Atoms("Au", cell=[2.9, 2.9, 2.9], pbc=True),
    ]


def test_stress_is_given_exactly_where_a_structure_is_periodic_in_all_three_directions(potential):
    predictions = potential.predict(structures())
    assert [p.stress is not None for p in predictions] == [False, False, False, True, True]
    batch = collate([potential.graph(atoms) for atoms in structures()])
    stress = potential(batch)["stress"]
    assert torch.isnan(stress).all(dim=(1, 2)).tolist() == [True, True, True, False, False]
    assert torch.isfinite(stress[3:]).all()
    assert torch.equal(stress[3], stress[3].T)


def test_a_cell_far_from_periodic_gives_no_nan_gradients_to_the_adapters(potential):
    potential.adapters.add("full", "full")
    potential.train()
    results = potential(collate([potential.graph(atoms) for atoms in structures()]))
    finite = results["stress"][~torch.isnan(results["stress"])]
    (finite.square().sum() + results["forces"].square().sum()).backward()
    gradients = [p.grad for p in potential.adapters.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert max(float(g.abs().max()) for g in gradients) > 0


def test_inference_mode_changes_no_prediction_and_a_graph_built_under_it_is_one_line(potential):
    expected = potential.predict(structures())
    with torch.inference_mode():
        found = potential.predict(structures())
        graph = collate([potential.graph(atoms) for atoms in structures()])
        with pytest.raises(ZooError, match=r"built under torch.inference_mode.*torch.no_grad"):
            potential(graph)
    for one, other in zip(found, expected, strict=True):
        assert one.energy == other.energy
        assert np.array_equal(one.forces, other.forces)


def test_an_isolated_atom_has_an_energy_and_no_forces_alone_and_beside_others(potential):
    alone = potential.predict([Atoms("Cu")])[0]
    assert np.isfinite(alone.energy)
    assert abs(alone.energy) > 0.1
    assert np.array_equal(alone.forces, np.zeros((1, 3)))
    beside = potential.predict([rattled(molecule("H2O")), Atoms("Cu"), Atoms("Au")])
    assert beside[1].energy == pytest.approx(alone.energy, abs=1e-12)
    assert np.array_equal(beside[1].forces, np.zeros((1, 3)))
    assert potential.predict([Atoms("Cu"), Atoms("H")])[1].forces.shape == (1, 3)  # a batch without any edge


def test_two_molecules_far_apart_have_the_sum_of_their_energies(potential):
    one, other = rattled(molecule("H2O")), rattled(molecule("CO"))
    far = other.copy()
    far.positions += 60.0
    together, *apart = potential.predict([one + far, one, other])
    assert together.energy == pytest.approx(sum(p.energy for p in apart), abs=1e-12)
    np.testing.assert_allclose(together.forces, np.concatenate([p.forces for p in apart]), atol=1e-13)


def test_results_are_float64_whatever_the_network_computes_in(potential):
    single = potential.to_dtype(torch.float32)
    single.set_reference_shifts({29: -9391.123456789})
    results = single(single.graph(Atoms("Cu")))
    assert {value.dtype for value in results.values()} == {torch.float64}
    bare = float(potential.to_dtype(torch.float32)(single.graph(Atoms("Cu")))["energy"])
    assert float(results["energy"]) - bare == pytest.approx(-9391.123456789, abs=1e-9)  # float32 would lose half a meV


def test_outside_training_nothing_carries_a_graph_and_no_grad_does_not_matter(potential):
    graph = potential.graph(rattled(molecule("H2O")))
    for context in (torch.enable_grad(), torch.no_grad()):
        with context:
            results = potential(graph)
        assert not any(value.requires_grad for value in results.values())
        assert results["forces"].abs().max() > 0
    potential.adapters.add("full", "full")
    potential.train()
    with torch.no_grad():
        trained = potential(graph)
    assert trained["forces"].abs().max() > 0


def test_stress_can_be_left_out(potential):
    graph = potential.graph(bulk("Cu", a=3.7))
    assert "stress" in potential(graph)
    without = potential(graph, stress=False)
    assert set(without) == {"energy", "forces"}
    assert torch.equal(without["energy"], potential(graph)["energy"])


def test_predict_keeps_the_order_in_any_batch_size_and_the_mode(potential):
    images = structures() * 2
    expected = [potential.predict([atoms])[0].energy for atoms in images]
    for batch_size in (1, 3, 64):
        found = [p.energy for p in potential.predict(images, batch_size=batch_size)]
        assert found == pytest.approx(expected, abs=1e-12)
    assert potential.predict([]) == []
    assert not potential.training
    potential.train()
    potential.predict(images[:1])
    assert potential.training


def test_the_mode_is_restored_when_a_structure_is_refused(potential):
    potential.train()
    with pytest.raises(ZooError):
        potential.predict([Atoms("Po")])
    assert potential.training


def test_prediction_leaves_structures_and_labels_alone(potential):
    frame = Frame.unlabelled(rattled(molecule("H2O")))
    before = frame.positions.copy()
    potential.predict([frame])
    assert np.array_equal(frame.positions, before)
    graph = potential.graph(frame)
    potential(graph)
    assert torch.equal(graph.positions, torch.from_numpy(before))
    assert not graph.positions.requires_grad


def test_an_unknown_element_is_one_line(potential):
    structures = [Atoms("H"), Atoms("HPoTs", [[0, 0, 0], [1, 0, 0], [2, 0, 0]])]
    assert re.search(r"has Po, Ts, which .* does not know", refusal_of(potential.predict, structures))


@pytest.mark.parametrize("quantity", ["energy", "forces"])
def test_a_prediction_that_is_not_a_number_is_refused_by_name(quantity, potential, monkeypatch):
    whole = Potential.forward

    def spoilt(self, graph, **settings):
        results = whole(self, graph, **settings)
        results[quantity][-1] = float("nan")
        return results

    monkeypatch.setattr(Potential, "forward", spoilt)
    named = Frame.unlabelled(molecule("H2O"), source="md.xyz", frame_id=7)
    with pytest.raises(ZooError, match=f"md.xyz: frame 7: the predicted {quantity}"):
        potential.predict([molecule("CH4"), named])
    with pytest.raises(ZooError, match=f"structure 2: the predicted {quantity}"):
        potential.predict([molecule("CH4"), molecule("H2O"), molecule("CO")], batch_size=3)


def test_reference_shifts_are_per_element_and_replaced_as_a_whole(potential):
    water = rattled(molecule("H2O"))
    base = potential.predict([water])[0]
    potential.set_reference_shifts({1: 0.25, 8: -2.0, 29: 7.0})
    shifted = potential.predict([water])[0]
    assert shifted.energy - base.energy == pytest.approx(2 * 0.25 - 2.0, abs=1e-12)
    assert np.array_equal(shifted.forces, base.forces)
    assert potential.get_reference_shifts() == {1: 0.25, 8: -2.0, 29: 7.0}
    potential.set_reference_shifts({6: 1.0})
    assert potential.get_reference_shifts() == {6: 1.0}
    assert potential.predict([water])[0].energy == base.energy


def test_the_base_is_frozen_and_full_fine_tuning_is_an_adapter(potential):
    assert [name for name, p in potential.named_parameters() if p.requires_grad] == []
    potential.adapters.add("full", "full")
    trainable = {name.split(".")[0] for name, p in potential.named_parameters() if p.requires_grad}
    assert trainable == {"adapters"}


def test_a_copy_in_another_precision_is_independent_of_the_original(potential):
    water = rattled(molecule("H2O"))
    potential.adapters.add("full", "full")
    potential.adapters.randomise("full", seed=1)
    twin = potential.to_dtype(torch.float64)
    expected = twin.predict([water])[0].energy
    potential.adapters.randomise("full", seed=2)
    potential.set_reference_shifts({1: 5.0})
    with torch.no_grad():
        next(potential.backbone.parameters()).mul_(2.0)
    assert twin.predict([water])[0].energy == expected
    assert potential.predict([water])[0].energy != expected


def test_a_copy_while_merged_is_refused_for_it_would_have_the_adapters_twice(potential):
    potential.adapters.add("full", "full")
    potential.adapters.randomise("full", seed=1)
    potential.adapters.merge()
    with pytest.raises(ZooError, match="unmerge"):
        potential.to_dtype(torch.float64)
    potential.adapters.unmerge()
    water = rattled(molecule("H2O"))
    assert potential.to_dtype(torch.float64).predict([water])[0].energy == potential.predict([water])[0].energy


def test_inactive_adapters_are_copied_and_stay_inactive(potential):
    for name in ("full", "elora"):
        potential.adapters.add(name, name)
        potential.adapters.randomise(name, seed=1)
    potential.adapters.activate(["elora"])
    twin = potential.to_dtype(torch.float32)
    assert twin.adapters.names == ("full", "elora")
    assert twin.adapters.active == ("elora",)


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_and_unmerges(potential, tmp_path, monkeypatch):
    potential.adapters.add("full", "full")
    potential.adapters.randomise("full", seed=1)
    expected = potential.predict([molecule("H2O")])[0].energy

    def full_disk(payload, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    assert "No space left" in refusal_of(potential.save_upstream_checkpoint, tmp_path / "merged.pth")
    assert list(tmp_path.iterdir()) == []
    assert potential.predict([molecule("H2O")])[0].energy == expected


def test_edges_are_a_graph_of_the_backbones_cutoff(potential):
    pair = [Atoms("H2", [[0, 0, 0], [potential.backbone.cutoff + gap, 0, 0]]) for gap in (-0.01, 0.01)]
    assert [potential.graph(atoms).edge_index.shape[1] for atoms in pair] == [2, 0]


@pytest.mark.parametrize("cast", ["float", "half", "bfloat16"])
def test_a_cast_that_would_leave_constants_rounded_is_refused(cast):
    potential = Potential(load_family("sevennet").toy(0))
    with pytest.raises(ZooError, match=r"use potential\.to_dtype"):
        getattr(potential, cast)()
    assert potential.dtype == torch.float64


def test_moving_and_casting_to_the_same_dtype_keep_reference_energies_in_float64():
    potential = Potential(load_family("sevennet").toy(0)).to_dtype(torch.float32)
    potential.set_reference_shifts({29: -45000.123456789})
    assert potential.float().to("cpu").get_reference_shifts() == {29: -45000.123456789}


def test_loading_leaves_torchs_random_stream_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Potential(load_family("sevennet").toy(0)).to_dtype(torch.float32)
    assert torch.equal(torch.rand(1), expected)
