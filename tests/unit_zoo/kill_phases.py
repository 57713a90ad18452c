"""What the kill sweep kills: commands that download, build a cache, train, write checkpoints, export and write files.

Each phase says how its command is started in a fresh folder, what must hold of that folder after every kill (`Phase.look`), and what it
must be once the command was through (`Phase.check`): the same, byte for byte where nothing but the content decides, as without a kill.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from safetensors.torch import load_file

import zoo
from tests.kills import Command, content, half_written, work_seconds
from tests.slow_server import SlowServer, served

RUN = ("run.name=run", "run.resume=true")
ELORA = ("adapter=elora", "adapter.rank=2", "training.optimizer.learning_rate=2e-2")
PAD_BYTES = 1 << 20
# what a run writes that holds times, versions or names of the moment
OF_THE_MOMENT = ("said.txt", "run/log.txt", "run/record.json", "run/environment.json", "run/checkpoints/last.ckpt")


@dataclass
class Phase:
    """One kind of work.

    Attributes:
        name: for people.
        command: makes the command in a fresh folder.
        look: raises `AssertionError` where something in the folder is neither whole nor known to be unfinished.
        same: what two finished folders must agree in.
        progress: of a child, growing.
        expected: `same` of the folder of the unkilled command, once `measure` was called.
        work: its progress at the end.
    """

    name: str
    command: Callable[[Path], Command]
    same: Callable[[Path], Any]
    look: Callable[[Path], None] = lambda folder: None
    progress: Callable[[int], float] = work_seconds
    expected: Any = field(default=None)
    work: float = 0.0

    def measure(self, folder: Path) -> None:
        """Run the command unkilled."""
        latest = 0.0

        def progress(child: int) -> float:
            nonlocal latest
            latest = max(latest, self.progress(child))
            return 0.0

        command = self.command(folder)
        assert command.run_until(progress, 1.0) == 0, command.said
        self.expected, self.work = self.same(folder), latest
        assert self.expected
        assert self.work > 0

    def check(self, folder: Path) -> None:
        """After the command was through."""
        assert self.same(folder) == self.expected
        assert half_written(folder) == []
        self.look(folder)


def tensors_sha256(tensors: Any) -> str:
    """Over every name and the bytes of every tensor in what a checkpoint or an adapter file holds."""
    digest = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            flat = value.detach().contiguous().reshape(-1)
            digest.update(
                f"{name} {value.dtype} {tuple(value.shape)} ".encode() + (flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
            )
        elif isinstance(value, dict):
            for key in value:
                add(f"{name}/{key}", value[key])
        elif isinstance(value, list | tuple):
            for index, one in enumerate(value):
                add(f"{name}/{index}", one)
        else:
            digest.update(f"{name} {value!r} ".encode())

    add("", tensors)
    return digest.hexdigest()


# ---- downloads


def publish(folder: Path, atoms: list[Atoms]) -> dict[str, bytes]:
    """A pool that nobody has verified, and an archive with a test set; the files' contents by name."""
    folder.mkdir()
    write(folder / "pool.xyz", atoms)
    write(folder / "hot.xyz", atoms[:3])
    with tarfile.open(folder / "pack.tar.gz", "w:gz") as archive:
        archive.add(folder / "hot.xyz", "deep/hot.xyz")
        pad = tarfile.TarInfo("deep/pad.bin")
        pad.size = PAD_BYTES
        archive.addfile(pad, io.BytesIO(np.random.default_rng(0).bytes(PAD_BYTES)))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def card(files: dict[str, bytes], url: str) -> str:
    """The card of the set ``kill/set``."""
    pack = {"filename": "pack.tar.gz", "sha256": hashlib.sha256(files["pack.tar.gz"]).hexdigest(), "size": len(files["pack.tar.gz"])}
    return yaml.safe_dump({
        "name": "kill/set", "description": "a test's own", "base_url": url, "licence": "MIT", "citation": "-", "level_of_theory": "EMT",
        "files": {"pool": {"filename": "pool.xyz"}, "hot": {"archive": "pack", "filename": "deep/hot.xyz"}}, "archives": {"pack": pack},
        "pools": {"all": {"files": ["pool"]}}, "default_pool": "all", "tests": {"hot": ["hot"]}, "default_protocol": "paper",
        "protocols": {
            "paper": {"description": "-", "source": "a test", "n_train": 8, "n_valid": 2, "metrics": ["force_mae_mev_per_angstrom"]}
        },
    })  # fmt: skip


