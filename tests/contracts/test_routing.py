"""Structures of one batch with different adapters, on every toy: each structure's numbers are those of its own adapter alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms

from adapters.adapter import Provenance
from adapters.method import create_method
from tests.refusals import refusal_of
from zoo import routing
from zoo.data.frame import Frame
from zoo.potential import Potential
from zoo.testing.measures import assert_same_state, bits, relative_difference, state_of

# every reach: low rank, dense on a part, thresholded, nothing at all
SPECS = {
    "low": {"name": "elora", "rank": 2},
    "lower": {"name": "elora", "rank": 1, "roles": ["linear"]},
    "dense": {"name": "full"},
    "sparse": {"name": "sparse", "setting": "every"},
}


@pytest.fixture
def routed(potential: Potential) -> Potential:
    for seed, (name, spec) in enumerate(SPECS.items()):
        if "linear" in potential.coverage.roles or "roles" not in spec:
            potential.adapters.add(name, create_method(spec))
            potential.adapters.randomise(name, seed)
    potential.adapters.activate([])
    return potential


@pytest.fixture
def structures(backbone, frames) -> list[Frame]:
    """Molecule, wire, slab, crystal, and what has no edge at all."""
    lone = Frame.unlabelled(Atoms([backbone.elements[-1]]))
    return [*frames, lone, frames[0], frames[3]]


def one_by_one(potential: Potential, structures, names):
    found = []
    for structure, name in zip(structures, names, strict=True):
        potential.adapters.activate([] if name is None else [name])
        found.extend(potential.predict([structure]))
    potential.adapters.activate([])
    return found


@pytest.mark.parametrize("in_one_pass", [True, False])
def test_each_structure_of_a_batch_is_computed_with_its_own_adapter(routed, structures, monkeypatch, in_one_pass):
    passes = []
    monkeypatch.setattr(routing, "_is_worth_one_pass", lambda edges: in_one_pass)
    honest = routing.vectorised
    monkeypatch.setattr(routing, "vectorised", lambda *given: passes.append(1) or honest(*given))
    before = state_of(routed.backbone)
    cycle = [*routed.adapters.names, None]
    names = [cycle[index % len(cycle)] for index in range(len(structures))]
    for forces in routed.backbone.force_modes:
        routed.forces = forces
        expected = one_by_one(routed, structures, names)
        found = routed.predict(structures, batch_size=len(structures), adapters=names)
        assert relative_difference(found, expected) < 1e-12
        assert all(np.isfinite(prediction.forces).all() for prediction in found)
        assert [prediction.stress is None for prediction in found] == [prediction.stress is None for prediction in expected]
        other = routed.predict(structures, batch_size=len(structures), adapters=[names[-1], *names[:-1]])
        assert relative_difference(other, expected) > 1e-3  # the control: the adapters do differ
    assert len(passes) == (2 * len(routed.backbone.force_modes) if routed.backbone.vectorises and in_one_pass else 0)
    assert routed.adapters.active == ()
    assert_same_state(state_of(routed.backbone), before)


def test_reference_energies_and_scales_go_with_the_adapter(routed, structures, monkeypatch):
    monkeypatch.setattr(routing, "_is_worth_one_pass", lambda edges: True)
    number = int(structures[0].atomic_numbers[0])
    symbol = Atoms([number]).get_chemical_symbols()[0]
    routed.adapters.get("low").provenance = Provenance({symbol: 1.5})
    routed.adapters.get("dense").provenance = Provenance({symbol: -0.25})
    routed.adapters.scale("dense", 0.5)
    routed.set_reference_shifts({number: 0.125})
    names = ["dense", "low", None, "dense", "low", None, "dense"]
    expected = one_by_one(routed, structures, names)
    assert relative_difference(routed.predict(structures, adapters=names), expected) < 1e-12
    bare = one_by_one(routed, structures[:1], [None])[0].energy
    routed.adapters.get("dense").provenance = None
    without = one_by_one(routed, structures[:1], ["dense"])[0].energy
    share = int((structures[0].atomic_numbers == number).sum())
    assert expected[0].energy - without == pytest.approx(-0.125 * share, rel=1e-9)
    assert abs(without - bare) > 1e-6


def test_one_adapter_for_all_is_the_plain_batch_bit_for_bit(routed, structures):
    routed.adapters.activate(["low"])
    expected = routed.predict(structures)
    routed.adapters.activate(["dense"])
    assert bits(routed.predict(structures, adapters=["low"] * len(structures))) == bits(expected)
    assert routed.adapters.active == ("dense",)


def test_structures_of_one_adapter_share_batches_and_come_back_in_their_order(routed, structures, monkeypatch):
    sizes: list[list[int]] = []
    honest = routing.predict_routed
    monkeypatch.setattr(
        "zoo.routing.predict_routed", lambda potential, graphs, names: sizes.append([len(set(names))]) or honest(potential, graphs, names)
    )
    names = ["low", "dense", "low", "dense", "low", "dense", "low"]
    found = routed.predict(structures, batch_size=2, adapters=names)
    assert relative_difference(found, one_by_one(routed, structures, names)) < 1e-12
    assert sizes == [[1], [1], [1], [1]]  # low, low; low, low; dense, dense; dense


def test_what_cannot_be_routed_is_refused_in_one_line(routed, structures):
    assert "no adapter 'lo'" in refusal_of(routed.predict, structures[:1], adapters=["lo"])
    assert "found 1 names for 2 structures" in refusal_of(routed.predict, structures[:2], adapters=["low"])
    assert "found 'low' for 3 structures" in refusal_of(routed.predict, structures[:3], adapters="low")
    routed.adapters.activate(["low"])
    routed.adapters.merge()
    assert "unmerge" in refusal_of(routed.predict, structures[:1], adapters=["dense"])
    routed.adapters.unmerge()


def test_one_pass_is_for_few_edges_in_groups_alike():
    """So that what is slower in one pass is not made so: many edges, or groups that would be ghosts for the most part."""

    def edges(*counts: int) -> list[torch.Tensor]:
        return [torch.zeros(2, count, dtype=torch.long) for count in counts]

    assert routing._is_worth_one_pass(edges(180, 190, 60))
    assert not routing._is_worth_one_pass(edges(180, 190, 5, 5, 5))
    assert not routing._is_worth_one_pass(edges(2500, 2500))
    assert routing._is_worth_one_pass(edges(0, 0))
