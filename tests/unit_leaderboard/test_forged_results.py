"""Submissions whose every hash and id fit, and whose numbers do not: refused by recomputation, each for its own reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.refusals import lacks
from tests.unit_leaderboard.forgery import TEST_SET, Forger, judged
from zoo.evaluation.prediction_files import predictions_npz
from zoo.submission.archive import Submission
from zoo.submission.recompute import Choice
from zoo.submission.verdict import RECOMPUTED_METRICS, RECOMPUTED_PREDICTIONS

Change = Callable[[dict[str, Any]], None]
OTHER = "0123456789abcdef" * 4


def setting(path: str, value: Any) -> Change:
    """Sets a field of the record: ``"adapter.trainable_count"``, ``"metrics.0.value"``."""

    def change(fields: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
        for part in parents:
            fields = fields[part]  # type: ignore[index]
        assert fields[last] != value, "the forgery changes nothing"  # type: ignore[index]
        fields[last] = value  # type: ignore[index]

    return change


def refusals_of(submission: Submission, most: int = 0) -> list[str]:
    judgement = judged(submission, most)
    assert not judgement.accepted, "the forgery was accepted"
    assert all("\n" not in reason for reason in judgement.reasons)
    return list(judgement.reasons)


def test_an_honest_submission_is_accepted_with_the_badge_of_what_was_recomputed(forger: Forger) -> None:
    without_base, with_base = judged(forger.submission), judged(forger.submission, most=3)
    assert without_base.verdict is not None
    assert without_base.verdict.badge == RECOMPUTED_METRICS
    assert without_base.verdict.recomputed is None
    assert with_base.verdict is not None, with_base.reasons
    assert with_base.verdict.badge == RECOMPUTED_PREDICTIONS
    assert with_base.verdict.recomputed is not None
    assert (with_base.verdict.recomputed.frames, with_base.verdict.recomputed.of) == (3, 6)


def test_sealing_an_unchanged_submission_again_gives_the_same_submission(forger: Forger) -> None:
    assert forger.sealed() == forger.submission  # else a forgery could be refused for how it was made


RECORDS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "an edited metric": (setting("metrics.0.value", 0.5), (TEST_SET, "energy_mae_mev_per_atom is 0.5 meV/atom", "recomputed")),
    "a bad metric left out": (lambda fields: fields["metrics"].pop(0), ("energy_mae_mev_per_atom is missing from the record",)),
    "a wrong count": (setting("adapter.trainable_count", 7), ("adapter.trainable_count is 7", "the tensors of the adapter file")),
    "a wrong size": (setting("adapter.file_bytes", 100), ("adapter.file_bytes is 100",)),
    "another adapter file": (setting("adapter.file_sha256", OTHER), ("adapter.file_sha256", "the adapter file itself")),
    "another method": (setting("adapter.method", "full"), ("adapter.method is 'full'", "'elora'")),
    "another rank": (setting("adapter.config", {"rank": 64}), ("adapter.config is {'rank': 64}",)),
    "another base": (setting("base.values_sha256", OTHER), ("base.values_sha256", "made for that base alone")),
    "a base of another name": (setting("base.card", "sevennet-l3i5"), ("base.card is 'sevennet-l3i5'", "'sevennet-0'")),
    "another licence of the base": (setting("base.licence", "CC0-1.0"), ("base.licence is 'CC0-1.0'", "the card")),
    "from scratch": (setting("base.initial_weights", "random"), ("base.initial_weights is 'random'", "config.json")),
    "a changed config hash": (setting("submission.config_sha256", OTHER), ("submission.config_sha256", "the config itself")),
    "a changed hash of predictions": (setting("submission.predictions_sha256", OTHER), ("submission.predictions_sha256",)),
    "a config other than the record's": (setting("training.training.steps", 10**6), ("training.training is", "config.json")),
    "another seed": (setting("seed", 3), ("seed is 3 in the record, 0 in config.json",)),
    "protocol drift": (setting("data.protocol", "emt-cuau n_train=1"), ("data.protocol is 'emt-cuau n_train=1'", "the protocol's is")),
    "another training split": (setting("data.splits.train.sha256", OTHER), ("data.splits.train is 4 frames 012345", "the protocol's is")),
    "fewer training frames": (setting("data.splits.train.frames", 1), ("data.splits.train is 1 frames",)),
    "another level of theory": (setting("data.level_of_theory", "CCSD(T)"), ("data.level_of_theory is 'CCSD(T)'",)),
    "another licence of the data": (setting("data.licence", "secret"), ("data.licence is 'secret'",)),
    "other reference energies": (setting("reference_energies.values", {"Cu": 0.0, "Au": 0.0}), ("reference_energies.values",)),
    "another treatment of them": (setting("reference_energies.before", "base"), ("reference_energies.before is 'base'", "'model'")),
    "no author": (setting("author", None), ("author is None", "wanted a name")),
    "markup for an author": (setting("author", "<script>alert(1)</script>"), ("author", "without < and >")),
    "no licence": (setting("licence", None), ("licence is None", "CC-BY-4.0")),
    "a licence that forbids the board": (setting("licence", "All rights reserved"), ("licence is 'All rights reserved'",)),
    "a local record": (setting("provenance", "local"), ("provenance is 'local'",)),
    "from the future": (setting("created", "2999-01-01T00:00:00Z"), ("2999", "in the future")),
    "zero-shot numbers nobody can check": (
        lambda fields: fields.update(zero_shot_metrics=fields["metrics"]),
        ("zero_shot_metrics are the base's",),
    ),
    "a residual without the base": (setting("equivariance_residual", {"rotation": 0.0}), ("equivariance_residual", "without the base")),
    "words of the author's among the notes": (setting("data.notes", ["the best of all"]), ("data.notes",)),
    "relaxations instead of labels": (setting("evaluation", {"task": "relaxation"}), ("evaluation is", "only labels")),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), RECORDS.values(), ids=RECORDS)
def test_a_record_that_says_what_its_files_do_not_is_refused(change: Change, reason: tuple[str, ...], forger: Forger) -> None:
    reasons = refusals_of(forger.sealed(change))
    assert any(not lacks(found, *reason) for found in reasons), reasons


def test_a_metric_that_no_label_defines_is_refused(forger: Forger) -> None:
    def change(fields: dict[str, Any]) -> None:
        cosine = next(metric for metric in fields["metrics"] if metric["name"] == "force_cosine")
        names = {"name": "relaxed_energy_mae_mev", "unit": "meV", "kind": "MAE", "normalisation": "per structure", "value": 0.1}
        fields["metrics"].append({**cosine, **names})

    assert any("no labels to compute it from" in reason for reason in refusals_of(forger.sealed(change)))


def test_shuffled_frames_are_refused(forger: Forger) -> None:
    frames, predicted = forger.frames(), forger.predicted()
    order = [1, 0, 2, 3, 4, 5]
    shuffled = replace(
        predicted,
        energies=predicted.energies[order],
        forces=tuple(predicted.forces[index] for index in order),
        stresses=tuple(predicted.stresses[index] for index in order),
    )
    npz = predictions_npz({TEST_SET: [frames[index] for index in order]}, {TEST_SET: shuffled})
    (reason,) = refusals_of(forger.sealed(predictions=npz))
    assert not lacks(reason, TEST_SET, "another order", "wrong labels")


def test_predictions_of_another_split_are_refused(forger: Forger) -> None:
    from zoo.data.emt import emt_test

    others = [frame for frame in emt_test() if len(frame) > 4][:6]
    predicted = forger.predicted()
    other = replace(
        predicted,
        energies=np.array([frame.energy for frame in others]) + 0.1,
        forces=tuple(frame.forces + 0.1 for frame in others),
        stresses=tuple(None for _ in others),
    )
    (reason,) = refusals_of(forger.with_predictions(other, others))
    assert not lacks(reason, TEST_SET, "other frames", "0 of 6")


def test_predictions_of_fewer_frames_are_refused(forger: Forger) -> None:
    frames, predicted = forger.frames()[:4], forger.predicted()
    easier = replace(
        predicted,
        names=predicted.names[:4],
        energies=predicted.energies[:4],
        forces=predicted.forces[:4],
        stresses=predicted.stresses[:4],
    )
    (reason,) = refusals_of(forger.with_predictions(easier, frames))
    assert not lacks(reason, "predictions for 4 frames", "the protocol has 6")


def test_predictions_of_a_test_set_that_is_not_there_are_refused(forger: Forger) -> None:
    frames, predicted = forger.frames(), forger.predicted()
    npz = predictions_npz({TEST_SET: frames, "easy": frames}, {TEST_SET: predicted, "easy": predicted})
    (reason,) = refusals_of(forger.sealed(predictions=npz))
    assert not lacks(reason, "'easy'", "no test set of the protocol")


@pytest.mark.parametrize("frames", [6, 1], ids=["all frames", "one frame"])
def test_labels_copied_into_predictions_are_implausibly_exact(frames: int, forger: Forger) -> None:
    copied = forger.changed_predictions(lambda frame, forces: frame.forces + 1e-9, frames)
    reasons = refusals_of(forger.with_predictions(copied))
    assert any(not lacks(reason, TEST_SET, "force components equal their labels", "implausibly exact") for reason in reasons), reasons


@pytest.mark.parametrize("noise", [1e-8, 1e-6])
def test_labels_copied_with_a_little_noise_are_implausibly_exact(noise: float, forger: Forger) -> None:
    random = np.random.default_rng(0)
    copied = forger.changed_predictions(lambda frame, forces: frame.forces + noise * random.standard_normal(forces.shape))
    reasons = refusals_of(forger.with_predictions(copied))
    assert any(not lacks(reason, "the forces of 6 of 6 frames are their labels", "implausibly exact") for reason in reasons), reasons


def test_one_frame_copied_with_a_little_noise_is_implausibly_exact(forger: Forger) -> None:
    random = np.random.default_rng(0)
    copied = forger.changed_predictions(lambda frame, forces: frame.forces + 1e-6 * random.standard_normal(forces.shape), frames=1)
    (reason,) = refusals_of(forger.with_predictions(copied))
    assert not lacks(reason, "the forces of 1 of 6 frames are their labels", "implausibly exact")


def test_frames_copied_with_more_noise_are_noted_where_the_others_are_as_a_model_has_them(forger: Forger) -> None:
    random = np.random.default_rng(0)
    copied = forger.changed_predictions(lambda frame, forces: frame.forces + 1e-4 * random.standard_normal(forces.shape), frames=2)
    verdict = judged(forger.with_predictions(copied)).verdict
    assert verdict is not None
    note = "forces of 2 of 6 frames are over 100 times closer to their labels than the median frame's"
    assert any(note in line for line in verdict.notes), verdict.notes
    honest = judged(forger.submission).verdict
    assert honest is not None
    assert not any("closer to their labels" in line for line in honest.notes)


def test_energies_copied_with_a_little_noise_are_implausibly_exact(forger: Forger) -> None:
    energies = np.array([frame.energy for frame in forger.frames()]) + 3e-6
    reasons = refusals_of(forger.with_predictions(replace(forger.predicted(), energies=energies)))
    assert any(not lacks(reason, "half of 6 energies are their labels", "implausibly exact") for reason in reasons), reasons


def test_copied_energies_are_implausibly_exact(forger: Forger) -> None:
    energies = np.array([frame.energy for frame in forger.frames()])
    reasons = refusals_of(forger.with_predictions(replace(forger.predicted(), energies=energies)))
    assert any(not lacks(reason, "6 of 6 energies", "implausibly exact") for reason in reasons), reasons


def test_labels_with_noise_pass_for_a_model_only_where_the_base_is_left_alone(forger: Forger) -> None:
    noise = np.random.default_rng(0)
    blurred = forger.changed_predictions(lambda frame, forces: frame.forces + 0.01 * noise.standard_normal(forces.shape))
    forged = forger.with_predictions(blurred)
    judgement = judged(forged)
    assert judgement.verdict is not None, "the positive control: what the threat model says cannot be seen"
    assert judgement.verdict.badge == RECOMPUTED_METRICS
    (reason,) = refusals_of(forged, most=2)
    assert not lacks(reason, "2 of 2 recomputed frames differ from base + adapter", "eV/Å", "tolerated")


def test_one_edited_frame_is_found_where_all_frames_are_recomputed(forger: Forger) -> None:
    edited = forger.with_predictions(forger.changed_predictions(lambda frame, forces: forces + 0.01, frames=1))
    (reason,) = refusals_of(edited, most=6)
    assert not lacks(reason, "1 of 6 recomputed frames", "frame 0 by 0.01 eV/Å")


def test_predictions_in_other_units_are_refused_even_if_the_metrics_are_theirs(forger: Forger) -> None:
    kcal = forger.changed_predictions(lambda frame, forces: forces * 23.06)
    assert any("recomputed from the predictions" in reason for reason in refusals_of(forger.with_predictions(kcal, metrics=False)))
    assert any("differ from base + adapter" in reason for reason in refusals_of(forger.with_predictions(kcal), most=1))


def test_an_adapter_of_another_base_is_refused_when_the_base_is_loaded(forger: Forger) -> None:
    forged = forger.sealed(setting("base.values_sha256", OTHER), adapter=forger.adapter_file(base_sha256=OTHER))
    (reason,) = refusals_of(forged, most=1)
    assert not lacks(reason, "adapter.safetensors", "adapter made for base", OTHER)


def test_other_weights_in_the_adapter_file_are_refused_by_their_predictions(forger: Forger) -> None:
    reasons = refusals_of(forger.sealed(adapter=forger.adapter_file(factor=1.5)), most=2)
    assert any("differ from base + adapter" in reason for reason in reasons)


def test_an_altered_adapter_file_is_refused(forger: Forger) -> None:
    content = bytearray(forger.submission.adapter)
    content[-1] ^= 1
    (reason,) = refusals_of(forger.sealed(adapter=bytes(content)))
    assert not lacks(reason, "damaged adapter file")


def test_an_adapter_file_that_counts_wrongly_is_refused(forger: Forger) -> None:
    forged = forger.sealed(setting("adapter.trainable_count", 7), adapter=forger.adapter_file(trainable_count=7))
    assert any("states 7 trained numbers and holds" in reason for reason in refusals_of(forged))


@pytest.mark.parametrize(("name", "value"), [("head", "omat"), ("forces", "direct")])
def test_an_adapter_file_of_another_head_or_other_forces_than_the_config_asks_for_is_refused(name: str, value: str, forger: Forger) -> None:
    config = forger.config_with("backbone", **{name: value})
    reasons = refusals_of(forger.sealed(config=config))
    assert any(not lacks(reason, f"config.json asks for backbone.{name}={value}, the adapter file is of") for reason in reasons), reasons


@pytest.mark.parametrize(
    ("field", "value", "most"),
    [("base.parameter_count", 1, 1), ("adapter.coverage_share", 1.0, 1), ("base.conservative", False, 1), ("base.symmetry", "O(3)", 1)],
)
def test_what_only_the_loaded_model_knows_is_compared_with_it(field: str, value: Any, most: int, forger: Forger) -> None:
    (reason,) = refusals_of(forger.sealed(setting(field, value)), most)
    assert not lacks(reason, f"{field} is {value!r} in the record", "of the loaded")


def test_residuals_are_recomputed_and_understated_ones_refused(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.submission import recompute

    found = {"rotation/forces": 3e-3, "translation/energy": 1e-15}
    monkeypatch.setattr(recompute, "equivariance_residual", lambda potential: found)
    assert judged(forger.sealed(setting("equivariance_residual", {**found, "translation/energy": 0.0})), most=1).accepted
    (reason,) = refusals_of(forger.sealed(setting("equivariance_residual", {**found, "rotation/forces": 1e-15})), most=1)
    assert not lacks(reason, "equivariance_residual.rotation/forces is 1.0e-15 in the record", "3.0e-03 of base + adapter")
    (reason,) = refusals_of(forger.sealed(setting("equivariance_residual", {"rotation/forces": 3e-3})), most=1)
    assert "recomputed are rotation/forces, translation/energy" in reason


def test_another_seed_in_config_and_record_is_not_the_adapter_files(forger: Forger) -> None:
    reasons = refusals_of(forger.sealed(setting("seed", 3), config=forger.config_with("training", seed=3)))
    assert reasons == ["seed is 3 in the record, 0 in the adapter file"]


def test_another_rank_in_config_and_record_is_not_the_adapter_files(forger: Forger) -> None:
    reasons = refusals_of(forger.sealed(config=forger.config_with("adapter", rank=64)))
    assert any(not lacks(reason, "config.json asks for the adapter elora", "'rank': 64", "the adapter file is elora") for reason in reasons)


def test_a_config_that_no_run_takes_is_refused(forger: Forger) -> None:
    (reason,) = refusals_of(forger.sealed(config=forger.config_with("training", stepps=3)))
    assert not lacks(reason, "training.stepps", "steps")


def test_labels_of_the_authors_own_file_are_refused(forger: Forger) -> None:
    config = forger.config_with("data", name="file", path="mine.xyz", test=None)
    reasons = refusals_of(forger.sealed(setting("data.name", "file"), config=config))
    assert any(not lacks(reason, "data.name is 'file'", "no published set") for reason in reasons)


def test_a_run_without_a_test_set_is_refused(forger: Forger) -> None:
    reasons = refusals_of(forger.sealed(config=forger.config_with("data", n_test=None)))
    assert any("no test set" in reason for reason in reasons)


def test_frames_are_drawn_by_the_archives_hash_and_a_salt() -> None:
    chosen = Choice(8).frames_of("test", 650, OTHER)
    assert chosen == Choice(8).frames_of("test", 650, OTHER) == sorted(set(chosen))
    assert len(chosen) == 8
    others = [Choice(8, salt="x").frames_of("test", 650, OTHER), Choice(8).frames_of("test", 650, OTHER[::-1])]
    assert all(other != chosen for other in others)
    assert Choice(None).frames_of("test", 3, OTHER) == Choice(9).frames_of("test", 3, OTHER) == [0, 1, 2]
    seen = {index for salt in range(200) for index in Choice(8, salt=str(salt)).frames_of("test", 50, OTHER)}
    assert seen == set(range(50)), "every frame can be drawn"


def test_a_base_that_cannot_be_loaded_leaves_the_lower_badge(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.errors import ZooError
    from zoo.submission import recompute

    def absent(*_: Any, **__: Any) -> None:
        raise ZooError("no network")

    monkeypatch.setattr(recompute, "load", absent)
    verdict = judged(forger.submission, most=4).verdict
    assert verdict is not None
    assert verdict.badge == RECOMPUTED_METRICS
    assert any(not lacks(note, "sevennet-0 cannot be loaded here", "no network") for note in verdict.notes)
