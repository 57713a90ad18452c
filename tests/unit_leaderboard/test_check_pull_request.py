"""Pull requests that add results: additions alone, each verified, and nothing of the pull request is checked out or run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from leaderboard import check_pull_request
from leaderboard.add import add
from leaderboard.check_pull_request import Outcome, Question, check
from leaderboard.git_objects import Repository
from tests.refusals import lacks, refusal_of
from tests.unit_leaderboard.forgery import Forger
from tests.unit_leaderboard.test_validate_and_schema import write_zero_shot
from zoo.evaluation.record import build_record, read_record, record_text
from zoo.submission.recompute import Choice
from zoo.submission.verify import verify

ROOT = Path(__file__).resolve().parents[2]
BOARD = "leaderboard"


class Repo:
    """A repository whose base branch has one zero-shot record, and a branch on which a test makes its pull request."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet", "--initial-branch=base")
        self.old = f"{BOARD}/records/old.json"
        (root / BOARD / "records").mkdir(parents=True)
        write_zero_shot(root / self.old)
        (root / "README.md").write_text("the board\n")
        self.commit()
        self.git("checkout", "--quiet", "-b", "pull")

    def git(self, *words: str) -> str:
        identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        for who in ("AUTHOR", "COMMITTER"):
            identity |= {f"GIT_{who}_NAME": "A", f"GIT_{who}_EMAIL": "a@b.c"}
        command = ["git", *words]
        return subprocess.run(command, cwd=self.root, env={**os.environ, **identity}, capture_output=True, text=True, check=True).stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")

    def check(self, most: int = 0, by_maintainer: bool = False) -> Outcome:
        return check(Question(Repository(self.root), "base", "pull", Choice(most, "salt"), by_maintainer))

    def enter(self, archive: Path) -> str:
        """What `python -m leaderboard.add` leaves in a working tree; the record's id."""
        judgement, _ = add(archive, Choice(0), self.root / BOARD)
        assert judgement.verdict is not None, judgement.reasons
        return judgement.verdict.record


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path)


def refusals(repo: Repo, **options: bool) -> list[str]:
    repo.commit()
    outcome = repo.check(**options)
    assert outcome.reasons, "the pull request was accepted"
    assert all("\n" not in reason for reason in outcome.reasons)
    return list(outcome.reasons)


def test_a_pull_request_that_adds_a_submission_is_verified(repo: Repo, honest: Path) -> None:
    identifier = repo.enter(honest)
    repo.commit()
    outcome = repo.check()
    assert outcome.reasons == ()
    assert [(verdict.record, verdict.badge) for verdict in outcome.verdicts] == [(identifier, "metrics recomputed from predictions")]


def test_a_pull_request_without_results_is_none_of_its_business(repo: Repo) -> None:
    (repo.root / "README.md").write_text("other words\n")
    repo.commit()
    assert repo.check() == Outcome((), ())


def test_the_base_may_have_moved_on(repo: Repo, honest: Path) -> None:
    repo.enter(honest)
    repo.commit()
    repo.git("checkout", "--quiet", "base")
    (repo.root / "README.md").write_text("later words\n")
    repo.commit()
    assert repo.check().reasons == ()


def edit(repo: Repo) -> None:
    write_zero_shot(repo.root / repo.old, value=1.0)


def delete(repo: Repo) -> None:
    (repo.root / repo.old).unlink()


def rename(repo: Repo) -> None:
    (repo.root / repo.old).rename(repo.root / BOARD / "records" / "new.json")


def link(repo: Repo) -> None:
    (repo.root / BOARD / "records" / "link.json").symlink_to("/etc/passwd")


def make_executable(repo: Repo) -> None:
    path = repo.root / BOARD / "records" / "script.json"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def add_pickle(repo: Repo) -> None:
    (repo.root / BOARD / "artefacts").mkdir()
    (repo.root / BOARD / "artefacts" / "model.pt").write_bytes(b"\x80\x04")


def change_the_rules(repo: Repo) -> None:
    (repo.root / BOARD / "verify.py").write_text("def judge(*_): ...\n")
    write_zero_shot(repo.root / BOARD / "records" / "x.json", value=2.0)


def add_archive_alone(repo: Repo) -> None:
    (repo.root / BOARD / "artefacts").mkdir()
    (repo.root / BOARD / "artefacts" / "nobody.zip").write_bytes(b"PK")


