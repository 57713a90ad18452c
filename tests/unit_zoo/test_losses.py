"""Losses, moving average, schedules and optimizers against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.graph import AtomGraph, collate
from zoo.training.config import LossConfig, OptimizerConfig, ScheduleConfig
from zoo.training.ema import ExponentialMovingAverage
from zoo.training.losses import loss_terms, weighted_sum
from zoo.training.optimizers import PlateauFactor, make_optimizer, make_schedule
from zoo.training.plan import Plan


def _graph(energy: float, forces: list[list[float]] | None, stress: float | None = None, periodic: bool = False) -> AtomGraph:
    count = len(forces) if forces is not None else 2
    atoms = Atoms("Cu" * count, positions=[[1.5 * i, 0, 0] for i in range(count)], cell=np.eye(3) * 6 if periodic else None, pbc=periodic)
    frame = replace(
        Frame.unlabelled(atoms),
        energy=energy,
        forces=np.array(forces) if forces is not None else np.full((count, 3), math.nan),
        stress=np.full((3, 3), math.nan if stress is None else stress),
    )
    return AtomGraph.from_frame(frame, 4.0)


@pytest.fixture
def batch() -> AtomGraph:
    """Three frames of 2, 2 and 1 atoms: the second has no forces, the third no energy; stresses for the second alone."""
    return collate(
        [
            _graph(1.0, [[1.0, 0, 0], [0, 0, 0]]),
            _graph(-2.0, None, stress=0.5, periodic=True),
            _graph(math.nan, [[0, 3.0, 4.0]]),
        ]
    )


@pytest.fixture
def results() -> dict[str, torch.Tensor]:
    stress = torch.full((3, 3, 3), math.nan, dtype=torch.float64)
    stress[1] = 0.7
    return {"energy": torch.tensor([2.0, 2.0, 9.0], dtype=torch.float64), "forces": torch.zeros(5, 3), "stress": stress}


def _config(kind: str, per_atom: bool = True) -> LossConfig:
    other = "mse" if kind == "l2norm" else kind
    term = {"weight": 1.0, "huber_delta": 0.1}
    return LossConfig(
        energy={"kind": other, **term}, forces={"kind": kind, **term}, stress={"kind": other, **term}, energy_per_atom=per_atom
    )


# energy errors 1 and 4 eV over 2 atoms each; force errors -1, -3, -4 among the 9 components of 3 atoms; stress error 0.2 nine times
@pytest.mark.parametrize(
    ("kind", "energy", "forces", "stress"),
    [
        ("mse", (0.25 + 4.0) / 2, (1 + 9 + 16) / 9, 0.04),
        ("mae", (0.5 + 2.0) / 2, (1 + 3 + 4) / 9, 0.2),
        ("huber", (0.1 * 0.45 + 0.1 * 1.95) / 2, 0.1 * (0.95 + 2.95 + 3.95) / 9, 0.1 * 0.15),
        ("l2norm", (0.25 + 4.0) / 2, (1 + 0 + 5) / 3, 0.04),
    ],
)
def test_loss_terms_equal_the_values_by_hand_with_unknown_labels_left_out(kind, energy, forces, stress, batch, results):
    terms = loss_terms(results, batch, _config(kind))
    assert {name: float(value) for name, value in terms.items()} == pytest.approx({"energy": energy, "forces": forces, "stress": stress})


def test_total_energies_are_not_divided_by_atoms_where_asked(batch, results):
    terms = loss_terms(results, batch, _config("mae", per_atom=False))
    assert float(terms["energy"]) == pytest.approx((1.0 + 4.0) / 2)


def test_scaled_terms_are_those_of_targets_normalised_by_the_scale(batch, results):
    """lambda |E - E'| / sigma: value and gradient of the same loss on outputs and labels in units of sigma."""
    sigma = 2.5
    energy, forces = {"kind": "mae", "weight": 4.0}, {"kind": "l2norm", "weight": 100.0}
    scaled = LossConfig(energy={**energy, "scale": sigma}, forces={**forces, "scale": sigma}, energy_per_atom=False)
    plain = LossConfig(energy=energy, forces=forces, energy_per_atom=False)
    outputs = {name: (value / sigma).requires_grad_() for name, value in results.items() if name != "stress"}  # of a network
    in_ev = weighted_sum(loss_terms({name: sigma * value for name, value in outputs.items()}, batch, scaled), scaled)
    gradients = torch.autograd.grad(in_ev, list(outputs.values()))
    normalised = batch.clone()
    normalised.energy, normalised.forces = batch.energy / sigma, batch.forces / sigma
    expected = weighted_sum(loss_terms(outputs, normalised, plain), plain)
    assert float(in_ev.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for found, wanted in zip(gradients, torch.autograd.grad(expected, list(outputs.values())), strict=True):
        assert wanted.abs().max() > 0.1
        assert torch.allclose(found, wanted, rtol=1e-6, atol=0, equal_nan=True)


def test_weighted_sum_multiplies_and_adds(batch, results):
    config = LossConfig(energy={"weight": 2.0, "kind": "mae"}, forces={"weight": 3.0, "kind": "mae"})
    loss = weighted_sum(loss_terms(results, batch, config), config)
    assert float(loss) == pytest.approx(2 * 1.25 + 3 * 8 / 9)


def test_a_label_without_weight_is_no_term(batch, results):
    config = LossConfig(energy={"weight": 0.0}, forces={"weight": 1.0})
    assert list(loss_terms(results, batch, config)) == ["forces"]


def test_a_batch_without_a_label_has_no_term_for_it(results):
    batch = collate([_graph(1.0, None)])
    assert list(loss_terms({"energy": torch.zeros(1), "forces": torch.zeros(2, 3)}, batch, LossConfig())) == ["energy"]


@pytest.mark.parametrize("broken", ["energy", "forces", "stress"])
def test_a_prediction_that_is_not_a_number_is_not_taken_for_an_unknown_label(broken, batch, results):
    values = dict(results)
    values[broken] = torch.full_like(values[broken], math.nan)
    config = _config("mse")
    assert math.isfinite(float(weighted_sum(loss_terms(results, batch, config), config)))
    assert math.isnan(float(weighted_sum(loss_terms(values, batch, config), config)))


def test_energy_loss_keeps_a_millielectronvolt_on_ten_thousand():
    batch = collate([_graph(-10000.0, [[0.0, 0, 0]])])
    results = {"energy": torch.tensor([-10000.0001], dtype=torch.float64), "forces": torch.zeros(1, 3)}
    config = LossConfig(energy={"weight": 1.0, "kind": "mae"}, forces={"weight": 0.0})
    assert float(loss_terms(results, batch, config)["energy"]) == pytest.approx(1e-4, rel=1e-6)


def test_moving_average_follows_its_recursion_and_matches_by_name():
    live = {"b": torch.tensor([1.0]), "a": torch.tensor([10.0])}
    average = ExponentialMovingAverage(live, decay=0.5)
    expected = {"a": 10.0, "b": 1.0}
    for step in range(1, 30):
        for name, tensor in live.items():
            tensor += step if name == "a" else -step
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * value + (1 - decay) * float(live[name]) for name, value in expected.items()}
    before = {name: tensor.clone() for name, tensor in live.items()}
    with average.applied():
        assert {name: float(tensor) for name, tensor in live.items()} == pytest.approx(expected)
    assert all(torch.equal(live[name], before[name]) for name in live)
    other = ExponentialMovingAverage({"a": torch.zeros(1), "b": torch.zeros(1)}, decay=0.5)
    other.load_state_dict(average.state_dict())
    assert {name: float(value) for name, value in other.state_dict()["average"].items()} == pytest.approx(expected)


