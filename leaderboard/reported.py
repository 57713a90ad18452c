"""Records of what papers printed: ``python -m leaderboard.reported [--out DIR] [--check]``.

Numbers come from the transcribed tables (`leaderboard.reported_tables`) and from nowhere else. All readable cells of one paper that are of
the same model, method, settings, data and protocol are one record, so that a result that several tables print is entered once; where they
disagree the generator stops. What a paper does not state is null.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from leaderboard.reported_tables import PLACED, Fact, Paper, facts_of, read_cells, read_papers
from zoo.errors import ZooError
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record import Record, build_record, metric_records, write_record

OUT = Path(__file__).with_name("records") / "reported"
_UNSTATED = dict.fromkeys(("seed", "training", "cost", "git_commit", "author", "equivariance_residual", "forgetting"))


def reported_records(papers: Iterable[Paper] | None = None) -> list[Record]:
    """One record a result, in the order of papers and tables; equal descriptions and tables give equal records, bit for bit.

    Raises:
        ZooError: as `facts_of`, and where two tables of a paper print different numbers for the same thing.
    """
    records = []
    for paper in papers if papers is not None else read_papers():
        groups: dict[tuple[object, ...], list[Fact]] = {}
        for name in paper.tables:
            for fact in facts_of(paper, name, read_cells(paper.paper, name)):
                key = (fact.data, fact.model, fact.method, fact.settings, fact.protocol)
                groups.setdefault(key, []).append(fact)
        records += [_record(paper, facts) for facts in groups.values()]
    return records


def _record(paper: Paper, facts: list[Fact]) -> Record:
    first = facts[0]
    model, method = paper.models[first.model], paper.methods[first.method]
    numbers = _numbers(paper, facts)
    tables = list(dict.fromkeys(fact.table for fact in facts))
    tests = list(dict.fromkeys(fact.test for fact in facts if fact.test))
    train_frames = next((fact.train_frames for fact in facts if fact.train_frames is not None), None)
    sizes = {fact.quantity: int(fact.number.value) for fact in facts if fact.quantity in ("parameter_count", "trainable_count")}
    treatment = "unstated" if method else paper.zero_shot_reference_energies
    # an untrained model is no mean of runs, whatever the caption says of the other columns
    runs = next((runs for name in tables if (runs := paper.tables[name].runs) is not None), None) if method else None
    adapter = None
    if method is not None:
        config = {**method.config, **dict(first.settings)}
        nulls = dict.fromkeys(("file_sha256", "file_bytes", "coverage_share"))
        adapter = {"method": method.method, "config": config, "trainable_count": sizes.get("trainable_count"), **nulls}
    return build_record(
        created=paper.transcribed,
        base={
            "card": model.card or first.model,
            "family": model.family,
            "values_sha256": None,
            "licence": None,
            "conservative": model.conservative,
            "symmetry": None,
            "parameter_count": sizes.get("parameter_count"),
            "initial_weights": method.initial_weights if method else "card",
        },
        adapter=adapter,
        data={
            "name": first.data,
            "protocol": first.protocol,
            "level_of_theory": paper.level_of_theory(first.data),
            "licence": None,
            "splits": {"train": {"frames": train_frames, "sha256": None}, **{test: {"frames": None, "sha256": None} for test in tests}},
        },
        reference_energies={"before": treatment, "after": treatment, "values": {}},
        metrics=metric_records(numbers.metrics),
        zero_shot_metrics=(),
        versions={},
        provenance="reported",
        citation={"reference": paper.citation, "table": _table_names(tables), "note": _note(paper, facts, tables)},
        reported={
            "paper": paper.paper,
            "runs": runs,
            "quantities": numbers.quantities,
            "deviations": numbers.deviations,
        },
        **_UNSTATED,
    )


class _Numbers:
    """The numbers of one record, sorted into metrics, other quantities and deviations."""

    def __init__(self) -> None:
        self.metrics: dict[str, dict[str, float]] = {}
        self.quantities: list[dict[str, Any]] = []
        self.deviations: list[dict[str, Any]] = []


def _numbers(paper: Paper, facts: list[Fact]) -> _Numbers:
    merged: dict[tuple[str, str], tuple[float, float | None]] = {}
    for fact in facts:
        second = {fact.bracket: fact.number.bracket} if fact.bracket and fact.number.bracket is not None else {}
        deviation = second.pop("deviation", fact.number.spread)
        named = [(fact.quantity, fact.number.value, deviation), *((name, value, None) for name, value in second.items())]
        for name, value, spread in named:
            known = merged.get((fact.test, name), (value, None))
            if known[0] != value:
                raise ZooError(
                    f"{paper.paper} table {fact.table}: {fact.cell.row!r}, {fact.cell.column!r} is {value}, "
                    f"but another table has {known[0]}"
                )
            merged[fact.test, name] = (value, spread if known[1] is None else known[1])
    numbers = _Numbers()
    for (test, name), (value, spread) in merged.items():
        if name in METRICS:
            numbers.metrics.setdefault(test, {})[name] = value
            if spread is not None:
                numbers.deviations.append({"test_set": test, "metric": name, "value": spread})
        else:
            about = paper.quantities[name].model_dump()
            numbers.quantities.append({"name": name, **about, "value": value, "test_set": test or None, "deviation": spread})
    return numbers


def _table_names(names: list[str]) -> str:
    return f"Table {names[0]}" if len(names) == 1 else f"Tables {', '.join(names[:-1])} and {names[-1]}"


def _note(paper: Paper, facts: list[Fact], tables: list[str]) -> str:
    placed = dict.fromkeys(f"{PLACED[fact.cell.note]}" for fact in facts if fact.cell.note in PLACED)
    return " ".join([*(paper.tables[name].about.strip() for name in tables), *(f"Some numbers: {words}." for words in placed)])


def write_records(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write one file a record, named by its id; a record that is there already is left as it is, since its name says its content."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for record in records:
        path = folder / f"{record.id}.json"
        if not path.exists():
            write_record(path, record)
            written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the records of all papers; with ``--check`` compare names with what is there. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.reported", description="Records of what papers printed.")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: records/reported in the package")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a record is missing or is not of the tables")
    options = parser.parse_args(arguments)
    try:
        records = reported_records()
        stray = {path.stem for path in options.out.glob("*.json")} - {record.id for record in records}
        if options.check:
            missing = [record.id for record in records if not (options.out / f"{record.id}.json").is_file()]
            print(f"{len(records)} records of the tables, {len(missing)} missing, {len(stray)} of no table in {options.out}")
            return 1 if missing or stray else 0
        written = write_records(records, options.out)
    except (ZooError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(records)} records, {len(written)} of them new, in {options.out}")
    for name in sorted(stray):
        print(f"of no table any more: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
