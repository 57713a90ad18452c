"""Ranks, aggregates and Pareto fronts as pure functions with stated rules.

Rules, in one place:

- **Ties.** Values that are equal to six significant digits share the mean of their places (1, 2.5, 2.5, 4).
- **Missing seeds.** A result is the mean over the seeds there are; how many there were is kept beside it. Nothing is imputed. Seeds are
  runs whose settings differ in the seed alone (`leaderboard.contestants`); a seed that was run twice counts twice.
- **Missing tasks** (a molecule, a test set). Contestants without a result share the last places of that task, so that leaving out what one
  is bad at never helps; one more result never makes a mean rank worse. Which tasks are ranked is the board's choice
  (`leaderboard.board`): those that one contestant alone has, or bases without adapter alone, are not.
- **Improvement over full fine-tuning.** The geometric mean over tasks of ``error(full) / error(method)``, as the percentage by which the
  error falls: scale-free, so that no molecule with large errors decides alone. Tasks that only one of the two has, and errors of zero,
  which have no ratio, are left out; the tasks that remain are counted.
  Of several kinds of full fine-tuning of one base, the reference is the one with the best mean rank.
- **Confidence.** 95 % intervals by the bootstrap: the seeds of each method are drawn again with replacement, for all tasks together, since
  the test sets of one run err together and more of them make nothing surer. Where either has one seed on any task there is none.
- **Pareto front.** The points that no other point beats in one coordinate and matches or beats in the other; both are to be small.

A task is anything hashable that names data, protocol, test set and metric. All values here are errors, smaller is better; shares that are
to be large are handed in with their sign turned.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from zoo.errors import ZooError

_SIGNIFICANT_DIGITS = 6
Task = TypeVar("Task", bound=Hashable)
Name = TypeVar("Name", bound=Hashable)
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Result:
    """Mean, standard deviation (None for one seed) and number of the values of one contestant on one task."""

    mean: float
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class Improvement:
    """By what percentage the error falls, the 95 % interval (None with one seed), and how many of the tasks could be compared."""

    percent: float
    low: float | None
    high: float | None
    tasks: int
    tasks_of_full: int


def over_seeds(values: Sequence[float]) -> Result:
    """Mean and sample standard deviation of the values of all seeds.

    Raises:
        ZooError: if there is no value.
    """
    if not values:
        raise ZooError("no value to average; a result needs at least one seed")
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else None
    return Result(mean, deviation, len(values))


def ranks(values: Mapping[Name, float | None]) -> dict[Name, float]:
    """The place of each contestant on one task, 1 the smallest value; ties share the mean place, None shares the last ones."""
    shown = {name: math.inf if value is None else _rounded(value) for name, value in values.items()}
    ordered = sorted(shown.values())
    # the mean of the first and the last place that the value takes among all
    return {name: (bisect_left(ordered, value) + bisect_right(ordered, value) + 1) / 2 for name, value in shown.items()}


def mean_ranks(tasks: Mapping[Task, Mapping[Name, float]]) -> dict[Name, float]:
    """Mean place over all tasks of everyone who has a result on any; a task that one lacks counts as its shared last place."""
    contestants = list(dict.fromkeys(name for values in tasks.values() for name in values))
    places = [ranks({name: values.get(name) for name in contestants}) for values in tasks.values()]
    return {name: math.fsum(place[name] for place in places) / len(places) for name in contestants}


def improvement_over_full(
    method: Mapping[Task, Sequence[float]], full: Mapping[Task, Sequence[float]], *, draws: int = 1000, seed: int = 0
) -> Improvement | None:
    """How much lower the errors of ``method`` are than those of full fine-tuning; values are one a seed, by task.

    Args:
        method: errors by task, positive.
        full: errors of full fine-tuning of the same base on the same data, by task.
        draws: of the bootstrap.
        seed: of the bootstrap's random numbers, so that a page is the same each time.

    Returns:
        None where no task has both.

    Raises:
        ZooError: for an error that is not a positive number, whose ratio means nothing.
    """
    common = [task for task in full if task in method]
    if not common:
        return None
    pairs = [(_positive(method[task]), _positive(full[task])) for task in common]
    logarithm = float(np.mean([np.log(np.mean(m)) - np.log(np.mean(f)) for m, f in pairs]))
    low = high = None
    if all(len(m) > 1 and len(f) > 1 for m, f in pairs):
        # (draws,): the mean over tasks; two streams, since seeds of the one have nothing to do with seeds of the other
        drawn = _drawn_logarithms([m for m, _ in pairs], draws, (seed, 0)) - _drawn_logarithms([f for _, f in pairs], draws, (seed, 1))
        high, low = (_percent(float(value)) for value in np.quantile(drawn, (0.025, 0.975)))
    return Improvement(_percent(logarithm), low, high, len(common), len(full))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each point is on the front: no other is smaller in one coordinate and not larger in the other. Equal points share a fate."""
    front = [False] * len(points)
    best = math.inf
    order = sorted(range(len(points)), key=lambda index: points[index])
    for position, index in enumerate(order):
        first, second = points[index]
        same = position and points[order[position - 1]] == (first, second)
        front[index] = front[order[position - 1]] if same else second < best
        best = min(best, second)
    return front


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")


def _positive(values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.all(np.isfinite(array)) or np.any(array <= 0):
        raise ZooError(f"errors {list(values)} are not all positive numbers; their ratio to full fine-tuning means nothing")
    return array


def _drawn_logarithms(tasks: Sequence[Floats], draws: int, stream: tuple[int, int]) -> Floats:
    """(draws,): logarithms of the means over seeds drawn again, averaged over tasks; one draw serves all tasks of as many seeds."""
    total = np.zeros(draws)
    for seeds in sorted({len(values) for values in tasks}):
        values = np.stack([task for task in tasks if len(task) == seeds])  # (T, seeds)
        total += np.log(_shares(seeds, draws, stream) @ values.T).sum(axis=1)
    return total / len(tasks)


@lru_cache(maxsize=64)
def _shares(seeds: int, draws: int, stream: tuple[int, int]) -> Floats:
    """(draws, seeds): of ``seeds`` drawn with replacement, the share that is each one."""
    drawn = np.random.default_rng((*stream, seeds)).integers(seeds, size=(draws, seeds, 1))
    return np.asarray((drawn == np.arange(seeds)).mean(axis=1))


def _percent(logarithm: float) -> float:
    return 100 * (1 - math.exp(logarithm))
