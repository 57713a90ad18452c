"""The archive of a submission: record, full config, adapter file, predictions, and a manifest with their hashes, in one stored zip.

Reading it believes nothing: every member has a limit, no member is run, unpickled or written to the disk under its own name, and each has
exactly the bytes that `zoo submit` would write for what it says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue, NonNegativeInt, ValidationError

from zoo.errors import ZooError, first_problem
from zoo.evaluation.prediction_files import LARGEST_PREDICTIONS_BYTES
from zoo.evaluation.record import LARGEST_RECORD_BYTES, Record, parse_record, record_text
from zoo.evaluation.record_parts import RecordPart, Sha256, Text
from zoo.stored_zip import read_stored_zip, stored_zip

FORMAT_VERSION = 1
DEFAULT_NAME = "submission.zip"
"""Of a run's archive, in its folder."""
MANIFEST, RECORD, CONFIG, ADAPTER, PREDICTIONS = "manifest.json", "record.json", "config.json", "adapter.safetensors", "predictions.npz"
MOST_BYTES: dict[str, int] = {
    MANIFEST: 2**16,
    RECORD: LARGEST_RECORD_BYTES,
    CONFIG: 2**20,
    ADAPTER: 2**29,
    PREDICTIONS: LARGEST_PREDICTIONS_BYTES,
}
"""The members of an archive, all of which must be there (but for the adapter file of a base without), and the most bytes of each."""
_DEEPEST = 20
LARGEST_ARCHIVE_BYTES = sum(MOST_BYTES.values()) + 2**16


class FileEntry(RecordPart):
    """One member's size and hash."""

    bytes: NonNegativeInt
    sha256: Sha256


class SubmissionManifest(RecordPart):
    """The table of an archive: format, the record's id, and every other member."""

    format: Literal["equizoo-submission"] = "equizoo-submission"
    format_version: Literal[1] = 1
    record: Text
    files: dict[Text, FileEntry]


@dataclass(frozen=True)
class Submission:
    """What an archive holds.

    Attributes:
        record: the result as the board would show it.
        config: the run's full configuration, as `record.training`; of a base without adapter, how it was evaluated
            (`zoo.submission.zero_shot`).
        adapter: content of the adapter file; None for a base without.
        predictions: content of the npz (`zoo.evaluation.prediction_files`).
    """

    record: Record
    config: dict[str, JsonValue]
    adapter: bytes | None
    predictions: bytes

    def members(self) -> dict[str, bytes]:
        """Member name to content."""
        contents = {
            RECORD: record_text(self.record).encode(),
            CONFIG: canonical_json(self.config).encode(),
            PREDICTIONS: self.predictions,
        }
        if self.adapter is not None:
            contents[ADAPTER] = self.adapter
        files = {name: FileEntry(bytes=len(content), sha256=sha256_of(content)) for name, content in contents.items()}
        manifest = SubmissionManifest(record=self.record.id, files=files)
        return {MANIFEST: canonical_json(manifest.model_dump(mode="json")).encode(), **contents}

    def archive(self) -> bytes:
        """The archive's content; equal submissions give equal bytes."""
        return stored_zip(self.members())


@dataclass(frozen=True)
class ArchiveFile:
    """An archive as it was read: what it holds, and which file it was."""

    submission: Submission
    sha256: str
    bytes: int


