"""A base without adapter on the board: entered by its maintainers, with the evidence that a run's row has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leaderboard import entries, zero_shot
from leaderboard.add import add
from tests.refusals import lacks, refusal_of
from tests.unit_leaderboard.forgery import TEST_SET
from tests.unit_leaderboard.test_check_pull_request import Repo
from zoo.data.config import DataConfig
from zoo.evaluation.prediction_files import parse_predictions, predictions_npz
from zoo.evaluation.record import build_record, metric_records
from zoo.submission.archive import Submission, canonical_json, parse_archive, read_archive, sha256_of
from zoo.submission.recompute import Choice
from zoo.submission.statement import Statement
from zoo.submission.submit_zero_shot import submit_zero_shot
from zoo.submission.verdict import RECOMPUTED_PREDICTIONS
from zoo.submission.verify import verify_archive
from zoo.submission.zero_shot import ZeroShotConfig
from zoo.training.config import BackboneConfig

OURS = Statement("equizoo maintainers", "MIT", reproduced=True)
DATA = DataConfig(name="emt-cuau", n_train=4, n_valid=2, n_test=6, test=[])
CONFIG = ZeroShotConfig(backbone=BackboneConfig(name="sevennet-0"), data=DATA, reference_energies="model")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return submit_zero_shot(CONFIG, OURS, tmp_path_factory.mktemp("zero-shot") / "base.zip", Choice(most=2)).archive


def sealed(submission: Submission, config: dict[str, Any] | None = None, predictions: bytes | None = None, **fields: Any) -> Submission:
    """A forgery whose hashes and id fit."""
    forged = replace(submission, config=config or submission.config, predictions=predictions or submission.predictions)
    own = forged.record.model_dump(mode="json", exclude={"id"}) | fields
    own["submission"] |= {
        "config_sha256": sha256_of(canonical_json(forged.config).encode()),
        "predictions_sha256": sha256_of(forged.predictions),
        "predictions_bytes": len(forged.predictions),
    }
    return replace(forged, record=build_record(**own))


def reasons_of(submission: Submission, most: int = 0) -> list[str]:
    judgement = verify_archive(parse_archive(submission.archive(), "forged.zip"), Choice(most))
    assert not judgement.accepted, "the forgery was accepted"
    return list(judgement.reasons)


def test_a_base_is_verified_as_a_run_is_and_stands_on_the_board(archive: Path, tmp_path: Path) -> None:
    judgement, written = add(archive, Choice(3), tmp_path)
    assert judgement.verdict is not None, judgement.reasons
    assert judgement.verdict.badge == RECOMPUTED_PREDICTIONS
    assert "adapter file" not in judgement.verdict.checked
    assert len(written) == 3
    (record,) = entries.read_records(tmp_path)
    assert (record.adapter, record.training, record.seed, record.provenance) == (None, None, None, "reproduced")
    assert record.reference_energies.after == "model"
    assert record.reference_energies.values.keys() == {"Cu", "Au"}


def test_its_numbers_are_those_of_zoo_evaluate(archive: Path, tmp_path: Path) -> None:
    from zoo.commands import evaluate
    from zoo.evaluation.record import read_record

    words = ["backbone=sevennet-0", "data=emt-cuau", "data.n_train=4", "data.n_valid=2", "data.n_test=6", "data.test=[]"]
    evaluate([*words, "reference_energies=model", f"record={tmp_path / 'r.json'}"])
    own, ours = read_record(tmp_path / "r.json"), read_archive(archive).submission.record
    assert {m.name: pytest.approx(m.value, rel=1e-6) for m in own.metrics} == {m.name: m.value for m in ours.metrics}
    assert own.data.splits == ours.data.splits


def test_a_base_is_entered_once(archive: Path, tmp_path: Path) -> None:
    add(archive, Choice(0), tmp_path)
    submission = read_archive(archive).submission
    again = tmp_path / "again.zip"
    again.write_bytes(sealed(submission, author="B. Other").archive())
    judgement, _ = add(again, Choice(0), tmp_path)
    (reason,) = judgement.reasons
    assert not lacks(reason, "these predictions are on the board already", "equizoo maintainers")


def test_others_submit_runs(archive: Path, tmp_path: Path) -> None:
    message = refusal_of(submit_zero_shot, CONFIG, Statement("A. Person", "MIT"), tmp_path / "x.zip")
    assert not lacks(message, "entered by the board's maintainers", "reproduced=true")
    forged = sealed(read_archive(archive).submission, provenance="submitted")
    assert any("entered by the board itself" in reason for reason in reasons_of(forged))


def test_forged_numbers_of_a_base_are_refused(archive: Path) -> None:
    submission = read_archive(archive).submission
    metrics = [metric.model_dump(mode="json") for metric in submission.record.metrics]
    metrics[0]["value"] = 0.5
    assert any("recomputed from the predictions" in reason for reason in reasons_of(sealed(submission, metrics=metrics)))
    from zoo.data.source import load_splits
    from zoo.evaluation.metrics import compute_metrics

    frames = load_splits(DATA, ()).tests[TEST_SET]
    honest = parse_predictions(submission.predictions, "p")[TEST_SET].of_frames(frames)
    noise = np.random.default_rng(0)
    blurred = replace(honest, forces=tuple(frame.forces + 0.01 * noise.standard_normal(frame.forces.shape) for frame in frames))
    npz = predictions_npz({TEST_SET: frames}, {TEST_SET: blurred})
    found = [metric.model_dump(mode="json") for metric in metric_records({TEST_SET: compute_metrics(blurred, frames)})]
    assert any("differ from base + adapter" in reason for reason in reasons_of(sealed(submission, predictions=npz, metrics=found), most=1))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"training": {"steps": 5}}, "training belongs to a run"),
        ({"seed": 3}, "seed belongs to a run"),
        ({"reference_energies": {"before": "base", "after": "base", "values": {}}}, "reference_energies.after is 'base'"),
        ({"licence": "secret"}, "licence is 'secret'"),
        ({"author": None}, "author is None"),
    ],
)
def test_a_record_of_a_base_that_says_what_its_files_do_not_is_refused(fields: dict[str, Any], reason: str, archive: Path) -> None:
    assert any(reason in found for found in reasons_of(sealed(read_archive(archive).submission, **fields)))


def test_other_reference_energies_are_refused_where_they_are_fitted_again(archive: Path) -> None:
    submission = read_archive(archive).submission
    energies = submission.record.reference_energies.model_dump(mode="json")
    energies["values"]["Cu"] += 0.01
    assert any("fitted again here" in reason for reason in reasons_of(sealed(submission, reference_energies=energies), most=1))


def test_an_archive_without_adapter_is_none_of_a_run(archive: Path, honest: Path) -> None:
    base, run = read_archive(archive).submission, read_archive(honest).submission
    for forged, found in ((replace(run, adapter=None), "no"), (replace(base, adapter=run.adapter), "an")):
        assert f"has {found} adapter.safetensors" in refusal_of(parse_archive, forged.archive(), "s.zip")


def test_a_config_that_names_more_than_how_a_base_is_evaluated_is_refused(archive: Path) -> None:
    submission = read_archive(archive).submission
    (reason,) = reasons_of(sealed(submission, config={**submission.config, "steps": 3}))
    assert "unknown key 'steps'" in reason


def test_the_command_takes_the_words_of_zoo_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    who = ["--author", "The Maintainers", "--licence", "MIT", "--frames", "1", "--output", str(tmp_path / "base.zip")]
    words = ["backbone=sevennet-0", "data=emt-cuau", "data.n_train=4", "data.n_valid=2", "data.n_test=2", "data.test=[]"]
    assert zero_shot.main([*who, *words]) == 0
    assert not lacks(capsys.readouterr().out, "verified sevennet-0.zero-shot.emt-cuau", f"leaderboard.add {tmp_path / 'base.zip'}")
    assert read_archive(tmp_path / "base.zip").submission.record.reference_energies.after == "base"
    for wrong, reason in ((["adapter=elora"], "adapter=... is not for a base"), (["data=nowhere"], "nowhere"), (["author=A"], "author")):
        assert zero_shot.main([*who, *words, *wrong]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert reason in line


def test_one_test_set_alone_is_entered_as_such(data_folder: Callable[[str], Path], tmp_path: Path) -> None:
    data_folder("chgnet_magmoms")
    config = zero_shot.config_of(["backbone=sevennet-0", "data=chgnet-vasp", "split=outcar"])
    done = submit_zero_shot(config, OURS, tmp_path / "one.zip")
    assert list(done.record.data.splits) == ["outcar"]
    assert done.record.evaluation["asked"]["split"] == "outcar"
    submission = read_archive(tmp_path / "one.zip").submission
    reasons = reasons_of(sealed(submission, config={**submission.config, "split": None}))
    assert "data.splits.vasprun is absent in the record" in "\n".join(reasons)
    message = refusal_of(submit_zero_shot, config.model_copy(update={"split": "train"}), OURS, tmp_path / "none.zip")
    assert not lacks(message, "chgnet-vasp", "train")


def test_only_the_maintainers_bring_a_base_in_a_pull_request(archive: Path, tmp_path: Path) -> None:
    repo = Repo(tmp_path)
    identifier = repo.enter(archive)
    repo.commit()
    (reason,) = repo.check().reasons
    assert not lacks(reason, identifier, "provenance is 'reproduced'", "maintainers")
    outcome = repo.check(by_maintainer=True)
    assert outcome.reasons == ()
    assert [verdict.record for verdict in outcome.verdicts] == [identifier]
