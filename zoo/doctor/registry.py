"""The checks: each is one function over a `Subject`, registered with the question that it answers and what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

from zoo.doctor.report import Finding
from zoo.doctor.subject import Subject

Need = Literal["config", "model", "weights"]
Run = Callable[[Subject], Iterable[Finding]]

# the order in which their checks run and are shown
_MODULES = ("labels", "energies", "consistency", "structures", "outliers", "neighbours", "theory", "zero_shot", "heads", "training")


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: ``family.what``.
        question: what it answers, for people.
        needs: besides frames: the ``config`` of a run, a ``model``, or a model with pretrained ``weights``.
        cheap: whether ``zoo train`` runs it too: on frames alone, in less time than reading them took.
        run: yields the findings; a `zoo.errors.ZooError` that it raises is taken for one.
    """

    name: str
    question: str
    needs: frozenset[Need]
    cheap: bool
    run: Run

    def why_not(self, subject: Subject) -> str:
        """Why it cannot run on ``subject``; empty where it can."""
        if "config" in self.needs and subject.config is None:
            return "no configuration of a run"
        if self.needs & {"model", "weights"} and subject.potential is None:
            return "no model"
        if "weights" in self.needs and not subject.has_trained_weights:
            return "the base has random weights"
        return "" if subject.frames else "no frames"


_FOUND: list[Check] = []


def check(name: str, question: str, needs: Iterable[Need] = (), cheap: bool = False) -> Callable[[Run], Run]:
    """Register the decorated function; see `Check`."""

    def register(run: Run) -> Run:
        _FOUND.append(Check(name, question, frozenset(needs), cheap, run))
        return run

    return register


@cache
def checks() -> tuple[Check, ...]:
    """Every check, in the order of `_MODULES`."""
    for module in _MODULES:
        import_module(f"zoo.doctor.{module}")
    order = {f"zoo.doctor.{module}": place for place, module in enumerate(_MODULES)}
    return tuple(sorted(_FOUND, key=lambda one: order.get(one.run.__module__, len(order))))


def cheap_findings(subject: Subject) -> Iterator[Finding]:
    """What the checks that ``zoo train`` runs by itself have to say, notes left out."""
    for one in checks():
        if one.cheap and not one.why_not(subject):
            yield from (finding for finding in one.run(subject) if finding.level != "note")
