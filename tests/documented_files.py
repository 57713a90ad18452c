"""Small files of every format, under the names that the commands of the documentation use."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from torch_geometric.data import InMemoryDataset

from tests.structures import slab
from tests.unit_zoo.test_readers_ase_database import write_aselmdb
from tests.unit_zoo.test_readers_deepmd import arrays_of
from tests.unit_zoo.test_readers_deepmd import write as write_system
from tests.unit_zoo.test_readers_json import copper, snap
from tests.unit_zoo.test_readers_npz import rmd17
from tests.unit_zoo.test_readers_oc20 import record, write_lmdb, write_pair
from tests.unit_zoo.test_readers_pyg import graphs
from tests.unit_zoo.test_readers_vasp import outcar, vasprun
from zoo.data.emt import emt_pool

FRAMES = 8


def write_documented_files(folder: Path) -> None:
    """Everything that a command of the documentation reads by path, but for the run folder."""
    structures = [_labelled(frame.to_atoms(), frame.energy, frame.forces) for frame in emt_pool()[:FRAMES]]
    for name in ("my", "other", "frames", "train", "valid", "a", "b"):
        write(folder / f"{name}.extxyz", structures)
    write(folder / "ref.extxyz", [_in_kcal_per_mol(atoms) for atoms in structures])
    _write_deepmd(folder)
    _write_calculations(folder)
    np.savez(folder / "my.npz", **rmd17())
    (folder / "my.json").write_text(json.dumps([snap(copper(shift / 100)) for shift in range(FRAMES)]))
    _write_databases(folder, structures)
    write_pair(folder / "raw", 0, FRAMES)
    (folder / "processed").mkdir()
    InMemoryDataset.save(graphs(FRAMES), folder / "processed" / "data.pt")


def _labelled(atoms: Atoms, energy: float, forces: np.ndarray) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def _in_kcal_per_mol(atoms: Atoms) -> Atoms:
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    plain.info["REF_energy"] = atoms.get_potential_energy() * units.mol / units.kcal
    plain.arrays["REF_forces"] = atoms.get_forces() * units.mol / units.kcal
    return plain


def _write_deepmd(folder: Path) -> None:
    """A folder of systems, one without a type map, and lists of systems."""
    for name in ("a", "b"):
        write_system(folder / "systems" / name, symbols="Cu Au", set_000=arrays_of(frames=FRAMES))
        (folder / {"a": "train_systems.txt", "b": "valid_systems.txt"}[name]).write_text(f"systems/{name}\n")
    write_system(folder / "bare", symbols=None, set_000=arrays_of(frames=FRAMES))


def _write_calculations(folder: Path) -> None:
    (folder / "OUTCAR").write_text(outcar(FRAMES))
    (folder / "vasprun.xml").write_text(vasprun(FRAMES))
    with zipfile.ZipFile(folder / "calculations.zip", "w") as archive:
        archive.writestr("run_1/OUTCAR", outcar(FRAMES))
        archive.writestr("run_2/vasprun.xml", vasprun(FRAMES))


def _write_databases(folder: Path, structures: Sequence[Atoms]) -> None:
    with connect(folder / "my.db") as database:
        for atoms in structures:
            database.write(atoms)
    write_aselmdb(folder / "my.aselmdb", [slab(number) for number in range(FRAMES)])
    write_lmdb(folder / "my.lmdb", [record(number) for number in range(FRAMES)])
