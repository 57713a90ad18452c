"""Which records are seeds of one contestant, and which are contestants of their own."""

from __future__ import annotations

from typing import Any

from benchmarks.made_up_records import made_up
from leaderboard.board import OVERALL, Aggregate, aggregates, entries
from leaderboard.contestants import contestant_names
from leaderboard.reported import reported_records
from zoo.evaluation.record import Record, metric_records


def run(
    method: str, error: float, *, seed: int = 0, data: str = "lam/cu", rate: float = 0.01, base: str = "sevennet-0", **training: Any
) -> Record:
    """A reproduced result with one force error and settings that the caller chooses."""
    plain = made_up(5, method=method)
    assert plain.adapter is not None
    splits = {"test": {"frames": 9, "sha256": "0" * 64}}
    settings = {"optimizer": {"learning_rate": rate}, "seed": seed, **training}
    return made_up(
        5, data_name=data, method=method, provenance="reproduced", seed=seed, zero_shot_metrics=(),
        metrics=metric_records({"test": {"force_rmse_mev_per_angstrom": error}}),
        base={**plain.base.model_dump(), "card": base}, adapter={**plain.adapter.model_dump(), "config": {}},
        training={"backbone": {"name": base}, "adapter": {"name": method}, "training": settings},
        data={**plain.data.model_dump(), "name": data, "protocol": f"{data} n_train=50", "splits": splits},
    )  # fmt: skip


def of(rows: list[Aggregate], benchmark: str) -> dict[tuple[str, str], Aggregate]:
    return {(row.base, row.method): row for row in rows if row.benchmark == benchmark}


def test_runs_that_differ_in_the_seed_alone_are_one_contestant() -> None:
    records = [run("elora", 20.0 + seed, seed=seed, threads=seed + 1, progress_bar=bool(seed)) for seed in range(3)]
    assert contestant_names(records) == ["elora"] * 3
    (row, _) = aggregates(entries([*records, run("full", 40.0)]))
    assert (row.method, row.fewest_seeds, row.most_seeds) == ("elora", 3, 3)


def test_two_learning_rates_are_two_contestants_named_by_what_differs() -> None:
    records = [run("elora", 20.0, rate=0.01), run("elora", 90.0, rate=0.1), run("full", 40.0)]
    assert contestant_names(records) == ["elora (learning_rate=0.01)", "elora (learning_rate=0.1)", "full"]
    places = {row.method: row.mean_rank for row in aggregates(entries(records))}
    assert places == {"elora (learning_rate=0.01)": 1.0, "full": 2.0, "elora (learning_rate=0.1)": 3.0}, (
        "their mean, 55, is nobody's result"
    )


def test_a_setting_that_only_one_run_states_tells_them_apart_and_other_data_do_not() -> None:
    records = [run("elora", 20.0), run("elora", 21.0, ema_decay=0.99), run("elora", 5.0, data="lam/sn", rate=0.5)]
    assert contestant_names(records) == ["elora (ema_decay=default)", "elora (ema_decay=0.99)", "elora"]


def test_the_gain_is_over_the_best_of_several_kinds_of_full_fine_tuning() -> None:
    records = [run("full", 40.0, rate=0.01), run("full", 80.0, rate=0.1), run("elora", 20.0)]
    rows = of(aggregates(entries(records)), "lam")
    gain = rows["sevennet-0", "elora"].improvement
    assert gain is not None
    assert round(gain.percent, 9) == 50.0, "75 % over the bad rate"
    assert rows["sevennet-0", "full (learning_rate=0.01)"].improvement is None
    worse = rows["sevennet-0", "full (learning_rate=0.1)"].improvement
    assert worse is not None
    assert round(worse.percent, 9) == -100.0


def test_full_fine_tuning_of_another_base_is_no_reference() -> None:
    rows = of(aggregates(entries([run("elora", 20.0), run("full", 40.0, base="nequix-mp-1")])), "lam")
    assert rows["sevennet-0", "elora"].improvement is None


def test_over_all_benchmarks_every_task_counts_once() -> None:
    first = [run("elora", 1.0), run("full", 2.0), run("readout", 3.0)]
    second = [run("elora", 30.0, data="3bpa"), run("full", 20.0, data="3bpa")]
    rows = of(aggregates(entries([*first, *second])), OVERALL)
    assert {method: row.mean_rank for (_, method), row in rows.items()} == {"elora": 1.5, "full": 1.5, "readout": 3.0}
    assert {method: (row.tasks, row.tasks_of_all) for (_, method), row in rows.items()} == {
        "elora": (2, 2),
        "full": (2, 2),
        "readout": (1, 2),
    }
    gain = rows["sevennet-0", "elora"].improvement
    assert gain is not None
    assert round(gain.percent, 6) == round(100 * (1 - (0.5 * 1.5) ** 0.5), 6)
    assert not of(aggregates(entries(first)), OVERALL), "one benchmark is its own ranking"


def test_an_error_of_zero_has_the_first_place_and_no_ratio() -> None:
    rows = of(aggregates(entries([run("elora", 0.0), run("full", 40.0), run("readout", 50.0)])), "lam")
    assert rows["sevennet-0", "elora"].mean_rank == 1.0
    assert rows["sevennet-0", "elora"].improvement is None


def test_papers_have_no_ranking_over_all_benchmarks() -> None:
    rows = aggregates(entries(reported_records()))
    assert len({row.benchmark for row in rows}) > 5
    assert not of(rows, OVERALL)
