"""Energies along a scan: read with their coordinate, predicted by finished runs, drawn as they were computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from tests.refusals import cli_refusal, lacks, refusal_of
from zoo.compose import compose
from zoo.data.keys import LabelKeys
from zoo.sweeps.cuts import make_cuts_request, run_cuts
from zoo.sweeps.scans import Scan, read_scans
from zoo.sweeps.table import read_rows, write_rows
from zoo.training.config import parse_config
from zoo.training.finished import load_finished
from zoo.training.folder import RunFolder
from zoo.training.run import fine_tune

ANGLES = (150.0, 30.0, 90.0, 60.0)  # not in order, as files of several people are
ATOMS = (2, 0, 1, 3)  # O-O-H-H of hydrogen peroxide as ASE builds it


def peroxide(angle: float, cut: int) -> Atoms:
    atoms = molecule("H2O2")
    atoms.set_dihedral(*ATOMS, angle, indices=[3])
    atoms.info.update(
        {"energy": -10.0 + np.cos(np.radians(angle)) + cut, "angle": angle, "dihedrals": f"{cut}.5 {angle} 7", "note": "by hand"}
    )
    return atoms


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "turn.xyz"
    write(path, [peroxide(angle, cut) for cut in (1, 0) for angle in ANGLES])
    return path


@pytest.fixture(scope="module")
def runs(small_run, tmp_path_factory) -> Path:
    """Runs of one step: ``thing-s0`` and ``thing-s1``, one curve of two seeds, and ``other``."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, rank in (("thing-s0", 0, 1), ("thing-s1", 1, 1), ("other", 0, 2)):
        words = [*small_run, "training.steps=1", f"adapter.rank={rank}", f"training.seed={seed}", f"run.name={name}"]
        fine_tune(parse_config(compose("train", [*words, f"run.folder={folder / name}"])), say=lambda _: None)
    return folder


def scans_of(path: Path, coordinate: str, panel: str | None = None) -> list[Scan]:
    return read_scans([str(path)], coordinate, panel, LabelKeys())


def test_a_coordinate_is_a_number_of_the_file_one_of_several_or_measured_on_the_structure(scan_file):
    for coordinate in ("angle", "dihedrals.1", "2-0-1-3"):
        one, two = scans_of(scan_file, coordinate, "dihedrals.0")
        assert list(one.coordinate) == list(two.coordinate) == pytest.approx(sorted(ANGLES), abs=1e-4)
        assert one.reference == pytest.approx(-10 + np.cos(np.radians(sorted(ANGLES))), abs=1e-6)
        assert two.reference - one.reference == pytest.approx(1)
        assert (one.name, two.name) == ("turn, dihedrals.0 = 0.5", "turn, dihedrals.0 = 1.5")


def test_without_a_coordinate_frames_are_counted(scan_file):
    (scan,) = scans_of(scan_file, "frame")
    assert list(scan.coordinate) == list(range(8))
    assert list(scan.reference) == pytest.approx([atoms.get_potential_energy() for atoms in read(scan_file, ":")])


@pytest.mark.parametrize(
    ("coordinate", "told"),
    [
        ("dihedral", ("turn.xyz: frame 0 has no 'dihedral'", "angle", "dihedrals", "coordinate=frame")),
        ("dihedrals", ("dihedrals is 3 numbers", "dihedrals.0")),
        ("dihedrals.7", ("dihedrals.7", "wanted a number")),
        ("note", ("note", "wanted a number")),
        ("0-1-2-9", ("4 atoms", "0-1-2-9 are not four of them")),
    ],
)
def test_a_coordinate_that_is_none_is_refused_with_what_there_is(coordinate, told, scan_file):
    assert not lacks(refusal_of(scans_of, scan_file, coordinate), *told)


def test_a_scan_without_energies_is_refused(tmp_path):
    write(tmp_path / "bare.xyz", [molecule("H2O2")])
    assert not lacks(refusal_of(scans_of, tmp_path / "bare.xyz", "frame"), "bare.xyz: frame 0", "energy")
    assert not lacks(refusal_of(scans_of, tmp_path / "none.xyz", "frame"), "none.xyz", "does not exist")
    assert not lacks(refusal_of(scans_of, Path("acac/test_dihedra"), "frame"), "acac has no test set 'test_dihedra'", "test_dihedral")


