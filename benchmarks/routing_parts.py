"""What eight structures with eight adapters cost, part by part: ``python -m benchmarks.routing_parts``.

Processor time and not time by the clock, so that what else the machine does counts less. The table of ``docs/adapters.md`` that says
what routing can save and where it cannot.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from ase import Atoms

from benchmarks.lifecycle import NAMES, potentials, structures, with_adapters
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from zoo.graph import collate
from zoo.potential import Potential
from zoo.routing import _in_one_pass, _one_by_one, _stacked

_HEADER = [
    "base",
    "eight structures of",
    "W + delta of eight / ms",
    "stacking them / ms",
    "eight passes / ms",
    "one pass, eight adapters / ms",
    "eight passes, bare base / ms",
    "one pass, bare base / ms",
]


def bases() -> dict[str, Callable[[], Potential]]:
    """Those of `benchmarks.lifecycle`, and MACE cut to three elements."""
    found = potentials()
    mace = found["MACE-MP-0 medium"]
    return {**found, "MACE-MP-0 medium, cut to H C O": lambda: Potential(mace().backbone.restricted_to([1, 6, 8]))}


def processor_ms(task: Callable[[], object], rounds: int) -> str:
    """Median milliseconds of processor time after one round that does not count."""
    seconds = []
    for _ in range(rounds + 1):
        started = time.process_time()
        task()
        seconds.append(time.process_time() - started)
    return f"{1e3 * statistics.median(seconds[1:]):.0f}"


def row(label: str, kind: str, potential: Potential, batch: Sequence[Atoms], rounds: int) -> list[str]:
    """One line of the table."""
    potential.eval()
    adapters, graphs = potential.adapters, [potential.graph(atoms) for atoms in batch]
    routed = {(name,): collate([graph]) for name, graph in zip(NAMES, graphs, strict=True)}
    joined = collate(graphs)
    with torch.no_grad():
        weights = [adapters.weights_with([name]) for name in NAMES]
        weighing = processor_ms(lambda: [adapters.weights_with([name]) for name in NAMES], rounds)
        stacking = processor_ms(lambda: _stacked(weights, potential), rounds)
    adapters.deactivate()
    tasks: list[Callable[[], object]] = [
        lambda: _one_by_one(potential, routed),
        lambda: _in_one_pass(potential, routed),
        lambda: [potential(one) for one in routed.values()],
        lambda: potential(joined),
    ]
    return [label, kind, weighing, stacking, *(processor_ms(task, rounds) for task in tasks)]


def table(rounds: int) -> str:
    """As Markdown."""
    rows = []
    for label, build in bases().items():
        potential = with_adapters(build())
        for kind, batch in structures().items():
            if set(batch[0].numbers) <= set(potential.backbone.elements):
                rows.append(row(label, kind, potential, batch, rounds))
    return markdown_table(_HEADER, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    content = f"{table(parser.parse_args().rounds)}\n\nProcessor time, one thread. {stamp('python -m benchmarks.routing_parts')}"
    write_between_markers(ROOT / "docs" / "adapters.md", "routing parts", content)
