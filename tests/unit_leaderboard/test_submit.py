"""`zoo submit` and `zoo verify` as a stranger uses them, and what a finished run keeps for them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from leaderboard import add, entries
from leaderboard.verify import judge
from leaderboard.verify import main as verify_main
from tests.refusals import lacks, refusal_of
from tests.unit_leaderboard.forgery import TEST_SET, Forger
from zoo.cli import main
from zoo.data.splits import frame_sha256
from zoo.evaluation.prediction_files import parse_predictions
from zoo.evaluation.record import read_record
from zoo.submission import commands
from zoo.submission.archive import archive_at, parse_archive, read_archive
from zoo.submission.recompute import Choice
from zoo.submission.statement import check_statement
from zoo.submission.submit import Statement, submit

AUTHOR = Statement("A. Person", "CC-BY-4.0")


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run that a test may change."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def refusal_on_screen(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_finished_run_keeps_the_predictions_of_its_test_frames_in_order(tiny_run: Path, forger: Forger) -> None:
    saved = parse_predictions((tiny_run / "predictions.npz").read_bytes(), "npz")
    assert list(saved) == [TEST_SET]
    assert list(saved[TEST_SET].frame_sha256) == [frame_sha256(frame) for frame in forger.frames()]
    with np.load(tiny_run / "predictions.npz", allow_pickle=False) as arrays:  # any other tool reads it too
        assert arrays[f"{TEST_SET}/energies"].dtype == np.float64
        assert arrays[f"{TEST_SET}/forces"].shape == (sum(map(len, forger.frames())), 3)


def test_submitting_twice_gives_the_same_bytes(run: Path, honest: Path) -> None:
    assert submit(run, AUTHOR, choice=Choice(most=0)).archive.read_bytes() == honest.read_bytes()


def test_two_commands_lead_from_a_run_to_the_board(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["submit", str(run), "author=A. Person", "licence=CC-BY-4.0", "frames=2"])
    said = capsys.readouterr().out
    assert not lacks(
        said, "verified sevennet-0.elora.emt-cuau.s0-", "2 of 6 test frames", f"python -m leaderboard.add {run / 'submission.zip'}"
    )
    words = [str(run / "submission.zip"), "--board", str(tmp_path / "board"), "--site", str(tmp_path / "site"), "--frames", "2"]
    assert add.main(words) == 0
    said = capsys.readouterr().out
    assert said.count("wrote ") == 3
    assert f"site     1 records, open {tmp_path / 'site' / 'index.html'}" in said
    (record,) = entries.read_records(tmp_path / "board")
    assert not lacks(
        said,
        f"next     git add {tmp_path / 'board' / 'records' / record.id}.json ",
        f"its page {tmp_path / 'site' / 'records' / record.id}.html",
    )
    assert (record.provenance, record.author, record.licence) == ("submitted", "A. Person", "CC-BY-4.0")
    assert entries.read_verdicts(tmp_path / "board")[record.id].badge == "predictions recomputed from base + adapter"
    artefact = tmp_path / "board" / "artefacts" / f"{record.id}.zip"
    assert read_archive(artefact).submission.record == record
    assert read_record(run / "submission.json") == record
    page = (tmp_path / "site" / "records" / f"{record.id}.html").read_text()
    assert not lacks(page, record.id, "A. Person", "predictions recomputed from base + adapter")
    assert record.id in (tmp_path / "site" / "data.js").read_text()


def test_a_result_is_entered_even_where_its_site_cannot_be_built(honest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.tex").write_text("years of work")
    words = [str(honest), "--board", str(tmp_path / "board"), "--site", str(tmp_path / "site"), "--frames", "0"]
    assert add.main(words) == 1
    said = capsys.readouterr()
    assert said.out.count("wrote ") == 3
    assert not lacks(said.err, "no site of ours", "the result is entered", "leaderboard.build")
    assert (tmp_path / "site" / "thesis.tex").read_text() == "years of work"


def test_the_site_can_be_left_alone(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert add.main([str(honest), "--board", str(tmp_path / "records-of-ours"), "--frames", "0", "--no-site"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["records-of-ours"]


def test_the_record_is_the_runs_own_without_what_a_submission_cannot_prove(run: Path, honest: Path) -> None:
    own, submitted = read_record(run / "record.json"), read_archive(honest).submission.record
    same = ("base", "adapter", "seed", "reference_energies", "training", "cost", "versions", "git_commit", "created", "metrics")
    assert [name for name in same if getattr(own, name) != getattr(submitted, name)] == []
    assert submitted.zero_shot_metrics == ()
    assert submitted.submission is not None


def test_residuals_of_the_trained_model_are_stated_where_asked_for_and_recomputed(run: Path) -> None:
    done = submit(run, Statement("A. Person", "MIT", equivariance=True), choice=Choice(most=1))
    residual = done.record.equivariance_residual
    assert residual is not None
    assert max(value for name, value in residual.items() if name.startswith("rotation")) < 1e-10
    assert done.judgement.accepted


def test_a_run_from_random_weights_is_recomputed_from_its_seed(tmp_path: Path) -> None:
    from tests.unit_leaderboard.conftest import TINY_RUN
    from zoo.compose import compose
    from zoo.training.config import parse_config
    from zoo.training.run import fine_tune

    words = [word for word in TINY_RUN if not word.startswith("adapter")]
    words += ["strategy=scratch", "adapter=full", "training.seed=5", f"run.folder={tmp_path / 'scratch'}", "run.name=scratch"]
    fine_tune(parse_config(compose("train", words)), say=lambda _: None)
    verdict = submit(tmp_path / "scratch", AUTHOR, choice=Choice(most=1)).judgement.verdict
    assert verdict is not None
    assert verdict.badge == "predictions recomputed from base + adapter", verdict.notes


def test_a_run_without_kept_predictions_predicts_them_again(run: Path, honest: Path) -> None:
    (run / "predictions.npz").unlink()
    done = submit(run, AUTHOR, choice=Choice(most=0))
    again, before = (parse_predictions(read_archive(path).submission.predictions, "npz")[TEST_SET] for path in (done.archive, honest))
    assert again.frame_sha256 == before.frame_sha256
    assert np.abs(again.forces - before.forces).max() < 1e-5


def test_a_changed_run_is_refused_and_leaves_nothing(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    assert record["metrics"]
    (run / "record.json").write_text((run / "record.json").read_text().replace('"value": ', '"value": 1', 1))
    assert not lacks(refusal_of(submit, run, AUTHOR), "record.json", "damaged")
    assert not (run / "submission.zip").exists()


def test_what_the_board_would_refuse_is_refused_here_and_leaves_nothing(run: Path) -> None:
    message = refusal_of(submit, run, Statement("A. Person", "secret"), choice=Choice(most=0))
    assert not lacks(message, "the board would refuse this", "licence is 'secret'")
    assert not (run / "submission.zip").exists()


def test_a_run_that_another_process_works_on_is_refused(run: Path) -> None:
    with FileLock(run / ".lock"):
        message = refusal_of(submit, run, AUTHOR, choice=Choice(most=0))
    assert not lacks(message, str(run), "another process is running it", "wait until that ends")
    assert not (run / "submission.zip").exists()
    assert submit(run, AUTHOR, choice=Choice(most=0)).judgement.accepted, "the positive control"


def test_an_older_submission_stays_where_a_new_one_is_refused(run: Path, honest: Path) -> None:
    shutil.copyfile(honest, run / "submission.zip")
    predictions = bytearray((run / "predictions.npz").read_bytes())
    predictions[len(predictions) // 2] ^= 1
    (run / "predictions.npz").write_bytes(predictions)
    assert "predictions.npz" in refusal_of(submit, run, AUTHOR, choice=Choice(most=0))
    assert (run / "submission.zip").read_bytes() == honest.read_bytes()


def changed_config(run: Path, old: str, new: str) -> None:
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new, 1))


UNFIT: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "unfinished": (lambda run: (run / "adapter.safetensors").unlink(), ("no adapter.safetensors yet", "run.resume=true")),
    "without a record": (lambda run: (run / "record.json").unlink(), ("record.json", "missing", "run.resume=true")),
    "without a config": (lambda run: (run / "config.yaml").unlink(), ("not a run folder",)),
    "without a test set": (lambda run: changed_config(run, "n_test: 6", "n_test: null"), ("no test set", "data.test=")),
    "a file of one's own": (lambda run: changed_config(run, "name: emt-cuau", "name: file"), ("a file of your own", "card for the set")),
    "a base of one's own": (lambda run: changed_config(run, "name: sevennet-0", "name: mine.pth"), ("mine.pth has no card",)),
    "a folder for a config": (lambda run: ((run / "config.yaml").unlink(), (run / "config.yaml").mkdir()), ("not a run folder",)),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "reason"), UNFIT.values(), ids=UNFIT)
def test_a_run_that_cannot_be_entered_says_why_in_one_line(
    spoil: Callable[[Path], object], reason: tuple[str, ...], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    message = refusal_on_screen(["submit", str(run), "author=A. Person", "licence=MIT", "frames=0"], capsys)
    assert not lacks(message, str(run), *reason), message
    assert not (run / "submission.zip").exists()


@pytest.mark.parametrize("command", ["submit", "verify"])
def test_the_help_says_every_key(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "--help"])
    said = capsys.readouterr().out
    keys = {"submit": commands.SUBMIT_KEYS, "verify": commands.VERIFY_KEYS}[command]
    assert not lacks(said, f"usage: zoo {command}", *(f"{key}=" for key in keys)), said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], ("zoo verify takes an archive",)),
        (["a.zip", "b.zip"], ("found: a.zip b.zip",)),
        (["absent.zip"], ("absent.zip", "no such file")),
        (["absent.zip", "frame=1"], ("unknown key 'frame'", "frames")),
        (["absent.zip", "frames=-1"], ("frames=-1",)),
        (["absent.zip", "device=gpu"], ("device=gpu", "cpu")),
    ],
)
def test_a_mistake_in_the_words_of_zoo_verify_is_one_line(
    words: list[str], reason: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not lacks(refusal_on_screen(["verify", *words], capsys), *reason)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["RUN", "author=A", "licence=MIT"], ("author is 'A'", "2 to 200 characters")),
        (["RUN", "author=A. Person", "licence=GPL"], ("licence is 'GPL'", "CC-BY-4.0")),
        (["RUN", "author=A. Person", "licence=MIT", "device=gpu"], ("device=gpu", "cpu")),
        (["RUN", "author=A. Person", "licence=MIT", "output=RUN/x.json"], ("x.json", ".zip")),
        ([], ("zoo submit takes the folder of a finished run",)),
        (["RUN", "licence=MIT"], ("author is missing",)),
        (["RUN", "author=A. Person"], ("licence is missing", "CC-BY-4.0")),
        (["RUN", "autor=A. Person"], ("unknown key 'autor'", "author")),
        (["RUN", "author=A. Person", "licence=MIT", "frames=some"], ("frames=some", "all")),
        (["RUN", "author=A. Person", "licence=MIT", "reproduced=yes"], ("reproduced=yes", "true or false")),
        (["nowhere", "author=A. Person", "licence=MIT"], ("nowhere", "not a run folder")),
    ],
)
def test_a_mistake_in_the_words_is_one_line(
    words: list[str], reason: tuple[str, ...], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal_on_screen(["submit", *(word.replace("RUN", str(run)) for word in words)], capsys)
    assert not lacks(message, *reason), message


def test_zoo_verify_prints_every_reason_and_fails(honest: Path, tmp_path: Path, forger: Forger, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(honest), "frames=0"])
    assert not lacks(capsys.readouterr().out, "verified", "metrics recomputed from predictions", "the base was not loaded, as asked for")

    def change(fields: dict) -> None:
        fields.update(licence=None, author=None)

    forged = tmp_path / "forged.zip"
    forged.write_bytes(forger.sealed(change).archive())
    with pytest.raises(SystemExit):
        main(["verify", str(forged), "frames=0"])
    said = capsys.readouterr()
    assert said.out.count("refused  ") == 2
    assert not lacks(said.err, "forged.zip", "refused for 2 reasons")


def test_what_is_no_archive_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.zip").write_bytes(b"hello")
    assert verify_main([str(tmp_path / "x.zip"), "--board", str(tmp_path)]) == 1
    refused = f"refused  {tmp_path / 'x.zip'}: not a zip file, or has bytes before one; write it with zoo submit\n"
    assert capsys.readouterr().out == refused


def test_where_no_archive_is_one_line_says_what_to_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = str(tmp_path / "absent.zip")
    assert verify_main([absent, "--board", str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", f"{absent}: no such file, wanted an archive; zoo submit RUN writes one\n")
    assert not lacks(refusal_on_screen(["verify", absent], capsys), f"{absent}: no such file, wanted an archive")
    assert not lacks(refusal_of(archive_at, tmp_path), "a folder, wanted an archive; zoo submit RUN writes one")
    (tmp_path / "submission.zip").touch()
    assert not lacks(refusal_of(archive_at, tmp_path), f"name {tmp_path / 'submission.zip'}")


@pytest.mark.parametrize(("name", "said"), [("adapter.safetensors", "ends in .zip"), ("record.zip", "record.json: is there")])
def test_no_file_of_the_run_is_written_over(name: str, said: str, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert not lacks(refusal_of(submit, run, AUTHOR, run / name, Choice(0)), said, "choose another output=")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_licence_in_other_letters_is_named() -> None:
    assert not lacks(refusal_of(check_statement, Statement("A. Person", "CC BY 4.0")), "did you mean 'CC-BY-4.0'?")
    assert "did you mean" not in refusal_of(check_statement, Statement("A. Person", "WTFPL"))


def test_a_result_is_entered_once_whoever_enters_it(honest: Path, tmp_path: Path, forger: Forger) -> None:
    record = forger.submission.record
    assert judge(honest, Choice(0), []).accepted
    (reason,) = judge(honest, Choice(0), [record]).reasons
    assert not lacks(reason, record.id, "on the board already")
    stolen = tmp_path / "stolen.zip"
    stolen.write_bytes(forger.sealed(lambda fields: fields.update(author="B. Other")).archive())
    (reason,) = judge(stolen, Choice(0), [record]).reasons
    assert not lacks(reason, "this adapter file is on the board already", record.id, "of A. Person")


def test_an_archive_larger_than_the_board_keeps_is_refused(honest: Path) -> None:
    (reason,) = judge(honest, Choice(0), [], most_bytes=1000).reasons
    assert not lacks(reason, f"{honest.stat().st_size} bytes", "at most 1000")


def test_a_refused_archive_is_not_entered(forger: Forger, tmp_path: Path) -> None:
    forged = tmp_path / "forged.zip"
    forged.write_bytes(forger.sealed(lambda fields: fields.update(author=None)).archive())
    judgement, written = add.add(forged, Choice(0), tmp_path / "board")
    assert not judgement.accepted
    assert written == []
    assert not (tmp_path / "board").exists()


def test_an_archive_holds_no_path_of_the_machine(honest: Path, tiny_run: Path) -> None:
    submission = parse_archive(honest.read_bytes(), "s").submission
    texts = (json.dumps(submission.config), submission.record.model_dump_json(), honest.read_bytes().decode("latin-1"))
    assert all(str(tiny_run.parent) not in text for text in texts)
    assert io.BytesIO(honest.read_bytes()).read(4) == b"PK\x03\x04"
