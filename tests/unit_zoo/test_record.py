"""A result record is complete, finite, in the right units, and unchanged since it was written; anything else is one line."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import refusal_of
from zoo.errors import ZooError
from zoo.evaluation.record import LARGEST_RECORD_BYTES, Record, build_record, metric_records, read_record, write_record

HASH = "0123456789abcdef" * 4


def fields() -> dict[str, Any]:
    """What a finished run knows."""
    return {
        "base": {
            "card": "sevennet-0", "family": "sevennet", "values_sha256": HASH, "licence": "MIT", "conservative": True,
            "symmetry": "SO(3)", "parameter_count": 842440,
        },
        "adapter": {
            "method": "elora", "config": {"rank": 16, "alpha": None}, "file_sha256": HASH, "file_bytes": 925824,
            "trainable_count": 231456, "coverage_share": 1.0,
        },
        "data": {
            "name": "acac", "protocol": "acac/300K n_train=50", "level_of_theory": "PBE+D3/def2-SVP", "licence": "MIT",
            "splits": {"train": {"frames": 50, "sha256": HASH}, "test_300K": {"frames": 650, "sha256": HASH}},
        },
        "seed": 1,
        "reference_energies": {"before": "model", "after": "model", "values": {"H": -12.5, "C": -1030.25}},
        "training": {"steps": 200, "optimizer": {"name": "adamw", "learning_rate": 0.02}},
        "metrics": metric_records({"test_300K": {"force_rmse_mev_per_angstrom": 41.25, "energy_rmse_mev_per_atom": 1.5}}),
        "zero_shot_metrics": metric_records({"test_300K": {"force_rmse_mev_per_angstrom": 269.0}}),
        "cost": {"wall_seconds": 75.5, "cpu_seconds": 75, "peak_memory_mib": 1249.0, "hardware": "2-core CPU", "threads": 1},
        "versions": {"torch": "2.13.0"},
        "git_commit": {"sha": "a" * 40, "dirty": False},
        "provenance": "reproduced",
        "author": None,
        "equivariance_residual": {"rotation/forces": 2e-14},
        "forgetting": None,
    }  # fmt: skip


def zero_shot() -> dict[str, Any]:
    return {**fields(), "adapter": None, "training": None, "seed": None, "cost": None}


def changed(path: str, value: Any) -> dict[str, Any]:
    """`fields` with the entry at ``path`` ("data.splits.train.frames") replaced."""
    content = copy.deepcopy(fields())
    content["metrics"] = [metric.model_dump() for metric in content["metrics"]]
    *parents, last = path.split(".")
    place: Any = content
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place[parent]
    place[last] = value
    return content


def test_a_written_record_reads_back_equal_and_as_plain_json(tmp_path: Path) -> None:
    record = build_record(**fields())
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record
    content = json.loads((tmp_path / "record.json").read_text())
    assert content["schema_version"] == 1
    assert content["metrics"][0] == {
        "test_set": "test_300K", "name": "force_rmse_mev_per_angstrom", "value": 41.25, "unit": "meV/Å", "kind": "RMSE",
        "normalisation": "per component",
    }  # fmt: skip
    assert record.created.utcoffset() is not None
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_the_id_names_the_result_and_ends_in_a_hash_of_its_content() -> None:
    record = build_record(**fields(), created="2026-11-20T19:00:00Z")
    assert record.id.startswith("sevennet-0.elora.acac.s1-")
    assert record.id == build_record(**fields(), created="2026-11-20T19:00:00Z").id
    assert record.id != build_record(**changed("seed", 2), created="2026-11-20T19:00:00Z").id
    local = build_record(**changed("base.card", "/data/models/my model.pth"))
    assert local.id.startswith("my_model.pth.elora.acac.s1-"), "a path of somebody's machine is no part of a name"


def test_a_record_from_before_methods_reported_keeps_its_id(tmp_path: Path) -> None:
    record = build_record(**fields())
    write_record(tmp_path / "record.json", record)
    content = json.loads((tmp_path / "record.json").read_text())
    assert content["adapter"].pop("report") == {}
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert read_record(tmp_path / "old.json") == record
    assert build_record(**changed("adapter.report", {"sparsity_total": 0.5})).id[-12:] != record.id[-12:]


def test_zero_shot_needs_no_adapter_seed_training_or_cost() -> None:
    assert build_record(**zero_shot()).id.startswith("sevennet-0.zero-shot.acac-")


def test_a_record_is_immutable() -> None:
    record = build_record(**fields())
    with pytest.raises(ValueError, match="frozen"):
        record.seed = 3


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sed", 1, "sed: Extra inputs are not permitted"),
        ("adapter.ranks", 8, "adapter.ranks: Extra inputs are not permitted"),
        ("metrics.0.value", float("nan"), "metrics.0.value: .*finite"),
        ("metrics.0.value", float("inf"), "metrics.0.value: .*finite"),
        ("metrics.0.value", -1.0, "metrics.0: value: the kind of 'force_rmse_mev_per_angstrom' is RMSE, wanted 0 or more, found -1.0"),
        ("metrics.0.unit", "eV/Å", r"force_rmse_mev_per_angstrom' is \('meV/Å', 'RMSE', 'per component'\), found \('eV/Å'"),
        ("metrics.0.kind", "MAE", "metrics.0: metric 'force_rmse_mev_per_angstrom' is"),
        (
            "metrics.0.name",
            "force_rmse_mev_angstrom",
            "unknown metric 'force_rmse_mev_angstrom'; did you mean 'force_rmse_mev_per_angstrom'",
        ),
        ("metrics.0.test_set", "test_300k", "test set 'test_300k' is not among the splits; did you mean 'test_300K'"),
        ("metrics.1.name", "force_rmse_mev_per_angstrom", "metrics.1: metric"),
        ("metrics", [], "metrics: .*at least 1 item"),
        ("base.values_sha256", "abc", "base.values_sha256: String should match pattern"),
        ("base.values_sha256", None, "base.values_sha256 is null, which only a record with provenance 'reported'"),
        ("base.symmetry", "SE(3)", "base.symmetry: "),
        ("adapter.file_sha256", None, "adapter.file_sha256 is null"),
        ("adapter.trainable_count", 0, "adapter.trainable_count: "),
        ("adapter.coverage_share", 1.5, "adapter.coverage_share: "),
        ("data.splits.train.sha256", None, "data.splits.train.sha256 is null"),
        ("seed", None, "seed is null"),
        ("cost", None, "cost is null"),
        ("training", {"loss": float("nan")}, "."),
        ("versions", {}, "versions is empty"),
        ("reference_energies.before", "unstated", "'unstated'"),
        ("reference_energies.before", "shifted", "reference_energies.before: Input should be 'base'"),
        ("reference_energies.values", {"H": float("inf")}, "reference_energies.values.H: .*finite"),
        ("provenance", "reported", "names its paper and table in 'citation'"),
        ("created", "2026-11-20T19:00:00", "created: .*timezone"),
        ("git_commit", {"sha": "main", "dirty": False}, "git_commit.sha"),
    ],
)
def test_a_wrong_field_is_refused_in_one_line_that_names_it(path: str, value: Any, message: str) -> None:
    build_record(**changed("seed", 5))  # positive control: the helper itself makes a valid record
    refusal = refusal_of(build_record, **changed(path, value))
    assert re.search(message, refusal)
    assert refusal.startswith("result record: ")


def test_the_same_metric_twice_is_refused() -> None:
    metric = fields()["metrics"][0]
    with pytest.raises(ZooError, match="appears twice"):
        build_record(**{**fields(), "metrics": [metric, metric]})


def test_metric_records_refuse_what_is_not_finite_or_unknown() -> None:
    assert metric_records({"a": {"energy_mae_mev": 0.0}})[0].unit == "meV"
    with pytest.raises(ZooError, match="metric 'energy_mae_mev' of 'a': value"):
        metric_records({"a": {"energy_mae_mev": float("nan")}})
    with pytest.raises(ZooError, match="unknown metric 'energy_mae'"):
        metric_records({"a": {"energy_mae": 1.0}})


@pytest.mark.parametrize(
    ("name", "possible", "impossible"),
    [
        ("energy_mae_mev", (0.0, 1e6), (-1e-9,)),
        ("force_cosine", (-1.0, -0.25, 0.0, 1.0), (-1.01, 1.01)),
        ("energy_force_within_threshold_percent", (0.0, 0.35, 100.0), (-0.1, 100.1)),
        ("average_distance_within_threshold_percent", (48.8,), (101.0,)),
    ],
)
def test_each_kind_of_metric_has_its_own_range(name: str, possible: tuple[float, ...], impossible: tuple[float, ...]) -> None:
    for value in possible:
        assert metric_records({"a": {name: value}})[0].value == value
    for value in impossible:
        assert re.search(f"metric '{name}' of 'a': value: .*wanted .*, found", refusal_of(metric_records, {"a": {name: value}}))


def test_the_schema_has_the_ranges_of_the_kinds() -> None:
    rules = Record.model_json_schema()["$defs"]["MetricRecord"]["allOf"]
    ranges = {rule["if"]["properties"]["kind"]["const"]: rule["then"]["properties"]["value"] for rule in rules}
    assert ranges == {
        "MAE": {"minimum": 0}, "RMSE": {"minimum": 0},
        "cosine": {"minimum": -1, "maximum": 1}, "percent": {"minimum": 0, "maximum": 100},
    }  # fmt: skip


def test_a_record_with_a_negative_cosine_reads_back_equal(tmp_path: Path) -> None:
    metrics = metric_records({"test_300K": {"force_cosine": -0.125, "energy_within_threshold_percent": 12.5}})
    record = build_record(**{**fields(), "metrics": metrics})
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record
    assert [(entry.kind, entry.unit) for entry in record.metrics] == [("cosine", ""), ("percent", "%")]


def test_a_reported_record_may_leave_out_what_its_paper_does_not_state() -> None:
    content = fields()
    for part, names in {"base": ["values_sha256", "parameter_count"], "adapter": ["file_sha256", "file_bytes", "coverage_share"]}.items():
        content[part] |= dict.fromkeys(names)
    content["data"]["splits"] = {"test_300K": {"frames": None, "sha256": None}}
    content |= {"seed": None, "training": None, "cost": None, "versions": {}, "git_commit": None, "provenance": "reported"}
    content |= {"citation": {"reference": "ELoRA, ICML 2025", "table": "Table 2"}}
    assert build_record(**content).citation is not None


def written(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "record.json"
    write_record(path, build_record(**fields()))
    return path, json.loads(path.read_text())


def edited(key: str, value: Any) -> Callable[[dict[str, Any]], str]:
    return lambda content: json.dumps({**content, key: value})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edited("seed", 2), "the record was edited; write a new one"),
        (edited("metrics", []), "metrics: "),
        (edited("author", 5), "author: "),
        (edited("extra", 1), "extra: Extra inputs"),
        (edited("seed", "1"), "seed: Input should be a valid integer"),
        (edited("schema_version", 2), "schema_version 2, wanted 1"),
        (edited("id", "../../etc/passwd"), "id: String should match pattern"),
        (lambda content: json.dumps(content).replace("41.25", "4.125"), "the record was edited"),
        (lambda content: json.dumps(content).replace("41.25", "NaN"), "NaN is not a finite number"),
        (lambda content: json.dumps(content).replace("41.25", "1e999"), "finite"),
        (lambda content: json.dumps(content).replace('"seed": 1', '"seed": 2, "seed": 1'), "key 'seed' appears twice"),
        (lambda content: json.dumps(content)[:-20], "not valid JSON"),
        (lambda _: "", "not valid JSON"),
        (lambda _: "[" * 100_000, "nested too deeply"),
        (lambda _: "[1, 2]", "no schema_version"),
        (lambda _: " " * (LARGEST_RECORD_BYTES + 1), "at most 4194304"),
    ],
)
def test_a_damaged_edited_or_foreign_file_is_refused_in_one_line(
    tmp_path: Path, edit: Callable[[dict[str, Any]], str], message: str
) -> None:
    path, content = written(tmp_path)
    assert read_record(path).seed == 1  # positive control
    path.write_text(edit(content))
    refusal = refusal_of(read_record, path)
    assert re.search(message, refusal)
    assert refusal.startswith(str(path))


def test_unreadable_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="cannot read the result record"):
        read_record(tmp_path / "none.json")
    with pytest.raises(ZooError, match="cannot read the result record"):
        read_record(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\x80\x04\x95\xff")
    with pytest.raises(ZooError, match="not a text file"):
        read_record(tmp_path / "binary.json")


def test_no_field_may_be_dropped_from_a_written_file(tmp_path: Path) -> None:
    path, content = written(tmp_path)
    means_null_when_absent = {"citation", "licence", "reported"}
    for key in set(content) - means_null_when_absent:
        path.write_text(json.dumps({name: value for name, value in content.items() if name != key}))
        with pytest.raises(ZooError):
            read_record(path)


def test_no_number_of_the_schema_may_be_infinite() -> None:
    assert Record.model_config["allow_inf_nan"] is False
    assert Record.model_config["extra"] == "forbid"