def add_verdict_alone(repo: Repo) -> None:
    (repo.root / BOARD / "verdicts").mkdir()
    (repo.root / BOARD / "verdicts" / "nobody.json").write_text("{}")


def add_deeper(repo: Repo) -> None:
    (repo.root / BOARD / "records" / "mine").mkdir()
    write_zero_shot(repo.root / BOARD / "records" / "mine" / "x.json", value=2.0)


def add_many(repo: Repo) -> None:
    for index in range(check_pull_request.MOST_RECORDS + 1):
        (repo.root / BOARD / "records" / f"{index}.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (add_deeper, ("mine/x.json", "too deep")),
        (add_many, ("21 records in one pull request", "at most 20")),
        (edit, ("old.json", "edits what is on the board")),
        (delete, ("old.json", "deletes what is on the board")),
        (rename, ("old.json", "deletes what is on the board")),
        (link, ("link.json", "a symbolic link")),
        (make_executable, ("script.json", "an executable file")),
        (add_pickle, ("model.pt", "no .zip file")),
        (change_the_rules, ("verify.py", "changes nothing else")),
        (add_archive_alone, ("nobody.zip", "belongs to no record")),
        (add_verdict_alone, ("nobody.json", "belongs to no record")),
    ],
)
def test_a_pull_request_that_does_more_than_add_a_result_is_refused(
    change: Callable[[Repo], None], reason: tuple[str, ...], repo: Repo
) -> None:
    change(repo)
    reasons = refusals(repo)
    assert any(not lacks(found, *reason) for found in reasons), reasons


def test_an_old_record_edited_together_with_its_id_is_refused(repo: Repo) -> None:
    old = repo.root / repo.old
    fields = json.loads(old.read_text()) | {"author": "B. Other"}
    fields.pop("id")
    old.write_text(record_text(build_record(**fields)))
    assert read_record(old).author == "B. Other", "the forged record is valid by itself"
    assert not lacks(refusals(repo)[0], "old.json", "edits what is on the board")


def test_a_record_without_its_archive_is_refused(repo: Repo, honest: Path) -> None:
    identifier = repo.enter(honest)
    (repo.root / BOARD / "artefacts" / f"{identifier}.zip").unlink()
    assert any(not lacks(reason, "its archive", "is missing") for reason in refusals(repo))


def test_a_record_other_than_its_archives_is_refused(repo: Repo, honest: Path, forger: Forger) -> None:
    identifier = repo.enter(honest)
    better = forger.sealed(lambda fields: fields["metrics"][0].update(value=0.5)).record
    for folder, suffix in (("records", ".json"), ("artefacts", ".zip"), ("verdicts", ".json")):
        (repo.root / BOARD / folder / f"{identifier}{suffix}").rename(repo.root / BOARD / folder / f"{better.id}{suffix}")
    (repo.root / BOARD / "records" / f"{better.id}.json").write_text(record_text(better))
    assert any(not lacks(reason, better.id, "not that of its archive") for reason in refusals(repo))


def test_a_record_under_another_name_is_refused(repo: Repo, honest: Path) -> None:
    identifier = repo.enter(honest)
    (repo.root / BOARD / "records" / f"{identifier}.json").rename(repo.root / BOARD / "records" / "best.json")
    assert any(not lacks(reason, "best.json", f"rename it to leaderboard/records/{identifier}.json") for reason in refusals(repo))


def test_a_submitted_record_among_the_rows_from_papers_is_refused(repo: Repo, honest: Path) -> None:
    identifier = repo.enter(honest)
    folder = repo.root / BOARD / "records"
    (folder / "reported").mkdir()
    (folder / f"{identifier}.json").rename(folder / "reported" / f"{identifier}.json")
    words = f"not where the submitted record {identifier} belongs", "rename it to leaderboard/records/"
    assert any(not lacks(reason, *words) for reason in refusals(repo))


def test_a_verdict_that_claims_a_better_badge_is_refused(repo: Repo, honest: Path) -> None:
    identifier = repo.enter(honest)
    path = repo.root / BOARD / "verdicts" / f"{identifier}.json"
    path.write_text(path.read_text().replace("metrics recomputed from predictions", "predictions recomputed from base + adapter"))
    (reason,) = refusals(repo)
    assert not lacks(reason, identifier, "claims 'predictions recomputed from base + adapter'", "found 'metrics recomputed")


