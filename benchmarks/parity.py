"""Models against their own packages' ASE calculators, for ``docs/parity.md``: ``python -m benchmarks.parity``.

Cards whose weights a package ships, on the same file. MACE, NequIP, Allegro and UMA, whose weights would be downloaded: networks with
random weights, through a file of the package's own form. Where a package has no place in this environment, numbers that it left (Nequix,
which imports JAX; MACE under e3nn 0.4.4) are looked for in ``ZOO_DATA`` and ``ZOO_GOLDEN``: ``NAME_reference.npz`` with ``energy``,
``forces`` (of all atoms, one structure after the other) and ``stress``, beside ``structures.extxyz``. A card without such numbers is left
out, but not a whole family.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
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
from zoo.backbones import load_family
from zoo.backbones.base import Backbone
from zoo.backbones.default_dtype import default_dtype
from zoo.cache import data_roots
from zoo.data.folders import listings
from zoo.loading import load
from zoo.potential import Potential
from zoo.registry import Card, describe, list_models
from zoo.weights import local_weights

BY_STORED_NUMBERS = frozenset({"nequix"})
"""Families whose package has no place in this environment."""
RANDOM_FAMILIES = ("mace", "nequip", "allegro", "uma")
"""Families whose weights are not on this disk."""


@dataclass(frozen=True)
class Difference:
    """Largest absolute differences to upstream: eV/atom, eV/Å, eV/Å^3 (None unless periodic in 3D), and upstream's largest force."""

    energy: float
    forces: float
    stress: float | None
    largest_force: float


