"""Coverage and trainable counts of the cards whose weights a package ships, for ``docs/adapters.md``: ``python -m benchmarks.counts``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.blocks import Coverage
from adapters.method import create_method
from adapters.stack import AdapterStack
from benchmarks.tables import ROOT, markdown_table, write_between_markers
from zoo.loading import load
from zoo.potential import Potential
from zoo.registry import describe, list_models

METHODS: dict[str, Mapping[str, Any]] = {
    "`full`": {"name": "full"},
    "`readout`": {"name": "readout"},
    "`elora`, rank 16": {"name": "elora", "rank": 16},
    "`elora`, rank 4": {"name": "elora", "rank": 4},
    "`elora`, rank 16, `dense_substitution=when_smaller`": {"name": "elora", "rank": 16, "dense_substitution": "when_smaller"},
    "`elora`, rank 4, `dense_substitution=when_smaller`": {"name": "elora", "rank": 4, "dense_substitution": "when_smaller"},
    "`elora_paper` preset (rank 16, and the radial basis)": {"name": "elora", "rank": 16, "extra_trainable": "reference"},
    "`sparse`": {"name": "sparse"},
    "`sparse`, `setting=every`": {"name": "sparse", "setting": "every"},
}


def load_all() -> dict[str, Potential]:
    """The potential of each card whose weights need no download; a multi-head model with its first head, which changes no count."""
    cards = [card for card in map(describe, list_models()) if card.ships_with_a_package]
    return {card.name: load(card.name, head=(card.heads or (None,))[0]) for card in cards}


def coverage_table(coverages: Mapping[str, Coverage]) -> str:
    """Weights (and blocks) by role, a column a model."""
    roles = sorted({role for coverage in coverages.values() for role in coverage.roles})
    rows = [[role, *[_role_cell(coverage, role) for coverage in coverages.values()]] for role in roles]
    rows.append(["**adaptable**", *[f"**{c.trainable_count:,}** ({len(c.blocks)})" for c in coverages.values()]])
    reasons = sorted({reason for coverage in coverages.values() for reason in coverage.not_adaptable.values()})
    for reason in reasons:
        cells = [f"{_reason_count(c, reason):,}" for c in coverages.values()]
        rows.append([f"not adaptable: {reason}", *cells])
    return markdown_table(["role", *[f"`{name}`" for name in coverages]], rows)


def trainable_table(potentials: Mapping[str, Potential]) -> str:
    """Trained numbers by method, with the share of full fine-tuning's."""
    rows = []
    for label, spec in METHODS.items():
        cells = []
        for potential in potentials.values():
            count = _trainable_count(potential, spec)
            cells.append(f"{count:,} ({count / potential.coverage.trainable_count:.1%})")
        rows.append([label, *cells])
    return markdown_table(["method", *[f"`{name}`" for name in potentials]], rows)


def _trainable_count(potential: Potential, spec: Mapping[str, Any]) -> int:
    stack = AdapterStack(potential.backbone, potential.coverage)
    return stack.add("counted", create_method(spec)).trainable_count


def _role_cell(coverage: Coverage, role: str) -> str:
    blocks = [block for block in coverage.blocks if block.role == role]
    return f"{sum(block.numel for block in blocks):,} ({len(blocks)})"


def _reason_count(coverage: Coverage, reason: str) -> int:
    return sum(coverage.sizes[name] for name, why in coverage.not_adaptable.items() if why == reason)


if __name__ == "__main__":
    potentials = load_all()
    page = ROOT / "docs" / "adapters.md"
    write_between_markers(page, "coverage", coverage_table({name: potential.coverage for name, potential in potentials.items()}))
    write_between_markers(page, "trainable", trainable_table(potentials))
