"""Every card against its own package's ASE calculator, for ``docs/parity.md``: ``python -m benchmarks.parity``."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from benchmarks.structures import parity_structures
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from zoo.loading import load
from zoo.registry import Card, describe, list_models
from zoo.weights import local_weights


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences to upstream: eV/atom, eV/Å, eV/Å^3 (None unless periodic in 3D), and upstream's largest force."""

    energy: float
    forces: float
    stress: float | None
    largest_force: float


def upstream_calculator(card: Card, head: str | None) -> Any:
    """The ASE calculator of the card's own package, on the same file."""
    from sevenn.calculator import SevenNetCalculator

    if card.family != "sevennet":
        raise ValueError(f"{card.name}: no upstream calculator known for the family {card.family!r}; add it here")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return SevenNetCalculator(str(local_weights(card)), device="cpu", modal=head)


def compare(ours: Any, theirs: Any, atoms: Atoms) -> Difference:
    """One structure through both calculators."""
    mine, upstream = atoms.copy(), atoms.copy()
    mine.calc, upstream.calc = ours, theirs
    wanted = upstream.get_forces()
    stress = float(np.abs(mine.get_stress() - upstream.get_stress()).max()) if atoms.pbc.all() else None
    return Difference(
        energy=abs(mine.get_potential_energy() - upstream.get_potential_energy()) / len(atoms),
        forces=float(np.abs(mine.get_forces() - wanted).max()),
        stress=stress,
        largest_force=float(np.abs(wanted).max()),
    )


def card_table(card: Card, head: str | None) -> str:
    """One row a structure."""
    ours, theirs = load(card.name, head=head, dtype="float32").calculator(), upstream_calculator(card, head)
    rows = []
    for name, atoms in parity_structures().items():
        found = compare(ours, theirs, atoms)
        stress = "" if found.stress is None else f"{found.stress:.1e}"
        rows.append([name, f"{found.energy:.1e}", f"{found.forces:.1e}", stress, f"{found.largest_force:.2f}"])
    return markdown_table(["structure", "energy, eV/atom", "forces, eV/Å", "stress, eV/Å³", "largest force, eV/Å"], rows)


def page_content() -> str:
    """A table for every card whose weights need no download, and every head."""
    parts = []
    for name in list_models():
        card = describe(name)
        if not card.ships_with_a_package:
            continue
        for head in card.heads or (None,):
            parts.append(f"**`{name}`{f', head `{head}`' if head else ''}**\n\n{card_table(card, head)}")
    return "\n\n".join([*parts, stamp("python -m benchmarks.parity")])


if __name__ == "__main__":
    write_between_markers(ROOT / "docs" / "parity.md", "parity", page_content())
