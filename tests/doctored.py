"""Cuts of real data for `zoo doctor`, and the examination of such a cut in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from tests.published_sets import frames_of
from zoo.data.catalogue import data_card
from zoo.data.frame import Frame
from zoo.data.parts import DataSplits, Origin
from zoo.doctor import Report, examine
from zoo.potential import Potential
from zoo.training.config import RunConfig

Change = Callable[[Frame], Frame]
MODEL_FREE = ("labels", "energies", "forces", "stress", "structures", "outliers")


@cache
def run_config() -> RunConfig:
    """The defaults of ``zoo train`` on one thread of the CPU."""
    from zoo.compose import compose
    from zoo.training.config import parse_config

    words = ["data=acac", "backbone.device=cpu", "training.threads=1", "training.batch_size=2", "run.folder=none"]
    config: RunConfig = parse_config(compose("train", words))
    return config


@cache
def base() -> Potential:
    """SevenNet-0, without adapter."""
    import zoo

    return zoo.load("sevennet-0")


def cut(name: str, key: str, count: int, most_atoms: int = 10**6) -> list[Frame]:
    """The first frames of a file of a published set, as its card reads it."""
    return [frame for frame in frames_of(name, key) if len(frame) <= most_atoms][:count]


def parted(frames: Sequence[Frame], change: Change | None = None, level_of_theory: str = "", **origin: object) -> DataSplits:
    """Every fifth frame for validation, every fifth for testing, the others for training; ``change`` is made to all of them."""
    changed = [frame if change is None else change(frame) for frame in frames]
    parts = [changed[place::5] for place in range(5)]
    train = sorted((frame for part in parts[2:] for frame in part), key=lambda frame: frame.frame_id)
    given = Origin("a cut", level_of_theory, "", **origin)  # type: ignore[arg-type]
    return DataSplits(train, parts[0], {"test": parts[1]}, "cut", given)


def acac(count: int = 200, change: Change | None = None) -> DataSplits:
    """Acetylacetone at 300 K with its isolated atoms."""
    atoms = {int(frame.atomic_numbers[0]): frame.energy for frame in frames_of("acac", "isolated_atoms")}
    theory = data_card("acac").level_of_theory
    return parted(cut("acac", "train_300K", count), change, theory, isolated_atom_energies=atoms)


def diagnosis(splits: DataSplits, only: Sequence[str] = MODEL_FREE, potential: Potential | None = None, sample: int = 12) -> Report:
    """The report on a cut; with a model where the checks want one."""
    return examine(run_config(), splits=splits, potential=potential or base(), sample=sample, only=only)


def with_train(splits: DataSplits, frames: list[Frame]) -> DataSplits:
    """With other training frames."""
    return replace(splits, train=frames)
