"""The rules of the ranking: by hand on small cases, as properties on random ones."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from leaderboard.ranking import improvement_over_full, mean_ranks, over_seeds, pareto_front, ranks
from zoo.errors import ZooError

SEEDS = range(40)


def test_places_are_shared_by_ties_and_the_last_by_those_without_a_result() -> None:
    assert ranks({"a": 3.0, "b": 1.0, "c": 2.0}) == {"a": 3.0, "b": 1.0, "c": 2.0}
    assert ranks({"a": 1.0, "b": 2.0, "c": 2.0000001, "d": 3.0}) == {"a": 1.0, "b": 2.5, "c": 2.5, "d": 4.0}
    assert ranks({"a": 1.0, "b": None, "c": None}) == {"a": 1.0, "b": 2.5, "c": 2.5}


@pytest.mark.parametrize("seed", SEEDS)
def test_places_add_up_and_follow_the_order_whatever_the_values(seed: int) -> None:
    draw = random.Random(seed)
    names = [f"m{number}" for number in range(draw.randint(1, 12))]
    values: dict[str, float | None] = {name: draw.choice([None, draw.randint(1, 4), draw.random()]) for name in names}
    places = ranks(values)
    count = len(values)
    assert sum(places.values()) == pytest.approx(count * (count + 1) / 2)
    assert ranks({name: None if value is None else 7.0 * value for name, value in values.items()}) == places  # of units independent
    for a, b in ((a, b) for a in values for b in values):
        left, right = (math.inf if values[name] is None else values[name] for name in (a, b))
        if left < right and not math.isclose(left, right, rel_tol=1e-5):
            assert places[a] < places[b]


@pytest.mark.parametrize("seed", SEEDS)
def test_one_more_result_never_makes_a_mean_rank_worse(seed: int) -> None:
    draw = random.Random(seed)
    names = [f"m{number}" for number in range(5)]
    tasks = {task: {name: draw.random() for name in names if draw.random() < 0.7} for task in range(6)}
    tasks[0] = {name: draw.random() for name in names}
    before = mean_ranks(tasks)
    missing = [(task, name) for task in tasks for name in names if name not in tasks[task]]
    for task, name in missing:
        after = mean_ranks({**tasks, task: {**tasks[task], name: 10.0}})
        assert after[name] <= before[name] + 1e-12, "even the worst result is no worse than none"


def test_mean_rank_by_hand() -> None:
    tasks = {"aspirin": {"full": 2.0, "elora": 1.0}, "ethanol": {"full": 1.0, "elora": 1.0, "readout": 5.0}}
    assert mean_ranks(tasks) == {"elora": 1.25, "full": 1.75, "readout": 3.0}


def test_seeds_are_averaged_and_counted() -> None:
    assert over_seeds([1.0]).deviation is None
    result = over_seeds([1.0, 2.0, 3.0])
    assert (result.mean, result.deviation, result.seeds) == (2.0, 1.0, 3)
    with pytest.raises(ZooError, match="at least one seed"):
        over_seeds([])


def test_improvement_is_the_geometric_mean_over_common_tasks() -> None:
    full = {"a": [2.0], "b": [1.0], "c": [5.0]}
    found = improvement_over_full({"a": [1.0], "b": [2.0], "d": [9.0]}, full)
    assert found is not None
    assert found.percent == pytest.approx(0.0)  # half and double cancel
    assert (found.low, found.high, found.tasks, found.tasks_of_full) == (None, None, 2, 3)
    halved = improvement_over_full({"a": [1.0], "b": [0.5], "c": [2.5]}, full)
    assert halved is not None
    assert halved.percent == pytest.approx(50.0)
    assert improvement_over_full({"z": [1.0]}, full) is None


def test_an_error_of_zero_has_no_ratio() -> None:
    with pytest.raises(ZooError, match="not all positive"):
        improvement_over_full({"a": [0.0]}, {"a": [1.0]})


@pytest.mark.parametrize("seed", SEEDS)
def test_improvement_is_free_of_scale_and_lies_in_its_interval(seed: int) -> None:
    draw = np.random.default_rng(seed)
    tasks = range(int(draw.integers(1, 6)))
    method = {task: list(draw.lognormal(size=3)) for task in tasks}
    full = {task: list(draw.lognormal(size=4)) for task in tasks}
    found = improvement_over_full(method, full, draws=400)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.high < 100
    scaled = improvement_over_full(
        {task: [1000 * value for value in values] for task, values in method.items()},
        {task: [1000 * value for value in values] for task, values in full.items()},
        draws=400,
    )
    assert scaled is not None
    assert (scaled.percent, scaled.low, scaled.high) == pytest.approx((found.percent, found.low, found.high))
    swapped = improvement_over_full(full, method)
    assert swapped is not None
    assert (1 - found.percent / 100) * (1 - swapped.percent / 100) == pytest.approx(1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Ten seeds a method, true improvement 20 %: most of 200 intervals hold it. The bootstrap of few seeds is a little short."""
    draw, held = np.random.default_rng(0), 0
    for number in range(200):
        full = {"a": list(10 + draw.normal(size=10)), "b": list(100 + 10 * draw.normal(size=10))}
        method = {"a": list(8 + draw.normal(size=10)), "b": list(80 + 10 * draw.normal(size=10))}
        found = improvement_over_full(method, full, draws=300, seed=number)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 20.0 <= found.high
    assert 170 <= held <= 199


def test_more_test_sets_of_the_same_runs_make_nothing_surer() -> None:
    """Seeds are drawn for all tasks together: a task that is there twice leaves the interval as it is."""
    method, full = [8.0, 9.0, 11.0], [10.0, 10.5, 12.0]
    once = improvement_over_full({"a": method}, {"a": full})
    twice = improvement_over_full(dict.fromkeys("abcd", method), dict.fromkeys("abcd", full))
    assert once is not None
    assert twice is not None
    assert once.low is not None
    assert once.low < once.percent
    assert (twice.percent, twice.low, twice.high) == pytest.approx((once.percent, once.low, once.high))
    apart = improvement_over_full({"a": method, "b": method[::-1]}, {"a": full, "b": full})
    assert apart is not None
    assert apart.low is not None
    assert apart.low > once.low, "where the errors of the seeds are not aligned they cancel"


def test_pareto_front_by_hand() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (2.0, 3.0), (2.0, 4.0), (3.0, 3.0), (4.0, 1.0), (0.5, 9.0)]
    assert pareto_front(points) == [True, True, True, False, False, True, True]
    assert pareto_front([]) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_the_front_is_what_the_definition_says(seed: int) -> None:
    draw = random.Random(seed)
    points = [(float(draw.randint(0, 6)), float(draw.randint(0, 6))) for _ in range(draw.randint(1, 25))]

    def beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)

    assert pareto_front(points) == [not beaten(point) for point in points]
    assert any(pareto_front(points))
