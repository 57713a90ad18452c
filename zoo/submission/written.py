"""An archive and its record on the disk, once the verifier has accepted them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ZooError
from zoo.evaluation.record import Record, write_record
from zoo.files import write_atomically
from zoo.submission.archive import Submission, parse_archive
from zoo.submission.recompute import Choice
from zoo.submission.verify import Judgement, verify_archive


@dataclass(frozen=True)
class Submitted:
    """What was written: the archive, the record beside it, and what the verifier says of them."""

    archive: Path
    record_file: Path
    record: Record
    judgement: Judgement


def write_submission(submission: Submission, archive: Path, choice: Choice, where: str) -> Submitted:
    """Verify a submission as the board will, and write its archive and, beside it as ``.json``, its record.

    Raises:
        ZooError: where the verifier refuses it, with the first of its reasons, or the files cannot be written; nothing is written then.
    """
    if archive.suffix == ".json":
        raise ZooError(f"{archive}: the record is written beside the archive as .json; name the archive .zip")
    content = submission.archive()
    judgement = verify_archive(parse_archive(content, archive.name), choice)
    if not judgement.accepted:
        more = f" (and {len(judgement.reasons) - 1} more)" if len(judgement.reasons) > 1 else ""
        raise ZooError(f"{where}: the board would refuse this: {judgement.reasons[0]}{more}")
    record_file = archive.with_suffix(".json")
    write_atomically(archive, lambda partial: partial.write_bytes(content))
    write_record(record_file, submission.record)
    return Submitted(archive, record_file, submission.record, judgement)
