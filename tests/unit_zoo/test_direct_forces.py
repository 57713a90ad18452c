"""Backbones with forces of their own: what is taken from them, what they cost, and that nobody is told that they conserve energy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError

import zoo as package
from adapters.state import read_adapter
from tests import direct_family
from tests.direct_family import ALIASED, DirectToy, Settings, toy
from tests.refusals import cli_refusal, lacks, refusal_of
from zoo.data.loader import GraphDataset
from zoo.data.pyg import in_memory_dataset
from zoo.evaluation.equivariance import FLOOR_FACTOR, EquivarianceReport, check_equivariance
from zoo.evaluation.probes import probe_frames
from zoo.graph import AtomGraph, collate
from zoo.potential import Potential
from zoo.registry import Card


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with direct_family.registered():
        yield


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "direct.pth"
    Potential(toy(0)).save_upstream_checkpoint(path)
    return path


def structures() -> list[Atoms]:
    crystal = bulk("CuAu", "rocksalt", a=5.2)
    crystal.positions += 0.1 * np.random.default_rng(0).standard_normal(crystal.positions.shape)
    return [molecule("CH3OH"), crystal, Atoms("Cu")]


def batch(potential: Potential) -> AtomGraph:
    return collate([potential.graph(atoms) for atoms in structures()])


def report(backbone: DirectToy, **settings: str) -> EquivarianceReport:
    return check_equivariance(Potential(backbone, **settings), probe_frames(backbone.elements))


def failed(found: EquivarianceReport) -> set[tuple[str, str]]:
    return {(row.test, row.quantity) for row in found.rows if row.status == "FAILED"}


def test_a_direct_backbone_gives_its_own_forces_and_stress_and_its_gradient_where_it_is_asked_for():
    backbone = toy(0)
    own, derived = Potential(backbone), Potential(backbone, forces="gradient")
    assert (own.forces, own.conservative) == ("direct", False)
    assert (derived.forces, derived.conservative) == ("gradient", True)
    outputs = backbone(batch(own))
    found, gradient = own(batch(own)), derived(batch(own))
    assert torch.equal(found["forces"], outputs["forces"])
    assert torch.equal(found["stress"][1], outputs["stress"][1])
    assert torch.isnan(found["stress"][[0, 2]]).all()  # no stress of a molecule, although the network gives a number
    assert torch.equal(found["energy"], gradient["energy"])
    assert (found["forces"] - gradient["forces"]).abs().max() > 0.01
    assert (found["stress"] - gradient["stress"])[1].abs().max() > 1e-5


def test_direct_forces_take_no_derivative_in_either_mode_and_a_loss_on_them_half_the_graph(monkeypatch):
    own, derived = Potential(toy(0)), Potential(toy(0), forces="gradient")
    sizes = {}
    for potential in (own, derived):
        potential.adapters.add("full", "full")
        potential.train()
        sizes[potential.forces] = _graph_size(potential(batch(potential))["forces"].square().sum())
    assert 10 < sizes["direct"] < sizes["gradient"] / 2

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a derivative was taken")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    own.eval()
    assert not any(value.requires_grad for value in own(batch(own)).values())
    own.train()
    graph = batch(own)
    results = own(graph)
    assert not graph.positions.requires_grad
    (results["forces"].square().sum() + results["stress"][1].square().sum() + results["energy"].sum()).backward()
    gradients = {name: tensor.grad for name, tensor in own.adapters.get("full").tensors.items()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.abs().max() > 0] == []
    with pytest.raises(AssertionError, match="a derivative was taken"):  # what the others need, and what the patch refuses
        derived(graph)


def _graph_size(loss: torch.Tensor) -> int:
    """How many operations a backward pass through ``loss`` meets."""
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return len(seen)


@pytest.mark.parametrize("forces", ["direct", "gradient"])
def test_reference_energies_shift_the_energy_alone_and_copies_keep_the_way_to_forces(forces):
    potential = Potential(toy(0), forces=forces)
    before = potential.predict(structures())
    potential.set_reference_shifts({29: -3.0})
    after = potential.to_dtype(torch.float64).predict(structures())
    assert [b.energy - a.energy for a, b in zip(before, after, strict=True)] == pytest.approx([0, -3, -3])
    assert all(np.array_equal(a.forces, b.forces) for a, b in zip(before, after, strict=True))
    assert np.array_equal(before[1].stress, after[1].stress)
    assert potential.to_dtype(torch.float32).forces == forces


def test_a_stress_that_no_network_predicts_is_missing_everywhere_and_never_zero():
    potential = Potential(toy(0, Settings(stress=False)), source="stressless")
    assert not potential.has_stress
    assert torch.isnan(potential(batch(potential))["stress"]).all()
    assert [one.stress for one in potential.predict(structures())] == [None] * 3
    crystal = structures()[1]
    crystal.calc = potential.calculator()
    assert np.isfinite(crystal.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError, match="stressless predicts no stress; load it with forces='gradient'"):
        crystal.get_stress()
    derived = Potential(potential.backbone, forces="gradient")
    assert np.abs(derived.predict([crystal])[0].stress).max() > 0
    assert "stress: not tested" in report(potential.backbone).text()


def test_torchsim_asks_for_a_stress_only_where_there_is_one():
    pytest.importorskip("torch_sim")
    potential = Potential(toy(0, Settings(stress=False)), source="stressless")
    assert not potential.torchsim().compute_stress
    assert Potential(toy(0)).torchsim().compute_stress
    assert not lacks(refusal_of(potential.torchsim, compute_stress=True), "stressless predicts no stress", "forces='gradient'")


def test_the_check_says_that_energy_is_not_conserved_and_by_how_much_and_asserts_it_of_the_gradient():
    own, derived = report(toy(0)), report(toy(0), forces="gradient")
    assert own.passed, own.text()
    assert derived.passed, derived.text()
    measured = {found.conservative: [row for row in found.rows if row.test == "finite differences"] for found in (own, derived)}
    assert [row.status for row in measured[False]] == ["not claimed"] * 2
    assert all(0.1 < row.residual < np.inf for row in measured[False])
    assert [row.status for row in measured[True]] == ["passed"] * 2
    assert "energy: not conserved" in own.text()
    assert "|F + dE/dx| = 0." in own.text()
    assert "energy: conserved, the forces are its gradient" in derived.text()
    assert "jumps" not in derived.text()
    assert "jumps where neighbours enter or leave" in report(toy(0, ALIASED), forces="gradient").text()
    assert not [name for name in own.residuals() if name.startswith("finite differences")]


@pytest.mark.parametrize(
    ("fault", "forces", "rows"),
    [("fixed", "direct", {("rotation", "forces")}), ("detached", "gradient", {("finite differences", q) for q in ("forces", "stress")})],
)
def test_forces_that_do_not_turn_and_directions_left_out_of_the_gradient_are_caught(fault, forces, rows):
    assert rows <= failed(report(toy(0, Settings(fault=fault)), forces=forces))
    assert not failed(report(toy(0), forces=forces))


def test_a_stress_that_is_declared_and_missing_is_an_error_and_no_nan():
    potential = Potential(toy(0, Settings(fault="no stress")))
    with pytest.raises(KeyError, match="stress"):
        potential.predict(structures())


def test_aliasing_is_held_to_the_stated_floor_and_an_adapter_to_three_times_the_bases_own():
    potential = Potential(toy(0, ALIASED))
    frames = probe_frames(potential.backbone.elements)
    bare = check_equivariance(potential, frames)
    assert bare.passed, bare.text()
    assert {row.tolerance for row in bare.rows if row.test == "rotation"} == {potential.backbone.aliasing_floor}
    assert {row.tolerance for row in bare.rows if row.test == "translation"} == {1e-10}
    measured = next(row.residual for row in bare.rows if (row.test, row.quantity) == ("rotation", "forces"))
    potential.adapters.add("elora", "elora")
    potential.adapters.randomise("elora", seed=1)
    adapted = check_equivariance(potential, frames)
    assert adapted.passed, adapted.text()
    of_forces = {row.test: row for row in adapted.rows if row.quantity == "forces"}
    assert of_forces["rotation, base"].residual == measured
    assert of_forces["rotation"].tolerance == pytest.approx(FLOOR_FACTOR * measured)
    assert potential.adapters.active == ("elora",)
    assert f"{measured:.1e} here" in adapted.text()


@pytest.mark.parametrize("falls", [True, False])
def test_more_aliasing_than_stated_passes_where_a_finer_grid_takes_it_away_and_fails_else(monkeypatch, falls):
    built = DirectToy.__init__

    def modest(self: DirectToy, *arguments: object) -> None:
        built(self, *arguments)
        self.aliasing_floor = 1e-5

    monkeypatch.setattr(DirectToy, "__init__", modest)
    if not falls:
        monkeypatch.setattr(DirectToy, "on_finer_grid", lambda self: self.rebuilt(self.dtype))
    bare = report(toy(0, ALIASED))
    assert (("rotation", "forces") in failed(bare)) != falls
    assert ("it is aliasing" in bare.text()) == falls
    potential = Potential(toy(0, ALIASED))
    potential.adapters.add("elora", "elora")
    adapted = check_equivariance(potential, probe_frames(potential.backbone.elements))
    assert (("rotation, base", "forces") in failed(adapted)) != falls
    assert potential.adapters.active == ("elora",)


def test_a_stress_that_does_not_turn_by_construction_is_measured_and_not_required(monkeypatch):
    monkeypatch.setattr(DirectToy, "equivariant_stress", False)
    rows = [row for row in report(toy(0)).rows if row.quantity == "stress" and row.test in ("rotation", "inversion", "translation")]
    assert {(row.test, row.status) for row in rows} == {
        ("rotation", "not claimed"), ("inversion", "not claimed"), ("translation", "passed")
    }  # fmt: skip


def test_training_data_sets_and_predictions_have_the_same_edges_of_the_nearest_neighbours():
    potential = Potential(toy(0, ALIASED))
    recipe = potential.backbone.graph_recipe
    assert (recipe.max_neighbours, recipe.strict) == (6, True)
    frames = probe_frames(potential.backbone.elements)
    expected = [potential.graph(frame) for frame in frames]
    for graphs in (GraphDataset(frames, recipe), in_memory_dataset(frames, recipe)):
        for found, graph in zip(graphs, expected, strict=True):
            assert torch.equal(found.edge_index, graph.edge_index)
            assert torch.equal(found.edge_shift, graph.edge_shift)
    assert int(expected[-1].edge_index[1].bincount().max()) == 6
    assert expected[-1].edge_index.shape[1] < AtomGraph.from_frame(frames[-1], recipe.cutoff_angstrom).edge_index.shape[1]


def test_zoo_load_takes_the_models_own_way_or_the_one_asked_for(checkpoint, tmp_path):
    assert package.load(checkpoint).forces == "direct"
    for forces in ("direct", "gradient"):
        assert package.load(checkpoint, forces=forces, dtype="float32").forces == forces
    Potential(toy(0, Settings(differentiable=False))).save_upstream_checkpoint(tmp_path / "fixed.pth")
    assert package.load(tmp_path / "fixed.pth").forces == "direct"
    refusal = refusal_of(package.load, tmp_path / "fixed.pth", forces="gradient")
    assert not lacks(refusal, "fixed.pth", "cannot derive forces", "'direct'")


# 12 steps on 8 frames of copper and gold
_RUN = (
    *("data.n_train=8", "data.n_valid=4", "data.test=[]", "training.steps=12", "training.validate_every=6", "training.batch_size=3"),
    *("training.threads=1", "training.loggers.tensorboard=false", "training.progress_bar=false", "evaluation.plots=false"),
)


@pytest.mark.parametrize(("asked", "forces"), [("null", "direct"), ("gradient", "gradient")])
def test_a_run_trains_the_forces_asked_for_and_its_adapter_brings_them_along(asked, forces, checkpoint, zoo, tmp_path):
    finished = zoo("train", f"backbone={checkpoint}", f"backbone.forces={asked}", *_RUN, "run.name=run")
    assert finished.code == 0, finished.err
    assert ("forces: the model's own output, not the gradient" in finished.out) == (forces == "direct")
    assert ("own force output is not trained" in finished.out) == (forces == "gradient")
    run = next(tmp_path.glob("**/adapter.safetensors")).parent
    assert read_adapter(run / "adapter.safetensors")[0].forces == forces
    record = json.loads((run / "record.json").read_text())
    assert record["base"]["conservative"] == (forces == "gradient")
    assert record["training"]["backbone"]["forces"] == (None if asked == "null" else asked)
    assert package.load(checkpoint, adapter=run / "adapter.safetensors").forces == forces
    page = zoo("check-equivariance", f"run={run}")
    assert page.code == 0, page.err
    assert ("energy: not conserved" in page.out) == (forces == "direct")
    told = zoo("export", f"run={run}").out
    assert ("its own force output was not trained" in told) == (forces == "gradient")
    if forces == "gradient":  # its force output never saw the data
        refusal = refusal_of(package.load, checkpoint, adapter=run / "adapter.safetensors", forces="direct")
        assert not lacks(refusal, "adapter.safetensors", "forces='gradient'", "untrained")
    else:  # its energy did
        assert package.load(checkpoint, adapter=run / "adapter.safetensors", forces="gradient").forces == "gradient"


def test_a_loss_on_a_stress_that_the_model_lacks_is_refused_before_the_run(zoo, tmp_path):
    Potential(toy(0, Settings(stress=False))).save_upstream_checkpoint(tmp_path / "stressless.pth")
    words = (f"backbone={tmp_path / 'stressless.pth'}", *_RUN, "run.name=run", "training.loss.stress.weight=1")
    message = cli_refusal(zoo("train", *words))
    assert not lacks(message, "stressless.pth", "predicts no stress", "backbone.forces=gradient")
    assert zoo("train", *words, "backbone.forces=gradient").code == 0


def test_a_card_says_who_conserves_energy_and_how_well_forces_turn():
    card = package.describe("sevennet-0")
    assert "gradient of the energy (conservative)" in card.text()
    direct = Card.model_validate({**card.model_dump(), "conservative": False, "aliasing_floor": 2e-3})
    assert not lacks(
        direct.text(), "not conservative", "does not conserve the energy", "forces=gradient", "turn with the structure to 2e-03"
    )
    assert card.aliasing_floor == 0
