"""Frames on disk are the frames in memory, bit for bit, whatever the format; and are read again where their source has changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from ase.io import write

from tests.real_data import skip_without
from tests.refusals import refusal_of
from tests.structures import slab
from tests.unit_zoo.test_readers_ase_database import write_aselmdb
from zoo.data import conversion
from zoo.data.cache_choice import LARGE_SOURCE_BYTES, CacheChoice
from zoo.data.checks import LabelReport, check_charges, check_elements, elements_of, without_label
from zoo.data.config import DataConfig
from zoo.data.conversion import read_source
from zoo.data.emt import emt_frames
from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.label_counts import LabelCounts
from zoo.data.overlap import overlap_notes, without_repeats
from zoo.data.readers import read_file
from zoo.data.reference_energies import composition_counts, fit_element_shifts
from zoo.data.source import load_splits
from zoo.data.splits import frames_sha256
from zoo.data.stored_frames import StoredFrames, atom_counts, content_digests, energies_of, join, take
from zoo.errors import ZooError

ON_DISK = CacheChoice("disk", 2)


@pytest.fixture(autouse=True)
def small_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(conversion, "_FRAMES_OF_A_PIECE", 7)


def assert_same(found: Sequence[Frame], expected: Sequence[Frame]) -> None:
    for one, other in zip(found, expected, strict=True):
        for field in fields(Frame):
            mine, theirs = getattr(one, field.name), getattr(other, field.name)
            assert type(mine) is type(theirs), field.name
            if isinstance(mine, np.ndarray):
                assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), field.name
            else:
                assert mine == theirs or (mine != mine and theirs != theirs), field.name


def slabs(tmp_path: Path, count: int = 40) -> Path:
    return write_aselmdb(tmp_path / "rows.aselmdb", [slab(number) for number in range(count)], deleted=(3,))


def some_frames(tmp_path: Path) -> tuple[StoredFrames, list[Frame]]:
    """The same frames on disk and in memory: one charged, one without forces, one twice, one in another place."""
    images = [frame.to_atoms() for frame in emt_frames(24, 3, "x")]
    for number, (atoms, frame) in enumerate(zip(images, emt_frames(24, 3, "x"), strict=True)):
        atoms.info.update(energy=frame.energy, charge=int(number == 5))
        if number != 7:
            atoms.arrays["forces"] = frame.forces
        if frame.has_stress:
            atoms.info["stress"] = frame.stress
    images += [images[4].copy(), images[9].copy(), images[2].copy()]
    images[-1].positions += 1.0
    path = tmp_path / "some.extxyz"
    write(path, images, format="extxyz")
    frames = read_source(path, choice=ON_DISK).frames
    assert isinstance(frames, StoredFrames)
    return frames, list(read_file(path).frames)


FORMATS: dict[str, tuple[str, str]] = {
    "extended XYZ": ("acac", "train_300K.xyz"),
    "crystals": ("periodic_1k", "alexandria-random-1k.xyz"),
    "npz": ("rmd17", "rmd17_ethanol_train_01.npz"),
    "DeePMD": ("lam_hfo2", "init.0000"),
    "trajectory": ("oc20", "random1447590.traj"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_real_sets_are_the_same_on_disk(data_folder, name):
    folder, file = FORMATS[name]
    path = data_folder(folder) / file
    if not path.exists():
        skip_without(f"{folder}/{file}")
    expected, found = read_file(path, level_of_theory="PBE"), read_source(path, level_of_theory="PBE", choice=ON_DISK)
    assert isinstance(found.frames, StoredFrames)
    assert found.notes == expected.notes
    assert_same(found.frames, expected.frames)
    assert_same(read_source(path, level_of_theory="PBE", choice=ON_DISK).frames[3:20:4], expected.frames[3:20:4])


def test_magnetic_labels_are_the_same_on_disk(data_folder):
    path = data_folder("deepmd_nio_spin")
    expected, found = read_file(path), read_source(path, choice=ON_DISK)
    assert any(frame.has_magnetic_moments for frame in expected.frames)
    assert_same(found.frames, expected.frames)


def test_databases_in_pieces_are_the_same_on_disk(tmp_path):
    path = slabs(tmp_path)
    expected, found = read_file(path), read_source(path, choice=ON_DISK)
    assert_same(found.frames, expected.frames)
    assert [frame.identifier for frame in found.frames][:3] == ["41_3", "42_3", "44_3"]
    folder = tmp_path / "both"
    folder.mkdir()
    for name in ("a.aselmdb", "b.aselmdb"):
        shutil.copy(path, folder / name)
    assert_same(read_source(folder, choice=ON_DISK).frames, read_file(folder).frames)


def test_extended_xyz_in_pieces_is_what_ase_reads(tmp_path):
    path = tmp_path / "odd.xyz"
    plain = '2\nProperties=species:S:1:pos:R:3 energy=1.0 name="Zürich"\nCu 0 0 0\nAu 0 0 2.5\n'
    vectors = "2\nplain comment\nCu 0 0 0\nAu 0 0 2.6\nVEC1 5 0 0\nVEC2 0 5 0\nVEC3 0 0 5\n"
    path.write_text((plain + vectors) * 9 + plain + "\n\n", encoding="utf-8")
    expected = read_file(path).frames
    assert len(expected) == 19
    assert expected[1].pbc.all()
    assert_same(read_source(path, choice=ON_DISK).frames, expected)
    path.write_text((plain + vectors) * 9 + plain[:-20], encoding="utf-8")
    assert refusal_of(read_source, path, choice=ON_DISK) == refusal_of(read_file, path)
    assert not [one for one in (tmp_path / "cache/frames").iterdir() if one.suffix != ".lock" and "partial" in one.name]


def test_a_number_of_atoms_that_no_file_has_ends_in_one_line(tmp_path):
    path = tmp_path / "huge.xyz"
    path.write_text("999999999999\nProperties=species:S:1:pos:R:3\nCu 0 0 0\n")
    assert "frame 0 claims 999999999999 atoms, and the file ends after 1" in refusal_of(read_source, path, choice=ON_DISK)


def test_what_a_run_needs_is_asked_of_the_same_copy(tmp_path, monkeypatch):
    path = tmp_path / "some.extxyz"
    some_frames(tmp_path)
    monkeypatch.setattr(conversion._Conversion, "build", lambda *_: pytest.fail("it was converted again"))
    assert refusal_of(read_source, path, needs=("energy", "forces"), choice=ON_DISK) == refusal_of(
        read_file, path, needs=("energy", "forces")
    )
    assert len(read_source(path, needs=("energy",), choice=ON_DISK).frames) == 27


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_copy_does_not_depend_on_the_number_of_processes(tmp_path, monkeypatch, processes):
    path = slabs(tmp_path)
    stores = []
    for number in (1, processes):
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / f"cache{len(stores)}"))
        read_source(path, choice=CacheChoice("disk", number))
        (folder,) = [one for one in (tmp_path / f"cache{len(stores)}/frames").iterdir() if one.is_dir()]
        stores.append((folder.name, {file.name: file.read_bytes() for file in folder.iterdir()}))
    assert stores[0] == stores[1]


def test_a_changed_source_other_keys_and_other_code_are_another_copy(tmp_path, monkeypatch):
    path = slabs(tmp_path)

    def copies() -> int:
        return sum(one.is_dir() for one in (tmp_path / "cache/frames").iterdir())

    read_source(path, choice=ON_DISK)
    os.utime(path)
    read_source(path, choice=ON_DISK)
    assert copies() == 1
    read_source(path, LabelKeys(forces_key=None), choice=ON_DISK)
    assert copies() == 2
    environment = lmdb.open(str(path), subdir=False, lock=False)
    with environment.begin(write=True) as transaction:
        transaction.put(b"1", transaction.get(b"2"))
    environment.close()
    assert_same(read_source(path, choice=ON_DISK).frames, read_file(path).frames)
    assert copies() == 3
    monkeypatch.setattr(conversion, "_code", lambda: ["newer"])
    read_source(path, choice=ON_DISK)
    assert copies() == 4


def test_a_remembered_hash_is_not_that_of_a_file_that_changed(tmp_path, monkeypatch):
    from zoo.data import source_files

    monkeypatch.setattr(source_files, "_WORTH_REMEMBERING_BYTES", 1)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, (0, 0))
    monkeypatch.setattr(source_files, "_SETTLED_NANOSECONDS", -(10**12))  # as if it had been written long ago
    (first,) = source_files.content_of([path], path)
    (again,) = source_files.content_of([path], path)
    assert first == again
    assert len(list((tmp_path / "cache/hashes").iterdir())) == 1
    path.write_bytes(b"two")
    os.utime(path, (0, 0))
    assert source_files.content_of([path], path) != [first]
    next((tmp_path / "cache/hashes").iterdir()).write_text("{not json")
    assert source_files.content_of([path], path) != [first]


def test_auto_keeps_small_sources_in_memory_and_large_ones_on_disk():
    assert not CacheChoice("auto").frames_on_disk(LARGE_SOURCE_BYTES)
    assert CacheChoice("auto").frames_on_disk(LARGE_SOURCE_BYTES + 1)
    assert CacheChoice("disk").frames_on_disk(1)
    assert not CacheChoice("memory").frames_on_disk(10**12)
    assert DataConfig().cache_choice == CacheChoice("auto")


SAID: dict[str, Callable[[Sequence[Frame]], Any]] = {
    "hash": frames_sha256,
    "digests": lambda frames: content_digests(frames).tolist(),
    "atoms": lambda frames: atom_counts(frames).tolist(),
    "energies": lambda frames: energies_of(frames).tolist(),
    "labels by source": LabelReport.of,
    "label counts": LabelCounts.of,
    "elements": elements_of,
    "without forces": lambda frames: [frame.name for frame in without_label(frames, "forces")],
    "without repeats": lambda frames: [frame.frame_id for frame in without_repeats(frames)],
    "overlap": lambda frames: overlap_notes(frames[:15], frames[15:20], {"test": frames[20:]}),
    "compositions": lambda frames: composition_counts(frames, (29, 79)).tolist(),
    "reference energies": lambda frames: fit_element_shifts(frames, energies_of(frames)),
}


@pytest.mark.parametrize("what", SAID)
def test_what_is_said_of_frames_is_the_same_on_disk(tmp_path, what):
    stored, held = some_frames(tmp_path)
    assert SAID[what](stored) == SAID[what](held)
    order = np.random.default_rng(0).permutation(len(held)).tolist()
    assert SAID[what](take(stored, order)) == SAID[what](take(held, order))
    mixed = join([stored[:9], held[9:14], stored.take([20, 3]), held[21:]])
    assert isinstance(mixed, StoredFrames)
    expected = [*held[:9], *held[9:14], held[20], held[3], *held[21:]]
    assert_same(mixed, expected)
    assert SAID[what](mixed) == SAID[what](expected)


def test_the_planted_repeats_are_found(tmp_path):
    stored, _ = some_frames(tmp_path)
    assert [frame.frame_id for frame in without_repeats(stored)] == list(range(24))


def test_refusals_name_the_same_frame_on_disk(tmp_path):
    stored, held = some_frames(tmp_path)
    for frames in (stored, held):
        with pytest.raises(ZooError, match=r"frame 5 has charge \+1"):
            check_charges(frames, reads_charge=False)
        check_elements(frames, (29, 79))
    assert refusal_of(check_elements, stored, (79,)) == refusal_of(check_elements, held, (79,))


def test_an_element_beyond_the_table_is_still_refused_from_disk(tmp_path):
    path = write_aselmdb(tmp_path / "rows.aselmdb", [slab(1)], numbers=np.array([29, 29, 29, 200]))
    frames = read_source(path, choice=ON_DISK).frames
    assert refusal_of(check_elements, frames, (8, 29)) == refusal_of(check_elements, read_file(path).frames, (8, 29))


def test_splits_of_a_file_are_the_same_on_disk(tmp_path):
    some_frames(tmp_path)
    config = DataConfig(name="file", path=str(tmp_path / "some.extxyz"), n_train=12, n_valid=5, n_test=6, cache="memory")
    held, stored = (load_splits(config.model_copy(update={"cache": cache}), ("energy",)) for cache in ("memory", "disk"))
    assert isinstance(stored.train, StoredFrames)
    assert (stored.hashes, stored.notes, stored.protocol) == (held.hashes, held.notes, held.protocol)
    assert (stored.elements(), stored.label_report()) == (held.elements(), held.label_report())
    for name, frames in held.parts.items():
        assert_same(stored.parts[name], frames)


def test_many_frames_are_fitted_in_pieces_as_at_once(tmp_path, monkeypatch):
    from zoo.data import reference_energies

    frames = emt_frames(150, 5, "x")
    energies = energies_of(frames)
    energies[3] = np.nan
    whole = fit_element_shifts(frames, energies)
    monkeypatch.setattr(reference_energies, "_MOST_COUNTS_HELD", 1)
    monkeypatch.setattr(reference_energies, "_FRAMES_AT_ONCE", 16)
    pieces = fit_element_shifts(frames, energies)
    assert pieces.shifts == pytest.approx(whole.shifts, rel=1e-12)
    assert replace(pieces, shifts={}, rms_after_ev=0) == replace(whole, shifts={}, rms_after_ev=0)
    assert pieces.rms_after_ev == pytest.approx(whole.rms_after_ev, rel=1e-12)
