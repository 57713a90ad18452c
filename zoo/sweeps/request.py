"""What a sweep is asked for: kind, values, methods, seeds, and where results go; checked, with the paper's defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zoo.errors import ZooError, first_problem, nearest_name_hint
from zoo.evaluation.metrics import METRICS
from zoo.sweeps.kinds import Kind, Value, kind_of
from zoo.sweeps.words import items_of, own_and_run_words, split_outside_brackets

_GROUPS_OF_A_METHOD = ("adapter", "training", "backbone", "strategy", "data")
_LISTS = ("values", "methods", "seeds", "show", "test_sets")


@dataclass(frozen=True)
class Method:
    """One curve of a figure: a method with settings of its own.

    ``elora``, ``sparse:setting=linear``, ``full:training.optimizer.learning_rate=1e-3``.

    Attributes:
        text: as the user wrote it, and as the figure's legend names it.
        words: of ``zoo train``.
    """

    text: str
    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Method:
        """Read one; a setting without a group is the adapter's. Raises `ZooError` where a setting is not ``key=value``."""
        name, *settings = split_outside_brackets(text, ":")
        words = [f"adapter={name}"]
        for setting in settings:
            key, equals, _ = setting.partition("=")
            if not name or not equals:
                raise ZooError(f"methods: {text!r} is not NAME:key=value:...; write sparse:setting=linear, say")
            words.append(setting if key.split(".")[0] in _GROUPS_OF_A_METHOD and "." in key else f"adapter.{setting}")
        return cls(text, tuple(words))

    @property
    def slug(self) -> str:
        """Fit for a folder's name: ``sparse-setting-linear``."""
        return re.sub(r"[^A-Za-z0-9._]+", "-", self.text).strip("-.") or "method"


class SweepRequest(BaseModel):
    """One sweep.

    Attributes:
        kind: of `zoo.sweeps.kinds.KINDS`.
        values: of the swept key; the kind's where empty.
        methods: the figure's curves (`Method`); the kind's where empty.
        seeds: of the training; more than one gives means and a band of a standard deviation.
        words: ``key=value`` for every run, as ``zoo train`` takes them.
        folder: of the runs, the table and the figure; ``sweeps/KIND-BASE-DATA`` where None.
        jobs: runs at a time.
        dry_run: print the commands, run nothing.
        draw: draw again from the tables in ``folder``, run nothing.
        show: the panels of the figure (`zoo.sweeps.kinds.PANELS`); the kind's where empty.
        test_sets: whose errors are drawn, a row of panels each; the first of the record where empty.
        energy_metric, force_metric: which errors are drawn, of `zoo.evaluation.metrics.METRICS`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    values: tuple[Value, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    words: tuple[str, ...] = ()
    folder: str | None = None
    jobs: int = Field(default=1, ge=1)
    dry_run: bool = False
    draw: bool = False
    show: tuple[str, ...] = ()
    test_sets: tuple[str, ...] = ()
    energy_metric: str = "energy_mae_mev_per_atom"
    force_metric: str = "force_mae_mev_per_angstrom"

    @field_validator("values")
    @classmethod
    def _finite(cls, values: tuple[Value, ...]) -> tuple[Value, ...]:
        if not all(math.isfinite(value) for value in values):
            raise ValueError("every value is a finite number")
        return values

    @field_validator("values", "methods", "seeds", "show", "test_sets")
    @classmethod
    def _once(cls, items: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = [item for place, item in enumerate(items) if item in items[:place]]
        if twice:
            raise ValueError(f"{twice[0]} stands there twice; name it once")
        return items

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or min(seeds) < 0:
            raise ValueError("wanted at least one seed, none below 0")
        return seeds

    @field_validator("energy_metric", "force_metric")
    @classmethod
    def _known_metric(cls, name: str) -> str:
        if name not in METRICS:
            raise ValueError(f"no metric; {nearest_name_hint(name, METRICS)}")
        return name

    @model_validator(mode="after")
    def _fits_the_kind(self) -> SweepRequest:
        kind = kind_of(self.kind)
        if kind.key is None and self.values:
            raise ValueError(f"{kind.name} compares methods over their steps and takes no values; leave values out")
        unknown = [panel for panel in self.show if panel not in kind.known_panels]
        if unknown:
            raise ValueError(f"show: the figure has no {unknown[0]!r}; {nearest_name_hint(unknown[0], kind.known_panels)}")
        return self

    @property
    def the_kind(self) -> Kind:
        """The row of `KINDS`."""
        return kind_of(self.kind)

    @property
    def the_methods(self) -> tuple[Method, ...]:
        """The methods, the kind's where none were given; raises `ZooError` where two would share their folders."""
        methods = tuple(Method.of(text) for text in self.methods or self.the_kind.methods)
        slugs = [method.slug for method in methods]
        for place, slug in enumerate(slugs):
            if slug in slugs[:place]:
                raise ZooError(f"methods: {methods[slugs.index(slug)].text!r} and {methods[place].text!r} would share the name {slug!r}")
        return methods

    @property
    def the_values(self) -> tuple[Value | None, ...]:
        """The values, the kind's where none were given; one None where nothing is varied."""
        return (None,) if self.the_kind.key is None else self.values or self.the_kind.values

    @property
    def panels(self) -> tuple[str, ...]:
        """What the figure shows."""
        return self.show or self.the_kind.panels


def request_of_words(kind: str, words: Sequence[str]) -> SweepRequest:
    """The request that ``zoo sweep KIND words...`` makes; raises `ZooError` with the first thing that is wrong."""
    kind_of(kind)
    own = tuple(name for name in SweepRequest.model_fields if name not in ("kind", "words"))
    settings, for_runs = own_and_run_words(words, own)
    options: dict[str, Any] = {name: items_of(text) if name in _LISTS else text for name, text in settings.items()}
    for name in ("values", "seeds"):
        if name in options:
            options[name] = tuple(_number(name, text) for text in options[name])
    empty = [name for name in _LISTS if name in options and not options[name]]
    if empty:
        raise ZooError(f"zoo sweep {kind}: {empty[0]} is empty; name at least one, or leave it out")
    return make_request(kind, for_runs, options)


def make_request(kind: str, words: Iterable[str], options: dict[str, Any]) -> SweepRequest:
    """A request from Python values; raises `ZooError` in one line where they are wrong."""
    try:
        return SweepRequest(kind=kind, words=tuple(words), **options)
    except ValidationError as error:
        first = first_problem(error)
        if first.kind == "extra_forbidden":
            raise ZooError(
                f"zoo sweep {kind}: unknown option {first.key!r}; {nearest_name_hint(first.key, SweepRequest.model_fields)}"
            ) from None
        raise ZooError(f"zoo sweep {kind}: {f'{first.key}: ' if first.key else ''}{first.message}") from None


def _number(name: str, text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ZooError(f"zoo sweep: {name}: {text!r} is not a number; write {name}=[1,2,4]")