def archive_at(path: str | Path) -> Path:
    """``path``; raises `ZooError` where no file is there, with the archive of a run whose folder it is."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    inside = path / DEFAULT_NAME
    remedy = f"name {inside}" if inside.is_file() else "zoo submit RUN writes one"
    raise ZooError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, wanted an archive; {remedy}")


def read_archive(path: Path) -> ArchiveFile:
    """Read an archive; raises `ZooError`, in one line, as `parse_archive`, and where the file cannot be read or is too large."""
    try:
        size = path.stat().st_size
        if size > LARGEST_ARCHIVE_BYTES:
            raise ZooError(f"{path}: {size} bytes, a submission has at most {LARGEST_ARCHIVE_BYTES}; is this another file?")
        content = path.read_bytes()
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror or error}); pass the archive that zoo submit wrote") from None
    return parse_archive(content, str(path))


def parse_archive(content: bytes, where: str, most_bytes: Mapping[str, int] = MOST_BYTES) -> ArchiveFile:
    """What ``content`` holds.

    Args:
        content: of the archive.
        where: how errors name it.
        most_bytes: limits of the members.

    Raises:
        ZooError: one line for the first thing that is not as `Submission.archive` writes it.
    """
    members = read_stored_zip(content, where, most_bytes)
    missing = [name for name in MOST_BYTES if name not in members and name != ADAPTER]
    if missing:
        raise ZooError(f"{where}: has no {missing[0]}; write it with zoo submit")
    manifest = _parse_manifest(members[MANIFEST], f"{where}: {MANIFEST}")
    for name, content_of_member in members.items():
        if name != MANIFEST:
            _check_entry(name, content_of_member, manifest, where)
    record = parse_record(_text(members[RECORD], f"{where}: {RECORD}"), f"{where}: {RECORD}")
    if record_text(record).encode() != members[RECORD]:
        raise ZooError(f"{where}: {RECORD} is not written as zoo submit writes it (spaces, order of keys or spelling of numbers)")
    if manifest.record != record.id:
        raise ZooError(f"{where}: {MANIFEST} is of the record {manifest.record}, the archive holds {record.id}")
    if (record.adapter is None) == (ADAPTER in members):
        found = "an" if ADAPTER in members else "no"
        raise ZooError(f"{where}: has {found} {ADAPTER}, and the record says otherwise; write it with zoo submit")
    config = parse_canonical_json(members[CONFIG], f"{where}: {CONFIG}")
    submission = Submission(record, config, members.get(ADAPTER), members[PREDICTIONS])
    return ArchiveFile(submission, sha256_of(content), len(content))


def sha256_of(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def canonical_json(value: Any) -> str:
    """The one JSON text of ``value``: sorted keys, no spaces, ASCII; raises ValueError for numbers that are not finite."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def parse_canonical_json(content: bytes, where: str) -> dict[str, JsonValue]:
    """A JSON object in the only form that is accepted: a key that is there twice, or another spelling, is another text.

    Raises:
        ZooError: one line.
    """
    text = _text(content, where)
    try:
        value = json.loads(text)
        canonical = isinstance(value, dict) and canonical_json(value) == text
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{where}: not valid JSON ({(str(error).splitlines() or ['nested too deeply'])[0][:80]})") from None
    if not canonical:
        raise ZooError(f"{where}: not canonical JSON (keys sorted and once each, no spaces); write it with zoo submit")
    found: dict[str, JsonValue] = value
    return found


def _check_depth(value: object, left: int = _DEEPEST) -> None:
    """Refuse what is nested deeper than any configuration; raises ValueError. Whoever compares or shows it later recurses too."""
    if isinstance(value, dict | list):
        if left == 0:
            raise ValueError(f"nested more than {_DEEPEST} deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def _parse_manifest(content: bytes, where: str) -> SubmissionManifest:
    values = parse_canonical_json(content, where)
    if values.get("format_version") != FORMAT_VERSION:
        raise ZooError(f"{where}: format_version {values.get('format_version')!r}, this equizoo reads {FORMAT_VERSION}; update equizoo")
    try:
        return SubmissionManifest.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{where}: {first.key or 'manifest'}: {first.message}; write it with zoo submit") from None


def _check_entry(name: str, content: bytes, manifest: SubmissionManifest, where: str) -> None:
    if name not in manifest.files:
        raise ZooError(f"{where}: {MANIFEST} does not list {name}; write it with zoo submit")
    unknown = [listed for listed in manifest.files if listed not in MOST_BYTES]
    if unknown:
        raise ZooError(f"{where}: {MANIFEST} lists {unknown[0][:80]!r}, which the archive does not hold")
    wanted, found = manifest.files[name].sha256, sha256_of(content)
    if wanted != found or manifest.files[name].bytes != len(content):
        raise ZooError(
            f"{where}: {name} has SHA-256 {found[:12]}..., {MANIFEST} says {wanted[:12]}...; it was changed after it was written"
        )


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ZooError(f"{where}: not UTF-8 text; write it with zoo submit") from None
