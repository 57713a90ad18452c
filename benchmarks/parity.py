"""Every card against its own package's ASE calculator, for ``docs/parity.md``: ``python -m benchmarks.parity``.

Nequix's package needs JAX, so its cards are compared with numbers that it left: ``CARD_reference.npz`` with ``energy``, ``forces`` (of all
atoms, one structure after the other) and ``stress``, beside ``structures.extxyz`` in a folder of ``ZOO_DATA``. A card without such numbers
is left out.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from benchmarks.structures import parity_structures
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from zoo.backbones import is_installed, load_family
from zoo.cache import data_roots
from zoo.data.folders import listings
from zoo.loading import load
from zoo.potential import Potential
from zoo.registry import Card, describe, list_models
from zoo.weights import local_weights

BY_STORED_NUMBERS = frozenset({"nequix"})
"""Families whose package has no place in this environment."""


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences to upstream: eV/atom, eV/Å, eV/Å^3 (None unless periodic in 3D), and upstream's largest force."""

    energy: float
    forces: float
    stress: float | None
    largest_force: float


def upstream_calculator(card: Card, head: str | None) -> Any:
    """The ASE calculator of the card's own package, on the same file."""
    if card.family in ("nequip", "allegro"):
        return framework_calculator(local_weights(card))
    if card.family != "sevennet":
        raise ValueError(f"{card.name}: no upstream calculator known for the family {card.family!r}; add it here")
    from sevenn.calculator import SevenNetCalculator

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return SevenNetCalculator(str(local_weights(card)), device="cpu", modal=head)


def framework_calculator(path: Path) -> Any:
    """NequIP's own calculator on a checkpoint or a package; it computes in its own process-wide state, so it comes last on a page."""
    from nequip.integrations.ase import NequIPCalculator

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return NequIPCalculator._from_saved_model(str(path))


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
    return structures_table(load(card.name, head=head, dtype="float32").calculator(), upstream_calculator(card, head))


def random_network_table(family: str, dtype: torch.dtype) -> str:
    """One row a structure, for a network of random weights that knows their elements, through the family's own checkpoint file."""
    from zoo.backbones.nequip import NequIPFramework

    numbers = sorted({int(number) for atoms in parity_structures().values() for number in atoms.numbers})
    names = [chemical_symbols[number] for number in numbers]
    toy = load_family(family).toy(0)
    assert isinstance(toy, NequIPFramework)
    values = {
        "avg_num_neighbors": 12.0,
        "per_type_energy_scales": 1.0,
        "per_type_energy_shifts": dict(zip(names, [-0.1 * n for n in numbers], strict=True)),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.ckpt"
        Potential(NequIPFramework({**toy.config, **values, "type_names": names}, dtype)).save_upstream_checkpoint(path)
        return structures_table(load(path).calculator(), framework_calculator(path))


def stored_table(card: Card) -> str | None:
    """One row a structure, against numbers that the card's package left; None where ZOO_DATA has none for the card."""
    reference = next((path for listing in listings(data_roots()) for path in listing.by_name.get(f"{card.name}_reference.npz", ())), None)
    if reference is None:
        return None
    structures = ase.io.read(reference.with_name("structures.extxyz"), ":")
    return difference_table(compare_stored(load(card.name, dtype="float32").calculator(), reference, structures))


def compare_stored(ours: Any, reference: Path, structures: list[Atoms]) -> dict[str, Difference]:
    """Each structure, by its formula, against the file's numbers."""
    found = {}
    with np.load(reference, allow_pickle=False) as stored:
        energies, forces, stresses = stored["energy"], stored["forces"], stored["stress"]
    first = 0
    for atoms, energy, stress in zip(structures, energies, stresses, strict=True):
        wanted = forces[first : first + len(atoms)]
        first += len(atoms)
        atoms.calc = ours
        found[atoms.get_chemical_formula()] = Difference(
            energy=abs(atoms.get_potential_energy() - float(energy)) / len(atoms),
            forces=float(np.abs(atoms.get_forces() - wanted).max()),
            stress=float(np.abs(atoms.get_stress(voigt=False) - stress).max()),
            largest_force=float(np.abs(wanted).max()),
        )
    return found


def structures_table(ours: Any, theirs: Any) -> str:
    """One row a structure, for two calculators."""
    return difference_table({name: compare(ours, theirs, atoms) for name, atoms in parity_structures().items()})


def difference_table(differences: dict[str, Difference]) -> str:
    """One row a structure."""
    rows = []
    for name, found in differences.items():
        stress = "" if found.stress is None else f"{found.stress:.1e}"
        rows.append([name, f"{found.energy:.1e}", f"{found.forces:.1e}", stress, f"{found.largest_force:.2f}"])
    return markdown_table(["structure", "energy, eV/atom", "forces, eV/Å", "stress, eV/Å³", "largest force, eV/Å"], rows)


def page_content() -> str:
    """A table for every card and head that there is something to compare with."""
    parts = []
    for name in list_models():
        card = describe(name)
        if not card.ships_with_a_package:
            continue  # not downloaded for a page
        for head in card.heads or (None,):
            table = stored_table(card) if card.family in BY_STORED_NUMBERS else card_table(card, head)
            if table is not None:
                parts.append(f"**`{name}`{f', head `{head}`' if head else ''}**\n\n{table}")
    for family in filter(is_installed, ("allegro", "nequip")):
        for dtype in (torch.float64, torch.float32):
            name = str(dtype).removeprefix("torch.")
            parts.append(f"**{family}, random weights, {name}**\n\n{random_network_table(family, dtype)}")
    return "\n\n".join([*parts, stamp("python -m benchmarks.parity")])


if __name__ == "__main__":
    write_between_markers(ROOT / "docs" / "parity.md", "parity", page_content())