def download(toy: Path, files: dict[str, bytes], server: SlowServer) -> Phase:
    """``zoo evaluate`` of a set that has to be fetched first: a file that nobody has verified, and an archive."""
    words = [
        "evaluate", f"backbone={toy}", "data=kill/set", "split=hot", "reference_energies=least_squares", "data.cache=memory",
    ]  # fmt: skip

    def command(folder: Path) -> Command:
        cards = folder / "cards"
        cards.mkdir(parents=True)
        (cards / "set.yaml").write_text(card(files, server.url))
        environment = {"ZOO_CACHE": str(folder / "cache"), "ZOO_SETS": str(cards), "ZOO_DATA": "", "no_proxy": "127.0.0.1"}
        return Command(words, folder, environment)

    def look(folder: Path) -> None:
        for path in (folder / "cache").rglob("*"):
            inside = [part for part in path.relative_to(folder).parts[:-1] if part.endswith(".partial")]
            if path.is_file() and path.name in files and not inside:
                assert path.read_bytes() == files[path.name], path

    def same(folder: Path) -> Any:
        table = [line for line in (folder / "said.txt").read_text().splitlines() if "meV" in line]
        return content(folder / "cache"), table

    before: dict[int, int] = {}

    def progress(child: int) -> float:
        return float(server.sent - before.setdefault(child, server.sent))

    return Phase("download", command, same, look, progress)


# ---- caches


