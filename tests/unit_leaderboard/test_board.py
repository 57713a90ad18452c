"""Records as rows: names, values, aggregates and the script that a page loads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from adapters.method import create_method
from benchmarks.made_up_records import HASH, made_up
from leaderboard.board import aggregates, benchmark_of, entries, forgetting_ratio, headline, read_board, values_of
from leaderboard.board_data import board_content, board_script
from leaderboard.contestants import method_name
from leaderboard.reported import reported_records
from zoo.errors import ZooError
from zoo.evaluation.record import Record, metric_records, write_record


@pytest.fixture(scope="module")
def reported() -> list[Record]:
    return reported_records()


def named(seed: int, method: str, config: dict[str, object], start: str = "card") -> str:
    record = made_up(seed, method=method)
    adapter = record.adapter
    assert adapter is not None
    base = {**record.base.model_dump(), "initial_weights": start}
    return method_name(made_up(seed, method=method, adapter={**adapter.model_dump(), "config": config}, base=base))


def test_methods_have_names_that_tell_them_apart() -> None:
    assert named(1, "elora", {"rank": 16, "roles": None, "initialisation": "reference"}) == "elora (rank=16)"
    assert named(1, "full", {}) == "full"
    assert named(1, "full", {}, start="random") == "from scratch"
    assert named(1, "elora", {"rank": 4}, start="random") == "elora, random start (rank=4)"
    assert named(1, "sparse", {"setting": "linear", "sigma": 0.01, "form": "str"}) == "sparse (setting=linear)"
    assert named(1, "sparse", create_method({"name": "sparse"}).config_dict) == "sparse", "defaults go without saying"
    zero_shot = made_up(1, adapter=None, training=None, cost=None, seed=None)
    assert method_name(zero_shot) == "zero-shot"


def test_a_number_of_a_paper_keeps_its_deviation_and_other_quantities(reported: list[Record]) -> None:
    (record,) = [
        r for r in reported if r.base.card == "MACE-MP-0b3 + spin layers" and r.data.name == "tm-o-spin" and method_name(r) == "elora"
    ]
    values = {value.name: value for value in values_of(record)}
    assert (values["energy_mae_mev_per_atom"].value, values["energy_mae_mev_per_atom"].deviation) == (12.44, 1.88)
    assert (values["magnetic_moment_mae_mu_b"].value, values["magnetic_moment_mae_mu_b"].unit) == (0.038, "μ_B")
    head = headline(values_of(record))
    assert head is not None
    assert head.name == "force_mae_mev_per_angstrom"


def test_elora_gains_over_full_fine_tuning_what_its_table_says(reported: list[Record]) -> None:
    rows = [row for row in aggregates(entries(reported)) if row.benchmark == "rmd17" and "ELoRA" in row.protocol]
    assert {row.provenance for row in rows} == {"reported"}
    best = rows[0]
    assert (best.base, best.method, best.tasks, best.tasks_of_all) == ("MACE-OFF", "elora", 20, 20)
    assert best.improvement is not None
    assert 22 < best.improvement.percent < 27  # the paper's mean of relative gains is 25.5 % in energies and 23.7 % in forces
    assert best.improvement.low is None


def test_papers_and_our_own_results_never_share_a_rank(reported: list[Record]) -> None:
    ours = [made_up(seed, data_name="rmd17/aspirin", provenance="reproduced") for seed in range(8)]
    for row in aggregates(entries([*reported, *ours])):
        assert row.tasks <= row.tasks_of_all
    groups = {(row.benchmark, row.protocol, row.provenance) for row in aggregates(entries([*reported, *ours]))}
    assert {provenance for *_, provenance in groups} == {"reported", "reproduced"}
    alone = [made_up(1, data_name="3bpa", provenance="submitted")]
    assert aggregates(entries(alone)) == [], "one contestant has no rank"


def test_nobody_wins_a_test_set_that_he_alone_has() -> None:
    def tested(number: int, errors: dict[str, float], **fields: object) -> Record:
        data = made_up(number).data.model_dump()
        splits = data["splits"] | {name: {"frames": 5, "sha256": HASH} for name in errors}
        metrics = metric_records({name: {"force_mae_mev_per_angstrom": error} for name, error in errors.items()})
        own = {"metrics": metrics, "zero_shot_metrics": (), "data": {**data, "name": "acac", "protocol": "acac all", "splits": splits}}
        return made_up(number, **(own | {"provenance": "reproduced"} | fields))

    base = tested(1, {"a": 9.0, "b": 9.0, "c": 9.0}, adapter=None, training=None, cost=None, seed=None)
    methods = [tested(2, {"a": 1.0}, method="full"), tested(2, {"a": 2.0}, method="elora")]
    ranked = aggregates(entries([base, *methods]))
    assert [(row.method.split(" ")[0], row.mean_rank, row.tasks, row.tasks_of_all) for row in ranked] == [
        ("full", 1.0, 1, 1), ("elora", 2.0, 1, 1), ("zero-shot", 3.0, 1, 1)
    ]  # fmt: skip
    (alone, *_) = aggregates(entries([tested(2, {"a": 9.0, "d": 1.0}, method="sparse"), *methods]))
    assert alone.method.startswith("full"), "a test set of one's own would make the worst method the best"


def test_seeds_give_an_interval() -> None:
    def run(seed: int, method: str, error: float) -> Record:
        metrics = metric_records({"test": {"force_rmse_mev_per_angstrom": error}})
        record = made_up(5, data_name="lam/cu", method=method, provenance="reproduced", seed=seed, metrics=metrics)
        adapter = record.adapter
        assert adapter is not None
        return made_up(
            5, data_name="lam/cu", method=method, provenance="reproduced", seed=seed, metrics=metrics, zero_shot_metrics=(),
            adapter={**adapter.model_dump(), "config": {}},
        )  # fmt: skip

    records = [run(seed, "full", 40.0 + seed) for seed in range(3)] + [run(seed, "elora", 20.0 + seed) for seed in range(3)]
    first, second = aggregates(entries(records))
    assert (first.method, first.most_seeds, first.mean_rank) == ("elora", 3, 1.0)
    assert (second.method, second.mean_rank) == ("full", 2.0)
    assert first.improvement is not None
    assert first.improvement.low is not None
    assert first.improvement.high is not None
    assert first.improvement.low < first.improvement.percent < first.improvement.high
    assert first.improvement.percent == pytest.approx(100 * (1 - 21 / 41))


def test_forgetting_is_a_ratio_of_force_errors_on_the_boards_own_frames() -> None:
    def errors(value: float) -> object:
        return metric_records({"test": {"energy_mae_mev": 3.0, "force_mae_mev_per_angstrom": value}})

    def measured(data_name: str, frames: int) -> Record:
        split = {"frames": frames, "sha256": HASH}
        return made_up(1, forgetting={"data_name": data_name, "split": split, "before": errors(50.0), "after": errors(75.0)})

    assert forgetting_ratio(measured("mptrj-1k", 50)) == 1.5
    assert forgetting_ratio(measured("mptrj-1k", 10)) is None
    assert forgetting_ratio(measured("cu-snap", 50)) is None
    assert forgetting_ratio(made_up(1)) is None


def test_the_script_holds_every_record_and_decodes_to_its_numbers(reported: list[Record]) -> None:
    board = entries(reported)
    content = board_content(board, {})
    found = re.fullmatch(r'window\.BOARD = JSON\.parse\((".*")\); window\.BOARD_VALUES = (".*");\n', board_script(board, {}), re.S)
    assert found is not None
    first, numbers = (json.loads(json.loads(literal)) for literal in found.groups())
    assert {**first, "values": numbers} == json.loads(json.dumps(content))
    assert content["ids"] == [record.id for record in reported]
    for index in (0, 100, 300):
        values = content["values"][index]
        decoded = {
            (content["metrics"][m]["test"], content["metrics"][m]["name"]): v for m, v in zip(values[::3], values[1::3], strict=True)
        }
        assert decoded == {(value.test_set, value.name): value.value for value in values_of(reported[index])}
    words = content["texts"]["benchmark"]
    assert [words["words"][code] for code in words["codes"]] == [benchmark_of(record) for record in reported]


def test_a_folder_is_read_whole_or_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"no record \(\*\.json\)"):
        read_board(tmp_path)
    record = made_up(1)
    write_record(tmp_path / "deep" / "a.json" if (tmp_path / "deep").mkdir() is None else tmp_path, record)
    assert [entry.record for entry in read_board(tmp_path)] == [record]
    write_record(tmp_path / "b.json", record)
    with pytest.raises(ZooError, match="a result is entered once"):
        read_board(tmp_path)
    (tmp_path / "b.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ZooError, match="no schema_version"):
        read_board(tmp_path)
