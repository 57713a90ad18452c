"""Whatever a file holds, reading it ends in a correct read or in one clear error: no crash, no hang, no code run."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuzz.caches import store_cases, through_cache
from tests.fuzz.harness import Case, Outcome, run_cases
from tests.fuzz.hostile import HOSTILE, Harm
from tests.fuzz.mutations import mutations_of
from tests.fuzz.seeds import Seed, checkpoint_seeds, data_seeds, read_data, small_seeds

IN_CI, IN_ALL = 1, 24
"""Spoilt copies of each seed, of which there are some 60, read from memory or through the cache."""
ROUNDS = 5
"""Kinds of damage to each file of a store."""
Tell = Callable[[str, object], None]


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


def cached(data: list[Seed]) -> list[Seed]:
    return [through_cache(seed) for seed in data if seed.read is read_data]


def extxyz_of(data: list[Seed]) -> Path:
    return next(seed.path for seed in data if seed.path.name == "my.extxyz")


def figures(outcomes: Sequence[Outcome]) -> str:
    kinds = Counter(one.kind for one in outcomes)
    return f"{len(outcomes)} inputs, {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}"


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
    seeds = [*data, *small, *cached(data)[::4]]
    outcomes = run_cases([spoilt(seed, number) for seed in seeds for number in range(IN_CI)], tmp_path)
    assert wrong(outcomes) == []
    assert Counter(one.kind for one in outcomes)["refused"] > len(outcomes) / 4  # the copies were spoilt indeed


def test_a_spoilt_store_of_the_cache_is_built_anew_or_refused(data: list[Seed], tmp_path: Path) -> None:
    cases = store_cases(extxyz_of(data), tmp_path, 1)
    assert wrong(run_cases(cases[::6], tmp_path)) == []


def test_a_reader_that_the_cache_contradicts_would_be_found(data: list[Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a store is left behind, and other numbers come back from it."""
    from zoo.data.frame_store import FrameStore

    original = FrameStore.frame
    monkeypatch.setattr(FrameStore, "frame", lambda store, row: replace(original(store, row), energy=0.0))
    outcomes = run_cases([whole(seed) for seed in cached(data) if "extxyz" in seed.name], tmp_path)
    assert {one.kind for one in outcomes} == {"raised"}
    assert "AssertionError: the cache gives" in outcomes[0].message


@pytest.mark.parametrize("name", [name for name, (_, read) in HOSTILE.items() if read is read_data and "bomb" not in name])
def test_hostile_data_run_nothing(name: str, tmp_path: Path) -> None:
    assert wrong(run_cases([Case(name, *HOSTILE[name])], tmp_path)) == []


@pytest.mark.slow
def test_hostile_files_and_bombs_are_refused_or_read(tmp_path: Path, record_property: Tell) -> None:
    outcomes = run_cases([Case(name, *parts) for name, parts in HOSTILE.items()], tmp_path)
    record_property("fuzz, hostile files", figures(outcomes))
    assert wrong(outcomes) == []


@pytest.mark.slow
def test_a_thousand_spoilt_inputs_are_refused_or_read(data: list[Seed], small: list[Seed], tmp_path: Path, record_property: Tell) -> None:
    seeds = [*data, *small, *cached(data)]
    outcomes = run_cases([spoilt(seed, number) for seed in seeds for number in range(IN_CI, IN_ALL)], tmp_path)
    record_property("fuzz, spoilt inputs", figures(outcomes))
    assert len(outcomes) >= 1000
    assert wrong(outcomes) == []


@pytest.mark.slow
def test_every_damage_to_a_store_of_the_cache_is_mended_or_refused(data: list[Seed], tmp_path: Path, record_property: Tell) -> None:
    outcomes = run_cases(store_cases(extxyz_of(data), tmp_path, ROUNDS), tmp_path)
    record_property("fuzz, stores of the cache", figures(outcomes))
    assert wrong(outcomes) == []


@pytest.mark.slow
def test_spoilt_checkpoints_of_every_family_are_refused_or_read(tmp_path: Path, record_property: Tell) -> None:
    (tmp_path / "seeds").mkdir()
    (tmp_path / "cases").mkdir()
    seeds = checkpoint_seeds(tmp_path / "seeds")
    outcomes = run_cases([whole(seed) for seed in seeds], tmp_path / "cases")
    assert [f"{one.name}: {one.message}" for one in outcomes if one.kind != "read"] == []
    outcomes = run_cases([spoilt(seed, number) for seed in seeds for number in range(IN_ALL)], tmp_path / "cases")
    record_property("fuzz, checkpoints", figures(outcomes))
    assert wrong(outcomes) == []