def many_structures(path: Path, count: int) -> Path:
    """An extended XYZ file of ``count`` crystals of a few atoms with random labels."""
    random = np.random.default_rng(1)
    images = []
    for _ in range(count):
        atoms = Atoms("CuAu" * 2, cell=[5.0, 5.0, 5.0], pbc=True)
        atoms.positions = np.array([[0, 0, 0], [0, 2.5, 2.5], [2.5, 0, 2.5], [2.5, 2.5, 0]]) + random.normal(0, 0.1, (4, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(random.normal(-10, 0.1)), forces=random.normal(0, 0.1, (4, 3)))
        images.append(atoms)
    write(path, images, format="extxyz")
    return path


def cache_build(toy: Path, structures: Path) -> Phase:
    """``zoo train`` of one step on frames and edges that are on disk, which two processes convert."""
    words = [
        "train", f"backbone={toy}", f"data={structures}", "data.n_train=400", "data.n_valid=4", "data.cache=disk", "data.workers=2",
        "training.steps=1", "training.validate_every=1", "training.batch_size=3", "training.threads=1", "training.progress_bar=false",
        "training.loggers.tensorboard=false", "evaluation.plots=false", "evaluation.zero_shot=false",
        "strategy.reference_energies_before=base", "strategy.refit_reference_energies=false", *ELORA, *RUN,
    ]  # fmt: skip

    def command(folder: Path) -> Command:
        folder.mkdir(parents=True)
        return Command([*words, "run.folder=run"], folder, {"ZOO_CACHE": str(folder / "cache")})

    def look(folder: Path) -> None:
        for kind in ("frames", "edges"):
            for store in (folder / "cache" / kind).glob("[!.]*/"):
                open_anew(store)
        look_at_run(folder / "run")

    def same(folder: Path) -> Any:
        return content(folder / "cache"), weights(folder / "run")

    return Phase("cache build", command, same, look)


def open_anew(store: Path) -> None:
    """Every byte of a store, compared with its checksums."""
    from zoo.data import array_store

    array_store._verified.clear()
    array_store.open_store(store)


# ---- runs


def weights(run: Path) -> dict[str, str]:
    """SHA-256 of a run's final tensors, of the kept ones and of its history."""
    kept = sorted((run / "checkpoints").glob("kept-*"))
    assert len(kept) == 1
    with (run / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return {
        "adapter": tensors_sha256(load_file(run / "adapter.safetensors")),
        "file": hashlib.sha256((run / "adapter.safetensors").read_bytes()).hexdigest(),
        kept[0].name: tensors_sha256(load_file(kept[0])),
        "history": json.dumps(rows),
    }


def look_at_run(run: Path) -> None:
    """What is there is whole: the checkpoint, the weights it refers to, the adapter, the record."""
    from adapters.state import read_adapter
    from zoo.evaluation.record import read_record
    from zoo.training.checkpoints import AtomicCheckpointIO, read_kept_weights

    if (run / "checkpoints/last.ckpt").exists():
        saved = AtomicCheckpointIO().load_checkpoint(run / "checkpoints/last.ckpt")
        (state,) = [value for name, value in saved["callbacks"].items() if name.startswith("Validation")]
        read_kept_weights(run / "checkpoints", state["kept_step"])
    if (run / "adapter.safetensors").exists():
        read_adapter(run / "adapter.safetensors")
    if (run / "record.json").exists():
        read_record(run / "record.json")


def training(name: str, small_run: list[str]) -> Phase:
    """``zoo train`` with a checkpoint every 3 of 12 steps."""

    def command(folder: Path) -> Command:
        folder.mkdir(parents=True)
        return Command(["train", *small_run, *ELORA, *RUN, "run.folder=run"], folder, {"ZOO_CACHE": str(folder / "cache")})

    def same(folder: Path) -> Any:
        return weights(folder / "run"), sorted(content(folder)), content(folder, without=OF_THE_MOMENT)

    return Phase(name, command, same, lambda folder: look_at_run(folder / "run"))


# ---- single files


def export(run: Path) -> Phase:
    """``zoo export`` of a finished run."""

    def command(folder: Path) -> Command:
        folder.mkdir(parents=True)
        return Command(["export", str(run), "output=out.pth"], folder)

    def tensors(path: Path) -> str:
        return tensors_sha256(zoo.load(path).backbone.state_dict())

    def look(folder: Path) -> None:
        if (folder / "out.pth").exists():
            tensors(folder / "out.pth")

    return Phase("export", command, lambda folder: (sorted(content(folder)), tensors(folder / "out.pth")), look)


def record(toy: Path) -> Phase:
    """``zoo evaluate record=`` of a base model."""
    from zoo.evaluation.record import read_record

    def command(folder: Path) -> Command:
        folder.mkdir(parents=True)
        words = ["evaluate", f"backbone={toy}", "data.n_train=8", "data.n_valid=4", "data.test=[]", "split=valid", "record=record.json"]
        return Command(words, folder, {"ZOO_CACHE": str(folder / "cache")})

    def same(folder: Path) -> Any:
        return sorted(content(folder)), read_record(folder / "record.json").metrics

    return Phase("record", command, same, lambda folder: (folder / "record.json").exists() and read_record(folder / "record.json"))


def combined_adapter(run: Path, toy: Path) -> Phase:
    """``zoo adapter combine``, which writes an adapter file."""
    file = str(run / "adapter.safetensors")

    def command(folder: Path) -> Command:
        folder.mkdir(parents=True)
        return Command(["adapter", "combine", file, file, "into=out.safetensors", f"backbone={toy}"], folder)

    return Phase("adapter file", command, lambda folder: content(folder, without=("said.txt",)))


def predictions(toy: Path, structures: Path) -> Phase:
    """``zoo predict``, which writes extended XYZ."""

    def command(folder: Path) -> Command:
        folder.mkdir(parents=True)
        return Command(["predict", f"backbone={toy}", f"input={structures}", "output=out.xyz"], folder)

    return Phase("predictions", command, lambda folder: content(folder, without=("said.txt",)))


@contextmanager
def make(name: str, toy: Path, small_run: list[str], run: Path, atoms: list[Atoms], folder: Path) -> Iterator[Phase]:
    """The phase of that name; what it reads is written to ``folder``, and served from there where it is downloaded.

    Args:
        name: of the phase.
        toy: a checkpoint.
        small_run: words of a training.
        run: a finished run.
        atoms: labelled structures.
        folder: may hold other things.
    """
    if name == "download":
        with served(folder / "published") as server:
            yield download(toy, publish(folder / "published", atoms), server)
    elif name == "cache build":
        yield cache_build(toy, many_structures(folder / "many.xyz", 900))
    elif name == "predictions":
        yield predictions(toy, many_structures(folder / "some.xyz", 20))
    elif name == "record":
        yield record(toy)
    elif name == "export":
        yield export(run)
    elif name == "adapter file":
        yield combined_adapter(run, toy)
    else:
        yield training(name, small_run)
