"""A toy checkpoint, a run of seconds on it, and the command line in this process or in one that may be killed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tests.unit_zoo.kill_phases import Phase

# 12 steps on 8 frames with a validation every 3; no test set, so the 4 validation frames are evaluated
SMALL_RUN = (
    "data.n_train=8",
    "data.n_valid=4",
    "data.test=[]",
    "training.steps=12",
    "training.validate_every=3",
    "training.batch_size=3",
    # mostly the energy, which a toy does learn: the best weights then change from one validation to the next
    "training.loss.energy.weight=100",
    "training.loss.forces.weight=1",
    "training.threads=1",
    "training.loggers.tensorboard=false",
    "training.progress_bar=false",
    "evaluation.plots=false",
)


@dataclass(frozen=True)
class Finished:
    """A command that ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Zoo = Callable[..., Finished]
ForkedZoo = Callable[..., int]


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SevenNet toy (H, C, O, Cu, Au; cutoff 4 Å) as a file of its own package."""
    import torch

    from zoo.backbones import load_family

    path = tmp_path_factory.mktemp("toy") / "toy.pth"
    torch.save(load_family("sevennet").toy(0).upstream_checkpoint({}), path)
    return path


@pytest.fixture(scope="session")
def small_run(toy_checkpoint: Path) -> list[str]:
    """The words of ``zoo train`` for a run of about a second."""
    return [f"backbone={toy_checkpoint}", *SMALL_RUN]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """``trained("mace", "float64")``: the folder of a run of 20 steps on the family's toy, with its exported file; made once."""
    from tests.unit_zoo.round_trip import train, write_toy

    root = tmp_path_factory.mktemp("trained")

    def make(family: str, dtype: str) -> Path:
        folder = root / f"{family}-{dtype}"
        return folder if folder.exists() else train(write_toy(family, root), dtype, folder)

    return make


