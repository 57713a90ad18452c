"""Neighbours within the model's cutoff: frames without any, isolated atoms, and atoms with more than the model keeps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from zoo.data.frame import Frame
from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.subject import Subject, by_name, spread
from zoo.neighbours import neighbour_list

LOOKED_AT = 2000
MANY_CUT = 0.5


def neighbour_counts(frame: Frame, cutoff_angstrom: float) -> NDArray[np.int64]:
    """(N,) how many neighbours each atom has within the cutoff, periodic images included."""
    edges = neighbour_list(frame.positions, frame.cell, frame.pbc, cutoff_angstrom)[0]
    return np.bincount(edges[1], minlength=len(frame)).astype(np.int64)


@check("neighbours.counts", "Has every atom neighbours within the cutoff, and no more than the model keeps?", needs=("model",))
def counts_in_range(subject: Subject) -> Iterator[Finding]:
    """A frame of several atoms without any edge is refused by training: a length unit or a cell is wrong."""
    recipe = subject.model.backbone.graph_recipe
    empty, lonely, cut, atoms = [], [], 0, 0
    looked_at = spread(subject.frames, LOOKED_AT)
    for frame in looked_at:
        counts = neighbour_counts(frame, recipe.cutoff_angstrom)
        atoms += len(frame)
        cut += int((counts > recipe.max_neighbours).sum()) if recipe.max_neighbours is not None else 0
        if len(frame) > 1 and not counts.any():
            empty.append(frame)
        elif len(frame) > 1 and not counts.all():
            lonely.append(frame)
    cutoff = f"{recipe.cutoff_angstrom:g} Å"
    if empty:
        found = f"{len(empty):,} of {len(looked_at):,} frames have no pair of atoms within the cutoff of {cutoff}"
        remedy = "check the length unit (data.length_unit=...) and the cell, or remove the frames"
        yield Finding("error", "neighbours.counts", found, "neighbours", remedy, by_name(empty))
    if lonely:
        found = f"{len(lonely):,} of {len(looked_at):,} frames have an atom without neighbours within {cutoff}"
        remedy = "right where atoms leave, and in metals like Rb; else check the cell: the model sees such an atom as isolated"
        yield Finding("warning", "neighbours.counts", found, "neighbours of every atom", remedy, by_name(lonely))
    if cut:
        found = (
            f"{cut / atoms:.0%} of the atoms have more than {recipe.max_neighbours} neighbours within {cutoff}; the model sees the nearest"
        )
        yield Finding("warning" if cut > MANY_CUT * atoms and recipe.strict else "note", "neighbours.counts", found)
