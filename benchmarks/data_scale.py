"""Start, second start and training on a large ASE LMDB, for ``docs/benchmarks.md``: ``python -m benchmarks.data_scale``.

Writes crystals of 4 to 8 atoms with labels of a harmonic model (nothing here depends on what the labels are), and then, in fresh processes
that share one new cache folder: converts them and finds edges, opens both again, and trains a toy on them for some steps. Memory is the
largest resident set of the process (``ru_maxrss``), pages of mapped files included; the first start is also timed with one process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers

CUTOFF_ANGSTROM = 5.0
_ROWS_OF_A_COMMIT = 5_000
_LATTICE_ANGSTROM = 3.8


def write_crystals(path: Path, count: int, seed: int = 0) -> None:
    """An LMDB in the layout of fairchem's ``.aselmdb`` with ``count`` rattled Cu-Au crystals, energies, forces and stresses."""
    import lmdb
    from ase.io.jsonio import encode

    random = np.random.default_rng(seed)
    environment = lmdb.open(str(path), subdir=False, map_size=1 << 40, lock=False, sync=False)
    for start in range(0, count, _ROWS_OF_A_COMMIT):
        with environment.begin(write=True) as transaction:
            for number in range(start, min(start + _ROWS_OF_A_COMMIT, count)):
                transaction.put(f"{number + 1}".encode(), zlib.compress(encode(_row(random)).encode(), 1))
            transaction.put(b"nextid", zlib.compress(json.dumps(min(start + _ROWS_OF_A_COMMIT, count) + 1).encode()))
    environment.sync(True)
    environment.close()


def _row(random: np.random.Generator) -> dict[str, Any]:
    layers = int(random.integers(1, 3))
    base = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    sites = np.concatenate([base + np.array([0, 0, layer]) for layer in range(layers)])[: int(random.integers(4, 4 * layers + 1))]
    cell = _LATTICE_ANGSTROM * np.diag([1.0, 1.0, layers]) @ (np.eye(3) + 0.03 * random.standard_normal((3, 3)))
    moved = 0.08 * random.standard_normal(sites.shape)
    numbers = random.choice([29, 79], len(sites))
    return {
        "numbers": numbers,
        "positions": sites / [1, 1, layers] @ cell + moved,
        "cell": cell,
        "pbc": np.ones(3, dtype=bool),
        "calculator": "unknown",
        "calculator_parameters": {},
        "energy": float(2.0 * np.square(moved).sum() - 3.5 * (numbers == 29).sum() - 3.8 * (numbers == 79).sum()),
        "forces": -4.0 * moved,
        "stress": 0.01 * random.standard_normal(6),
        "unique_id": random.bytes(16).hex(),
        "key_value_pairs": {},
        "data": {},
        "ctime": 26.0,
        "mtime": 26.0,
    }


def start(path: str, workers: int) -> dict[str, float]:
    """Seconds of what a run does with its data before the first step, and the memory it took."""
    from zoo.data.cache_choice import CacheChoice
    from zoo.data.config import DataConfig
    from zoo.data.loader import make_graphs
    from zoo.data.source import load_splits
    from zoo.edges import GraphRecipe

    config, began = DataConfig(name="file", path=path, valid_fraction=0.01, cache="disk", workers=workers), time.perf_counter()
    splits = load_splits(config)
    read = time.perf_counter()
    for frames in (splits.train, splits.valid):
        make_graphs(frames, GraphRecipe(CUTOFF_ANGSTROM), CacheChoice("disk", workers))
    return {"frames": read - began, "edges": time.perf_counter() - read, **used()}


def train(path: str, folder: str, steps: int) -> dict[str, float]:
    """A toy of SevenNet on the same data: from the command to the finished run."""
    import torch

    from zoo.backbones import load_family
    from zoo.compose import compose
    from zoo.training.config import parse_config
    from zoo.training.run import fine_tune

    checkpoint = Path(folder) / "toy.pth"
    torch.save(load_family("sevennet").toy(0).upstream_checkpoint({}), checkpoint)
    words = [
        f"backbone={checkpoint}",
        f"data={path}",
        "data.valid_fraction=0.01",
        "data.cache=disk",
        "adapter=full",
        f"training.steps={steps}",
        f"training.validate_every={steps // 2}",
        "training.batch_size=null",
        "training.max_atoms_per_batch=64",
        "training.loggers.tensorboard=false",
        "training.progress_bar=false",
        "evaluation.plots=false",
        "strategy.reference_energies_before=least_squares",
        "strategy.refit_reference_energies=false",
        "run.name=scale",
        f"run.folder={folder}/run",
    ]
    began = time.perf_counter()
    fine_tune(parse_config(compose("train", words)), say=lambda line: print(line, file=sys.stderr))
    return {"train": time.perf_counter() - began, **used()}


