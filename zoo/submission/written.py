"""An archive and its record on the disk, once the verifier has accepted them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ZooError
from zoo.evaluation.record import Record, read_record, write_record
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
        ZooError: where the verifier refuses it, with the first of its reasons, the names are not those of an archive and its record, or
            the files cannot be written; nothing is written then.
    """
    record_file = archive.with_suffix(".json")
    _check_names(archive, record_file)
    content = submission.archive()
    judgement = verify_archive(parse_archive(content, archive.name), choice)
    if not judgement.accepted:
        more = f" (and {len(judgement.reasons) - 1} more)" if len(judgement.reasons) > 1 else ""
        raise ZooError(f"{where}: the board would refuse this: {judgement.reasons[0]}{more}")
    write_atomically(archive, lambda partial: partial.write_bytes(content))
    write_record(record_file, submission.record)
    return Submitted(archive, record_file, submission.record, judgement)


def _check_names(archive: Path, record_file: Path) -> None:
    """An earlier submission may be written over, and nothing else: a run's own record and adapter lie in the same folder."""
    if archive.suffix != ".zip":
        raise ZooError(f"{archive}: an archive's name ends in .zip, and its record is written beside it as .json; choose another output=")
    if not record_file.exists():
        return
    try:
        submitted = read_record(record_file).submission is not None
    except ZooError:
        submitted = False
    if not submitted:
        raise ZooError(f"{record_file}: is there and no record of a submission, which would be written over it; choose another output=")