@pytest.fixture(scope="session")
def old_e3nn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with e3nn 0.4.4 alone, which published MACE models come from: ``ZOO_E3NN04`` names one, else pip makes it.

    The test skips where pip cannot.
    """
    named = os.environ.get("ZOO_E3NN04", "")
    folder = Path(named) if named else tmp_path_factory.mktemp("e3nn04")
    if not named:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "e3nn==0.4.4"]
        if subprocess.run(install, capture_output=True, check=False).returncode != 0:
            pytest.skip("pip cannot install e3nn==0.4.4 here; ZOO_E3NN04 may name a folder with it")
    assert (folder / "e3nn").is_dir(), f"{folder}: no e3nn in it; unset ZOO_E3NN04 or name a folder with e3nn 0.4.4"
    return folder


@pytest.fixture(scope="session")
def emt_atoms() -> Callable[[int], list[Atoms]]:
    """``emt_atoms(8)``: labelled structures of the embedded set, as ASE writes them to files."""
    from zoo.data.config import DataConfig
    from zoo.data.source import load_splits

    def make(count: int) -> list[Atoms]:
        labelled = []
        for frame in load_splits(DataConfig(n_train=count, n_valid=1, test=[])).train:
            atoms = frame.to_atoms()
            atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
            labelled.append(atoms)
        return labelled

    return make


@pytest.fixture
def own_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``own_set(pool, hot, n_train=8, ...)``: a published set ``own/set`` by a card in ``ZOO_SETS``; the folder of its files.

    It has a pool and a test ``hot``, whose files lie under other names in ``ZOO_DATA``; more settings are those of its protocol ``paper``.
    """

    def make(pool: list[Atoms], hot: list[Atoms], **protocol: object) -> Path:
        folder, cards = tmp_path / "downloads", tmp_path / "cards"
        folder.mkdir()
        cards.mkdir()
        files = {}
        for key, structures in (("pool", pool), ("hot", hot)):
            path = folder / f"my {key}.xyz"
            write(path, structures)
            content = path.read_bytes()
            files[key] = {"filename": f"{key}.xyz", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        card = {
            "name": "own/set", "description": "a test's own", "base_url": None, "licence": "MIT", "citation": "-", "level_of_theory": "EMT",
            "files": files, "pools": {"all": "pool"}, "default_pool": "all", "tests": {"hot": "hot"}, "default_protocol": "paper",
            "protocols": {"paper": {"description": "-", "source": "a test", **protocol}},
        }  # fmt: skip
        (cards / "set.yaml").write_text(yaml.safe_dump(card))
        monkeypatch.setenv("ZOO_SETS", str(cards))
        monkeypatch.setenv("ZOO_DATA", str(folder))
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
        return folder

    return make


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Zoo:
    """``zoo("train", ...)`` runs the command in this process, in ``tmp_path``."""
    from zoo.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Finished:
        capsys.readouterr()
        code = 0
        try:
            main(list(words))
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return call


@pytest.fixture
def forked_zoo(tmp_path: Path) -> ForkedZoo:
    """``forked_zoo(words, sabotage)`` runs the command in a forked process after ``sabotage()``; its exit code, or minus the signal's."""
    import zoo.training.run  # noqa: F401 - imported here so that no child pays for it

    def call(words: Sequence[str], sabotage: Callable[[], None] = lambda: None) -> int:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _in_child(words, sabotage, tmp_path)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    return call


def _in_child(words: Sequence[str], sabotage: Callable[[], None], folder: Path) -> None:
    from zoo.cli import main

    code = 99
    try:
        os.chdir(folder)
        with (
            (folder / "output.txt").open("a", buffering=1) as stream,
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
        ):
            sabotage()
            try:
                main(list(words))
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
    finally:
        os._exit(code)


@pytest.fixture(scope="session")
def killer() -> Callable[..., Callable[[], None]]:
    """``killer("module:Class.method", n)``: a sabotage that sends SIGKILL to its own process as the n-th call begins (counted from 1).

    ``where`` looks at the call's arguments; calls that it refuses are not counted. ``number``: of another signal.
    """

    def make(target: str, count: int = 1, where: Callable[..., bool] = lambda *_: True, number: int = signal.SIGKILL) -> Callable[[], None]:
        def sabotage() -> None:
            import importlib

            module, _, path = target.partition(":")
            owner = importlib.import_module(module)
            *parents, name = path.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            original = getattr(owner, name)
            calls = 0

            def wrapped(*args: object, **kwargs: object) -> object:
                nonlocal calls
                calls += bool(where(*args))
                if calls == count:
                    os.kill(os.getpid(), number)
                return original(*args, **kwargs)

            setattr(owner, name, wrapped)

        return sabotage

    return make


@pytest.fixture(scope="session")
def finished_run(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished `small_run`; it is made in this process, so that forked children have everything imported."""
    from tests.unit_zoo.kill_phases import ELORA
    from zoo.cli import main

    folder = tmp_path_factory.mktemp("finished") / "run"
    main(["train", *small_run, *ELORA, "run.name=run", f"run.folder={folder}"])
    return folder


@pytest.fixture
def phase(
    request: pytest.FixtureRequest,
    toy_checkpoint: Path,
    small_run: list[str],
    finished_run: Path,
    emt_atoms: Callable[[int], list[Atoms]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Phase]:
    """The work (`tests/unit_zoo/kill_phases.py`) whose name the test is parametrised with."""
    from tests.unit_zoo.kill_phases import make
    from zoo.data import conversion, edge_store

    for module in (conversion, edge_store):
        monkeypatch.setattr(module, "_FRAMES_OF_A_PIECE", 60)  # children inherit it
    with make(request.param, toy_checkpoint, small_run, finished_run, emt_atoms(40), tmp_path) as made:
        yield made


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The matplotlib figures that are saved from here on."""
    from zoo import plots

    figures: list[Figure] = []
    save = plots.save_figure

    def keep(figure: Figure, path: Path) -> Path:
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(plots, "save_figure", keep)
    return figures
