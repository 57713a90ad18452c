"""Which rows the board has of its own: tasks, methods, seeds, and the words of ``zoo train`` that make each."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboard.board import FORGETTING

AUTHOR, LICENCE = "equizoo", "MIT"
"""Of the board's own records."""
ZERO_SHOT, SCRATCH = "zero-shot", "scratch"
RATES_FILE = Path(__file__).with_name("row_rates.csv")
RECIPE = (
    "training.optimizer.name=schedule_free_adamw",
    "training.schedule.name=constant",
    "training.ema_decay=null",
    "training.keep=last",
    "training.progress_bar=false",
    "training.loggers.tensorboard=false",
    "evaluation.zero_shot=false",
    "evaluation.plots=false",
)
"""What all rows share: that of `benchmarks.sparse_acac`, whose threshold decay needs the last weights and no average besides."""
FORGETTING_WORD = f"evaluation.forgetting={{data: {FORGETTING.data}, frames: {FORGETTING.frames}}}"


@dataclass(frozen=True)
class Task:
    """Data and protocol, length of the training, and how many seeds a method has."""

    name: str
    data: tuple[str, ...]
    steps: int
    batch_size: int = 5
    seeds: tuple[int, ...] = (0,)

    @property
    def protocol(self) -> str:
        """Of the data's card."""
        return next(word.removeprefix("data.protocol=") for word in self.data if word.startswith("data.protocol="))


TASKS = {
    task.name: task
    for task in (
        Task("acac-50", ("data=acac", "data.protocol=few-shot", "data.test=[test_300K,test_600K]"), 300, seeds=(0, 1, 2)),
        Task("ethanol-50", ("data=rmd17/ethanol", "data.protocol=elora"), 300, seeds=(0, 1, 2)),
        Task("acac-500", ("data=acac", "data.protocol=full", "data.test=[test_300K,test_600K]"), 500, seeds=(0, 1, 2)),
        Task("aspirin-50", ("data=rmd17/aspirin", "data.protocol=elora"), 300),
        Task("3bpa", ("data=3bpa", "data.protocol=elora", "data.test=[test_300K,test_600K]"), 500),
        # fewer steps: a cell of 80 to 100 atoms brings the forces of five molecules, one of HfO2 at twice the cost: one epoch there
        Task(
            "sse-pbe",
            ("data=lam/sse-pbe-ligeps", "data.protocol=subset-mae", "data.n_train=200", "data.n_valid=50", "data.n_test=200"),
            100,
        ),
        Task("hfo2", ("data=lam/hfo2-init", "data.protocol=subset-rmse", "data.n_train=200", "data.n_valid=50", "data.n_test=118"), 100, 2),
    )
}
METHODS: dict[str, tuple[str, ...]] = {
    ZERO_SHOT: (),
    SCRATCH: ("strategy=scratch", "adapter=full"),
    "full": ("adapter=full",),
    "readout": ("adapter=readout",),
    "elora-4": ("adapter=elora", "adapter.rank=4"),
    "elora-16": ("adapter=elora", "adapter.rank=16"),
    "sparse-low": ("adapter=sparse_low", "adapter.setting=linear"),
    "sparse-high": ("adapter=sparse_high", "adapter.setting=linear"),
}
TUNED_ON, TUNING_STEPS = TASKS["acac-500"], 200
TRIED = {
    SCRATCH: (2e-3, 5e-3, 1e-2, 2e-2, 4e-2, 8e-2),
    "full": (1e-3, 2e-3, 5e-3, 1e-2),
    "readout": (1e-2, 3e-2, 1e-1),
    "elora-4": (5e-3, 1e-2, 2e-2, 4e-2, 8e-2),
    "elora-16": (2e-3, 5e-3, 1e-2, 2e-2, 4e-2, 8e-2),
    "sparse-low": (5e-3, 1e-2, 2e-2, 4e-2),
    "sparse-high": (5e-3, 1e-2, 2e-2, 4e-2, 8e-2, 1.6e-1),
}
"""Learning rates that are tried of each method, on the validation frames of `TUNED_ON`, with seed 0."""


@dataclass(frozen=True)
class Row:
    """One result: a method on a task with a seed, at a learning rate."""

    card: str
    task: Task
    method: str
    seed: int
    rate: float | None

    @property
    def name(self) -> str:
        """Of the run's folder."""
        seed = "" if self.method == ZERO_SHOT else f"-s{self.seed}"
        return f"row-{self.card}-{self.task.name}-{self.method}{seed}"

    @property
    def words(self) -> list[str]:
        """What follows ``zoo train``; of zero-shot, ``zoo evaluate``."""
        if self.method == ZERO_SHOT:
            return [f"backbone={self.card}", "backbone.dtype=float32", *self.task.data, "reference_energies=model"]
        return [
            *(f"backbone={self.card}", *self.task.data, *METHODS[self.method], *RECIPE),
            *([] if self.method == SCRATCH else [FORGETTING_WORD]),
            *(f"training.steps={self.task.steps}", f"training.batch_size={self.task.batch_size}", "training.validate_every=100"),
            *(f"training.optimizer.learning_rate={self.rate:g}", f"training.seed={self.seed}", "training.threads=1"),
        ]


@dataclass(frozen=True)
class Trial:
    """One learning rate of the tuning."""

    card: str
    method: str
    rate: float

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return f"tune-{self.card}-{self.method}-lr{self.rate:g}"

    @property
    def words(self) -> list[str]:
        """What follows ``zoo train``; no test set is looked at."""
        row = Row(self.card, TUNED_ON, self.method, 0, self.rate)
        left_out = (FORGETTING_WORD, f"training.steps={TUNED_ON.steps}", "training.threads=1")
        kept = [word for word in row.words if word not in left_out and not word.startswith("data.test=")]
        return [*kept, f"training.steps={TUNING_STEPS}", "data.test=[]"]


def chosen_rates(path: Path = RATES_FILE) -> dict[tuple[str, str], float]:
    """(card, method) to the learning rate with the lowest validation loss of the trials that are written down."""
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for trial, loss in read_trials(path).items():
        key = (trial.card, trial.method)
        best[key] = min(best.get(key, (loss, trial.rate)), (loss, trial.rate))
    return {key: rate for key, (_, rate) in best.items()}


def read_trials(path: Path = RATES_FILE) -> dict[Trial, float]:
    """Every trial that is written down, and its validation loss."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as lines:
        return {Trial(row["card"], row["method"], float(row["rate"])): float(row["validation loss"]) for row in csv.DictReader(lines)}


def rows(cards: Sequence[str], tasks: Sequence[str], methods: Sequence[str], seeds: Sequence[int] | None = None) -> Iterator[Row]:
    """Every row of these but methods without a rate, one seed after the other: who stops has all methods of the first."""
    rates = chosen_rates()
    wanted = [(card, TASKS[task], method) for card in cards for task in tasks for method in methods]
    for seed in seeds or sorted({seed for _, task, _ in wanted for seed in task.seeds}):
        for card, task, method in wanted:
            if method == ZERO_SHOT and seed == task.seeds[0]:
                yield Row(card, task, method, seed, None)
            elif method != ZERO_SHOT and seed in task.seeds and (card, method) in rates:
                yield Row(card, task, method, seed, rates[card, method])
