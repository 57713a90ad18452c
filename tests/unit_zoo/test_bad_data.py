"""Data that cannot be used end a command with one line on standard error that says what was found, whatever the container.

`test_bad_input` has the mistakes in words, runs and model files, and the commonest ones in an extended XYZ file.
"""

from __future__ import annotations

import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import ase.db
import ase.io
import lmdb
import numpy as np
import pytest
from ase import Atoms

from tests.refusals import cli_refusal, lacks
from tests.structures import dimers

COUNT = 12


def _extxyz(path: Path) -> None:
    ase.io.write(path, dimers(COUNT), format="extxyz")


def _npz(path: Path) -> None:
    frames = dimers(COUNT)
    np.savez(
        path, z=frames[0].numbers, R=[atoms.positions for atoms in frames], E=[atoms.get_potential_energy() for atoms in frames],
        F=[atoms.get_forces() for atoms in frames],
    )  # fmt: skip


def _json(path: Path) -> None:
    entries = []
    for atoms in dimers(COUNT):
        sites = [
            {"species": [{"element": a.symbol, "occu": 1}], "xyz": a.position.tolist(), "abc": (a.position / 9).tolist()} for a in atoms
        ]
        structure = {"lattice": {"matrix": (9 * np.eye(3)).tolist()}, "sites": sites}
        outputs = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist(), "stress": [0.0] * 6}
        entries.append({"structure": structure, "outputs": outputs})
    path.write_text(json.dumps(entries))


def _database(path: Path) -> None:
    with ase.db.connect(path) as database:
        for atoms in dimers(COUNT):
            database.write(atoms)


def _aselmdb(path: Path) -> None:
    """fairchem's form: one compressed JSON row a frame, by number, and ``nextid``."""
    import zlib

    from ase.db.row import AtomsRow
    from ase.io.jsonio import encode

    with lmdb.open(str(path), subdir=False, map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for number, atoms in enumerate(dimers(COUNT), 1):
            row = AtomsRow(atoms)
            fields = {key: getattr(row, key) for key in ("numbers", "positions", "cell", "pbc", "energy", "forces")}
            transaction.put(str(number).encode(), zlib.compress(encode({**fields, "ctime": 0.0, "mtime": 0.0, "user": "x"}).encode()))
        transaction.put(b"nextid", zlib.compress(str(COUNT + 1).encode()))
        transaction.put(b"deleted_ids", zlib.compress(b"[]"))


def _zipped(path: Path) -> None:
    inner = path.with_name("frames.extxyz")
    _extxyz(inner)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, inner.name)
    inner.unlink()


def _trajectory(path: Path) -> None:
    ase.io.write(path, dimers(COUNT), format="traj")


def _raw_pair(path: Path) -> None:
    """OC20's form: compressed text, and a line of names and references a frame beside it."""
    text = path.with_name("frames.extxyz")
    _extxyz(text)
    path.write_bytes(lzma.compress(text.read_bytes()))
    text.unlink()
    path.with_name(path.name.split(".")[0] + ".txt").write_text("".join(f"random{index},frame{index},-1.5\n" for index in range(COUNT)))


WRITERS: dict[str, Callable[[Path], None]] = {
    "pool.extxyz": _extxyz,
    "pool.npz": _npz,
    "pool.json": _json,
    "pool.db": _database,
    "pool.aselmdb": _aselmdb,
    "pool.zip": _zipped,
    "pool.traj": _trajectory,
    "pool.extxyz.xz": _raw_pair,
}


@pytest.fixture
def evaluate(zoo, toy_checkpoint: Path):
    """``evaluate("data=...")`` on a model of H, C, O, Cu and Au."""
    return lambda *words: zoo("evaluate", f"backbone={toy_checkpoint}", *words)


@pytest.mark.parametrize("name", WRITERS)
def test_a_whole_file_is_evaluated(name: str, evaluate, tmp_path: Path) -> None:
    # the control of the next test
    WRITERS[name](tmp_path / name)
    finished = evaluate(f"data={name}")
    assert finished.code == 0, finished.err
    assert finished.err == ""
    assert f": {COUNT} frames, energy {COUNT}, forces {COUNT}, stress" in finished.out


@pytest.mark.parametrize("name", WRITERS)
def test_a_truncated_file_is_one_line(name: str, evaluate, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(0.6 * len(content))])
    assert name in cli_refusal(evaluate(f"data={name}"))


