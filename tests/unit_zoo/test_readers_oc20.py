"""OC20 and OC22 in their own forms: pickled LMDB, and raw extxyz with text; for .aselmdb see the ASE databases."""

from __future__ import annotations

import lzma
import os
import pickle
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ase.io
import lmdb
import numpy as np
import pytest
import torch
from ase import Atoms
from torch_geometric.data import Data

from tests.refusals import refusal_of
from tests.structures import ATOMS_OF_SLAB, slab
from zoo.data.keys import LabelKeys
from zoo.data.readers import formats, read_file, read_frames
from zoo.errors import ZooError


def record(number: int, **fields: Any) -> Data:
    """An S2EF record with the field types of the published files: everything in float32, also atomic numbers and tags."""
    atoms = slab(number)
    plain: dict[str, Any] = {
        "atomic_numbers": torch.Tensor(atoms.get_atomic_numbers()),
        "pos": torch.Tensor(atoms.get_positions()),
        "cell": torch.Tensor(atoms.cell.array)[None],
        "natoms": ATOMS_OF_SLAB,
        "tags": torch.Tensor(atoms.get_tags()),
        "fixed": torch.Tensor([1, 0, 0, 0]),
        "y": float(number) - 0.1,
        "force": torch.Tensor(atoms.calc.results["forces"]),
        "sid": 1447590 + number,
        "fid": 12,
    }
    return Data(**{name: value for name, value in {**plain, **fields}.items() if value is not None})


def pyg_1(data: Data) -> Data:
    """The same record as PyG 1.x pickles it: fields in ``__dict__``, absent standard ones None."""
    old = Data.__new__(Data)
    old.__dict__.update(x=None, edge_attr=None, face=None, __num_nodes__=None, **data.to_dict())
    return old


def write_lmdb(path: Path, records: Iterable[Any], length: int | None = -1) -> Path:
    """The documented layout; ``length`` None leaves the key out, -1 writes the true one."""
    values = [one if isinstance(one, bytes) else pickle.dumps(one, protocol=-1) for one in records]
    environment = lmdb.open(str(path), subdir=False, map_size=2**26, lock=False)
    with environment.begin(write=True) as transaction:
        for number, value in enumerate(values):
            transaction.put(f"{number}".encode("ascii"), value)
        if length is not None:
            transaction.put(b"length", pickle.dumps(len(values) if length == -1 else length, protocol=-1))
    environment.close()
    return path


@pytest.mark.parametrize("length", [-1, None])
@pytest.mark.parametrize("form", [lambda data: data, pyg_1], ids=["PyG 2", "PyG 1"])
def test_an_lmdb_of_pickled_data_reads_back_bit_for_bit(form, length, tmp_path):
    path = write_lmdb(tmp_path / "data.lmdb", [form(record(number)) for number in range(12)], length)
    content = read_file(path, LabelKeys(fixed_atoms="kept"), needs=("energy", "forces"))
    assert len(content.frames) == 12
    assert any("float32" in note for note in content.notes)
    for number, frame in enumerate(content.frames):
        data = record(number)
        np.testing.assert_array_equal(frame.positions, data.pos.numpy().astype(np.float64))
        np.testing.assert_array_equal(frame.cell, data.cell[0].numpy().astype(np.float64))
        np.testing.assert_array_equal(frame.forces, data.force.numpy().astype(np.float64))
        assert frame.energy == number - 0.1
        assert frame.atomic_numbers.tolist() == [29, 29, 29, 8]
        assert frame.fixed.tolist() == [True, False, False, False]
        assert frame.tags.tolist() == [0, 1, 1, 2]
        assert frame.pbc.all()
        assert frame.identifier == f"{1447590 + number}_12"


def test_forces_of_fixed_atoms_are_no_labels_by_default(tmp_path):
    (frame,) = read_frames(write_lmdb(tmp_path / "data.lmdb", [record(0)]))
    assert np.isnan(frame.forces[0]).all()
    assert frame.has_forces


def test_a_folder_of_lmdbs_is_read_in_order_of_name_and_says_which_file(tmp_path):
    write_lmdb(tmp_path / "data.0001.lmdb", [record(2)])
    write_lmdb(tmp_path / "data.0000.lmdb", [record(0), record(1)])
    frames = read_frames(tmp_path)
    assert [frame.name for frame in frames] == ["data.0000.lmdb: frame 0", "data.0000.lmdb: frame 1", "data.0001.lmdb: frame 0"]
    assert [frame.energy for frame in frames] == [-0.1, 0.9, 1.9]