def used() -> dict[str, float]:
    """Largest resident set in MiB, of this process and of the largest one that it started, and processor seconds of all of them."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    processor = sum(one.ru_utime + one.ru_stime for one in (own, children))
    return {"memory": own.ru_maxrss / 1024, "memory_of_children": children.ru_maxrss / 1024, "processor": processor}


def in_fresh_process(cache: Path, *words: str) -> dict[str, float]:
    """One phase of this script, with its own cache folder."""
    began = time.perf_counter()
    environment = {**os.environ, "ZOO_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.data_scale", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "process": time.perf_counter() - began}


def measure(count: int, folder: Path, steps: int) -> tuple[list[list[str]], str]:
    """The rows of the table, and a sentence on the sizes."""
    path = folder / "crystals.aselmdb"
    write_crystals(path, count)
    caches = {name: folder / name for name in ("one", "two")}
    phases = {
        "first start, one process": in_fresh_process(caches["one"], "--start", str(path), "--workers", "1"),
        "first start, two processes": in_fresh_process(caches["two"], "--start", str(path), "--workers", "2"),
        "second start": in_fresh_process(caches["two"], "--start", str(path), "--workers", "2"),
        f"training, {steps} steps, 2 validations": in_fresh_process(caches["two"], "--train", str(path), "--steps", str(steps)),
    }
    first, second = phases["first start, two processes"], phases["second start"]
    rows = [
        [
            name,
            *(f"{one[key]:.1f}" if key in one else "" for key in ("frames", "edges")),
            f"{one['frames'] + one['edges'] if 'frames' in one else one['train']:.1f}",
            f"{one['processor']:.1f}",
            f"{one['memory']:.0f}",
        ]
        for name, one in phases.items()
    ]
    alone = phases["first start, one process"]
    ratio = (first["frames"] + first["edges"]) / (second["frames"] + second["edges"])
    size = {name: sum(file.stat().st_size for file in (caches["two"] / name).rglob("*.npy")) / 1e6 for name in ("frames", "edges")}
    sentence = (
        f"{count:,} frames of 4 to 8 atoms, a file of {path.stat().st_size / 1e6:.0f} MB; in the cache {size['frames']:.0f} MB of frames "
        f"and {size['edges']:.0f} MB of edges (cutoff {CUTOFF_ANGSTROM:g} Å). Two processes convert "
        f"{alone['frames'] / first['frames']:.1f} times and find edges {alone['edges'] / first['edges']:.1f} times as fast as one, and "
        f"the second start is {ratio:.0f} times as fast as the first. "
        f"Processes that convert or look for edges take up to {first['memory_of_children']:.0f} MiB each. The toy's own graphs "
        "(cutoff 4 Å) are built in the training's row."
    )
    return rows, sentence


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", help="where the file and the caches go; a temporary folder by default")
    parser.add_argument(
        "--print", action="store_true", help="print the table and leave the page alone, which has places for 200000 and 1000000 frames"
    )
    parser.add_argument("--start", help=argparse.SUPPRESS)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        print(json.dumps(start(given.start, given.workers)))
    elif given.train:
        with tempfile.TemporaryDirectory() as run_folder:
            print(json.dumps(train(given.train, run_folder, given.steps)))
    else:
        with tempfile.TemporaryDirectory(dir=given.folder) as work:
            table, note = measure(given.frames, Path(work), given.steps)
        header = ["", "frames / s", "edges / s", "together / s", "processor / s", "memory / MiB"]
        content = f"{markdown_table(header, table)}\n\n{note} {stamp(f'python -m benchmarks.data_scale --frames {given.frames}')}"
        if given.print:
            print(content)
        else:
            write_between_markers(ROOT / "docs" / "benchmarks.md", f"data scale {given.frames}", content)
