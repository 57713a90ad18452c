"""The committed schema is the model's, and the validator gives one line a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leaderboard import schema, validate
from zoo.evaluation.record import build_record, metric_records, write_record

HASH = "0123456789abcdef" * 4


def write_zero_shot(path: Path, value: float = 269.0) -> str:
    fields: dict[str, Any] = {
        "base": {
            "card": "sevennet-0", "family": "sevennet", "values_sha256": HASH, "licence": "MIT", "conservative": True,
            "symmetry": "SO(3)", "parameter_count": 842440,
        },
        "data": {
            "name": "acac", "protocol": "acac/300K", "level_of_theory": "PBE", "licence": "MIT",
            "splits": {"test_300K": {"frames": 650, "sha256": HASH}},
        },
        "reference_energies": {"before": "base", "after": "base", "values": {}},
        "metrics": metric_records({"test_300K": {"force_rmse_mev_per_angstrom": value}}),
        "zero_shot_metrics": (), "versions": {"torch": "2.13.0"}, "provenance": "submitted",
    }  # fmt: skip
    nulls = dict.fromkeys(["adapter", "seed", "training", "cost", "git_commit", "author", "equivariance_residual", "forgetting"])
    record = build_record(**fields, **nulls)
    write_record(path, record)
    return record.id


def test_the_committed_schema_is_the_one_the_model_generates() -> None:
    assert schema.SCHEMA_PATH.read_text(encoding="utf-8") == schema.schema_text(), "run: python -m leaderboard.schema"


def test_the_schema_refuses_unknown_keys_at_every_level() -> None:
    generated = json.loads(schema.schema_text())
    objects = [generated, *(part for part in generated["$defs"].values() if part.get("type") == "object")]
    assert len(objects) > 8
    assert all(part["additionalProperties"] is False for part in objects)


def test_the_schema_is_written_where_asked_and_a_failure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main([str(tmp_path / "s.json")]) == 0
    assert (tmp_path / "s.json").read_text(encoding="utf-8") == schema.schema_text()
    assert schema.main([str(tmp_path / "s.json" / "below_a_file.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_validator_prints_one_line_a_file_and_fails_if_any_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, edited, missing = tmp_path / "good.json", tmp_path / "edited.json", tmp_path / "missing.json"
    identifier = write_zero_shot(good)
    assert validate.main([str(good)]) == 0
    assert capsys.readouterr().out == f"valid    {good}: {identifier}\n"
    edited.write_text(good.read_text(encoding="utf-8").replace("269.0", "26.9"), encoding="utf-8")
    assert validate.main([str(good), str(edited), str(missing)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("valid")
    assert lines[1].startswith(f"refused  {edited}: id ")
    assert "was edited" in lines[1]
    assert lines[2].startswith(f"refused  {missing}: cannot read")


def test_the_same_result_entered_twice_is_refused(tmp_path: Path) -> None:
    write_zero_shot(tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes((tmp_path / "a.json").read_bytes())
    write_zero_shot(tmp_path / "c.json", value=200.0)
    lines = validate.validation_lines([tmp_path / name for name in ("a.json", "b.json", "c.json")])
    assert [valid for valid, _ in lines] == [True, False, True]
    assert "a result is entered once" in lines[1][1]


def test_records_on_the_board_are_valid() -> None:
    records = sorted(Path(validate.__file__).with_name("records").glob("*.json"))
    refused = [line for valid, line in validate.validation_lines(records) if not valid]
    assert refused == []
