"""What a submission cannot do to the machine that verifies it: end the verifier, have its files read, say how it works."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import lacks
from tests.unit_leaderboard.forgery import Forger, judged
from zoo.submission.archive import ArchiveFile, sha256_of
from zoo.submission.recompute import Choice
from zoo.submission.verify import UNFORESEEN, verify_archive


def test_a_fault_of_the_verifier_refuses_the_submission(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.submission import verify

    def broken(*_: Any) -> None:
        raise KeyError("line one\nline two \x1b[2J")

    monkeypatch.setattr(verify, "protocol_frames", broken)
    content = forger.submission.archive()
    judgement = verify_archive(ArchiveFile(forger.submission, sha256_of(content), len(content)), Choice(0))
    assert not judgement.accepted
    (reason,) = judgement.reasons
    assert not lacks(reason, UNFORESEEN, "KeyError", "report it")
    assert reason.isprintable()


def test_a_fault_of_the_reader_refuses_the_submission_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.submission import verify as module

    def broken(*_: Any) -> None:
        raise IndexError("nobody thought of it")

    monkeypatch.setattr(module, "read_archive", broken)
    (reason,) = module.verify(tmp_path / "any.zip").reasons
    assert not lacks(reason, UNFORESEEN, "IndexError", "report it")


@pytest.mark.parametrize("option", ["path", "train", "valid", "isolated_atoms", "linear_references"])
def test_no_file_of_the_verifiers_machine_is_read_because_a_config_names_it(option: str, forger: Forger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret.xyz")  # who opens it waits for ever
    judgement = judged(forger.sealed(config=forger.config_with("data", **{option: str(tmp_path / "secret.xyz")})))
    assert any(not lacks(reason, f"data.{option}=", "belongs to data=file") for reason in judgement.reasons), judgement.reasons


def test_no_checkpoint_of_the_verifiers_machine_is_loaded_because_a_config_names_it(
    forger: Forger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.submission import recompute

    loaded: list[Any] = []
    monkeypatch.setattr(recompute, "load", lambda *words, **options: loaded.append(words))
    name = str(tmp_path / "mine.pth")

    def change(fields: dict[str, Any]) -> None:
        fields["base"]["card"] = name

    config = forger.config_with("backbone", name=name, trust_pickle=True)
    judgement = judged(forger.sealed(change, config=config, adapter=forger.adapter_file(base_card=name)), most=1)
    assert any("is no card of the zoo" in reason for reason in judgement.reasons)
    assert loaded == []


def test_how_many_processes_read_and_where_to_is_not_for_a_submission_to_say(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.submission import labels

    read, asked = labels.load_splits, []
    monkeypatch.setattr(labels, "load_splits", lambda config, needs: asked.append(config) or read(config, needs))
    assert judged(forger.sealed(config=forger.config_with("data", workers=10**6, cache="disk"))).accepted
    assert [(config.workers, config.cache) for config in asked] == [(None, "auto")]
