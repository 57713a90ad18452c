"""Every published set that is in ZOO_DATA, through its card: the counts, elements, labels and levels of theory that are known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from ase.data import chemical_symbols

from tests.published_sets import KCAL_PER_MOL, frames_of
from zoo.data.card_files import on_this_disk
from zoo.data.catalogue import data_card, data_set_names


@dataclass(frozen=True)
class Known:
    """What is known of one file: frames, elements (or how many), the first energy in eV, and whether it is periodic.

    ``stress`` counts the frames that have one, ``forces`` says whether all have forces (or none).
    """

    frames: int
    elements: str | int
    energy: float
    periodic: bool = False
    forces: bool = True
    stress: int = 0


def _rmd17() -> dict[tuple[str, str], Known]:
    # elements, and the first energies of split 01 in kcal/mol
    molecules = {
        "aspirin": ("C H O", -406273.745599, -406278.824425),
        "azobenzene": ("C H N", -358673.823585, -358682.79935),
        "benzene": ("C H", -145433.021202, -145434.637593),
        "ethanol": ("C H O", -97079.922222, -97082.387176),
        "malonaldehyde": ("C H O", -167306.893898, -167305.086491),
        "naphthalene": ("C H", -241629.987939, -241641.479898),
        "paracetamol": ("C H N O", -322831.230131, -322836.508564),
        "salicylic": ("C H O", -310685.228092, -310680.043551),
        "toluene": ("C H", -170040.86817, -170043.020834),
        "uracil": ("C H N O", -259815.874605, -259804.604677),
    }
    known = {}
    for molecule, (elements, train, test) in molecules.items():
        known[f"rmd17/{molecule}", "train_1"] = Known(1000, elements, train * KCAL_PER_MOL)
        known[f"rmd17/{molecule}", "test_1"] = Known(1000, elements, test * KCAL_PER_MOL)
        known[f"rmd17/{molecule}", "isolated_atoms"] = Known(4, "C H N O", -13.568422383046626, forces=False)
    return known


KNOWN = _rmd17() | {
    ("3bpa", "train_300K"): Known(500, "C H N O", -17660.461737861464),
    ("3bpa", "train_mixedT"): Known(500, "C H N O", -17660.321436367645),
    ("3bpa", "test_300K"): Known(1669, "C H N O", -17660.06855946407),
    ("3bpa", "test_600K"): Known(2138, "C H N O", -17659.831875761836),
    ("3bpa", "isolated_atoms"): Known(4, "C H N O", -1029.4889999855063, forces=False),
    ("acac", "train_300K"): Known(500, "C H O", -9391.45554428476),
    ("acac", "train_600K"): Known(500, "C H O", -9390.791202754173),
    ("acac", "test_300K"): Known(650, "C H O", -9391.254099941396),
    ("acac", "test_600K"): Known(650, "C H O", -9390.786398197868),
    ("acac", "test_dihedral"): Known(45, "C H O", -9391.927102388827, forces=False),
    ("acac", "test_H_transfer"): Known(15, "C H O", -9392.075934260127, forces=False),
    ("acac", "isolated_atoms"): Known(3, "C H O", -13.568422178253735, forces=False),
    ("alexandria-random-1k", "frames"): Known(1000, 84, -17.52450881, True, stress=1000),
    ("mpf-tp", "frames"): Known(1069, 80, -79.26068284, True, stress=1069),
    ("mptrj-1k", "frames"): Known(1000, 85, -28.75765745, True, stress=1000),
    ("mptrj-highest-stress-1k", "frames"): Known(1000, 82, -243.04360191, True, stress=1000),
    ("chgnet-vasp", "outcar"): Known(1, "Cl Li", -153.0123588, True, stress=1),
    ("chgnet-vasp", "vasprun"): Known(1, "Cl Li", -153.0123588, True, stress=1),
    ("cu-snap", "AIMD"): Known(120, "Cu", -437.53078331, True, stress=120),
    ("cu-snap", "Elastic"): Known(122, "Cu", -442.19172941, True, stress=122),
    ("cu-snap", "Surface"): Known(12, "Cu", -30.9898365, True, stress=12),
    ("cu-snap", "Vacancy"): Known(40, "Cu", -426.29982847, True, stress=40),
    ("lam/hfo2-init", "frames"): Known(1180, "Hf O", -975.1279296875, True, stress=1180),
    # of 15 systems one, with 590 frames, has no virial
    ("lam/sse-pbe-ligeps", "frames"): Known(3499, "Ge Li P S", -215.4699337, True, stress=3499 - 590),
    ("nio-deltaspin", "data_0"): Known(60, "Ni O", -166.28963765, True),
    ("nio-deltaspin", "data_1"): Known(60, "Ni O", -166.30172811, True),
    ("nio-deltaspin", "data_2"): Known(31, "Ni O", -166.30764396, True),
    ("oc20/samples", "slab"): Known(1, "Al C Cu O Se", -135.66393572, True),
    ("oc20/samples", "trajectory"): Known(47, "O Rb", -17.87281992, True),
    ("oxides", "frames"): Known(295, "Ir O Ru Sn Ti V", -41.358821, True),
}  # fmt: skip

# what the pages beside the files, the papers, or the files themselves say of the calculation
THEORY = {
    "3bpa": "omegaB97X/6-31G(d)",
    "acac": "PBE+D3/def2-SVP",
    "alexandria": "PBE",
    "chgnet": "PBE+D3",
    "cu-snap": "PBE, VASP, PAW (Cu_pv), 520 eV",
    "lam/": "PBE",
    "mpf": "PBE",
    "mptrj": "PBE",
    "nio": "spin-constrained DFT (DeltaSpin",
    "oc20": "RPBE",
    "oxides": "PBE",
    "rmd17": "PBE/def2-SVP",
}


def test_every_file_that_is_here_is_in_the_table(zoo_data: Path) -> None:
    here = {(name, key) for name in data_set_names() for key in data_card(name).files if on_this_disk(data_card(name), key)}
    assert here, "nothing of any set was found"
    unknown = here - set(KNOWN) - {("oc20/samples", "linear_references"), ("oc20/s2ef-total", "linear_references")}
    assert not unknown, "look up what is known of them and add it to the table"


@pytest.mark.parametrize(("name", "key"), KNOWN)
def test_counts_elements_and_labels_are_as_its_pages_say(name: str, key: str, on_disk) -> None:
    on_disk(name, key)
    known, frames = KNOWN[name, key], frames_of(name, key)
    elements = sorted({chemical_symbols[number] for frame in frames for number in frame.atomic_numbers})
    assert len(frames) == known.frames
    assert (" ".join(elements) if isinstance(known.elements, str) else len(elements)) == known.elements
    assert {bool(frame.pbc.all()) for frame in frames} == {bool(frame.pbc.any()) for frame in frames} == {known.periodic}
    assert all(frame.has_energy for frame in frames)
    assert {frame.has_forces for frame in frames} == {known.forces}
    assert sum(frame.has_stress for frame in frames) == known.stress
    assert frames[0].energy == pytest.approx(known.energy, rel=1e-11)
    (theory,) = [theory for start, theory in THEORY.items() if name.startswith(start)]
    assert all(frame.level_of_theory.startswith(theory) for frame in frames)
