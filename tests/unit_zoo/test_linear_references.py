"""Linear references: what of the published files is physical, and that the rest would have given nonsense."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from tests.refusals import refusal_of
from zoo.data.linear_references import read_linear_references

# masked besides the exact zeros
OC20_NONSENSE = "He Li Be F Ne Mg Ar Br Kr I Xe Ba La Ce Pr Nd Pm Sm Eu"
OC20_ZERO = "Gd Tb Dy Ho Er Tm Yb Lu Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es"
OC22_NONSENSE = "He B F Ne P S Cl Ar Br Kr Tc I Xe"
OC22_ZERO = "La Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es"


@pytest.mark.parametrize(
    ("file", "count", "masked"),
    [
        ("oc20_linref.npz", 56, f"{OC20_NONSENSE} {OC20_ZERO}"),
        ("oc22_linfit_coeffs.npz", 57, f"{OC22_NONSENSE} {OC22_ZERO}"),
    ],
)
def test_the_published_files_keep_their_physical_elements_and_no_others(
    file: str, count: int, masked: str, data_folder: Callable[[str], Path]
) -> None:
    path = data_folder("oc20") / file
    references = read_linear_references(path)
    assert len(references) == count
    assert {chemical_symbols[number] for number in set(range(1, 100)) - set(references)} == set(masked.split())
    raw = np.load(path, allow_pickle=False)["coeff"]
    assert all(raw[number] == energy for number, energy in references.items())


def test_a_masked_coefficient_would_have_given_nonsense(data_folder: Callable[[str], Path]) -> None:
    oc20, oc22 = data_folder("oc20") / "oc20_linref.npz", data_folder("oc20") / "oc22_linfit_coeffs.npz"
    raw = {path: np.load(path, allow_pickle=False)["coeff"] for path in (oc20, oc22)}
    slab = Atoms("Pt4CO")
    physical = sum(raw[oc20][slab.numbers])
    assert sum(read_linear_references(oc20)[int(number)] for number in slab.numbers) == pytest.approx(physical)
    assert -50 < physical < -30
    # one atom of an element that OC20 lacks, and of one that OC22 lacks
    assert abs(sum(raw[oc20][Atoms("Pt4CF").numbers])) > 1e12
    assert sum(raw[oc22][Atoms("Pt4OTc").numbers]) > 100
    assert atomic_numbers["F"] not in read_linear_references(oc20)
    assert atomic_numbers["Tc"] not in read_linear_references(oc22)
    assert atomic_numbers["Tc"] in read_linear_references(oc20)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        *((value, True) for value in (-16.2, 1.24, -0.2)),
        *((value, False) for value in (0.0, 4e-4, -5e-3, 156.4, -4690.0, -6e12, float("nan"), float("inf"))),
    ],
)
def test_a_coefficient_counts_if_it_can_be_the_energy_of_an_atom(value: float, kept: bool, tmp_path: Path) -> None:
    # entry 0 belongs to no element, whatever it holds
    np.savez(tmp_path / "references.npz", coeff=np.array([-4.0, -3.4, value]))
    assert read_linear_references(tmp_path / "references.npz") == {1: -3.4} | ({2: value} if kept else {})


def _bad(folder: Path) -> dict[str, Path]:
    arrays = {
        "other name": {"coefficients": np.zeros(3)},
        "matrix": {"coeff": np.zeros((2, 2))},
        "text": {"coeff": np.array(["a", "b"])},
        "too long": {"coeff": np.full(120, -3.0)},
        "objects": {"coeff": np.array([{}], dtype=object)},
        "nothing physical": {"coeff": np.full(100, -3e3)},
    }
    for name, content in arrays.items():
        np.savez(folder / f"{name}.npz", **content)
    np.save(folder / "bare.npy", np.full(3, -3.0))
    (folder / "cut.npz").write_bytes((folder / "matrix.npz").read_bytes()[:200])
    (folder / "empty.npz").touch()
    (folder / "words.txt").write_text("no numbers")
    return {path.stem: path for path in folder.iterdir()} | {"gone": folder / "gone.npz"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("other name", "no array 'coeff'"),
        ("bare", "holds one bare array"),
        ("matrix", r"shape \(2, 2\)"),
        ("text", "type <U1"),
        ("too long", "at most 119 numbers"),
        ("objects", "without unpickling"),
        ("cut", "without unpickling"),
        ("empty", "without unpickling"),
        ("words", "without unpickling"),
        ("nothing physical", "no coefficient lies within -25 to 5 eV"),
        ("gone", "no such file"),
    ],
)
def test_what_is_no_file_of_linear_references_is_refused_in_one_line(name: str, wanted: str, tmp_path: Path) -> None:
    path = _bad(tmp_path)[name]
    refusal = refusal_of(read_linear_references, path)
    assert re.search(wanted, refusal)
    assert path.name in refusal
