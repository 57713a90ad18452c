"""VASP's OUTCAR and vasprun.xml: against one another, against numbers picked from the text, and where a run broke off."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.refusals import refusal_of
from zoo.data.keys import LabelKeys
from zoo.data.readers import FileContent, formats, read_file, read_frames
from zoo.errors import ZooError

ALL = ("energy", "forces", "stress")
KBAR_PER_EV_PER_ANGSTROM3 = 1602.1766208
CELL = np.array([[4.0, 0.0, -1.0], [0.1, 5.0, 0.0], [0.0, 0.3, 6.0]])
MOMENTS = np.array([3.5, -2.25, 0.125])


def energy_of(step: int) -> float:
    return -10.0 - step / 8


def forces_of(step: int) -> np.ndarray:
    return np.array([[0.5, -0.25, 0.125], [0.25, 0.75, -0.5], [-0.75, -0.5, 0.375]]) * (step + 1)


def positions_of(step: int) -> np.ndarray:
    return np.array([[0.0, 0.0, 0.0], [1.5, 1.25, 0.5], [2.5, 3.0, 3.5]]) + step / 16 * np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])


def rows(*columns: np.ndarray) -> str:
    return "\n".join(" ".join(f"{number:12.6f}" for number in row) for row in np.hstack(columns))


def outcar_step(step: int, collinear: bool = True) -> str:
    """One ionic step in the documented layout, with VASP's stress 10, 20, ... kbar in its order xx, yy, zz, xy, yz, zx."""
    in_kbar = " ".join(f"{10.0 * number * (step + 1):11.5f}" for number in range(1, 7))
    moments = "".join(
        f" magnetization ({axis})\n\n# of ion       s       p       d       tot\n{'-' * 42}\n"
        + "".join(f"{ion:5d}   0.000   0.000   0.000 {factor * moment:7.3f}\n" for ion, moment in enumerate(MOMENTS, 1))
        + f"{'-' * 50}\ntot   0.000   0.000   0.000   1.375\n\n\n\n"
        for axis, factor in (("x", 1),) + (() if collinear else (("y", 2), ("z", 3)))
    )
    return (
        f"{'-' * 39} Iteration {step + 1:6d}(   1)  {'-' * 39}\n  free energy    TOTEN  = -1.0 eV\n{moments}"
        f"  in kB {in_kbar}\n  external pressure = 0.00 kB\n"
        f"      direct lattice vectors                 reciprocal lattice vectors\n{rows(CELL, np.eye(3))}\n"
        f" POSITION                                       TOTAL-FORCE (eV/Angst)\n {'-' * 83}\n"
        f"{rows(positions_of(step), forces_of(step))}\n {'-' * 83}\n"
        f"  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  {'-' * 51}\n  free  energy   TOTEN  = {energy_of(step) - 0.5:18.8f} eV\n\n"
        f"  energy  without entropy= {energy_of(step) + 0.5:18.8f}  energy(sigma->0) = {energy_of(step):18.8f}\n"
    )


def outcar(steps: int, collinear: bool = True) -> str:
    header = (
        " vasp.6.3.2 27Jun22 (build Aug 04 2022 03:43:17) complex\n POTCAR:    PAW_PBE Fe_pv 02Aug2007\n POTCAR:    PAW_PBE O 08Apr2002\n"
        " POTCAR:    PAW_PBE Fe_pv 02Aug2007\n POTCAR:    PAW_PBE O 08Apr2002\n   ions per type =               2   1\n"
        "   ISPIN  =      2    spin polarized calculation?\n"
    )
    return (
        header
        + "".join(outcar_step(step, collinear) for step in range(steps))
        + " General timing and accounting informations for this job:\n"
    )


