"""A run of 20 steps, its numbers, and those that upstream gives for its exported file in a process without equizoo."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

import zoo
from zoo.backbones import load_family
from zoo.cli import main
from zoo.data.emt import emt_test
from zoo.potential import Potential
from zoo.training.finished import load_finished
from zoo.training.folder import RunFolder

Numbers = dict[str, np.ndarray]

# two crystals, a slab and a cluster of Cu and Au, and a molecule of elements that no training frame has
STRUCTURES = [
    *(frame.to_atoms() for frame in itemgetter(0, 4, 5, 8)(emt_test())),
    Atoms("HCO", [[0, 0, 0], [1.0, 0.3, 0], [1.9, -0.2, 0.6]]),
]
# times the largest energy (eV), force (eV/Å) or stress (eV/Å^3) where that is above 1: float32 resolves 2e-6 eV of -20 eV
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
_SCRIPT = Path(__file__).with_name("upstream_calculators.py")
_TRAINING = (
    *("adapter=elora", "adapter.rank=4", "data.n_train=8", "data.n_valid=4", "data.test=[]"),
    *("training.steps=20", "training.validate_every=20", "training.batch_size=3", "training.threads=1", "training.progress_bar=false"),
    *("training.loggers.tensorboard=false", "evaluation.plots=false", "evaluation.zero_shot=false"),
)


def write_toy(family: str, folder: Path) -> Path:
    """The family's toy as a file of its own package."""
    found = load_family(family)
    path = folder / f"toy-{family}{found.formats['native'].suffix}"
    if not path.exists():
        Potential(found.toy(0)).save_upstream_checkpoint(path)
    return path


def train(base: str | Path, dtype: str, folder: Path) -> Path:
    """A finished run of 20 steps through the command line, and what ``zoo export`` writes beside its adapter."""
    main(["train", f"backbone={base}", f"backbone.dtype={dtype}", *_TRAINING, f"hydra.run.dir={folder}", f"run.name={folder.name}"])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        main(["export", str(folder), "--format", "native"])
    line_printed(folder).write_text(said.getvalue(), encoding="utf-8")
    return folder


def line_printed(folder: Path) -> Path:
    """The file with what ``zoo export`` said of a run."""
    return folder.with_suffix(".txt")


def exported(folder: Path) -> Path:
    (path,) = folder.glob("exported.*")
    return path


def numbers(potential: Potential, structures: Sequence[Atoms] = STRUCTURES) -> Numbers:
    """Energy (S,), forces (atoms of all structures, 3), stress (periodic structures, 6) in ASE's order."""
    predictions = potential.predict(structures)
    return {
        "energy": np.array([p.energy for p in predictions]),
        "forces": np.concatenate([p.forces for p in predictions]),
        "stress": np.array([p.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] for p in predictions if p.stress is not None]),
    }


@functools.cache
def numbers_of_run(folder: Path) -> Numbers:
    """Of the model that the run's folder holds."""
    found, config = RunFolder.existing(folder)
    return numbers(load_finished(found, config, config.backbone.dtype, "cpu"))


@functools.cache
def numbers_of_base(name: str) -> Numbers:
    """Of the model that a run began with, whatever the run's precision: training moves further than that."""
    return numbers(zoo.load(name))


def upstream(
    which: str, files: Mapping[str, Path], e3nn: Path | None = None, structures: Sequence[Atoms] = STRUCTURES
) -> dict[str, Numbers]:
    """What upstream gives for the file of each dtype, in a fresh process; ``e3nn`` is a folder with version 0.4.4."""
    trajectory = next(iter(files.values())).with_name("structures.traj")
    write(trajectory, structures)
    words = [str(word) for file in files.items() for word in file]
    run(sys.executable, "-P", _SCRIPT, which, trajectory, *words, e3nn=e3nn)
    return {dtype: dict(np.load(path.with_name(f"upstream-{which}.npz"))) for dtype, path in files.items()}


def run(*command: object, e3nn: Path | None = None, folder: Path | None = None) -> None:
    """A command in a process of its own, which must succeed."""
    environment = {**os.environ, **({"PYTHONPATH": str(e3nn), "EXPECTED_E3NN": "0.4.4"} if e3nn else {})}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def difference(found: Numbers, wanted: Numbers) -> dict[str, float]:
    """Largest deviation of each quantity that ``found`` has, divided by the largest value where that is above 1."""
    present = {name: wanted[name] for name in wanted if found[name].size}
    assert {"energy", "forces"} <= present.keys()
    return {name: float(np.abs(found[name] - value).max() / max(1.0, np.abs(value).max())) for name, value in present.items()}


def assert_agree(found: Numbers, folder: Path, tolerance: float, what: str) -> None:
    """That upstream gives the run's numbers, and that training moved them a thousand times further than ``tolerance``."""
    wanted = numbers_of_run(folder)
    measured = difference(found, wanted)
    print(f"{what} {folder.name}:", ", ".join(f"{name} {value:.1e}" for name, value in measured.items()))
    assert max(measured.values()) <= tolerance, measured
    moved = difference(numbers_of_base(RunFolder.existing(folder)[1].backbone.name), wanted)
    print("training moved:", ", ".join(f"{name} {value:.1e}" for name, value in moved.items()))
    assert min(moved["energy"], moved["forces"]) > 1000 * tolerance, moved
