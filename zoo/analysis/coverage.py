"""What of the base an adapter reaches: every weight of the model, in blocks or with the reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.analysis.changes import Changes

Status = Literal["adapted", "output adapted", "not adapted", "not adaptable"]
STATUSES: tuple[Status, ...] = ("adapted", "output adapted", "not adapted", "not adaptable")


@dataclass(frozen=True)
class CoverageRow:
    """One block, or one parameter that has none, in the order of the columns of ``coverage.csv``.

    The column ``weights`` adds up to the model's parameters, ``trained`` to the adapter's trainable numbers.

    Attributes:
        parameter: of the model.
        block: label within the parameter; empty where it has no blocks.
        role: of the block, such as linear or radial; empty where there is none.
        path: in the field's notation; empty where there is none.
        layer: 0 before the first interaction layer, 1 to L in them, L + 1 in the readout; None where there is no block.
        weights: how many.
        status: ``adapted``: the adapter changes these weights; ``output adapted``: it changes what their layer returns; ``not adapted``:
            it leaves them; ``not adaptable``: no adapter can change them.
        trained: trainable numbers of the adapter that belong to the block, those that a layer's blocks share at its first one.
        reason: why not adaptable; else empty.
    """

    parameter: str
    block: str
    role: str
    path: str
    layer: int | None
    weights: int
    status: Status
    trained: int
    reason: str


def coverage_rows(changes: Changes) -> list[CoverageRow]:
    """One row a block, in the order of the model's parameters, then those that are not adaptable."""
    adapter, coverage = changes.adapter, changes.potential.coverage
    rows: list[CoverageRow] = []
    counted: set[str] = set()
    for block in coverage.blocks:
        position = changes.position(block)
        trained = 0
        status: Status = "not adapted"
        if position is not None:
            status = "adapted" if changes.changes_weights(block) else "output adapted"
            tensors = [*adapter.own_factors(position).values()]
            tensors += adapter.layer_factors(position).values() if block.parameter not in counted else ()
            counted.add(block.parameter)
            trained = sum(tensor.numel() for tensor in tensors)
        rows.append(CoverageRow(block.parameter, block.label, block.role, block.path, block.layer, block.numel, status, trained, ""))
    for name, reason in coverage.not_adaptable.items():
        rows.append(CoverageRow(name, "", "", "", None, coverage.sizes[name], "not adaptable", 0, reason))
    return rows