def vasprun(steps: int) -> str:
    """The parts of a vasprun.xml that hold structures and labels."""

    def vectors(name: str, values: np.ndarray) -> str:
        return f'<varray name="{name}">' + "".join(f"<v>{' '.join(map(repr, row.tolist()))}</v>\n" for row in values) + "</varray>\n"

    def structure(step: int) -> str:
        fractional = positions_of(step) @ np.linalg.inv(CELL)
        return f"<crystal>{vectors('basis', CELL)}</crystal>{vectors('positions', fractional)}"

    def calculation(step: int) -> str:
        xx, yy, zz, xy, yz, zx = 10.0 * np.arange(1, 7) * (step + 1)
        stress = np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
        energy = f'<energy><i name="e_fr_energy">{energy_of(step) - 0.5}</i>\n<i name="e_0_energy">{energy_of(step)}</i></energy>\n'
        labels = vectors("forces", forces_of(step)) + vectors("stress", stress) + energy
        return f" <calculation>\n<scstep>{energy}</scstep>\n<structure>{structure(step)}</structure>\n{labels} </calculation>\n"

    atoms = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in ("Fe", "Fe", "O"))
    head = '<kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1.0</v></varray></kpoints>\n'
    head += (
        f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>\n<structure name="initialpos">{structure(0)}</structure>\n'
    )
    body = "".join(calculation(step) for step in range(steps))
    return f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n{head}{body}</modeling>\n'


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def assert_steps(content: FileContent, steps: int) -> None:
    assert len(content.frames) == steps
    xx, yy, zz, xy, yz, zx = -10.0 * np.arange(1, 7) / KBAR_PER_EV_PER_ANGSTROM3
    for step, frame in enumerate(content.frames):
        assert frame.atomic_numbers.tolist() == [26, 26, 8]
        assert frame.energy == energy_of(step)
        np.testing.assert_allclose(frame.forces, forces_of(step))
        np.testing.assert_allclose(frame.positions, positions_of(step), atol=1e-12)
        np.testing.assert_allclose(frame.cell, CELL)
        np.testing.assert_allclose(frame.stress / (step + 1), [[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]], rtol=1e-8)