def test_a_verdict_with_words_of_the_authors_own_is_refused(repo: Repo, honest: Path) -> None:
    identifier = repo.enter(honest)
    path = repo.root / BOARD / "verdicts" / f"{identifier}.json"
    path.write_text(path.read_text().replace("as asked for", "since it is the best"))
    (reason,) = refusals(repo)
    assert not lacks(reason, "not what verification here finds")


def test_a_result_that_is_on_the_board_is_refused_a_second_time(repo: Repo, honest: Path, forger: Forger, tmp_path: Path) -> None:
    repo.enter(honest)
    repo.commit()
    repo.git("branch", "--force", "base", "pull")
    stolen = forger.sealed(lambda fields: fields.update(author="B. Other"))
    for folder, suffix, content in (("records", ".json", record_text(stolen.record).encode()), ("artefacts", ".zip", stolen.archive())):
        (repo.root / BOARD / folder / f"{stolen.record.id}{suffix}").write_bytes(content)
    (reason,) = [reason for reason in refusals(repo) if "records/" in reason]
    assert not lacks(reason, stolen.record.id, "this adapter file is on the board already", "A. Person")


def test_a_result_that_another_pull_request_brought_meanwhile_is_refused(repo: Repo, honest: Path, forger: Forger) -> None:
    stolen = forger.sealed(lambda fields: fields.update(author="B. Other"))
    repo.git("checkout", "--quiet", "base")
    repo.enter(honest)
    repo.commit()
    repo.git("checkout", "--quiet", "pull")
    (repo.root / BOARD / "artefacts").mkdir()
    for folder, suffix, content in (("records", ".json", record_text(stolen.record).encode()), ("artefacts", ".zip", stolen.archive())):
        (repo.root / BOARD / folder / f"{stolen.record.id}{suffix}").write_bytes(content)
    (reason,) = refusals(repo)
    assert not lacks(reason, "this adapter file is on the board already", "A. Person")


