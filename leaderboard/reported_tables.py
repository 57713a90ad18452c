"""The tables of papers as they were transcribed: printed cells (CSV), and what they mean (one YAML a paper), joined to facts.

A cell is described by regular expressions on its row and column labels, whose named groups are the words of a fact: ``data``, ``test``,
``model``, ``method``, ``quantity``; any other group is a setting of the model or method. A cell that no part describes, or that two parts
do, is an error: nothing is left out silently. `UNREADABLE` notes mark cells that are printed, or half printed, and are no result.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.errors import ZooError, first_problem, nearest_name_hint
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record_parts import ReferenceTreatment

FOLDER = Path(__file__).with_name("reported")
UNREADABLE = {
    "copied": "the same pair of numbers stands in three rows, so at most one of them is right",
    "ghost": "repeats another row in the line of a group's heading",
    "row lost": "the rows of the table are joined in the copy, and whose number this is cannot be told",
    "contradicted": "another table of the paper prints another number for the same thing",
}
"""Notes of cells that are transcribed and become no record, with the reason."""
HALF_READABLE = {
    "deviation cut": "the last digit of the deviation is cut off",
    "bracket cut": "the last digit of the number in brackets is cut off",
}
"""Notes of cells whose first number is whole and whose second one is left out."""
PLACED = {
    "read from the end": "the rows are joined in the copy; the last number of a column is the last row's",
    "row from the text": "the rows are joined in the copy; the paper's text names the row of this number",
}
"""Notes of whole cells whose row was found by other means than its place."""
NOTES = {"": "", **UNREADABLE, **HALF_READABLE, **PLACED}
BLANKS = ("-", "/", "OOM", "didn't converge")
_WORDS = ("data", "test", "model", "method", "quantity")
_OVERRULED = ("protocol", "train_frames")
_NUMBER = r"[\d,]*\.?\d+"
_CELL = re.compile(rf"(?P<value>{_NUMBER})(?P<scale>[M%]?)(?: ± (?P<spread>{_NUMBER}))?(?: \((?P<bracket>{_NUMBER})\)?)?")


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Spec):
    """A base model as the paper names it; ``card`` is ours where it is the same."""

    family: str
    card: str | None = None
    conservative: bool | None = None


class Method(_Spec):
    """An adaptation method in the project's words."""

    method: str
    config: dict[str, int | float | str] = {}
    initial_weights: Literal["card", "random"] = "card"


class Quantity(_Spec):
    """A printed quantity that is no metric of the project."""

    label: str
    unit: str
    better: Literal["lower", "higher"] | None = None


class Part(_Spec):
    """The cells whose labels match ``row`` and ``column``; ``bracket`` says what a second number in brackets is.

    ``protocol`` and ``train_frames`` overrule the table's where they are given.
    """

    row: str
    column: str
    set: dict[str, str] = {}
    bracket: str | None = None
    protocol: str | None = None
    train_frames: int | None = None


class Table(_Spec):
    """One printed table; ``about`` says in our words what it shows."""

    about: str
    protocol: str
    train_frames: int | None = None
    runs: int | None = None
    words: dict[str, dict[str, str]] = {}
    parts: tuple[Part, ...]


class Paper(_Spec):
    """One paper: ``words`` turn printed labels into the project's names, tables may overrule them.

    Attributes:
        zero_shot_reference_energies: whose reference energies the base model's own errors contain, if that can be told.
        levels_of_theory: of a data set, or of a family of them by what is before the slash of their names; those of our cards. A set of
            which nobody states one has none.
    """

    paper: str
    citation: str
    zero_shot_reference_energies: ReferenceTreatment = "unstated"
    transcribed: datetime
    levels_of_theory: dict[str, str] = {}
    words: dict[str, dict[str, str]]
    methods: dict[str, Method | None]
    models: dict[str, Model]
    quantities: dict[str, Quantity]
    tables: dict[str, Table]

    def level_of_theory(self, data: str) -> str | None:
        """Of the labels of a data set."""
        return self.levels_of_theory.get(data, self.levels_of_theory.get(data.partition("/")[0]))


@dataclass(frozen=True)
class Cell:
    """One cell as printed; ``note`` is a key of `NOTES`."""

    row: str
    column: str
    value: str
    note: str


@dataclass(frozen=True)
class Number:
    """``45.1 ± 0.2 (82.0)``: value, spread and bracket, each with the decimals it was printed with."""

    value: float
    spread: float | None
    bracket: float | None


