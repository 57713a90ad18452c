"""The board's own rows: their plan, the tuning it rests on, and what lies on the board."""

from __future__ import annotations

from pathlib import Path
from subprocess import CalledProcessError

import pytest

import benchmarks.rows
from benchmarks.row_plan import METHODS, SCRATCH, TASKS, TRIED, ZERO_SHOT, Row, Trial, chosen_rates, read_trials, rows
from benchmarks.rows import CARDS, on_the_board
from leaderboard.entries import read_records, read_verdicts
from zoo.compose import compose
from zoo.errors import ZooError
from zoo.evaluation.record import Record
from zoo.submission.verdict import RECOMPUTED_PREDICTIONS
from zoo.training.config import RunConfig, parse_config


@pytest.fixture(scope="module")
def ours() -> list[Record]:
    return [record for record in read_records() if record.provenance == "reproduced"]


def composed(row: Row | Trial) -> RunConfig:
    config: RunConfig = parse_config(compose("train", [*row.words, "run.name=row", "run.folder=row"]))
    return config


@pytest.mark.parametrize("method", [method for method in METHODS if method != ZERO_SHOT])
def test_a_row_is_a_run_that_zoo_takes_at_the_tuned_rate(method: str) -> None:
    (row,) = rows(CARDS[:1], ["acac-50"], [method], [0])
    config = composed(row)
    assert config.training.optimizer.learning_rate == chosen_rates()[CARDS[0], method]
    assert config.training.threads == 1, "sums in another order would be another row"
    assert (config.evaluation.forgetting is None) == (method == SCRATCH)
    assert config.adapter["name"] == method.partition("-")[0] or method == SCRATCH


@pytest.mark.parametrize("task", list(TASKS))
def test_a_task_is_data_and_a_protocol_that_exist(task: str) -> None:
    config = composed(Row(CARDS[0], TASKS[task], "full", 0, 1e-3))
    assert (config.data.protocol, config.training.steps) == (TASKS[task].protocol, TASKS[task].steps)


def test_no_test_frame_is_looked_at_by_the_tuning() -> None:
    for method, rates in TRIED.items():
        config = composed(Trial(CARDS[0], method, rates[0]))
        assert config.data.test == []
        assert config.evaluation.forgetting is None


def test_a_tuned_rate_lies_between_others_that_were_tried() -> None:
    tried = set(read_trials())
    cards = {trial.card for trial in tried}
    assert CARDS[0] in cards
    assert tried == {Trial(card, method, rate) for card in cards for method, rates in TRIED.items() for rate in rates}
    for (_, method), rate in chosen_rates().items():
        assert min(TRIED[method]) < rate < max(TRIED[method]), f"{method}: the best rate is the last one that was tried"


@pytest.mark.parametrize("error", [ZooError("diverged"), SystemExit("another configuration"), CalledProcessError(1, "zoo train")])
def test_a_row_that_fails_leaves_the_others_alone(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Record:
        raise error

    monkeypatch.setattr(benchmarks.rows, "make", fails)
    row = Row(CARDS[0], TASKS["acac-50"], "full", 0, 1e-3)
    assert benchmarks.rows._entered(row, tmp_path) == (f"{row.name}: not entered: {error}", False)


def test_every_row_was_verified_from_base_and_adapter(ours: list[Record]) -> None:
    verdicts = read_verdicts()
    assert any(record.training is not None for record in ours)
    assert any(record.adapter is None for record in ours)
    for record in ours:
        assert verdicts[record.id].badge == RECOMPUTED_PREDICTIONS, record.id
        assert record.git_commit is not None
        assert not record.git_commit.dirty, record.id


def test_every_trained_row_is_of_the_plan(ours: list[Record]) -> None:
    planned = [found.id for row in rows(CARDS, list(TASKS), list(METHODS)) if (found := on_the_board(row, ours)) is not None]
    assert len(set(planned)) == len(planned)
    assert {record.id for record in ours if record.training is not None} <= set(planned)
