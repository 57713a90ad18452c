"""What adapters cost as objects, for ``docs/adapters.md``: ``python -m benchmarks.lifecycle``.

Attaching a file to a base in memory, switching the adapter of a calculator, and eight structures with eight adapters in one batch against
one at a time. SevenNet-0, and MACE-MP-0's medium shape with random weights; nothing is downloaded. What is compared takes turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

from adapters.method import create_method
from benchmarks.shapes import MATERIALS_PROJECT, mace_shape
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from zoo.loading import load
from zoo.potential import Potential

ADAPTERS = 8
METHOD = {"name": "elora", "rank": 4}
NAMES = [f"adapter{number}" for number in range(ADAPTERS)]


def potentials() -> dict[str, Callable[[], Potential]]:
    """Builders of the float32 potentials that are measured."""
    return {
        "SevenNet-0": lambda: load("sevennet-0", dtype="float32"),
        "MACE-MP-0 medium": lambda: Potential(mace_shape("mace-mp-0-medium", MATERIALS_PROJECT)).to_dtype(torch.float32),
    }


def structures() -> dict[str, list[Atoms]]:
    """Eight rattled structures of each kind."""
    kinds = {"ethanol, 9 atoms": molecule("CH3CH2OH"), "copper, 32 atoms": bulk("Cu", a=3.6, cubic=True).repeat(2)}
    found = {}
    for kind, atoms in kinds.items():
        found[kind] = [atoms.copy() for _ in range(ADAPTERS)]
        for seed, one in enumerate(found[kind]):
            one.rattle(0.05, seed=seed)
    return found


def medians(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each task, the tasks in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def with_adapters(potential: Potential) -> Potential:
    """Eight random adapters, none active."""
    for seed, name in enumerate(NAMES):
        potential.adapters.add(name, create_method(METHOD), seed=seed)
        potential.adapters.randomise(name, seed, relative=0.05)
    potential.adapters.activate([])
    return potential


def object_row(label: str, potential: Potential, folder: Path, rounds: int) -> list[str]:
    """Cells: file size, and milliseconds to attach it, to switch to it, and to work out W + delta, as each calculation does."""
    path = potential.save_adapter(NAMES[0], folder / f"{len(label)}.safetensors")
    calculator = potential.calculator()
    turns = iter(range(10**9))

    def attach() -> None:
        potential.load_adapter(path, "loaded")

    def switch() -> None:
        calculator.set_adapter(NAMES[next(turns) % 2])

    def weigh() -> None:
        with torch.no_grad():
            potential.adapters.weights()

    def put_back() -> None:
        potential.adapters.delete("loaded")

    found = medians({"attach": attach, "put back": put_back, "switch": switch, "weigh": weigh}, rounds)
    trained = potential.adapters.get(NAMES[0]).trainable_count
    cells = [f"{1e3 * found[name]:.{digits}f}" for name, digits in (("attach", 0), ("switch", 3), ("weigh", 1))]
    return [label, f"{trained:,}", f"{path.stat().st_size / 1e3:.0f}", *cells]


def routing_row(label: str, kind: str, potential: Potential, batch: list[Atoms], rounds: int) -> list[str]:
    """Cells: milliseconds of eight passes, of one batch with eight adapters and of one batch with one; and the largest difference."""
    found: dict[str, list[np.ndarray]] = {}

    def one_at_a_time() -> None:
        found["passes"] = []
        for name, atoms in zip(NAMES, batch, strict=True):
            potential.adapters.activate([name])
            found["passes"].append(potential.predict([atoms])[0].forces)

    def routed() -> None:
        found["routed"] = [prediction.forces for prediction in potential.predict(batch, adapters=NAMES)]

    def with_one() -> None:
        potential.adapters.activate(NAMES[:1])
        potential.predict(batch)

    times = medians({"passes": one_at_a_time, "routed": routed, "one": with_one}, rounds)
    difference = max(np.abs(a - b).max() for a, b in zip(found["passes"], found["routed"], strict=True))
    assert difference < 1e-4 * max(np.abs(forces).max() for forces in found["passes"])  # float32
    ratio = times["routed"] / times["passes"]
    return [label, kind, *(f"{1e3 * times[name]:.0f}" for name in ("passes", "routed", "one")), f"{ratio:.2f}"]


def tables(rounds: int) -> str:
    """Both tables, as Markdown."""
    objects, routes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for label, build in potentials().items():
            potential = with_adapters(build())
            objects.append(object_row(label, potential, Path(folder), 5 * rounds))
            routes.extend(routing_row(label, kind, potential, batch, rounds) for kind, batch in structures().items())
    header = ["base", "trained numbers", "file / kB", "read and attach / ms", "switch / ms", "W + delta / ms"]
    route_header = [
        "base",
        "eight structures of",
        "one at a time / ms",
        "one batch, eight adapters / ms",
        "one batch, one adapter / ms",
        "ratio",
    ]
    note = (
        f"ELoRA of rank {METHOD['rank']} on every matrix, float32, {torch.get_num_threads()} thread, medians of {5 * rounds} rounds in the "
        f"first table and {rounds} in the second, what is compared in turn. W + delta is worked out by each calculation. Ratio: one batch "
        "with eight adapters over one at a time; one batch with one adapter is what routing cannot beat."
    )
    return f"{markdown_table(header, objects)}\n\n{markdown_table(route_header, routes)}\n\n{note}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    content = f"{tables(parser.parse_args().rounds)} {stamp('python -m benchmarks.lifecycle')}"
    write_between_markers(ROOT / "docs" / "adapters.md", "lifecycle", content)