CLAIMS: dict[str, Callable[[dict[str, Any]], None]] = {
    "more frames": lambda verdict: verdict["recomputed"].update(frames=6),
    "closer than tolerated, by a wider tolerance": lambda verdict: verdict["recomputed"]["tolerated"].update(energy_ev_per_atom=1.0),
    "further than tolerated": lambda verdict: verdict["recomputed"]["largest"].update(energy_ev_per_atom=1.0),
    "fewer test frames": lambda verdict: verdict["recomputed"].update(of=1, frames=1),
    "a salt with a line break": lambda verdict: verdict["recomputed"].update(salt="a\nb"),
    "a verification in the future": lambda verdict: verdict.update(verified="2999-01-01T00:00:00Z"),
    "a page of versions": lambda verdict: verdict.update(versions={"x" * 500: "1"}),
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_verdict_that_claims_more_than_is_found_is_refused(
    claim: Callable[[dict[str, Any]], None], repo: Repo, honest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judgement, _ = add(honest, Choice(2), repo.root / BOARD)
    assert judgement.verdict is not None
    path = repo.root / BOARD / "verdicts" / f"{judgement.verdict.record}.json"
    found = judgement
    monkeypatch.setattr(check_pull_request, "verify_archive", lambda *_: found)
    verdict = json.loads(path.read_text())
    repo.commit()
    assert repo.check(most=2).reasons == (), "the honest one is accepted"
    claim(verdict)
    path.write_text(json.dumps(verdict))
    (reason,) = refusals(repo)
    assert not lacks(reason, "its verdict is not what verification here finds")


def test_rows_of_the_board_itself_need_a_maintainer(repo: Repo, forger: Forger) -> None:
    record = forger.sealed(lambda fields: fields.update(provenance="reproduced"))
    for folder in ("records/reproduced", "artefacts"):
        (repo.root / BOARD / folder).mkdir(parents=True)
    path = repo.root / BOARD / "records" / "reproduced" / f"{record.record.id}.json"
    path.write_text(record_text(record.record))
    (repo.root / BOARD / "artefacts" / f"{record.record.id}.zip").write_bytes(record.archive())
    assert any(not lacks(reason, "provenance is 'reproduced'", "maintainers") for reason in refusals(repo))
    outcome = repo.check(by_maintainer=True)
    assert outcome.reasons == ()
    assert len(outcome.verdicts) == 1


def test_a_row_of_the_board_itself_may_come_with_its_verdict_alone(repo: Repo, forger: Forger, honest: Path) -> None:
    record = forger.sealed(lambda fields: fields.update(provenance="reproduced")).record
    verdict = verify(honest, Choice(0)).verdict
    assert verdict is not None
    (repo.root / BOARD / "records" / "reproduced").mkdir()
    (repo.root / BOARD / "records" / "reproduced" / f"{record.id}.json").write_text(record_text(record))
    assert not lacks(refusals(repo, by_maintainer=True)[0], "its archive", "is missing")
    (repo.root / BOARD / "verdicts").mkdir()
    path = repo.root / BOARD / "verdicts" / f"{record.id}.json"
    path.write_text(verdict.model_copy(update={"record": "another"}).model_dump_json())
    assert not lacks(refusals(repo, by_maintainer=True)[0], "a verdict on another; name the file by its record")
    path.write_text(verdict.model_copy(update={"record": record.id}).model_dump_json())
    repo.commit()
    assert repo.check(by_maintainer=True) == Outcome((), ())
    assert any(not lacks(reason, "maintainers") for reason in repo.check().reasons)


def test_a_submission_does_not_lie_among_the_boards_own_rows(repo: Repo, forger: Forger) -> None:
    (repo.root / BOARD / "records" / "reproduced").mkdir()
    submitted = forger.submission.record
    (repo.root / BOARD / "records" / "reproduced" / f"{submitted.id}.json").write_text(record_text(submitted))
    assert any(not lacks(reason, "not where the submitted record", "rename it to leaderboard/records/") for reason in refusals(repo))


def test_a_forged_archive_is_refused_with_the_verifiers_reason(repo: Repo, forger: Forger) -> None:
    forged = forger.sealed(lambda fields: fields["metrics"][0].update(value=0.5))
    (repo.root / BOARD / "artefacts").mkdir()
    (repo.root / BOARD / "records" / f"{forged.record.id}.json").write_text(record_text(forged.record))
    (repo.root / BOARD / "artefacts" / f"{forged.record.id}.zip").write_bytes(forged.archive())
    assert any(not lacks(reason, "is 0.5 meV/atom in the record", "recomputed from the predictions") for reason in refusals(repo))


def test_the_command_prints_what_it_found_and_writes_its_own_verdicts(
    repo: Repo, honest: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = repo.enter(honest)
    repo.commit()
    verdicts = tmp_path_factory.mktemp("verdicts")
    words = ["base", "pull", "--repository", str(repo.root / BOARD), "--frames", "1", "--verdicts", str(verdicts)]
    assert check_pull_request.main(words) == 1, "the verdict was made without the base, and here the base is loaded"
    assert not lacks(capsys.readouterr().out, "refused", "its verdict claims")
    words[5] = "0"
    assert check_pull_request.main(words) == 0
    assert capsys.readouterr().out == f"verified {identifier}: metrics recomputed from predictions\n"
    assert [path.stem for path in verdicts.iterdir()] == [identifier]
    assert check_pull_request.main(["base", "nowhere", "--repository", str(repo.root)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_fewer_frames_than_none_are_no_silent_way_around_the_base(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_pull_request.main(["base", "pull", "--repository", str(repo.root), "--frames", "-1"]) == 1
    assert "--frames -1: wanted a number of frames" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["--output=x", "a b", "", "x;rm"])
def test_a_commit_that_git_would_take_for_an_option_is_refused(name: str, repo: Repo) -> None:
    assert "not the name of a commit" in refusal_of(Repository(repo.root).changes, "base", name)


def test_the_workflow_runs_the_rules_of_the_base_without_rights_to_write() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "records.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    checkout = next(step for step in job["steps"] if str(step.get("uses", "")).startswith("actions/checkout"))
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert checkout["with"]["persist-credentials"] is False
    (check,) = [step for step in job["steps"] if ".ci/records" in str(step.get("run", ""))]
    assert check["run"].endswith("${MAINTAINER:+--maintainer}")
    assert "author_association" in check["env"]["MAINTAINER"], "whoever opens the pull request does not choose it"
    assert os.access(ROOT / ".ci" / "records", os.X_OK)
