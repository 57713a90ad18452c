"""`zoo reproduce`: a result made again from its record alone, and records that ask for what no record may."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import lacks, refusal_of
from zoo.cli import main
from zoo.errors import ZooError
from zoo.evaluation.record import Record, build_record, read_record, write_record
from zoo.reproduce import reproduce


def changed(record: Record, change: Callable[[dict[str, Any]], None]) -> Record:
    """With other content, under the id of that."""
    fields = json.loads(record.model_dump_json(exclude={"id"}))
    change(fields)
    return build_record(**fields)


@pytest.fixture(scope="module")
def record(tiny_run: Path) -> Record:
    return read_record(tiny_run / "record.json")


def test_a_trained_result_is_made_again_to_the_bit(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "result.json", record)
    main(["reproduce", "result.json", "name=again", "device=cpu"])
    said = capsys.readouterr().out
    assert not lacks(said, "force MAE", "largest difference 0 %; the adapter file is the same to the bit")
    assert (tmp_path / "runs" / "again" / "adapter.safetensors").is_file()
    main(["reproduce", "result.json", "name=again", "device=cpu"])  # a finished run is read back
    assert "the same to the bit" in capsys.readouterr().out


def test_an_evaluated_base_is_evaluated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["backbone=sevennet-0", "data=emt-cuau", "data.n_train=4", "data.n_valid=2", "data.n_test=6", "data.test=[]"]
    main(["evaluate", *words, "reference_energies=model", "record=base.json"])
    asked = read_record(Path("base.json")).evaluation["asked"]
    assert asked == {
        "backbone": {"name": "sevennet-0"},
        "data": {"name": "emt-cuau", "n_train": 4, "n_valid": 2, "n_test": 6, "test": []},
        "reference_energies": "model",
    }
    capsys.readouterr()
    main(["reproduce", "base.json", "device=cpu"])
    assert "largest difference 0 %\n" in capsys.readouterr().out


def test_a_number_that_is_not_reproduced_is_an_error_with_its_size(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flatter(fields: dict[str, Any]) -> None:
        for metric in fields["metrics"]:
            metric["value"] *= 0.5 if metric["kind"] == "MAE" else 1.0

    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "result.json", changed(record, flatter))
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "result.json", "device=cpu"])
    assert stopped.value.code == 1
    told = capsys.readouterr()
    assert "largest difference 100 %" in told.out
    assert "not reproduced within 5 %" in told.err


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("backbone", {"name": "somebody.pth"}, "its base 'somebody.pth' is no card of the zoo"),
        ("backbone", {"trust_pickle": True}, "wants a pickle to be trusted"),
        ("data", {"name": "file", "path": "passwords.xyz"}, "its data 'file' are no published set"),
        ("adapter", {"path": "adapter.safetensors"}, "went on from the adapter file 'adapter.safetensors'"),
    ],
)
def test_a_record_can_name_nothing_on_this_disk(section: str, values: dict[str, Any], message: str, record: Record, tmp_path: Path) -> None:
    forged = changed(record, lambda fields: fields["training"][section].update(values))
    assert not lacks(refusal_of(reproduce, forged, tmp_path / "run"), message)
    assert not (tmp_path / "run").exists()


def test_results_of_papers_and_of_older_versions_say_too_little(record: Record, tmp_path: Path) -> None:
    older = changed(record, lambda fields: fields.update(adapter=None, training=None, seed=None, evaluation={"task": "labels"}))
    assert not lacks(refusal_of(reproduce, older, tmp_path / "run"), "does not say how it was made")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"adapter": "hf://owner/name"}, "a run or an adapter file of somebody's disk"),
        ({"adapter": {"path": "/etc/passwd"}}, "a run or an adapter file of somebody's disk"),
        ({"run": "runs/mine"}, "a run or an adapter file of somebody's disk"),
        ({"backbone": "sevennet-0"}, "does not say how it was made"),
        ({"data": ["acac"]}, "does not say how it was made"),
    ],
)
def test_an_evaluation_can_name_nothing_on_this_disk_either(asked: dict[str, Any], message: str, record: Record, tmp_path: Path) -> None:
    whole = {"backbone": {"name": "sevennet-0"}, "data": {"name": "emt-cuau"}, **asked}
    evaluation = {"task": "labels", "asked": whole}
    forged = changed(record, lambda fields: fields.update(adapter=None, training=None, seed=None, cost=None, evaluation=evaluation))
    assert not lacks(refusal_of(reproduce, forged, tmp_path / "run"), message)
    assert not (tmp_path / "run").exists()


def test_a_record_sends_nothing_anywhere(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zoo.training.run

    seen = []

    def stopped(config: Any, _: object) -> None:
        seen.append(config.training.loggers.wandb_project)
        raise ZooError("stopped here")

    monkeypatch.setattr(zoo.training.run, "fine_tune", stopped)
    forged = changed(record, lambda fields: fields["training"]["training"]["loggers"].update(wandb_project="theirs"))
    assert refusal_of(reproduce, forged, tmp_path / "run") == "stopped here"
    assert seen == [None]


def test_an_error_that_is_not_measured_here_is_not_passed_over(record: Record, tmp_path: Path) -> None:
    forged = changed(record, lambda fields: fields.update(metrics=[m for m in fields["metrics"] if m["kind"] not in ("MAE", "RMSE")]))
    assert not lacks(refusal_of(reproduce, forged, tmp_path / "run", device="cpu"), "no error here, so that nothing is compared")


def test_results_on_other_frames_are_not_compared(record: Record, tmp_path: Path) -> None:
    forged = changed(record, lambda fields: fields["data"]["splits"]["train"].update(sha256="0" * 64))
    assert not lacks(refusal_of(reproduce, forged, tmp_path / "run", device="cpu"), "its part 'train' is of other frames")


@pytest.mark.parametrize(
    ("words", "message"), [(["tolerance=little"], "tolerance=little: wanted a number"), (["nme=a"], "unknown key 'nme'")]
)
def test_wrong_words_are_refused(
    words: list[str], message: str, tmp_path: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path / "result.json", record)
    with pytest.raises(SystemExit):
        main(["reproduce", str(tmp_path / "result.json"), *words])
    assert message in capsys.readouterr().err