def test_initial_and_relaxed_structures_of_is2re_are_both_there(tmp_path):
    relaxed = torch.rand(ATOMS_OF_SLAB, 3)
    fields = {"y": None, "force": None, "fid": None, "y_init": 2.5, "y_relaxed": -0.7, "pos_relaxed": relaxed}
    (frame,) = read_frames(write_lmdb(tmp_path / "data.lmdb", [record(5, **fields)]))
    assert (frame.energy, frame.relaxed_energy) == (2.5, -0.7)
    np.testing.assert_array_equal(frame.relaxed_positions, relaxed.numpy().astype(np.float64))
    assert frame.identifier == "1447595"
    assert not frame.has_forces


def test_records_of_a_test_set_have_no_labels_rather_than_zeros(tmp_path):
    path = write_lmdb(tmp_path / "data.lmdb", [record(0, y=None, force=None)])
    (frame,) = read_file(path).frames
    assert not frame.has_energy
    assert not frame.has_forces
    assert "data.lmdb: frame 0 has no 'energy'" in refusal_of(read_frames, path)


def test_a_name_instead_of_a_number_is_kept_as_it_is(tmp_path):
    (frame,) = read_frames(write_lmdb(tmp_path / "data.lmdb", [record(0, sid="random1447590", fid=torch.tensor([4]))]))
    assert frame.identifier == "random1447590_4"


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_hostile_record_is_refused_by_number_and_runs_nothing(tmp_path):
    sentinel = tmp_path / "sentinel"
    hostile = pickle.dumps(record(1, y=Touches(sentinel)))
    pickle.loads(hostile)  # noqa: S301
    assert sentinel.exists()
    sentinel.unlink()
    path = write_lmdb(tmp_path / "data.lmdb", [record(0), hostile])
    assert re.search(r"data.lmdb: record 1: its pickle holds \w+\.system", refusal_of(read_frames, path))
    with pytest.raises(ZooError, match=r"its length: its pickle holds \w+\.system"):
        read_frames(write_lmdb(tmp_path / "length.lmdb", [record(0)], Touches(sentinel)))
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("records", "length", "words"),
    [
        ([record(0)], 2, "record 1 is missing"),
        ([record(0)], "many", "length is 'many'"),
        ([[1, 2]], -1, "record 0 is a list"),
        ([record(0, pos=None)], -1, "record 0 has no 'pos'"),
        ([record(0, tags=torch.tensor([0, 0.5, 1, 2]))], -1, "tags holds numbers that are not whole"),
        ([b"\x80\x04"], -1, "record 0: is no pickle"),
    ],
)
def test_a_broken_lmdb_is_one_line(records, length, words, tmp_path):
    refusal = refusal_of(read_frames, write_lmdb(tmp_path / "data.lmdb", records, length))
    assert re.search(words, refusal)
    assert "data.lmdb" in refusal


@pytest.mark.parametrize("kept", [10, 4096, 5000, 0.5, 0.99])
def test_a_truncated_lmdb_is_refused_and_does_not_end_the_process(kept, tmp_path):
    path = write_lmdb(tmp_path / "data.lmdb", [record(number) for number in range(40)])
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept >= 1 else int(kept * len(whole))])
    assert "data.lmdb" in refusal_of(read_frames, path)


