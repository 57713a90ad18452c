"""Zip archives: members in order and by name, magnetic moments kept, and nothing that an archive says can leave its folder."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from tests.refusals import refusal_of
from tests.zip_files import write_zip
from zoo.data.raw import ReadOptions
from zoo.data.readers import read_file, read_frames, read_structures, zipped
from zoo.errors import ZooError

MOMENTS = np.array([2.5, -1.25])


def iron(energy: float, **results: object) -> Atoms:
    atoms = bulk("Fe", cubic=True)
    atoms.rattle(0.03, seed=int(abs(energy)))
    forces = np.random.default_rng(int(abs(energy))).normal(size=(2, 3))
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=np.arange(6) / 10, **results)
    return atoms


def extxyz(folder: Path, *frames: Atoms) -> bytes:
    ase.io.write(folder / "member.extxyz", list(frames), format="extxyz")
    return (folder / "member.extxyz").read_bytes()


def test_mptrjs_form_keeps_moments_labels_and_order(tmp_path: Path) -> None:
    first, second, third = iron(-8.0, magmoms=MOMENTS), iron(-9.0), iron(-10.0, magmoms=2 * MOMENTS)
    members = {"mp-7.extxyz": extxyz(tmp_path, third), "mp-10.extxyz": extxyz(tmp_path, first, second)}
    content = read_file(write_zip(tmp_path / "mptrj.extxyz.zip", members), needs=("energy", "forces", "stress"))
    assert [frame.energy for frame in content.frames] == [-8.0, -9.0, -10.0]
    assert [frame.name for frame in content.frames] == ["mp-10.extxyz: frame 0", "mp-10.extxyz: frame 1", "mp-7.extxyz: frame 0"]
    for frame, atoms in zip(content.frames, (first, second, third), strict=True):
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-7)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-7)
    moments = [frame.magnetic_moments for frame in content.frames]
    assert moments[0] is not None
    assert moments[0].tolist() == [[0, 0, 2.5], [0, 0, -1.25]]
    assert moments[1] is None
    assert moments[2] is not None
    assert moments[2][0, 2] == 5.0
    assert content.notes == ()


def test_members_of_several_kinds_are_read_and_the_others_counted(tmp_path: Path) -> None:
    for suffix in ("traj", "db"):
        ase.io.write(tmp_path / f"c.{suffix}", iron(-3.0))
    members = {
        "__MACOSX/a/._a.xyz": b"junk",
        ".DS_Store": b"junk",
        "a/.hidden.xyz": b"junk",
        "a/README.md": b"text",
        "a/": b"",
        "a/plot.png": b"junk",
        "a/a.xyz": extxyz(tmp_path, iron(-1.0)),
        "b/b.traj": (tmp_path / "c.traj").read_bytes(),
        "b/c.db": (tmp_path / "c.db").read_bytes(),
    }
    content = read_file(write_zip(tmp_path / "mixed.zip", members))
    assert [(frame.source, frame.energy) for frame in content.frames] == [("a/a.xyz", -1.0), ("b/b.traj", -3.0), ("b/c.db", -3.0)]
    assert content.notes == ("mixed.zip: members of the archive that hold no structures known here: 2 (all 3 frames)",)


def test_a_real_vasp_run_is_read_once_from_its_outcar(data_folder: Callable[[str], Path]) -> None:
    content = read_file(data_folder("chgnet_magmoms") / "parse-vasp-with-magmoms.zip", needs=("energy", "forces", "stress"))
    (frame,) = content.frames
    assert frame.energy == -153.0123588
    assert frame.source == "parse-vasp-with-magmoms/OUTCAR"
    assert frame.has_magnetic_moments
    assert len(content.notes) == 2
    assert "vasprun.xml is left aside where an OUTCAR" in content.notes[0]
    assert "hold no structures known here: 9" in content.notes[1]


def test_a_vasprun_is_read_where_no_outcar_is_beside_it(tmp_path: Path, data_folder: Callable[[str], Path]) -> None:
    real = data_folder("chgnet_magmoms") / "parse-vasp-with-magmoms.zip"
    with zipfile.ZipFile(real) as source:
        outcar, vasprun = (source.read(f"parse-vasp-with-magmoms/{name}") for name in ("OUTCAR", "vasprun.xml"))
    members = {"a/OUTCAR.1": outcar, "a/vasprun.xml": vasprun, "b/vasprun_1.xml": vasprun}
    frames = read_frames(write_zip(tmp_path / "runs.zip", members))
    assert [frame.source for frame in frames] == ["a/OUTCAR.1", "b/vasprun_1.xml"]
    assert [frame.has_magnetic_moments for frame in frames] == [True, False]


def test_fixed_atoms_are_told_by_the_poscar_beside_an_outcar(tmp_path: Path, data_folder: Callable[[str], Path]) -> None:
    with zipfile.ZipFile(data_folder("chgnet_magmoms") / "parse-vasp-with-magmoms.zip") as source:
        outcar = source.read("parse-vasp-with-magmoms/OUTCAR")
    (tmp_path / "OUTCAR").write_bytes(outcar)
    atoms = ase.io.read(tmp_path / "OUTCAR")
    assert isinstance(atoms, Atoms)
    atoms.set_constraint(FixAtoms([0, 7]))
    ase.io.write(tmp_path / "POSCAR", atoms, format="vasp")
    poscar = (tmp_path / "POSCAR").read_bytes()
    members = {"free/OUTCAR": outcar, "held/OUTCAR": outcar, "held/POSCAR": poscar}
    content = read_file(write_zip(tmp_path / "runs.zip", members))
    assert content.frames[0].fixed is None
    assert content.frames[1].fixed is not None
    assert np.flatnonzero(content.frames[1].fixed).tolist() == [0, 7]
    assert not any("hold no structures" in note for note in content.notes)


def test_a_member_with_a_path_out_of_the_archive_writes_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "a" / "b"
    scratch.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    content = extxyz(tmp_path, iron(-1.0))
    path = write_zip(tmp_path / "evil.zip", {"../../escaped.xyz": content, str(tmp_path / "absolute.xyz"): content, "/": b""})
    before = sorted(tmp_path.rglob("*"))
    assert len(read_frames(path)) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = write_zip(tmp_path / "a.zip", {"a.xyz": extxyz(tmp_path, iron(-1.0)), "b.xyz": b"2\n\nFe 0 0 0\n"})
    frames = zipped.FORMAT.read(path, ReadOptions())
    next(frames)
    assert len(list(scratch.iterdir())) == 1
    with pytest.raises(ZooError, match=r"a\.zip: b\.xyz"):
        next(frames)
    assert list(scratch.iterdir()) == []


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, ("ran",))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.xyz": b"2\n\nFe 0 0 0\n"}, r"bad.zip: a.xyz: frame 0 claims 2 atoms, and the file ends after 1; is it complete\?"),
        ({"runs/OUTCAR": b" vasp.6.3.2\n Iteration"}, r"bad.zip: runs/OUTCAR: breaks off before its first ionic step"),
        ({"notes.txt": b"text", "more/": b""}, r"bad.zip: none of its 1 members is of a kind .*; wanted \*\.xyz, \*\.extxyz"),
        ({}, "none of its 0 members"),
        ({"old.traj": pickle.dumps(Bomb())}, r"bad.zip: old.traj cannot be read as ase \("),
    ],
)
def test_a_bad_member_is_named_in_one_line(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    path = write_zip(tmp_path / "bad.zip", members)
    refusal = refusal_of(read_structures, path)
    assert re.search(message, refusal)
    assert "equizoo-" not in refusal


def test_an_archive_that_would_fill_the_disk_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = extxyz(tmp_path, iron(-1.0))
    path = write_zip(tmp_path / "big.zip", {"a.xyz": content, "b.xyz": content, "huge.bin": b"0" * 10**6})
    monkeypatch.setattr(zipped, "_LARGEST_TOTAL_BYTES", 2 * len(content))
    assert len(read_frames(path)) == 2
    monkeypatch.setattr(zipped, "_LARGEST_TOTAL_BYTES", 2 * len(content) - 1)
    with pytest.raises(
        ZooError, match=r"big\.zip: unpacks to .* GB, more than the .* GB that are read from an archive; unpack it yourself"
    ):
        read_frames(path)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_archive_is_one_line(tmp_path: Path, kept: float) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.xyz": extxyz(tmp_path, iron(-1.0))})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert "a.zip: is incomplete or damaged" in refusal_of(read_frames, path)


def test_a_member_with_damaged_bytes_is_one_line(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.xyz": extxyz(tmp_path, iron(-1.0))})
    damaged = bytearray(path.read_bytes())
    damaged[60:70] = b"\xff" * 10
    path.write_bytes(damaged)
    assert "a.zip: is incomplete or damaged" in refusal_of(read_frames, path)