def upstream_calculator(family: str, path: Path, dtype: str, head: str | None = None) -> Any:
    """The ASE calculator of the family's own package, on a file of its own form."""
    logging.getLogger("nequip").setLevel(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if family == "sevennet":
            from sevenn.calculator import SevenNetCalculator

            return SevenNetCalculator(str(path), device="cpu", modal=head)
        if family == "mace":
            from zoo.backbones.mace_network import import_mace

            import_mace()
            from mace.calculators import MACECalculator

            return MACECalculator(model_paths=str(path), device="cpu", default_dtype=dtype, **({"head": head} if head else {}))
        if family in ("nequip", "allegro"):
            from nequip.integrations.ase import NequIPCalculator

            return NequIPCalculator._from_saved_model(str(path))
        if family == "uma":
            return _fairchems(path, dtype, head)
    raise ValueError(f"no upstream calculator known for the family {family!r}; add it here")


def _fairchems(path: Path, dtype: str, task: str | None) -> Any:
    """fairchem-core on its general path, with no roll about an edge, which it draws at random in every call."""
    from fairchem.core import FAIRChemCalculator
    from fairchem.core.models.uma import escn_md
    from fairchem.core.models.uma.common.quaternion.wigner_d_hybrid import axis_angle_wigner_hybrid
    from fairchem.core.units.mlip_unit import InferenceSettings, load_predict_unit

    class WithWholeCells(FAIRChemCalculator):  # it wants three lattice vectors of a wire, too
        def calculate(self, atoms: Atoms, properties: list[str], system_changes: list[str]) -> None:
            whole = atoms.copy()
            whole.set_cell(atoms.cell.complete() if atoms.pbc.any() else atoms.cell)
            super().calculate(whole, properties, system_changes)

    def without_roll(vectors: torch.Tensor, lmax: int, **given: Any) -> Any:
        return axis_angle_wigner_hybrid(vectors, lmax, vectors.new_zeros(len(vectors)), **given)

    logging.disable(logging.WARNING)
    escn_md.axis_angle_wigner_hybrid = without_roll
    settings = InferenceSettings(base_precision_dtype=dtype, activation_checkpointing=False, execution_mode="general")
    return WithWholeCells(load_predict_unit(str(path), inference_settings=settings, device="cpu"), task_name=task)


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


def compare_stored(ours: Any, reference: Path, structures: list[Atoms]) -> Iterator[Difference]:
    """Each structure against the file's numbers."""
    with np.load(reference, allow_pickle=False) as stored:
        energies, forces, stresses = stored["energy"], stored["forces"], stored["stress"]
    first = 0
    for atoms, energy, stress in zip(structures, energies, stresses, strict=True):
        wanted = forces[first : first + len(atoms)]
        first += len(atoms)
        atoms.calc = ours
        yield Difference(
            energy=abs(atoms.get_potential_energy() - float(energy)) / len(atoms),
            forces=float(np.abs(atoms.get_forces() - wanted).max()),
            stress=float(np.abs(atoms.get_stress(voigt=False) - stress).max()) if atoms.pbc.all() else None,
            largest_force=float(np.abs(wanted).max()),
        )


def row(model: str, structures: str, dtype: str, found: list[Difference]) -> list[str]:
    """One line of the table: the largest difference over a set of structures."""
    stresses = [difference.stress for difference in found if difference.stress is not None]
    return [
        model,
        f"{structures} ({len(found)})",
        dtype,
        f"{max(difference.energy for difference in found):.1e}",
        f"{max(difference.forces for difference in found):.1e}",
        f"{max(stresses):.1e}" if stresses else "",
        f"{max(difference.largest_force for difference in found):.2g}",
    ]


def rows_of(model: str, dtype: str, ours: Any, theirs: Any) -> list[list[str]]:
    """One line a set of structures, for two calculators."""
    sets = parity_structures()
    return [row(model, name, dtype, [compare(ours, theirs, atoms) for atoms in structures]) for name, structures in sets.items()]


def card_rows(card: Card) -> list[list[str]]:
    """A card on the file that its package ships, or against stored numbers; none where there are none."""
    if card.family in BY_STORED_NUMBERS:
        reference = next(
            (path for listing in listings(data_roots()) for path in listing.by_name.get(f"{card.name}_reference.npz", ())), None
        )
        return [] if reference is None else [_stored_row(f"`{card.name}`", load(card.name, dtype="float32"), reference, "float32")]
    found = []
    for head in card.heads or (None,):
        name = f"`{card.name}`{f', head `{head}`' if head else ''}"
        ours = load(card.name, head=head, dtype="float32").calculator()
        found += rows_of(name, "float32", ours, upstream_calculator(card.family, local_weights(card), "float32", head))
    return found


def golden_rows() -> list[list[str]]:
    """MACE models that e3nn 0.4.4 wrote, against the numbers they gave there."""
    folder = Path(os.environ.get("ZOO_GOLDEN", "")) / "mace_e3nn04"
    models = sorted(folder.glob("*.model")) if os.environ.get("ZOO_GOLDEN") else []
    return [
        _stored_row(f"MACE written under e3nn 0.4.4 (`{path.stem}`)", load(path), path.with_name(f"{path.stem}_reference.npz"), "float64")
        for path in models
    ]


def _stored_row(model: str, potential: Potential, reference: Path, dtype: str) -> list[str]:
    structures = ase.io.read(reference.with_name("structures.extxyz"), ":")
    return row(model, "stored", dtype, list(compare_stored(potential.calculator(), reference, structures)))


def random_rows(family: str) -> Iterator[list[str]]:
    """Networks of random weights that know the structures' elements, through the family's own form of file, in both precisions."""
    for name, toy in {"": load_family(family).toy, **load_family(family).more_toys}.items():
        for dtype in (torch.float64, torch.float32):
            label = str(dtype).removeprefix("torch.")
            backbone = _knowing_all_elements(toy(0), dtype)
            # nequip's own processes run in float64; mace's pair repulsion computes in the default dtype, whatever the model is in
            with tempfile.TemporaryDirectory() as folder, default_dtype(dtype if family == "mace" else torch.float64):
                path = Path(folder) / "random.ckpt"
                Potential(backbone).save_upstream_checkpoint(path)
                ours, theirs = load(path, head=backbone.head).calculator(), upstream_calculator(family, path, label, backbone.head)
                yield from rows_of(f"{family}, random weights{f' ({name})' if name else ''}", label, ours, theirs)


def _knowing_all_elements(toy: Backbone, dtype: torch.dtype) -> Backbone:
    if toy.family == "uma":  # every element up to gold
        return toy.rebuilt(dtype)
    numbers = sorted({int(number) for structures in parity_structures().values() for atoms in structures for number in atoms.numbers})
    if toy.family == "mace":
        from zoo.backbones.mace import Mace, random_toy

        assert isinstance(toy, Mace)
        shape = (*toy.config.atomic_energies_shape[:-1], len(numbers))
        config = toy.config.model_copy(update={"atomic_numbers": tuple(numbers), "atomic_energies_shape": shape})
        return random_toy(config, 0).rebuilt(dtype)
    from zoo.backbones.nequip import NequIPFramework

    assert isinstance(toy, NequIPFramework)
    names = [chemical_symbols[number] for number in numbers]
    values = {
        "avg_num_neighbors": 12.0,
        "per_type_energy_scales": 1.0,
        "per_type_energy_shifts": dict(zip(names, [-0.1 * n for n in numbers], strict=True)),
    }
    return NequIPFramework({**toy.config, **values, "type_names": names}, dtype)


def page_content() -> str:
    """The whole table."""
    rows = []
    for card in map(describe, list_models()):
        if card.ships_with_a_package or card.family in BY_STORED_NUMBERS:
            rows += card_rows(card)
    stored = [entry[0] for entry in rows if entry[1].startswith("stored")]
    golden = golden_rows()
    if not stored or not golden:
        raise SystemExit("the stored numbers of Nequix and of MACE under e3nn 0.4.4 are not all here; set ZOO_DATA and ZOO_GOLDEN")
    rows += golden
    for family in RANDOM_FAMILIES:
        rows += random_rows(family)
    titles = ["model", "structures", "precision", "energy, eV/atom", "forces, eV/Å", "stress, eV/Å³", "largest force, eV/Å"]
    return f"{markdown_table(titles, rows)}\n\n{stamp('python -m benchmarks.parity')}"


if __name__ == "__main__":
    write_between_markers(ROOT / "docs" / "parity.md", "parity", page_content())
