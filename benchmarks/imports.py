"""What a command waits for before it does anything, for ``docs/benchmarks.md``: ``python -m benchmarks.imports``."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers

COMMANDS: dict[str, tuple[str, ...]] = {
    "`python -c pass`": ("-c", "pass"),
    "`import torch`": ("-c", "import torch"),
    "`import zoo`": ("-c", "import zoo"),
    "`import torch, zoo`": ("-c", "import torch, zoo"),
    "`zoo --help`": ("-m", "zoo", "--help"),
    "`zoo list`": ("-m", "zoo", "list"),
    '`zoo.load("sevennet-0")`': ("-c", "import zoo; zoo.load('sevennet-0')"),
}


def wall_seconds(arguments: Sequence[str]) -> float:
    """Of one fresh Python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def measure(repeats: int) -> dict[str, list[float]]:
    """Seconds by command, in turn, so that a slow moment hits all of them; a first, unmeasured turn warms the disk cache."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(repeats + 1):
        for name, arguments in COMMANDS.items():
            taken = wall_seconds(arguments)
            if turn:
                seconds[name].append(taken)
    return seconds


def table(seconds: dict[str, list[float]]) -> str:
    """Median, range, and the median beyond ``import torch``."""
    torch_seconds = statistics.median(seconds["`import torch`"])
    rows = []
    for name, taken in seconds.items():
        median = statistics.median(taken)
        rows.append([name, f"{median:.2f}", f"{min(taken):.2f} to {max(taken):.2f}", f"{median - torch_seconds:+.2f}"])
    return markdown_table(["in a fresh process", "median / s", "range / s", "beyond `import torch` / s"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    content = f"{table(measure(repeats))}\n\nWall time, {repeats} runs each, interleaved. {stamp('python -m benchmarks.imports')}"
    write_between_markers(ROOT / "docs" / "benchmarks.md", "imports", content)
