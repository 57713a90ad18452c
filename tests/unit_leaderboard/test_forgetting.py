"""What fine-tuning forgets: measured by a run, stated in its record, and computed again before the board shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import lacks, refusal_of
from tests.unit_leaderboard.conftest import TINY_RUN
from tests.unit_leaderboard.forgery import Forger, judged
from zoo.compose import compose
from zoo.evaluation.forgetting import forgetting_frames
from zoo.evaluation.forgetting_settings import ForgettingSettings
from zoo.evaluation.record import read_record
from zoo.submission.archive import read_archive
from zoo.submission.recompute import Choice
from zoo.submission.submit import Statement, submit
from zoo.training.config import parse_config
from zoo.training.run import fine_tune

PROBES = "evaluation.forgetting={data: mptrj-1k, frames: 3}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_folder: Callable[[str], Path]) -> Path:
    """A finished run that looked at three frames of MPtrj."""
    data_folder("periodic_1k")
    folder = tmp_path_factory.mktemp("runs") / "probed"
    fine_tune(parse_config(compose("train", [*TINY_RUN, PROBES, f"run.folder={folder}", "run.name=probed"])), say=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def probed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Forger:
    output = tmp_path_factory.mktemp("submissions") / "probed.zip"
    done = submit(run, Statement("A. Person", "MIT"), output, Choice(most=1))
    assert done.judgement.accepted
    return Forger(read_archive(output).submission)


def with_forgetting(forger: Forger, change: Callable[[dict[str, Any]], None]) -> Any:
    return forger.sealed(lambda fields: change(fields["forgetting"]))


def test_the_errors_before_are_the_bases_own_and_those_after_the_trained_models(run: Path) -> None:
    from zoo.evaluation.metrics import compute_metrics
    from zoo.evaluation.predictions import predict_frames
    from zoo.loading import load

    forgetting = read_record(run / "record.json").forgetting
    assert forgetting is not None
    frames = forgetting_frames(ForgettingSettings(data="mptrj-1k", frames=3))
    before = {metric.name: metric.value for metric in forgetting.before}
    own = compute_metrics(predict_frames(load("sevennet-0", dtype="float32"), frames), frames)
    assert before == pytest.approx({name: own[name] for name in before}, rel=1e-4)
    after = {metric.name: metric.value for metric in forgetting.after}
    assert after.keys() == before.keys()
    assert after["force_mae_mev_per_angstrom"] != pytest.approx(before["force_mae_mev_per_angstrom"], rel=1e-4)
    # the energies of the training data lie elsewhere, and their reference energies must not enter
    assert abs(after["energy_mae_mev_per_atom"] - before["energy_mae_mev_per_atom"]) < 1000


def test_the_frames_are_the_same_for_everybody() -> None:
    first, second = ([frame.name for frame in forgetting_frames(ForgettingSettings(data="mptrj-1k", frames=3))] for _ in range(2))
    assert first == second
    assert len(set(first)) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.forgetting.data=mptrj-2k"], "unknown data set 'mptrj-2k'; did you mean 'mptrj-1k'"),
        (["evaluation.forgetting={data: cu-snap, frames: 1000}"], "frames=1000, and cu-snap has"),
        (["evaluation.forgetting.data=acac"], "evaluation.forgetting.data=acac: has tests of its own"),
        (["evaluation.forgetting.data=file"], "evaluation.forgetting.data=file: wanted a published set"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_training(
    words: list[str], message: str, tmp_path: Path, data_folder: Callable[[str], Path]
) -> None:
    data_folder("periodic_1k")
    config = parse_config(compose("train", [*TINY_RUN, *words, f"run.folder={tmp_path / 'run'}", "run.name=refused"]))
    assert not lacks(refusal_of(fine_tune, config, say=lambda _: None), message)
    assert not (tmp_path / "run").exists()


def test_the_embedded_set_is_nothing_that_a_base_could_forget() -> None:
    refused = refusal_of(forgetting_frames, ForgettingSettings(data="emt-cuau", frames=3))
    assert not lacks(refused, "evaluation.forgetting.data=emt-cuau: wanted a published set")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategy=scratch"], "config: evaluation.forgetting: random weights know nothing that they could forget"),
        (["data=mptrj-1k"], "config: evaluation.forgetting.data=mptrj-1k: the run is trained on it"),
    ],
)
def test_a_run_without_anything_to_forget_is_refused_by_its_config(words: list[str], message: str) -> None:
    composed = compose("train", [PROBES, *words, "backbone=sevennet-0", "run.name=refused", "run.folder=refused"])
    assert not lacks(refusal_of(parse_config, composed), message)


def test_forgetting_is_computed_again(probed: Forger) -> None:
    def forget_less(forgetting: dict[str, Any]) -> None:
        forgetting["after"] = forgetting["before"]

    judgement = judged(with_forgetting(probed, forget_less), most=1)
    assert not lacks("\n".join(judgement.reasons), "forgetting.after: force_mae_mev_per_angstrom is", "recomputed")


def test_forgetting_on_other_frames_is_refused(probed: Forger) -> None:
    judgement = judged(with_forgetting(probed, lambda forgetting: forgetting["split"].update(sha256="0" * 64)), most=1)
    assert not lacks("\n".join(judgement.reasons), "forgetting.split is", "recomputed is")


def test_forgetting_of_a_part_of_another_name_is_refused(probed: Forger) -> None:
    judgement = judged(with_forgetting(probed, lambda forgetting: forgetting["after"][0].update(test_set="hard")), most=1)
    assert not lacks("\n".join(judgement.reasons), "forgetting.after is of 'hard' in the record, wanted 'whole'")


def test_forgetting_that_the_config_does_not_ask_for_is_refused(probed: Forger, forger: Forger) -> None:
    stated = probed.submission.record.forgetting
    assert stated is not None
    added = forger.sealed(lambda fields: fields.update(forgetting=stated.model_dump(mode="json")))
    assert not lacks("\n".join(judged(added).reasons), "forgetting is stated in the record, and config.json asks for none")
    removed = probed.sealed(lambda fields: fields.update(forgetting=None))
    assert not lacks("\n".join(judged(removed).reasons), "forgetting is left out in the record, and config.json asks for that of mptrj-1k")


def test_what_a_run_was_trained_on_shows_nothing_forgotten(probed: Forger) -> None:
    config = json.loads(json.dumps(probed.submission.config))
    config["evaluation"]["forgetting"]["data"] = config["data"]["name"]
    reasons = "\n".join(judged(probed.sealed(config=config)).reasons)
    assert not lacks(reasons, f"evaluation.forgetting.data={config['data']['name']}: the run is trained on it")


def test_forgetting_without_the_base_is_no_proof(probed: Forger) -> None:
    assert not lacks("\n".join(judged(probed.submission).reasons), "forgetting cannot be recomputed without the base")