@pytest.fixture
def real_run(data_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """The folder of a real run: Cl20Li20 with PBE+D3, one ionic step."""
    with zipfile.ZipFile(data_folder("chgnet_magmoms") / "parse-vasp-with-magmoms.zip") as archive:
        for name in ("OUTCAR", "vasprun.xml"):
            (tmp_path / name).write_bytes(archive.read(f"parse-vasp-with-magmoms/{name}"))
    return tmp_path


def test_a_real_outcar_equals_its_own_text(real_run: Path) -> None:
    (frame,) = read_frames(real_run / "OUTCAR", needs=ALL)
    text = (real_run / "OUTCAR").read_text()
    assert frame.atomic_numbers.tolist() == [3] * 20 + [17] * 20
    assert frame.energy == float(re.findall(r"energy\(sigma->0\) = +(\S+)", text)[-1]) == -153.0123588
    xx, yy, zz, xy, yz, zx = (-float(word) / KBAR_PER_EV_PER_ANGSTROM3 for word in re.findall(r"in kB +(.*)", text)[-1].split())
    np.testing.assert_allclose(frame.stress, [[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]], rtol=1e-8)
    block = text.split("TOTAL-FORCE (eV/Angst)\n")[-1].splitlines()[1:41]
    table = np.array([line.split() for line in block], dtype=float)
    np.testing.assert_array_equal(frame.positions, table[:, :3])
    np.testing.assert_array_equal(frame.forces, table[:, 3:])
    moments = text.split("magnetization (x)")[1].splitlines()[4:44]
    assert frame.magnetic_moments is not None
    np.testing.assert_array_equal(frame.magnetic_moments[:, 2], [float(line.split()[-1]) for line in moments])
    assert not frame.magnetic_moments[:, :2].any()


def test_a_real_vasprun_equals_its_outcar(real_run: Path) -> None:
    (outcar_frame,), (frame,) = (read_frames(real_run / name, needs=ALL) for name in ("OUTCAR", "vasprun.xml"))
    assert frame.energy == pytest.approx(outcar_frame.energy, abs=1e-8)
    np.testing.assert_array_equal(frame.atomic_numbers, outcar_frame.atomic_numbers)
    np.testing.assert_allclose(frame.cell, outcar_frame.cell, atol=1e-8)
    np.testing.assert_allclose(frame.forces, outcar_frame.forces, atol=1e-6)
    np.testing.assert_allclose(frame.stress, outcar_frame.stress, atol=1e-5 / KBAR_PER_EV_PER_ANGSTROM3 * 2)
    # the two may lie in different periodic images
    shift = (frame.positions - outcar_frame.positions) @ np.linalg.inv(frame.cell)
    np.testing.assert_allclose(shift, np.round(shift), atol=1e-5)
    assert not frame.has_magnetic_moments


def test_moments_of_atoms_are_those_of_the_outcar(real_run: Path) -> None:
    text = (real_run / "OUTCAR").read_text()
    # every moment of this run is zero: two numbers are put in where VASP prints them
    text = text.replace("    2       -0.000  -0.000   0.000  -0.000", "    2        0.100   0.250   3.000   3.350", 1)
    text = text.replace("    4       -0.000   0.000   0.000   0.000", "    4       -0.100   0.000  -1.000  -1.100", 1)
    (frame,) = read_frames(write(real_run / "OUTCAR", text))
    assert frame.magnetic_moments is not None
    assert {index: moment for index, moment in enumerate(frame.magnetic_moments[:, 2].tolist()) if moment} == {1: 3.35, 3: -1.1}


def test_every_ionic_step_is_a_frame(tmp_path: Path) -> None:
    content = read_file(write(tmp_path / "OUTCAR", outcar(3)), needs=ALL)
    assert_steps(content, 3)
    assert content.notes == ()
    for frame in content.frames:
        assert frame.magnetic_moments is not None
        np.testing.assert_array_equal(frame.magnetic_moments[:, 2], MOMENTS)
    content = read_file(write(tmp_path / "vasprun.xml", vasprun(3)), needs=ALL)
    assert_steps(content, 3)
    assert content.notes == ()


def test_moments_that_are_not_collinear_are_vectors(tmp_path: Path) -> None:
    (frame,) = read_frames(write(tmp_path / "OUTCAR", outcar(1, collinear=False)))
    np.testing.assert_array_equal(frame.magnetic_moments, MOMENTS[:, None] * [1, 2, 3])


def test_the_free_energy_is_there_by_name(tmp_path: Path) -> None:
    for path in (write(tmp_path / "OUTCAR", outcar(2)), write(tmp_path / "vasprun.xml", vasprun(2))):
        frames = read_frames(path, LabelKeys(energy_key="free_energy"))
        assert [frame.energy for frame in frames] == [energy_of(0) - 0.5, energy_of(1) - 0.5]


@pytest.mark.parametrize("name", ["OUTCAR", "OUTCAR.1", "relax_OUTCAR_2", "fe2o.OUTCAR", "run7.out", "stdout"])
def test_an_outcar_is_recognised_under_any_name(tmp_path: Path, name: str) -> None:
    assert formats()["vasp"].recognises(write(tmp_path / name, outcar(2)))
    assert_steps(read_file(tmp_path / name, needs=ALL), 2)


@pytest.mark.parametrize("name", ["vasprun.xml", "vasprun_1.xml", "vasprun.xml.2", "run7.xml", "run7"])
def test_a_vasprun_is_recognised_under_any_name(tmp_path: Path, name: str) -> None:
    assert_steps(read_file(write(tmp_path / name, vasprun(2)), needs=ALL), 2)


def test_compressed_output_reads_alike(tmp_path: Path) -> None:
    for name, text in (("OUTCAR.gz", outcar(2)), ("vasprun.xml.gz", vasprun(2))):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        assert_steps(read_file(tmp_path / name, needs=ALL), 2)


def test_other_files_are_left_to_other_formats(tmp_path: Path) -> None:
    recognises = formats()["vasp"].recognises
    assert not recognises(write(tmp_path / "OUTCAR.xyz", "1\n\nH 0 0 0\n"))
    assert not recognises(write(tmp_path / "other.xml", "<?xml version='1.0'?><svg/>"))
    assert not recognises(tmp_path)


# where a copy can end: within the second step's electronic loop, forces, energies, or the last digits of its energy
@pytest.mark.parametrize(
    "end", ["Iteration      2", " magnetization (x)", "TOTAL-FORCE", "FREE ENERGIE", "energy(sigma->0) =   ", "-10.1250"]
)
def test_a_broken_off_outcar_gives_its_complete_steps_and_a_note(tmp_path: Path, end: str) -> None:
    text = outcar(2)
    content = read_file(write(tmp_path / "OUTCAR", text[: text.rindex(end) + len(end)]), needs=ALL)
    assert_steps(content, 1)
    assert content.notes == ("OUTCAR: the run broke off, and its unfinished last ionic step is left out (all 1 frames)",)


@pytest.mark.parametrize("end", ["<calculation>", '<varray name="forces">', '<varray name="stress">', "<energy>", "</energy>"])
def test_a_broken_off_vasprun_gives_its_complete_steps_and_a_note(tmp_path: Path, end: str) -> None:
    text = vasprun(2)
    content = read_file(write(tmp_path / "vasprun.xml", text[: text.rindex(end) + len(end)]), needs=ALL)
    assert_steps(content, 1)
    assert content.notes == ("vasprun.xml: the run broke off, and its unfinished last ionic step is left out (all 1 frames)",)


def test_output_that_ends_between_two_steps_is_noted(tmp_path: Path) -> None:
    for path, end in (
        (write(tmp_path / "OUTCAR", outcar(2)), " General timing"),
        (write(tmp_path / "vasprun.xml", vasprun(2)), "</modeling>"),
    ):
        whole = path.read_text()
        content = read_file(write(path, whole[: whole.rindex(end)]), needs=ALL)
        assert_steps(content, 2)
        assert content.notes == (f"{path.name}: the file ends without VASP's closing lines, after a complete ionic step (all 2 frames)",)


@pytest.mark.parametrize(
    ("text", "end"),
    [(outcar(1), " POTCAR:"), (outcar(1), "Iteration"), (outcar(1), "TOTAL-FORCE"), (vasprun(1), "<atominfo>"), (vasprun(1), "</energy>")],
)
def test_a_run_without_a_complete_step_is_one_line(tmp_path: Path, text: str, end: str) -> None:
    path = write(tmp_path / "output", text[: text.rindex(end) + len(end)])
    assert "output: breaks off before its first ionic step is complete; give the output of" in refusal_of(read_frames, path)


def test_a_real_run_that_was_cut_off_is_one_line(real_run: Path) -> None:
    for name in ("OUTCAR", "vasprun.xml"):
        whole = (real_run / name).read_bytes()
        (real_run / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ZooError, match=f"{name}: breaks off before its first ionic step is complete"):
            read_frames(real_run / name)


def test_numbers_that_vasp_could_not_print_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "OUTCAR", outcar(2).replace("0.500000", "********", 1))
    assert "OUTCAR: cannot be read as vasp (could not convert string to float" in refusal_of(read_frames, path)


def test_xml_that_is_damaged_in_the_middle_is_no_shorter_run(tmp_path: Path) -> None:
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun(8))
    assert len(read_frames(path)) == 8
    lines = path.read_text().splitlines(keepends=True)
    lines.insert(len(lines) // 2, "<v> broken\n")
    path.write_text("".join(lines))
    assert "has 8 complete ionic steps, of which" in refusal_of(read_frames, path)