def test_moving_average_without_warm_up_has_its_decay_from_the_first_update():
    live = {"a": torch.tensor([10.0])}
    average = ExponentialMovingAverage(live, decay=0.75, warmup=False)
    live["a"] += 4
    average.update()
    assert float(average.state_dict()["average"]["a"]) == 10 + 0.25 * 4


def test_moving_average_of_other_tensors_is_refused():
    average = ExponentialMovingAverage({"a": torch.zeros(1)}, decay=0.5)
    with pytest.raises(ZooError, match="resume with the same config"):
        average.load_state_dict({"updates": 1, "average": {"b": torch.zeros(1)}})


def test_plateau_waits_its_patience_then_multiplies_every_group():
    config = ScheduleConfig(name="plateau", warmup_steps=0, plateau_factor=0.5, plateau_patience=1)
    plateau = PlateauFactor(config)
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [parameters[0]], "lr": 1.0}, {"params": [parameters[1]], "lr": 10.0}])
    schedule = make_schedule(optimizer, config, Plan(10, 0, 10), plateau)
    rates = []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.0, 1.5, 1.5):
        plateau.observe(loss)
        optimizer.step()
        schedule.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates == [[1.0, 10.0]] * 3 + [[0.5, 5.0]] * 3 + [[0.25, 2.5]]
    again = PlateauFactor(config)
    again.load_state_dict(plateau.state_dict())
    assert again.state_dict() == plateau.state_dict()


@pytest.mark.parametrize(
    ("name", "kind", "amsgrad"),
    [("adam", torch.optim.Adam, False), ("amsgrad", torch.optim.Adam, True), ("adamw", torch.optim.AdamW, False)],
)
def test_optimizer_has_its_name_and_each_group_its_own_settings(name, kind, amsgrad):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))]},
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5, "weight_decay": 0.25},
    ]
    optimizer = make_optimizer(groups, OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.01), 0)
    assert type(optimizer) is kind
    assert [(group["lr"], group["weight_decay"], group["amsgrad"]) for group in optimizer.param_groups] == [
        (0.1, 0.01, amsgrad),
        (0.5, 0.25, amsgrad),
    ]


def test_schedule_free_optimizer_warms_up_by_itself():
    optimizer = make_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))]}], OptimizerConfig(name="schedule_free_adamw"), 7)
    assert type(optimizer).__name__ == "AdamWScheduleFree"
    assert optimizer.param_groups[0]["warmup_steps"] == 7
