"""The contract matrix for ``docs/contracts.md``: ``python -m benchmarks.contracts``.

Every registered adapter method on every toy of every registered family, in float64, with what each claim of `zoo.testing` measured. Nothing
is downloaded; minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from adapters.method import method_names
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from zoo.potential import Potential
from zoo.testing import BACKBONE_CLAIMS, METHOD_CLAIMS, Finding, Toy, activations_integrated_once, method_findings, registered_toys
from zoo.testing.claims import ask
from zoo.testing.conformance import NO_WEIGHTS

COLUMNS: Mapping[str, str] = {
    "start": "start",
    "symmetry": "rotation",
    "merged": "merged",
    "file": "file",
    "training step": "tensors moved",
    "detached": "detached",
    "shared tensors": "shared tensor",
    "coverage": "coverage",
    "counts": "reached",
}
"""Claim of `zoo.testing.METHOD_CLAIMS` -> heading of its column."""

PAGE = ROOT / "docs" / "contracts.md"


def matrix(methods: Sequence[str], toys: Sequence[Toy]) -> Iterator[list[str]]:
    """One row a toy and method, as it is ready."""
    with activations_integrated_once():
        for toy in toys:
            potential = Potential(toy.build(0))
            coverage = ask("coverage", str(toy), partial(BACKBONE_CLAIMS["coverage"], potential, None))
            for method in methods:
                findings = method_findings(method, {str(toy): potential}, [claim for claim in COLUMNS if claim in METHOD_CLAIMS])
                yield row(method, toy, [coverage, *findings])


def row(method: str, toy: Toy, findings: Sequence[Finding]) -> list[str]:
    """The cells of one method on one toy."""
    name = [f"`{method}`", str(toy)]
    by_claim = {finding.claim: finding for finding in findings}
    found = by_claim.get("selects weights")
    if found is not None:
        return [*name, NO_WEIGHTS if found.holds else f"**fails**: {found.fault}", *[""] * (len(COLUMNS) - 1)]
    return [*name, *(cell(by_claim[claim]) for claim in COLUMNS)]


def cell(finding: Finding) -> str:
    """What was measured, or the fault."""
    if finding.figure is None:
        return f"**fails**: {finding.fault}"
    if finding.claim in ("coverage", "counts") and finding.figure.value is not None:
        return f"{finding.figure.value:.1%}"
    return str(finding.figure)


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows as Markdown, those of one method together."""
    order = {f"`{name}`": position for position, name in enumerate(method_names())}
    return markdown_table(["method", "toy", *COLUMNS.values()], sorted(rows, key=lambda cells: order[cells[0]]))


def main() -> None:
    """Write the table, or print that of some methods and families."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(method_names()))
    parser.add_argument("--families", nargs="+", help="print the rows of these families instead of writing the page")
    arguments = parser.parse_args()
    toys = [toy for toy in registered_toys() if arguments.families is None or toy.family in arguments.families]
    rows = []
    for cells in matrix(arguments.methods, toys):
        print(" | ".join(cells), flush=True)
        rows.append(cells)
    if arguments.families is None and set(arguments.methods) == set(method_names()):
        write_between_markers(PAGE, "contracts", f"{table(rows)}\n\n{stamp('python -m benchmarks.contracts')}")


if __name__ == "__main__":
    main()
