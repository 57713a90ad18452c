"""What lies where on the board, and what may stand there: records, the archives they were verified from, and the verdicts on them.

``records/`` holds the results, one immutable file each, named by the record's id (rows from papers in ``records/reported``, the board's
own in ``records/reproduced``); ``artefacts/`` the archive of every submitted record, under the same name; ``verdicts/`` what verification
found, which a later verification replaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from zoo.errors import ZooError, first_problem
from zoo.evaluation.record import Record, read_record
from zoo.files import write_text_atomically
from zoo.submission.verdict import Verdict

BOARD = Path(__file__).parent
RECORDS, ARTEFACTS, VERDICTS = "records", "artefacts", "verdicts"
REPORTED, REPRODUCED = "reported", "reproduced"
"""Provenances whose records have a folder of their own in ``records/``."""
LARGEST_ARTEFACT_BYTES = 20 * 2**20
"""Of an archive in the repository; a larger one is published elsewhere and entered by the board's maintainers."""
_LARGEST_VERDICT_BYTES = 2**20


def record_file(record: Record, board: Path = BOARD) -> Path:
    """Where a record lies."""
    folder = board / RECORDS
    return (folder / record.provenance if record.provenance in (REPORTED, REPRODUCED) else folder) / f"{record.id}.json"


def record_files(board: Path = BOARD) -> list[Path]:
    """Every record of the board, sorted."""
    return sorted((board / RECORDS).rglob("*.json"))


def read_records(board: Path = BOARD) -> list[Record]:
    """The board's records; raises `ZooError` for the first that is not valid."""
    return [read_record(path) for path in record_files(board)]


def read_verdicts(board: Path = BOARD) -> dict[str, Verdict]:
    """Record id to the board's verdict on it; records without one have no entry.

    Raises:
        ZooError: one line for a verdict that is not valid, or is not named by its record.
    """
    verdicts = {}
    for path in sorted((board / VERDICTS).glob("*.json")):
        verdict = parse_verdict(_read(path), str(path))
        if verdict.record != path.stem:
            raise ZooError(f"{path}: a verdict on {verdict.record}; name the file by its record")
        verdicts[verdict.record] = verdict
    return verdicts


def parse_verdict(text: str, path: str) -> Verdict:
    """The verdict that ``text`` holds; raises `ZooError` in one line."""
    try:
        return Verdict.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{path}: {first.key or 'verdict'}: {first.message}; write it with python -m leaderboard.verify") from None


def write_verdict(verdict: Verdict, board: Path = BOARD) -> Path:
    """Write ``verdicts/<record id>.json``, in place of an earlier one."""
    path = board / VERDICTS / f"{verdict.record}.json"
    write_text_atomically(path, verdict.model_dump_json(indent=2) + "\n")
    return path


def clash(record: Record, others: Iterable[Record]) -> str | None:
    """Why ``record`` cannot be entered beside ``others``; None where it can.

    The same adapter file on the same data is the same result, whoever enters it, and whatever else the record says; so are the same
    predictions.
    """
    predictions = None if record.submission is None else record.submission.predictions_sha256
    for other in others:
        if other.id == record.id:
            return f"id {record.id} is on the board already; a result is entered once"
        known = f"on the board already for this protocol, as {other.id} of {other.author or 'nobody named'}"
        if record.data.protocol != other.data.protocol:
            continue
        if _adapter_file(record) is not None and _adapter_file(other) == _adapter_file(record):
            return f"this adapter file is {known}"
        if predictions is not None and other.submission is not None and other.submission.predictions_sha256 == predictions:
            return f"these predictions are {known}"
    return None


def _adapter_file(record: Record) -> str | None:
    return None if record.adapter is None else record.adapter.file_sha256


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_VERDICT_BYTES:
            raise ZooError(f"{path}: more than {_LARGEST_VERDICT_BYTES} bytes; is this a verdict?")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{path}: cannot be read as text ({error})") from None