@dataclass(frozen=True)
class Fact:
    """One readable number of a table and what it is of. ``settings`` are the named groups that are no word of `Fact`."""

    table: str
    cell: Cell
    number: Number
    data: str
    test: str
    model: str
    method: str
    quantity: str
    settings: tuple[tuple[str, str], ...]
    bracket: str | None
    protocol: str
    train_frames: int | None


def read_papers(folder: Path = FOLDER) -> list[Paper]:
    """Every paper described in ``folder``, by name.

    Raises:
        ZooError: one line for a description with an unknown or missing key.
    """
    papers = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            papers.append(Paper.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))))
        except ValidationError as error:
            first = first_problem(error)
            raise ZooError(f"{path}: {first.key}: {first.message}") from error
    return papers


def read_cells(paper: str, table: str, folder: Path = FOLDER) -> list[Cell]:
    """The cells of ``<paper>-table-<table>.csv`` in reading order.

    Raises:
        ZooError: one line for a note that is none of `NOTES`.
    """
    path = folder / f"{paper}-table-{table}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        cells = [Cell(**row) for row in csv.DictReader(file)]
    for cell in cells:
        if cell.note not in NOTES:
            raise ZooError(f"{path}: {cell.row!r}: unknown note {cell.note!r}; {nearest_name_hint(cell.note, NOTES)}")
    return cells


def parsed_number(text: str) -> Number | None:
    """The number of a printed cell, millions and thousands written out; None for a blank.

    Raises:
        ZooError: one line for anything that is neither.
    """
    if text in BLANKS:
        return None
    found = _CELL.fullmatch(text)
    if found is None:
        raise ZooError(f"printed value {text!r} is neither a number nor one of {', '.join(BLANKS)}")
    spread, bracket = (float(found[name].replace(",", "")) if found[name] else None for name in ("spread", "bracket"))
    value = float(found["value"].replace(",", ""))
    return Number(round(value * 1e6) if found["scale"] == "M" else value, spread, bracket)


def facts_of(paper: Paper, name: str, cells: list[Cell]) -> Iterator[Fact]:
    """The readable numbers of one table; blanks and `UNREADABLE` cells are left out.

    Raises:
        ZooError: one line for a cell that no part or more than one describes, or a word that the paper's description lacks.
    """
    table = paper.tables[name]
    for cell in cells:
        number = parsed_number(cell.value)
        if number is None or cell.note in UNREADABLE:
            continue
        matches = [(part, groups) for part in table.parts if (groups := _groups(part, cell)) is not None]
        if len(matches) != 1:
            raise ZooError(f"{paper.paper} table {name}: cell {cell.row!r}, {cell.column!r} is described by {len(matches)} parts, wanted 1")
        part, groups = matches[0]
        if cell.note == "deviation cut":
            number = Number(number.value, None, number.bracket)
        if cell.note == "bracket cut":
            number = Number(number.value, number.spread, None)
        yield _fact(paper, name, cell, number, part, groups)


def _groups(part: Part, cell: Cell) -> dict[str, str] | None:
    row, column = re.fullmatch(part.row, cell.row), re.fullmatch(part.column, cell.column)
    if row is None or column is None:
        return None
    return {**part.set, **{key: value for found in (row, column) for key, value in found.groupdict().items() if value is not None}}


def _fact(paper: Paper, name: str, cell: Cell, number: Number, part: Part, groups: dict[str, str]) -> Fact:
    table = paper.tables[name]
    spoken = {key: _word(paper, table, key, value) for key, value in groups.items()}
    if "subset" in spoken:  # a column below a test set's own heading
        spoken["test"] = f"{spoken['test']} {spoken.pop('subset')}"
    missing = [word for word in _WORDS if word not in spoken]
    known: dict[str, Container[str]] = {"model": paper.models, "method": paper.methods, "quantity": {**METRICS, **paper.quantities}}
    missing += [f"{word} {spoken[word]!r}" for word, names in known.items() if word in spoken and spoken[word] not in names]
    if missing:
        raise ZooError(f"{paper.paper} table {name}: cell {cell.row!r}, {cell.column!r}: the description does not know {missing[0]}")
    given: dict[str, Any] = {key: getattr(part if key in part.model_fields_set else table, key) for key in _OVERRULED}
    settings = tuple(sorted((key, value) for key, value in spoken.items() if key not in _WORDS and value != spoken["model"]))
    words: dict[str, Any] = {word: spoken[word] for word in _WORDS}
    return Fact(table=name, cell=cell, number=number, settings=settings, bracket=part.bracket, **words, **given)


def _word(paper: Paper, table: Table, key: str, value: str) -> str:
    return {**paper.words.get(key, {}), **table.words.get(key, {})}.get(value, value)