def test_the_table_holds_what_the_runs_predict_and_the_figure_shows_it(scan_file, runs, zoo, tmp_path, drawn):
    command = [
        "cuts",
        f"runs=[{runs}/thing-*,{runs}/other]",
        f"cuts={scan_file}",
        "coordinate=angle",
        "panel=dihedrals.0",
        "sweep.folder=out",
    ]
    finished = zoo("sweep", *command)
    assert finished.code == 0, finished.err
    rows = read_rows(tmp_path / "out/cuts.csv")
    assert len(rows) == 3 * 8
    assert {(row["curve"], row["seed"]) for row in rows} == {("thing", 0), ("thing", 1), ("other", 0)}
    atoms = read(scan_file, ":")
    folder, config = RunFolder.existing(runs / "thing-s1")
    wanted = [answer.energy for answer in load_finished(folder, config, "float32", "cpu").predict(atoms)]
    here = [row for row in rows if row["run"] == "thing-s1"]
    assert [row["predicted_ev"] for row in here] == pytest.approx([wanted[int(row["frame"])] for row in here], abs=1e-5)
    assert np.ptp(wanted) > 1e-3
    one, two = drawn[0].axes
    assert (one.get_title(), one.get_xlabel()) == ("turn, dihedrals.0 = 0.5", "angle")
    assert one.get_ylabel() == "energy − lowest reference energy (eV)"
    reference, thing, other = two.lines
    assert reference.get_ydata() == pytest.approx(np.cos(np.radians(sorted(ANGLES))) - np.cos(np.radians(150)), abs=1e-6)
    energies = np.array(
        [[row["predicted_ev"] for row in rows if row["run"] == f"thing-s{seed}" and "1.5" in row["cut"]] for seed in (0, 1)]
    )
    lowest = -9 + np.cos(np.radians(150))
    assert thing.get_ydata() == pytest.approx(energies.mean(axis=0) - lowest, abs=1e-6)
    errors = energies - lowest - reference.get_ydata()
    assert thing.get_label() == f"thing: RMSE {1000 * np.sqrt(np.mean(errors**2)):.3g} meV"
    assert other.get_label().startswith("other: RMSE ")
    assert len(two.collections) == 1  # a band of two seeds, none of one
    # again from the table alone, each curve from its own minimum
    again = zoo("sweep", "cuts", "draw=true", "shift=own", "coordinate=angle", "sweep.folder=out")
    assert again.code == 0, again.err
    own = drawn[1].axes[1]
    assert own.lines[2].get_ydata().min() == 0
    assert own.get_ylabel() == "energy − lowest energy (eV)"
    assert own.lines[1].get_ydata() == pytest.approx((energies - energies.min(axis=1, keepdims=True)).mean(axis=0), abs=1e-6)


def test_mistakes_are_one_line(runs, scan_file, zoo, tmp_path):
    def told(*words: str) -> str:
        return cli_refusal(zoo("sweep", "cuts", *words))

    assert not lacks(told(f"cuts={scan_file}"), "no runs", "runs=[")
    assert not lacks(told("runs=nowhere", f"cuts={scan_file}"), "nowhere", "not a run folder")
    assert not lacks(told(f"runs={runs}/other", f"cuts={scan_file}", "adapter=elora"), "trains nothing", "adapter=elora")
    assert not lacks(told(f"runs={runs}/other", "cut=x"), "unknown key 'cut'", "did you mean 'cuts'")
    assert not lacks(told(f"runs={runs}/other", f"cuts={scan_file}", "shift=up"), "shift", "reference")
    assert not lacks(told(f"runs=[{runs}/other,{runs}/../{runs.name}/other]", f"cuts={scan_file}"), "both other with seed 0")
    assert not lacks(told(f"runs={runs}/other", f"cuts=[{scan_file},{scan_file}]"), "two of them are named 'turn'")
    write(tmp_path / "gold.xyz", [Atoms("Ag2", [(0, 0, 0), (0, 0, 2)], info={"energy": 1.0})])
    assert not lacks(told(f"runs={runs}/other", "cuts=gold.xyz"), "Ag")


def test_a_published_scan_is_named_by_its_set_and_the_error_is_the_records(small_run, on_disk, tmp_path, drawn):
    for key in ("train_300K", "test_dihedral"):
        on_disk("acac", key)
    words = [word for word in small_run if not word.startswith("data.test")]
    words += ["data=acac", "data.test=[test_dihedral]", "training.steps=1", "run.name=one"]
    result = fine_tune(parse_config(compose("train", [*words, f"run.folder={tmp_path / 'one'}"])), say=lambda _: None)
    request = make_cuts_request(
        {"runs": (str(tmp_path / "one"),), "cuts": ("acac/test_dihedral",), "coordinate": "dihedral_angle", "folder": str(tmp_path / "out")}
    )
    rows = run_cuts(request, lambda _: None).rows
    assert [row["coordinate"] for row in rows] == [1.0 + 4 * place for place in range(45)]
    error = result.results.fine_tuned["test_dihedral"]["energy_rmse_mev"]
    assert drawn[0].axes[0].lines[1].get_label() == f"one: RMSE {error:.3g} meV"


def test_names_that_look_like_numbers_stay_names(tmp_path, drawn):
    who = {"curve": "7", "seed": 0, "run": "7"}
    rows = [who | {"cut": "120", "frame": n, "coordinate": 2.0 * n, "reference_ev": n - 5.0, "predicted_ev": n - 4.5} for n in range(3)]
    write_rows(tmp_path / "cuts.csv", rows)
    run_cuts(make_cuts_request({"draw": True, "folder": str(tmp_path)}), lambda _: None)
    (axes,) = drawn[0].axes
    assert axes.get_title() == "120"
    assert [line.get_label() for line in axes.lines] == ["reference", "7: RMSE 500 meV"]
    assert list(axes.lines[1].get_ydata()) == [0.5, 1.5, 2.5]
