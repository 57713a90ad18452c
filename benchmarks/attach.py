"""What ELoRA costs and does on EquiformerV2 in its published sizes, for ``docs/adapters.md``: ``python -m benchmarks.attach``.

Seconds to find the blocks and to attach a fresh adapter, the size of its file, and the error of forces under rotations with random adapter
weights against the base's own: what the grid of the sphere aliases. The weights are random; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from adapters.blocks import find_blocks
from adapters.method import create_method
from adapters.stack import AdapterStack
from adapters.state import AdapterManifest, base_fingerprint, load_into, read_adapter, write_adapter
from benchmarks.shapes import EQUIFORMER_V2_ROLES, EQUIFORMER_V2_SHAPES, equiformer_v2
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from zoo.backbones.equiformer_v2.network import Structures

METHOD = {"name": "elora", "rank": 16}
RELATIVE = 0.1
ROTATIONS = 20


def timings(size: str, folder: Path) -> list[str]:
    """Cells of a row: seconds of each step on a float32 network, and the file's size."""
    network = equiformer_v2(size)
    started = time.perf_counter()
    coverage = find_blocks(network, EQUIFORMER_V2_ROLES)
    found = time.perf_counter()
    stack = AdapterStack(network, coverage)
    adapter = stack.add("elora", create_method(METHOD))
    attached = time.perf_counter()
    with torch.no_grad():
        stack.weights()
    weighed = time.perf_counter()
    fingerprint = base_fingerprint(network)
    fingered = time.perf_counter()
    manifest = AdapterManifest(
        method="elora", config=adapter.method.config_dict, base_card=size, base_family="equiformer_v2", base_sha256=fingerprint
    )
    path = folder / f"{size}.safetensors"
    write_adapter(path, adapter, manifest)
    stack.delete("elora")
    before_load = time.perf_counter()
    load_into(stack, "again", *read_adapter(path))
    loaded = time.perf_counter()
    seconds = [found - started, attached - found, weighed - attached, fingered - weighed, loaded - before_load]
    megabytes = path.stat().st_size / 1e6
    return [f"{adapter.trainable_count:,}", *[f"{taken:.2f}" for taken in seconds], f"{megabytes:.1f}"]


def force_errors(size: str) -> list[str]:
    """Cells of a row: the largest force, the largest error of the base and with a random adapter, and their ratio; float64."""
    torch.manual_seed(0)
    network = equiformer_v2(size, torch.float64).eval()
    stack = AdapterStack(network, find_blocks(network, EQUIFORMER_V2_ROLES)).eval()
    largest, base = _force_error(network)
    stack.add("random", create_method(METHOD))
    stack.randomise("random", seed=0, relative=RELATIVE)
    stack.merge()
    _, adapted = _force_error(network)
    return [f"{largest:.3f}", f"{base:.1e}", f"{adapted:.1e}", f"{adapted / base:.2f}"]


@torch.no_grad()
def _force_error(network: nn.Module) -> tuple[float, float]:
    atoms = molecule("CH3CH2OH")
    positions = atoms.positions + np.random.default_rng(0).normal(scale=0.1, size=(len(atoms), 3))
    forces = _forces(network, atoms.numbers, positions)
    errors = []
    for turn in Rotation.random(ROTATIONS, random_state=0):
        expected = forces @ torch.from_numpy(turn.as_matrix()).T
        errors.append(float((_forces(network, atoms.numbers, turn.apply(positions)) - expected).abs().max()))
    return float(forces.abs().max()), max(errors)


def _forces(network: nn.Module, numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Tensor:
    count = len(numbers)
    target, source = torch.tensor([(i, j) for i in range(count) for j in range(count) if i != j]).T
    places = torch.from_numpy(positions)
    graph_of_atom = torch.zeros(count, dtype=torch.long)
    structures = Structures(torch.from_numpy(numbers), torch.stack([source, target]), places[source] - places[target], graph_of_atom, 1)
    forces: Tensor = network(structures, ("forces",))["forces"]
    return forces


def attach_table(sizes: Sequence[str]) -> str:
    """Times and file sizes."""
    header = [
        "size",
        "trained numbers",
        "find blocks / s",
        "attach / s",
        "W + delta / s",
        "hash of the base / s",
        "read and attach / s",
        "file / MB",
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows = [[size, *timings(size, Path(folder))] for size in sizes]
    return f"{markdown_table(header, rows)}\n\nELoRA of rank {METHOD['rank']} on every matrix, float32, one run."


def aliasing_table(sizes: Sequence[str]) -> str:
    """Errors of forces under rotations."""
    header = ["size", "largest force", "error of the base", "with the adapter", "ratio"]
    note = (
        f"Forces of ethanol in the model's unit, float64, and their largest error over {ROTATIONS} rotations at grid resolution 18: of a "
        f"random base, and with random ELoRA weights of rank {METHOD['rank']} and |dW|/|W| >= {RELATIVE} in each block."
    )
    return f"{markdown_table(header, [[size, *force_errors(size)] for size in sizes])}\n\n{note}"


TABLES = {"attach": attach_table, "aliasing": aliasing_table}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    for name in parser.parse_args().tables:
        content = f"{TABLES[name](list(EQUIFORMER_V2_SHAPES))} {stamp('python -m benchmarks.attach')}"
        write_between_markers(ROOT / "docs" / "adapters.md", name, content)
