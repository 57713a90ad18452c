"""Check a pull request that adds results: ``python -m leaderboard.check_pull_request BASE [HEAD]``.

Run it from a checkout of BASE: the rules that judge a pull request are then not its own. HEAD is read out of git's objects alone.

A pull request may add files and touch none that is there: a record ``records/ID.json``, its archive ``artefacts/ID.zip`` and the verdict
``verdicts/ID.json`` that ``python -m leaderboard.add`` wrote. Each archive is verified here again, with a salt that its author could not
know. Rows that the board's maintainers enter (``reported`` from a paper, ``reproduced`` by us) need ``--maintainer``; of a reproduced row
the verdict alone will do, since ``zoo reproduce`` makes it again.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path, PurePosixPath

from leaderboard.entries import (
    ARTEFACTS,
    LARGEST_ARTEFACT_BYTES,
    RECORDS,
    REPORTED,
    REPRODUCED,
    VERDICTS,
    clash,
    parse_verdict,
    record_file,
)
from leaderboard.git_objects import Change, Repository
from leaderboard.verify import add_choice_arguments, choice_of
from zoo.errors import ZooError
from zoo.evaluation.record import LARGEST_RECORD_BYTES, Record, parse_record, record_text
from zoo.files import write_text_atomically
from zoo.submission.archive import parse_archive
from zoo.submission.recompute import Choice
from zoo.submission.verdict import Verdict
from zoo.submission.verify import one_line, verify_archive

BOARD_FOLDER = "leaderboard"
_SUFFIXES = {RECORDS: ".json", ARTEFACTS: ".zip", VERDICTS: ".json"}
MOST_RECORDS = 20
"""In one pull request by others than the maintainers; each is computed with."""
_MOST_WORDS = 200
_CLOCKS_DIFFER = timedelta(days=1)
_PLAIN_FILE = "100644"
_WORDS = {"M": "edits", "D": "deletes", "T": "changes the type of"}
_RECOMPUTED_HERE = {"verified", "versions", "recomputed"}


@dataclass(frozen=True)
class Outcome:
    """Reasons to refuse the pull request, one line each, and the verdicts on the records that it adds."""

    reasons: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Question:
    """A pull request: two commits of a repository, who asks, and which predictions are computed again."""

    repository: Repository
    base: str
    head: str
    choice: Choice
    by_maintainer: bool = False


def check(question: Question) -> Outcome:
    """Judge a pull request.

    Raises:
        ZooError: where the commits cannot be read, or the board of ``base`` holds a record that is not valid.
    """
    changes = question.repository.changes(question.base, question.head)
    ours = [change for change in changes if _place(change.path) is not None]
    if not ours:
        return Outcome((), ())
    reasons = _refused_changes(changes, ours, question.by_maintainer)
    added = {change.path for change in ours if change.status == "A" and change.mode == _PLAIN_FILE}
    verdicts: list[Verdict] = []
    others = _records_of(question.repository, question.base)  # as it is now: another pull request may have brought the same meanwhile
    records = sorted(path for path in added if _place(path) == RECORDS)
    if len(records) > MOST_RECORDS and not question.by_maintainer:
        reasons.append(f"{len(records)} records in one pull request, wanted at most {MOST_RECORDS}; make several")
        records = []
    for path in records:
        try:
            record = _record(question, path, others)
            verdict = _verdict_on(question, record, added)
        except ZooError as error:
            reasons.append(f"{path}: {error}")
            continue
        others.append(record)
        verdicts += [verdict] if verdict is not None else []
    known = {PurePosixPath(path).stem for path in added if _place(path) == RECORDS}
    for path in sorted(added):
        if _place(path) != RECORDS and PurePosixPath(path).stem not in known:
            reasons.append(f"{path}: belongs to no record of this pull request; add its record or leave it out")
    return Outcome(tuple(one_line(reason) for reason in reasons), tuple(verdicts))


def _place(path: str) -> str | None:
    """``records``, ``artefacts`` or ``verdicts``; None for files that are no part of the board."""
    parts = PurePosixPath(path).parts
    return parts[1] if len(parts) > 2 and parts[0] == BOARD_FOLDER and parts[1] in _SUFFIXES else None


def _refused_changes(changes: Sequence[Change], ours: Sequence[Change], by_maintainer: bool) -> list[str]:
    reasons = []
    others = [change.path for change in changes if _place(change.path) is None]
    if others and not by_maintainer:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        reasons.append(f"{others[0]}{more}: a pull request that adds results changes nothing else; put that into another one")
    for change in ours:
        place = _place(change.path) or ""
        folders = PurePosixPath(change.path).parts[2:-1]
        if change.status != "A":
            if not (place == VERDICTS and by_maintainer):
                word = _WORDS.get(change.status, "changes")
                reasons.append(f"{change.path}: {word} what is on the board; results are entered once and stay as they are")
        elif change.mode != _PLAIN_FILE:
            kind = {"120000": "a symbolic link", "100755": "an executable file", "160000": "a submodule"}.get(change.mode, change.mode)
            reasons.append(f"{change.path}: {kind}; add a plain file")
        elif folders and not (place == RECORDS and folders in ((REPORTED,), (REPRODUCED,))):
            reasons.append(f"{change.path}: too deep; the board has its files in {place}/ itself")
        elif not change.path.endswith(_SUFFIXES[place]):
            reasons.append(f"{change.path}: no {_SUFFIXES[place]} file; the board has nothing else in {place}/")
    return reasons


def _records_of(repository: Repository, commit: str) -> list[Record]:
    paths = [path for path in repository.files(commit, f"{BOARD_FOLDER}/{RECORDS}") if path.endswith(".json")]
    contents = repository.contents(commit, paths, LARGEST_RECORD_BYTES) if paths else {}
    return [parse_record(_text(content, path), path) for path, content in contents.items()]


def _record(question: Question, path: str, others: Sequence[Record]) -> Record:
    """A record that may be added; raises `ZooError` for any other."""
    content = question.repository.contents(question.head, [path], LARGEST_RECORD_BYTES)[path]
    record = parse_record(_text(content, path), PurePosixPath(path).name)
    wanted = record_file(record, Path(BOARD_FOLDER)).as_posix()
    if path != wanted:
        raise ZooError(f"not where the {record.provenance} record {record.id} belongs; rename it to {wanted}")
    if record_text(record).encode() != content:
        raise ZooError("not written as zoo submit writes records; take the .json that it wrote")
    if record.provenance != "submitted" and not question.by_maintainer:
        raise ZooError(f"provenance is {record.provenance!r}, and such rows are entered by the board's maintainers; submit a run instead")
    found = clash(record, others)
    if found is not None:
        raise ZooError(found)
    return record


def _verdict_on(question: Question, record: Record, added: set[str]) -> Verdict | None:
    """The verdict found here; None for a row without archive: from a paper, or of our own. Raises `ZooError` where it is refused."""
    artefact = f"{BOARD_FOLDER}/{ARTEFACTS}/{record.id}.zip"
    if record.provenance == REPORTED:
        return None
    if artefact not in added:
        if record.provenance == REPRODUCED and _stated_verdict(question, record.id, added) is not None:
            return None
        raise ZooError(f"its archive {artefact} is missing; python -m leaderboard.add puts it there")
    content = question.repository.contents(question.head, [artefact], LARGEST_ARTEFACT_BYTES)[artefact]
    archive = parse_archive(content, PurePosixPath(artefact).name)
    if archive.submission.record != record:
        raise ZooError(f"the record is not that of its archive, which holds {archive.submission.record.id}")
    judgement = verify_archive(archive, question.choice)
    if judgement.verdict is None:
        more = f" (and {len(judgement.reasons) - 1} more)" if len(judgement.reasons) > 1 else ""
        raise ZooError(f"{judgement.reasons[0]}{more}")
    _check_stated_verdict(question, judgement.verdict, added)
    return judgement.verdict


def _stated_verdict(question: Question, record: str, added: set[str]) -> Verdict | None:
    path = f"{BOARD_FOLDER}/{VERDICTS}/{record}.json"
    if path not in added:
        return None
    content = question.repository.contents(question.head, [path], LARGEST_RECORD_BYTES)[path]
    stated = parse_verdict(_text(content, path), PurePosixPath(path).name)
    if stated.record != record:
        raise ZooError(f"{path}: a verdict on {stated.record}; name the file by its record")
    return stated


def _check_stated_verdict(question: Question, found: Verdict, added: set[str]) -> None:
    stated = _stated_verdict(question, found.record, added)
    if stated is None:
        return
    if stated.badge != found.badge:
        claims = f"its verdict claims {stated.badge!r}, and verification here found {found.badge!r}"
        raise ZooError(f"{claims}; leave the verdict out, the board writes its own")
    if stated.model_dump(exclude=_RECOMPUTED_HERE) != found.model_dump(exclude=_RECOMPUTED_HERE) or _claims_more(stated, found):
        raise ZooError("its verdict is not what verification here finds; leave it out, the board writes its own")


def _claims_more(stated: Verdict, found: Verdict) -> bool:
    """Whether a verdict that has the right badge says that more was recomputed, or closer, than is believable."""
    words = [word for pair in stated.versions.items() for word in pair]
    if stated.verified > found.verified + _CLOCKS_DIFFER or len(words) > _MOST_WORDS or not _plain(words):
        return True
    if stated.recomputed is None or found.recomputed is None:
        return stated.recomputed is not found.recomputed
    theirs, ours = stated.recomputed, found.recomputed
    within = all(value <= getattr(ours.tolerated, name) for name, value in theirs.largest.model_dump().items())
    return not (
        within
        and _plain((theirs.salt, theirs.device))
        and theirs.frames <= ours.frames
        and (theirs.of, theirs.tolerated) == (ours.of, ours.tolerated)
    )


def _plain(words: Iterable[str]) -> bool:
    return all(len(word) <= 100 and word.isprintable() for word in words)


def _text(content: bytes, path: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ZooError(f"{path}: not UTF-8 text") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Check one pull request; returns the exit status, 1 where it is refused."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.check_pull_request", description="Check a pull request that adds results.")
    parser.add_argument("base", help="commit that it is to be merged into")
    parser.add_argument("head", nargs="?", default="HEAD", help="its last commit")
    parser.add_argument("--repository", type=Path, default=Path(), help="a folder of the repository")
    parser.add_argument("--maintainer", action="store_true", help="rows from papers and of our own may be added, and code changed")
    parser.add_argument("--verdicts", type=Path, help="folder to write the verdicts found here to")
    add_choice_arguments(parser)
    words = parser.parse_args(arguments)
    try:
        choice = choice_of(words)
        choice = choice if choice.salt else replace(choice, salt=secrets.token_hex(8))
        outcome = check(Question(Repository.around(words.repository), words.base, words.head, choice, words.maintainer))
        for verdict in outcome.verdicts if words.verdicts is not None and not outcome.reasons else ():
            _write(words.verdicts, verdict)
    except ZooError as error:
        print(error, file=sys.stderr)
        return 1
    for verdict in outcome.verdicts:
        print(f"verified {verdict.record}: {verdict.badge}")
    for reason in outcome.reasons:
        print(f"refused  {reason}")
    if not outcome.reasons and not outcome.verdicts:
        print("no submitted result is added")
    return 1 if outcome.reasons else 0


def _write(folder: Path, verdict: Verdict) -> None:
    write_text_atomically(folder / f"{verdict.record}.json", verdict.model_dump_json(indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
