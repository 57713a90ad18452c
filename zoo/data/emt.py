"""``emt-cuau``: small Cu-Au crystals, slabs and clusters labelled on the fly with ASE's effective medium theory.

The embedded default set: no download, a second to make, and far enough from every foundation model's training data that fine-tuning
shows. The labels are those of a toy potential (Jacobsen, Stoltze, Nørskov, Surf. Sci. 366, 394 (1996)), not of a DFT calculation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc100, fcc111
from ase.calculators.emt import EMT

from zoo.data.frame import Frame

DESCRIPTION = "Cu-Au crystals, slabs and clusters, made on the fly"
LEVEL_OF_THEORY = "EMT (ASE)"
LICENCE = "MIT (part of equizoo)"
POOL_FRAMES = 80
TEST_FRAMES = 40
_POOL_SEED, _TEST_SEED = 1, 2

_LATTICE_ANGSTROM = {"Cu": 3.61, "Au": 4.08}
_STRAIN = 0.04
_RATTLE_ANGSTROM = (0.02, 0.10)


def emt_pool() -> list[Frame]:
    """The 80 frames that training and validation are drawn from."""
    return emt_frames(POOL_FRAMES, _POOL_SEED, "emt-cuau/pool")


def emt_test() -> list[Frame]:
    """The 40 test frames, of the same kinds and from another seed."""
    return emt_frames(TEST_FRAMES, _TEST_SEED, "emt-cuau/test")


def emt_frames(count: int, seed: int, source: str) -> list[Frame]:
    """``count`` labelled frames of 4 to 13 atoms, cycling through crystals, slabs and clusters.

    Args:
        count: frames to make.
        seed: of composition, strain and rattle.
        source: what the frames name as their source.

    Returns:
        Frames with energy and forces, and a stress for the crystals.
    """
    # RandomState's stream is frozen by NumPy, that of a Generator may change between versions
    random = np.random.RandomState(seed)
    return [_label(_distort(_KINDS[index % len(_KINDS)](random), random), source, index) for index in range(count)]


def _distort(atoms: Atoms, random: np.random.RandomState) -> Atoms:
    strain = random.uniform(-_STRAIN, _STRAIN, size=(3, 3))
    deformation = np.eye(3) + (strain + strain.T) / 2
    if not atoms.pbc.all():
        deformation[2] = deformation[:, 2] = (0.0, 0.0, 1.0)  # vacuum has nothing to strain
    atoms.set_cell(atoms.cell.array @ deformation)
    rattle = random.normal(scale=random.uniform(*_RATTLE_ANGSTROM), size=(len(atoms), 3))
    # rounded, so that every platform labels and hashes the same structure
    atoms.set_positions(np.round(atoms.get_positions() @ deformation + rattle, 6))
    atoms.set_cell(np.round(atoms.cell.array, 6))
    return atoms


def _label(atoms: Atoms, source: str, index: int) -> Frame:
    frame = Frame.unlabelled(atoms, source, index)
    atoms.calc = EMT()
    stress = atoms.get_stress(voigt=False) if atoms.pbc.all() else np.full((3, 3), np.nan)
    return replace(
        frame,
        energy=round(float(atoms.get_potential_energy()), 8),
        forces=np.round(atoms.get_forces(), 8),
        stress=np.round(stress, 10),
        level_of_theory=LEVEL_OF_THEORY,
    )


def _fcc(a_angstrom: float) -> Atoms:
    return bulk("Cu", "fcc", a=a_angstrom, cubic=True)  # 4 atoms: corner, then the three face centres


def _vegard(symbols: list[str]) -> float:
    return float(np.mean([_LATTICE_ANGSTROM[symbol] for symbol in symbols]))


def _ordered(symbols: str) -> Callable[[np.random.RandomState], Atoms]:
    def build(random: np.random.RandomState) -> Atoms:
        species = Atoms(symbols).get_chemical_symbols()
        crystal = _fcc(_vegard(species))
        crystal.set_chemical_symbols(species)
        return crystal

    return build


def _random_alloy(random: np.random.RandomState) -> Atoms:
    """8 atoms, 2x1x1 cubic cells with random occupation."""
    species = _species(8, random)
    crystal: Atoms = _fcc(_vegard(species)).repeat((2, 1, 1))
    crystal.set_chemical_symbols(species)
    return crystal


def _slab(build: Callable[..., Atoms], layers: int) -> Callable[[np.random.RandomState], Atoms]:
    def make(random: np.random.RandomState) -> Atoms:
        species = _species(4 * layers, random)
        slab = build("Cu", size=(2, 2, layers), a=_vegard(species), vacuum=6.0)
        slab.set_chemical_symbols(species)
        return slab

    return make


def _cluster(random: np.random.RandomState) -> Atoms:
    """4 to 13 atoms: one and some of its twelve nearest neighbours in an fcc lattice, without a cell."""
    species = _species(random.randint(4, 14), random)
    half = _vegard(species) / 2
    offsets = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if abs(i) + abs(j) + abs(k) == 2])
    neighbours = offsets[random.permutation(12)[: len(species) - 1]]
    return Atoms(species, positions=np.concatenate([np.zeros((1, 3)), half * neighbours]))


def _species(count: int, random: np.random.RandomState) -> list[str]:
    share_of_gold = random.uniform()
    return ["Au" if draw < share_of_gold else "Cu" for draw in random.uniform(size=count)]


_KINDS: tuple[Callable[[np.random.RandomState], Atoms], ...] = (
    _ordered("Cu4"),
    _ordered("Au4"),
    _ordered("AuCu3"),
    _ordered("AuCuCuAu"),
    _random_alloy,
    _slab(fcc111, 2),
    _slab(fcc111, 3),
    _slab(fcc100, 2),
    _cluster,
    _cluster,
)
