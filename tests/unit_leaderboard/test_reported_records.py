"""Records made of the transcribed tables: complete, valid, the same each time, and of no number that is not in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leaderboard import reported
from leaderboard.reported_tables import UNREADABLE, parsed_number, read_cells, read_papers
from leaderboard.validate import validation_lines
from zoo.data.catalogue import data_card
from zoo.errors import ZooError
from zoo.evaluation.record import Record, build_record, read_record


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return reported.reported_records()


def find(records: list[Record], **wanted: Any) -> Record:
    (found,) = [record for record in records if facts(record).items() >= wanted.items()]
    return found


def facts(record: Record) -> dict[str, Any]:
    adapter = record.adapter
    return {
        "card": record.base.card, "method": adapter.method if adapter else None, "config": dict(adapter.config) if adapter else {},
        "data": record.data.name, "table": record.citation.table if record.citation else "",
    }  # fmt: skip


def metrics(record: Record) -> dict[tuple[str, str], float]:
    return {(metric.test_set, metric.name): metric.value for metric in record.metrics}


def test_the_committed_records_are_exactly_those_of_the_tables(records: list[Record], tmp_path: Path) -> None:
    written = {path.name: path.read_bytes() for path in reported.OUT.glob("*.json")}
    reported.write_records(records, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json")} == written
    assert len(written) == len(records) > 350


def test_every_committed_record_is_valid_and_reported() -> None:
    paths = sorted(reported.OUT.glob("*.json"))
    assert [line for valid, line in validation_lines(paths) if not valid] == []
    assert {read_record(path).provenance for path in paths[:20]} == {"reported"}


def test_numbers_of_records_are_numbers_of_tables(records: list[Record]) -> None:
    printed: dict[str, set[float]] = {}
    for paper in read_papers():
        for table in paper.tables:
            for cell in read_cells(paper.paper, table):
                number = parsed_number(cell.value) if cell.note not in UNREADABLE else None
                if number is not None:
                    printed.setdefault(paper.paper, set()).update(x for x in (number.value, number.spread, number.bracket) if x is not None)
    for record in records:
        details = record.reported
        assert details is not None
        numbers = [metric.value for metric in record.metrics] + [quantity.value for quantity in details.quantities]
        numbers += [deviation.value for deviation in details.deviations]
        assert set(numbers) <= printed[details.paper], record.id
        assert numbers


def test_known_cells_are_where_they_belong(records: list[Record]) -> None:
    """Read by eye from the papers."""
    aspirin = find(records, card="MACE-OFF", method="elora", data="rmd17/aspirin")
    assert metrics(aspirin) == {("test", "energy_mae_mev"): 7.3, ("test", "force_mae_mev_per_angstrom"): 17.6}
    threebpa = find(records, card="MACE-OFF", method="elora", data="3bpa")
    assert metrics(threebpa)["test_300K", "force_rmse_mev_per_angstrom"] == 7.5
    assert threebpa.reported is not None
    assert {(d.test_set, d.metric): d.value for d in threebpa.reported.deviations}["test_300K", "force_rmse_mev_per_angstrom"] == 0.05
    copper = find(records, card="MACE-MP", method="elora", data="lam/cu")
    assert facts(copper)["table"] == "Tables 4 and 7"
    assert copper.adapter is not None
    assert copper.adapter.trainable_count == 176666
    assert metrics(copper) == {("test", "energy_rmse_mev_per_atom"): 0.4, ("test", "force_rmse_mev_per_angstrom"): 4.4}
    low = find(
        records, card="mace-off23-medium", method="sparse", config={"regime": "low", "threshold_decay": "0.01"}, data="rmd17/aspirin"
    )
    assert metrics(low) == {("test", "energy_mae_mev_per_atom"): 0.17, ("test", "force_mae_mev_per_angstrom"): 7.56}
    assert low.reported is not None
    sparsity = {quantity.name: quantity.value for quantity in low.reported.quantities}
    assert sparsity == {"sparsity_total_percent": 83.19, "sparsity_layer_percent": 27.5}
    best = find(records, card="EquiformerV2", config={"training_set": "OC20 S2EF-All+MD", "variant": "EquiformerV2 (lambda_E = 4, 153M)"})
    assert metrics(best)["S2EF test", "force_mae_mev_per_angstrom"] == 14.2
    assert metrics(best)["IS2RS test", "average_force_below_threshold_percent"] == 54.4


def test_a_base_without_adaptation_is_no_mean_of_runs(records: list[Record]) -> None:
    runs = {bool(record.adapter): set[int | None]() for record in records}
    for record in records:
        assert record.reported is not None
        runs[bool(record.adapter)].add(record.reported.runs)
        assert record.adapter is not None or not record.reported.deviations, record.id
    assert runs == {False: {None}, True: {None, 3}}


def test_levels_of_theory_are_those_of_the_projects_cards(records: list[Record]) -> None:
    """A level that is stated nowhere, or a set without a card, is null."""
    found = {record.data.name: record.data.level_of_theory for record in records}
    assert {name for name, level in found.items() if level is None} == {"lam/cu", "oc20-dense", "oc22", "qm9"}
    assert "not stated" in data_card("lam/cu").level_of_theory
    for record in records:
        level = record.data.level_of_theory
        assert level is None or level == data_card(record.data.name).level_of_theory, record.id


def test_the_thresholds_of_a_regime_are_those_of_its_table(records: list[Record]) -> None:
    """Low and high are other thresholds for NequIP; for low on TM-O-Spin the paper states two."""
    thresholds: dict[tuple[str, object], set[object]] = {}
    for record in records:
        config = facts(record)["config"]
        if "regime" in config:
            thresholds.setdefault((record.base.card, config["regime"]), set()).add(config.get("threshold_decay"))
    assert thresholds == {
        ("mace-off23-medium", "low"): {"0.01"}, ("mace-off23-medium", "high"): {"0.3"},
        ("mace-mp-0b3-medium", "low"): {"0.01"}, ("mace-mp-0b3-medium", "high"): {"0.3"},
        ("nequip-oam-l", "low"): {"0.03"}, ("nequip-oam-l", "high"): {"0.1"},
        ("MACE-MP-0b3 + spin layers", "low"): {None}, ("MACE-MP-0b3 + spin layers", "high"): {"0.3"},
    }  # fmt: skip


def test_settings_that_several_tables_repeat_are_one_record(records: list[Record]) -> None:
    base = [record for record in records if facts(record)["table"] == "Tables 1, 6 and 8" and record.base.card == "EquiformerV2"]
    assert any(metrics(record)["validation mean", "force_mae_mev_per_angstrom"] == 20.46 for record in base)
    assert len({record.id for record in records}) == len(records)


def test_copied_numbers_and_the_ghost_row_are_no_records(records: list[Record]) -> None:
    zero_shot = {record.data.name for record in records if record.adapter is None and record.base.card == "mace-mp-0b3-medium"}
    assert zero_shot == {"lam/almgcu", "lam/cu", "lam/sn", "lam/sse-pbe", "lam/ti", "lam/v"}
    assert not any(value == 449.23 for record in records for value in metrics(record).values())
    magnetic = [record for record in records if record.data.name == "mp-mag"]
    assert len(magnetic) == 6


def test_a_contradiction_between_tables_stops_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    read = reported.read_cells

    def with_a_slip(paper: str, table: str) -> Any:
        cells = read(paper, table)
        slip = [cell for cell in cells if (paper, table, cell.row, cell.column) == ("elora", "7", "Cu | E", "MACE | ELoRA")]
        return [type(cell)(cell.row, cell.column, "0.5", "") if cell in slip else cell for cell in cells]

    monkeypatch.setattr(reported, "read_cells", with_a_slip)
    with pytest.raises(ZooError, match=r"elora table 7: 'Cu \| E', 'MACE \| ELoRA' is 0\.5, but another table has 0\.4"):
        reported.reported_records()


def test_the_command_writes_what_is_missing_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str], records: list[Record]) -> None:
    assert reported.main(["--check", "--out", str(tmp_path)]) == 1
    assert f"{len(records)} missing" in capsys.readouterr().out
    assert reported.main(["--out", str(tmp_path)]) == 0
    assert reported.main(["--check", "--out", str(tmp_path)]) == 0
    assert reported.main(["--out", str(tmp_path)]) == 0
    assert "0 of them new" in capsys.readouterr().out
    (tmp_path / "stray-0123456789ab.json").write_text("{}", encoding="utf-8")
    assert reported.main(["--check", "--out", str(tmp_path)]) == 1


def test_only_a_reported_record_may_hold_what_a_paper_printed(records: list[Record]) -> None:
    fields = records[0].model_dump(exclude={"id"})
    assert build_record(**fields).id == records[0].id
    with pytest.raises(ZooError, match=r"base\.values_sha256 is null|'reported' holds what a paper printed"):
        build_record(**{**fields, "provenance": "submitted"})
    with pytest.raises(ZooError, match="metrics: wanted at least 1 item"):
        build_record(**{**fields, "metrics": (), "reported": {**fields["reported"], "quantities": ()}})
