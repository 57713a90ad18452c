"""Time of a training step by method, as a ratio to full fine-tuning, for ``docs/benchmarks.md``: ``python -m benchmarks.step_cost``.

The methods take turns, step by step, in one process: on a shared machine the ratios are worth more than the times.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from adapters.method import create_method
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from zoo.data.config import DataConfig
from zoo.data.frame import Frame
from zoo.data.source import load_splits
from zoo.graph import collate
from zoo.loading import load
from zoo.potential import Potential
from zoo.registry import describe
from zoo.training.config import LossConfig
from zoo.training.losses import loss_terms, weighted_sum
from zoo.weights import local_weights

CARD = "sevennet-0"
METHODS: dict[str, Mapping[str, Any]] = {
    "full": {"name": "full"},
    "elora_r16": {"name": "elora", "rank": 16},
    "elora_r16_linear": {"name": "elora", "rank": 16, "roles": ("linear",)},
    "sparse": {"name": "sparse"},
    "readout": {"name": "readout"},
}
LABELS = {
    "full": "`full`",
    "elora_r16": "`elora`, rank 16",
    "elora_r16_linear": "`elora`, rank 16, `roles=[linear]`",
    "sparse": "`sparse`",
    "readout": "`readout`",
    "upstream": "the `sevenn` package, all weights",
}
Step = Callable[[], None]


def our_steps(frames: list[Frame]) -> tuple[dict[str, Step], dict[str, int]]:
    """A step a method, all on one potential whose active adapter is switched outside the clock's reach; and trained numbers."""
    potential = load(CARD, dtype="float32")
    loss = LossConfig()
    batch = collate([potential.graph(frame) for frame in frames])
    for name, spec in METHODS.items():
        potential.adapters.add(name, create_method(spec))
    potential.train()

    def step_of(name: str) -> Step:
        potential.adapters.activate([name])
        optimizer = torch.optim.AdamW(potential.adapters.param_groups(1e-4, 1e-8), lr=1e-4)

        def step() -> None:
            potential.adapters.activate([name])
            _our_step(potential, batch, loss, optimizer)

        return step

    steps = {name: step_of(name) for name in METHODS}
    return steps, {name: potential.adapters.get(name).trainable_count for name in METHODS}


def _our_step(potential: Potential, batch: Any, loss: LossConfig, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    potential.adapters.before_forward()
    weighted_sum(loss_terms(potential(batch, stress=False), batch, loss), loss).backward()
    optimizer.step()
    potential.adapters.after_step()


def upstream_step(frames: list[Frame]) -> tuple[Step, int]:
    """Upstream's network on upstream's graphs, all its trainable weights, the same loss and optimizer."""
    from sevenn import _keys as keys
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph
    from sevenn.util import load_checkpoint
    from torch_geometric.data import Batch

    card = describe(CARD)
    network = load_checkpoint(str(local_weights(card))).build_model()
    network.set_is_batch_data(True)
    network.train()
    graphs = [AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(frame.to_atoms(), card.cutoff_angstrom)) for frame in frames]
    batch = Batch.from_data_list(graphs)
    energies = torch.tensor([frame.energy for frame in frames])
    forces = torch.cat([torch.from_numpy(frame.forces) for frame in frames])
    atoms = torch.tensor([len(frame) for frame in frames])
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-6, weight_decay=1e-8)

    def step() -> None:
        optimizer.zero_grad()
        # the network writes into its input
        results: dict[str, Tensor] = network(batch.clone())
        energy_error = (results[keys.PRED_TOTAL_ENERGY] - energies) / atoms
        force_error = results[keys.PRED_FORCE] - forces
        (energy_error.square().mean() + 1000 * force_error.square().mean()).backward()
        optimizer.step()

    return step, sum(parameter.numel() for parameter in trainable)


def measure(steps: Mapping[str, Step], rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Seconds of each step, the methods in turn; the first ``warm_up`` rounds are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + warm_up):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            taken = time.perf_counter() - started
            if turn >= warm_up:
                seconds[name].append(taken)
    return seconds


def table(seconds: Mapping[str, list[float]], counts: Mapping[str, int]) -> str:
    """Median of the ratio to full fine-tuning within a round, its quartiles, and the median time."""
    rows = []
    for name, taken in seconds.items():
        ratios = [mine / full for mine, full in zip(taken, seconds["full"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append(
            [LABELS[name], f"{counts[name]:,}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{1000 * statistics.median(taken):.0f}"]
        )
    return markdown_table(["method", "trained", "time / `full`", "quartiles", "median / ms"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    frames = load_splits(DataConfig(name="acac", n_train=options.batch_size, n_valid=1, test=[])).train
    steps, counts = our_steps(frames)
    steps["upstream"], counts["upstream"] = upstream_step(frames)
    content = table(measure(steps, options.rounds), counts)
    note = (
        f"One training step (energies and forces, AdamW, float32) of SevenNet-0 on a batch of {options.batch_size} AcAc frames, "
        f"{options.rounds} rounds interleaved in one process, {torch.get_num_threads()} thread(s). "
        f"{stamp('python -m benchmarks.step_cost')}"
    )
    write_between_markers(ROOT / "docs" / "benchmarks.md", "step-cost", f"{content}\n\n{note}")


if __name__ == "__main__":
    main()
