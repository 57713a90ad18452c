"""Total charge and spin multiplicity on their way from a file to the batch that a network reads."""

from __future__ import annotations

import json
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from tests.refusals import lacks, refusal_of
from zoo.backbones import load_family
from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.labels import labelled_frame
from zoo.data.raw import ReadOptions
from zoo.data.readers import ase_database, ase_files, pymatgen_json
from zoo.data.splits import frame_sha256
from zoo.evaluation.equivariance import check_equivariance
from zoo.evaluation.transformations import double_frame
from zoo.graph import AtomGraph, collate
from zoo.potential import Potential


def labelled(**info: object) -> Atoms:
    atoms = molecule("CH3OH")
    atoms.info.update(info)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((6, 3)))
    return atoms


def test_a_file_brings_charge_and_spin_into_the_batch(tmp_path):
    ase.io.write(tmp_path / "ions.extxyz", [labelled(charge=1, spin=2), labelled(), labelled(charge=-1)], format="extxyz")
    raw = ase_files.FORMAT.read(tmp_path / "ions.extxyz", ReadOptions())
    frames = [labelled_frame(one, "ions.extxyz", index, LabelKeys(), ("energy", "forces")) for index, one in enumerate(raw)]
    assert [(frame.charge, frame.spin) for frame in frames] == [(1, 2), (0, 0), (-1, 0)]
    batch = collate([AtomGraph.from_frame(frame, 3.0) for frame in frames])
    assert batch.charge.tolist() == [1, 0, -1]
    assert batch.spin.tolist() == [2, 0, 0]


def test_a_charge_is_part_of_a_frame_and_neutral_frames_are_what_they_were():
    neutral = Frame.unlabelled(molecule("CH3OH"))
    ion = replace(neutral, charge=1)
    assert len({frame_sha256(frame) for frame in (neutral, ion, replace(neutral, spin=1))}) == 3
    assert frame_sha256(Frame.unlabelled(labelled(charge=0, spin=0))) == frame_sha256(neutral)
    assert ion.to_atoms().info == {"charge": 1}
    assert neutral.to_atoms().info == {}
    assert double_frame(ion).charge == 2


@pytest.mark.parametrize("charge", [0.5, "plus", float("nan"), [0, 1]])
def test_a_charge_that_is_no_whole_number_is_one_line(charge):
    assert not lacks(
        refusal_of(Frame.unlabelled, labelled(charge=charge), "ions.extxyz", 3), "ions.extxyz: frame 3", "charge=", "whole number"
    )


def test_whole_numbers_of_any_type_are_taken():
    assert Frame.unlabelled(labelled(charge=1.0, spin=np.int32(3))).charge == 1


def test_a_database_keeps_charge_and_spin_beside_the_atoms_as_fairchem_does(tmp_path):
    from ase.db import connect

    with connect(tmp_path / "ions.db") as database:
        database.write(labelled(), data={"charge": 1, "spin": 2})
        database.write(labelled(), data={})
    raw = list(ase_database.FORMAT.read(tmp_path / "ions.db", ReadOptions()))
    frames = [labelled_frame(one, "ions.db", index, LabelKeys(), ("energy", "forces")) for index, one in enumerate(raw)]
    assert [(frame.charge, frame.spin) for frame in frames] == [(1, 2), (0, 0)]


def test_a_pymatgen_structure_brings_its_charge(tmp_path):
    lattice = {"matrix": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]}
    site = {"species": [{"element": "Cu", "occu": 1}], "abc": [0, 0, 0], "xyz": [0, 0, 0]}
    entry = {"structure": {"@module": "pymatgen.core.structure", "@class": "Structure", "charge": 1, "lattice": lattice, "sites": [site]}}
    (tmp_path / "ion.json").write_text(json.dumps([entry | {"energy": -1.0}]))
    (raw,) = pymatgen_json.FORMAT.read(tmp_path / "ion.json", ReadOptions())
    assert raw.charge == 1


def test_an_ions_energy_need_not_double_with_its_structure():
    pytest.importorskip("fairchem.core")
    potential = Potential(load_family("uma").more_toys["experts"](0))
    ion = replace(Frame.unlabelled(molecule("CH3OH")), charge=1, spin=2)
    required = {}
    for frame in (ion, replace(ion, charge=0, spin=0)):
        rows = check_equivariance(potential, [frame]).rows
        required[frame.charge] = {row.required for row in rows if (row.test, row.quantity) == ("extensivity", "energy")}
    assert required[1] == {False}
    assert required[0] == {potential.backbone.extensive}
