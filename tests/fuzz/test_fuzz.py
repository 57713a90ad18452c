"""Whatever a file holds, reading it ends in a correct read or in one clear error: no crash, no hang, no code run."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fuzz.harness import Case, Outcome, run_cases
from tests.fuzz.hostile import HOSTILE, Harm
from tests.fuzz.mutations import mutations_of
from tests.fuzz.seeds import Seed, checkpoint_seeds, data_seeds, read_data, small_seeds

IN_CI, IN_ALL = 2, 30
"""Spoilt copies of each seed: of some 27 seeds these are 60 and 1,000 inputs with the hostile ones."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return data_seeds(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return small_seeds(tmp_path_factory.mktemp("small"))


def spoilt(seed: Seed, number: int) -> Case:
    """The ``number``-th spoilt copy; the same in every run."""
    rng = random.Random(f"{seed.name} {number} {os.environ.get('ZOO_FUZZ_SEED', '')}")
    choices = mutations_of(seed.target)
    mutation = choices[number % len(choices)]

    def make(folder: Path, canary: Path) -> Path:
        path, target = seed.copied(folder)
        target.write_bytes(mutation(target.read_bytes(), rng))
        return path

    return Case(f"{seed.name} {mutation.__name__} {number}", make, seed.read)


def whole(seed: Seed) -> Case:
    return Case(seed.name, lambda folder, canary: seed.copied(folder)[0], seed.read)


def wrong(outcomes: Sequence[Outcome]) -> list[str]:
    return [f"{one.kind}: {one.name}: {one.message}" for one in outcomes if not one.is_right]


def test_whole_inputs_are_read(data: list[Seed], small: list[Seed], tmp_path: Path) -> None:
    outcomes = run_cases([whole(seed) for seed in [*data, *small]], tmp_path)
    assert [f"{one.name}: {one.message}" for one in outcomes if one.kind != "read"] == []


def test_a_crash_a_hang_and_code_that_runs_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    from tests.fuzz import harness

    monkeypatch.setattr(harness, "SECONDS", 3.0)

    def never(path: Path) -> object:
        while True:
            pass

    def written(folder: Path, canary: Path) -> Path:
        (folder / "pickle").write_bytes(pickle.dumps(Harm(canary)))
        return folder / "pickle"

    cases = [
        Case("fine", written, Path.read_bytes),
        Case("crash", written, lambda path: os.kill(os.getpid(), 11)),
        Case("raise", written, lambda path: [].index(1)),
        Case("hang", written, never),
        Case("code", written, lambda path: pickle.loads(path.read_bytes())),  # noqa: S301 - the control
        Case("memory", written, lambda path: bytearray(2**40)),
    ]
    assert [one.kind for one in run_cases(cases, tmp_path)] == ["read", "crashed", "raised", "hung", "ran code", "raised"]


def test_spoilt_copies_of_every_input_are_refused_or_read(data: list[Seed], small: list[Seed], tmp_path: Path) -> None:
    outcomes = run_cases([spoilt(seed, number) for seed in [*data, *small] for number in range(IN_CI)], tmp_path)
    assert wrong(outcomes) == []
    assert Counter(one.kind for one in outcomes)["refused"] > len(outcomes) / 4  # the copies were spoilt indeed


@pytest.mark.parametrize("name", [name for name, (_, read) in HOSTILE.items() if read is read_data and "bomb" not in name])
def test_hostile_data_run_nothing(name: str, tmp_path: Path) -> None:
    assert wrong(run_cases([Case(name, *HOSTILE[name])], tmp_path)) == []


@pytest.mark.slow
def test_hostile_files_and_bombs_are_refused_or_read(tmp_path: Path) -> None:
    outcomes = run_cases([Case(name, *parts) for name, parts in HOSTILE.items()], tmp_path)
    assert wrong(outcomes) == []


@pytest.mark.slow
def test_a_thousand_spoilt_inputs_are_refused_or_read(data: list[Seed], small: list[Seed], tmp_path: Path) -> None:
    outcomes = run_cases([spoilt(seed, number) for seed in [*data, *small] for number in range(IN_CI, IN_ALL)], tmp_path)
    assert wrong(outcomes) == []


@pytest.mark.slow
def test_spoilt_checkpoints_of_every_family_are_refused_or_read(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    (tmp_path / "cases").mkdir()
    seeds = checkpoint_seeds(tmp_path / "seeds")
    outcomes = run_cases([whole(seed) for seed in seeds], tmp_path / "cases")
    assert [f"{one.name}: {one.message}" for one in outcomes if one.kind != "read"] == []
    outcomes = run_cases([spoilt(seed, number) for seed in seeds for number in range(IN_ALL)], tmp_path / "cases")
    assert wrong(outcomes) == []