@pytest.mark.parametrize("name", WRITERS)
def test_an_empty_file_is_one_line(name: str, evaluate, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    assert not lacks(cli_refusal(evaluate(f"data={name}")), name, "0 bytes")


def _rename(old: str, new: str) -> Callable[[list[Atoms]], None]:
    def spoil(frames: list[Atoms]) -> None:
        for atoms in frames:
            value = atoms.calc.results.pop(old)
            (atoms.arrays if old == "forces" else atoms.info)[new] = value

    return spoil


def _set(index: int, **labels: object) -> Callable[[list[Atoms]], None]:
    return lambda frames: frames[index].calc.results.update(labels)


def _polonium(frames: list[Atoms]) -> None:
    frames[3].symbols[0] = "Po"


ONE_INFINITE = np.array([[0, 0, 0], [0, np.inf, 0]])

BAD_FRAMES = {
    "energies under another name": (
        _rename("energy", "REF_energy"),
        "train",
        ["pool.xyz: frame 0 has no 'energy'", "data.energy_key=", "REF_energy"],
    ),
    "forces under another name": (
        _rename("forces", "dft_force"),
        "evaluate",
        ["pool.xyz: frame 0 has no 'forces'", "data.forces_key=dft_force"],
    ),
    "one infinite force": (_set(7, forces=ONE_INFINITE), "evaluate", ["pool.xyz: frame 7: 1 of 6 numbers of 'forces' are NaN or infinite"]),
    "an infinite energy": (_set(2, energy=np.inf), "evaluate", ["pool.xyz: frame 2: 1 of 1 numbers of 'energy' are NaN or infinite"]),
    "an energy of NaN that is needed": (_set(2, energy=np.nan), "train", ["pool.xyz: frame 2: 1 of 1 numbers of 'energy' are NaN"]),
    "an element the model lacks": (_polonium, "evaluate", ["pool.xyz", "Po", "toy.pth does not know"]),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_labels_that_cannot_be_meant_are_one_line(name: str, zoo, small_run, toy_checkpoint: Path, tmp_path: Path) -> None:
    spoil, command, wanted = BAD_FRAMES[name]
    frames = dimers(COUNT)
    spoil(frames)
    ase.io.write(tmp_path / "pool.xyz", frames, format="extxyz")
    words = [*small_run, "run.name=run"] if command == "train" else [f"backbone={toy_checkpoint}"]
    assert not lacks(cli_refusal(zoo(command, *words, "data=pool.xyz")), *wanted)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["pool.xyz"]


def test_no_label_at_all_is_one_line(evaluate, tmp_path: Path) -> None:
    bare = [Atoms(atoms.numbers, atoms.positions) for atoms in dimers(COUNT)]
    ase.io.write(tmp_path / "pool.xyz", bare, format="extxyz")
    assert not lacks(cli_refusal(evaluate("data=pool.xyz")), "no frame has an energy, forces or stress to compare with", "data.energy_key=")


def test_an_archive_under_other_names_lists_what_it_has(evaluate, tmp_path: Path) -> None:
    np.savez(tmp_path / "pool.npz", charges=[29, 79], places=np.zeros((3, 2, 3)), U=np.zeros(3))
    assert not lacks(cli_refusal(evaluate("data=pool.npz")), "pool.npz", "charges", "places", "U")


MISSING = [
    ["data=absent.npz"],
    ["data=pool.xyz", "data.test=absent.xyz"],
    ["data=pool.xyz", "data.isolated_atoms=absent.xyz", "reference_energies=isolated_atoms"],
    ["data=pool.xyz", "data.linear_references=absent.npz", "reference_energies=linear"],
]


@pytest.mark.parametrize("words", MISSING, ids=" ".join)
def test_a_missing_file_is_one_line_whatever_it_was_for(words: list[str], evaluate, tmp_path: Path) -> None:
    _extxyz(tmp_path / "pool.xyz")
    assert next(word for word in words if "absent" in word).partition("=")[2] in cli_refusal(evaluate(*words))


@pytest.mark.parametrize("kind", ["empty", "of notes", "of a DeePMD system without its arrays"])
def test_a_folder_of_no_known_kind_is_one_line(kind: str, evaluate, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    if kind == "of notes":
        (tmp_path / "pool" / "readme.txt").write_text("nothing here")
    elif kind != "empty":
        (tmp_path / "pool" / "type.raw").write_text("0 0")
    assert "pool" in cli_refusal(evaluate("data=pool"))


def test_a_tar_is_no_data_file_but_one_line(evaluate, tmp_path: Path) -> None:
    _extxyz(tmp_path / "pool.xyz")
    with tarfile.open(tmp_path / "pool.tar", "w") as archive:
        archive.add(tmp_path / "pool.xyz", "pool.xyz")
    assert "pool.tar" in cli_refusal(evaluate("data=pool.tar"))


UNKNOWN = [
    (["data=rmd17/ethanl"], ["rmd17/ethanl", "rmd17/ethanol"]),
    (["data=lam/hfo"], ["lam/hfo", "lam/hfo2"]),
    (["data=acac", "data.protocol=few-shots"], ["acac has no protocol 'few-shots'", "did you mean 'few-shot'"]),
    (["data=acac", "data.subset=300k"], ["acac has no subset '300k'", "did you mean '300K'"]),
    (["data=acac", "data.test=[test_300k]"], ["acac has no test set 'test_300k'", "did you mean 'test_300K'"]),
    (["data=rmd17/ethanol", "data.test=test_3"], ["'test_3' shares frames with the training pool", "test_1", "split=test_3"]),
    (["data=acac", "data.energy_key=E"], ["data.energy_key=E belongs to data=file"]),
]


@pytest.mark.parametrize(("words", "wanted"), UNKNOWN, ids=[" ".join(words) for words, _ in UNKNOWN])
def test_an_unknown_name_is_one_line_with_the_nearest(words, wanted, evaluate, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    assert not lacks(cli_refusal(evaluate(*words)), *wanted)


def test_frames_that_train_and_test_share_are_noted_by_both_commands(zoo, small_run, evaluate, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "pool.xyz", dimers(COUNT), format="extxyz")
    ase.io.write(tmp_path / "held.xyz", dimers(COUNT)[:3], format="extxyz")
    words = ["data=pool.xyz", "data.n_train=8", "data.n_valid=4", "data.test=held.xyz"]
    trained = zoo("train", *small_run, *words, "run.name=run", "training.steps=1")
    evaluated = evaluate(*words)
    for finished in (trained, evaluated):
        assert finished.code == 0, finished.err
        noted = [line for line in (finished.out + finished.err).splitlines() if "errors on held are too optimistic" in line]
        assert sum(int(line.split(" frame")[0].split()[-1]) for line in noted) >= 3
    moved = dimers(COUNT)[:3]
    for atoms in moved:
        atoms.positions[0, 0] += 0.01
    ase.io.write(tmp_path / "held.xyz", moved, format="extxyz")
    assert "too optimistic" not in evaluate(*words).out