def test_an_lmdb_is_read_without_write_access_and_leaves_nothing_beside_it(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    write_lmdb(folder / "data.lmdb", [record(0)])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.chmod(stat.S_IREAD)
    folder.chmod(stat.S_IREAD | stat.S_IEXEC)
    try:
        assert len(read_frames(folder / "data.lmdb")) == 1
    finally:
        folder.chmod(stat.S_IRWXU)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# raw pairs


def write_pair(folder: Path, number: int, count: int = 3, compressed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    opened, suffix = (lzma.open, ".xz") if compressed else (open, "")
    path = folder / f"{number}.extxyz{suffix}"
    with opened(path, "wt") as file:
        ase.io.write(file, [slab(index) for index in range(count)], format="extxyz")
    with opened(folder / f"{number}.txt{suffix}", "wt") as file:
        file.writelines(f"random{number},frame{7 * index},{-10.5 - index}\n" for index in range(count))
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_raw_pairs_give_total_and_adsorption_energies_and_the_published_names(compressed, tmp_path):
    for number in (3, 12):
        write_pair(tmp_path / "s2ef_train" / "part", number, compressed=compressed)
    total = read_frames(tmp_path)
    relative = read_frames(tmp_path, LabelKeys(energy_key="adsorption_energy"))
    assert [frame.identifier for frame in total] == [f"random{number}_{7 * index}" for number in (12, 3) for index in range(3)]
    assert total[4].name.startswith("s2ef_train/part/3.extxyz")
    for position, (frame, other) in enumerate(zip(total, relative, strict=True)):
        index = position % 3
        atoms = slab(index)
        assert frame.energy == pytest.approx(atoms.calc.results["energy"], abs=1e-8)
        assert other.energy == frame.energy - (-10.5 - index)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-8)
        np.testing.assert_allclose(frame.forces[1:], atoms.calc.results["forces"][1:], atol=1e-8)
        assert np.isnan(frame.forces[0]).all()
        assert frame.tags.tolist() == [0, 1, 1, 2]


def test_move_mask_false_is_an_atom_held_in_place(tmp_path):
    (tmp_path / "0.extxyz").write_text(
        '2\nLattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3:move_mask:L:1:forces:R:3 energy=-1.0 pbc="T T T"\n'
        "Cu 0 0 0 F 0 0 0\nO 1 1 1 T 0 0 1\n"
    )
    (tmp_path / "0.txt").write_text("random1,frame0,-0.5\n")
    (frame,) = read_frames(tmp_path / "0.extxyz")
    assert frame.fixed.tolist() == [True, False]


def test_a_single_file_is_read_with_the_text_beside_it(tmp_path):
    path = write_pair(tmp_path, 4)
    assert [frame.identifier for frame in read_frames(path)] == ["random4_0", "random4_7", "random4_14"]


def test_only_the_literal_word_frame_is_dropped_from_a_frames_name(tmp_path):
    path = write_pair(tmp_path, 0, count=3, compressed=False)
    (tmp_path / "0.txt").write_text("s1,12,-1\ns2,framed,-1\ns3,frame_9,-1\n")
    assert [frame.identifier for frame in read_frames(path)] == ["s1_12", "s2_framed", "s3_frame_9"]


def without_text(path: Path) -> None:
    path.with_name("0.txt.xz").unlink()


def lines(count: int, line: str = "random0,frame1,-1.0") -> Any:
    def change(path: Path) -> None:
        path.with_name("0.txt.xz").write_bytes(lzma.compress(f"{line}\n".encode() * count))

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def cut_within_a_frame(path: Path) -> None:
    path.write_bytes(lzma.compress(b"\n".join(lzma.decompress(path.read_bytes()).split(b"\n")[:8])))


def not_a_count(path: Path) -> None:
    path.write_bytes(lzma.compress(b"Cu 0 0 0\n"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_text, r"0\.extxyz\.xz: has no 0\.txt"),
        (lines(2), r"has more frames than 0\.txt\.xz has lines \(2\)"),
        (lines(4), r"has 3 frames but 0\.txt\.xz has 4 lines"),
        (lines(3, "random0,-1.0"), r"0\.txt\.xz: line 1 is 'random0,-1\.0'; wanted system_id,frame_number,reference_energy"),
        (lines(3, "random0,frame1,low"), "line 1"),
        (cut, r"0\.extxyz\.xz: is truncated or damaged"),
        (cut_within_a_frame, "frame 1 is cut off after 1 of 5 lines"),
        (not_a_count, "frame 0 starts with 'Cu 0 0 0'"),
        (lambda path: cut(path.with_name("0.txt.xz")), r"0\.txt\.xz: is truncated or damaged"),
    ],
)
def test_a_spoilt_pair_is_one_line_that_names_the_file(spoil, words, tmp_path):
    path = write_pair(tmp_path, 0)
    assert len(read_frames(tmp_path)) == 3
    spoil(path)
    refusal = refusal_of(read_frames, tmp_path)
    assert re.search(words, refusal)
    assert str(tmp_path) in refusal


def test_the_fixed_atoms_of_a_real_slab_are_all_below_its_surface(data_folder, tmp_path):
    (atoms,) = ase.io.read(data_folder("oc20") / "atoms.json", index=":")
    (tmp_path / "0.txt").write_text("random1447590,frame0,-100.0\n")
    ase.io.write(tmp_path / "0.extxyz", atoms, format="extxyz")
    (frame,) = read_frames(tmp_path)
    assert set(frame.tags.tolist()) == {0, 1}
    assert frame.fixed.any()
    assert (frame.tags[frame.fixed] == 0).all()


def test_a_text_of_something_else_beside_a_users_file_makes_it_no_oc20_pair(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "train.extxyz", Atoms("Cu", cell=[3, 3, 3], pbc=True))
    assert not formats()["oc20_raw"].recognises(tmp_path / "train.extxyz")
    (tmp_path / "train.txt").write_text("systems/a\nsystems/b\n")
    assert not formats()["oc20_raw"].recognises(tmp_path / "train.extxyz")
    assert not formats()["oc20_raw"].recognises(tmp_path)
    (tmp_path / "train.txt").write_text("random1447590,frame12,-252.31\n")
    assert formats()["oc20_raw"].recognises(tmp_path / "train.extxyz")
    assert formats()["oc20_raw"].recognises(tmp_path)
