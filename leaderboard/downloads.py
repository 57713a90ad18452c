"""The files that the site offers: archives of verified submissions, and adapters out of them or found in a folder by their hash."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leaderboard.entries import ARTEFACTS
from zoo.digests import file_sha256
from zoo.errors import ZooError
from zoo.evaluation.record import Record
from zoo.submission.archive import read_archive
from zoo.submission.verdict import Verdict

ARCHIVES, ADAPTERS = "archives", "adapters"


@dataclass(frozen=True)
class Downloads:
    """Addresses, as seen from a record's page: of archives by record id, of adapters by SHA-256."""

    archives: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)


def put_downloads(
    records: Sequence[Record], verdicts: Mapping[str, Verdict], board: Path | None, adapters_folder: Path | None, out: Path
) -> Downloads:
    """Copy what can be offered below ``out``.

    An archive is offered if the board's verdict is on that very file, and its adapter with it: what nobody has opened is not passed on.

    Raises:
        ZooError: one line for an archive that is not the one that was verified.
    """
    for name in (ARCHIVES, ADAPTERS):
        shutil.rmtree(out / name, ignore_errors=True)
    found = Downloads()
    wanted = {record.adapter.file_sha256 for record in records if record.adapter and record.adapter.file_sha256}
    for path in sorted(adapters_folder.rglob("*.safetensors")) if adapters_folder else ():
        digest = file_sha256(path)
        if digest in wanted and digest not in found.adapters:
            _put(path, out / ADAPTERS / f"{digest}.safetensors")
            found.adapters[digest] = f"../{ADAPTERS}/{digest}.safetensors"
    for record, archive in _archives(records, verdicts, board):
        _put(archive, out / ARCHIVES / archive.name)
        found.archives[record.id] = f"../{ARCHIVES}/{archive.name}"
        sha = record.adapter.file_sha256 if record.adapter else None
        if sha and sha not in found.adapters:
            _write(read_archive(archive).submission.adapter, out / ADAPTERS / f"{sha}.safetensors")
            found.adapters[sha] = f"../{ADAPTERS}/{sha}.safetensors"
    return found


def _archives(records: Sequence[Record], verdicts: Mapping[str, Verdict], board: Path | None) -> Iterator[tuple[Record, Path]]:
    for record in records if board else ():
        verdict = verdicts.get(record.id)
        path = board / ARTEFACTS / f"{record.id}.zip" if board else None
        if verdict is None or path is None or not path.is_file():
            continue
        if file_sha256(path) != verdict.archive_sha256:
            raise ZooError(f"{path}: not the archive that was verified, its SHA-256 is not the verdict's; verify it again")
        yield record, path


def _write(content: bytes | None, target: Path) -> None:
    assert content is not None  # the record has an adapter, and so has its archive
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
