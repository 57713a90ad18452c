"""One verified file from a published address: resumed, checked, and put in place only when complete.

Bytes go to ``<name>.part`` beside the destination and the finished file is renamed, so a reader never sees half a file. A lock
beside it makes a second process wait and then find the finished file.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from zoo.errors import ZooError

_CHUNK_BYTES = 1 << 16
_ATTEMPTS = 3
_TIMEOUT_SECONDS = 60.0
_SCHEMES = ("https", "http", "file")


@dataclass(frozen=True)
class _Job:
    url: str
    destination: Path
    sha256: str | None
    size: int | None
    description: str

    @property
    def part(self) -> Path:
        return self.destination.with_name(self.destination.name + ".part")

    def by_hand(self) -> str:
        return f"fetch {self.url} by hand and place it at {self.destination} (data sets: in any folder of ZOO_DATA)"


class _Interrupted(Exception):
    """The connection ended early; what arrived is kept and the next attempt continues there."""


def fetch(url: str, destination: Path, *, sha256: str | None, size: int | None = None, description: str = "") -> Path:
    """Bring ``url`` to ``destination``; does nothing where that file is there already and passes its checks.

    Args:
        url: an ``https``, ``http`` or ``file`` address.
        destination: the final path; its folder is created.
        sha256: the expected SHA-256 in hexadecimal, or None where nobody has verified one (the caller remembers what it saw).
        size: the expected number of bytes, where known.
        description: how the progress bar and errors name the file; its name by default.

    Returns:
        ``destination``.

    Raises:
        ZooError: no network, an answer other than success, a transfer that stays incomplete, a wrong size or SHA-256, or a disk that
            cannot take the file. ``destination`` is then as it was before.
    """
    job = _Job(url, destination, sha256, size, description or destination.name)
    if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
        raise ZooError(f"{job.description}: {url!r} is not an address of a kind that can be fetched ({', '.join(_SCHEMES)})")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(destination.with_name(destination.name + ".lock")):
            if not _complete(job):
                _transfer(job)
    except OSError as error:
        raise ZooError(f"{job.destination}: cannot be written ({error}); free space or choose another folder with ZOO_CACHE") from error
    return destination


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _complete(job: _Job) -> bool:
    if not job.destination.is_file():
        return False
    if job.size is not None and job.destination.stat().st_size != job.size:
        return False
    return job.sha256 is None or file_sha256(job.destination) == job.sha256


def _transfer(job: _Job) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        resumed = job.part.exists()
        try:
            _append(job)
        except _Interrupted as error:
            if attempt == _ATTEMPTS:
                raise ZooError(
                    f"{job.description}: the transfer from {job.url} broke off {_ATTEMPTS} times ({error}); "
                    f"run again to continue it, or {job.by_hand()}"
                ) from error
            continue
        except OSError:
            # a full disk gets its space back; an interrupted transfer, above, keeps what arrived
            job.part.unlink(missing_ok=True)
            raise
        problem = _mismatch(job)
        if problem is None:
            os.replace(job.part, job.destination)
            return
        job.part.unlink()
        # the beginning may stem from an older version of the file: one clean attempt before giving up
        if not resumed or attempt == _ATTEMPTS:
            raise ZooError(f"{job.description}: {job.url} gave {problem}; the file was discarded: check the address, or {job.by_hand()}")


def _mismatch(job: _Job) -> str | None:
    found_size = job.part.stat().st_size
    if job.size is not None and found_size != job.size:
        return f"{found_size} bytes where {job.size} are expected"
    if job.sha256 is not None and (found := file_sha256(job.part)) != job.sha256:
        return f"SHA-256 {found} where {job.sha256} is expected"
    return None


def _append(job: _Job) -> None:
    """Fetch what ``part`` lacks, from the start where the server cannot continue."""
    have = job.part.stat().st_size if job.part.exists() else 0
    # the part is opened last: an address that does not answer must not leave an empty file
    with _open(job, have) as (response, start, total), job.part.open("ab" if start else "wb") as sink, _progress() as progress:
        bar = progress.add_task(job.description, total=total, completed=start)
        while chunk := _read(response):
            sink.write(chunk)
            progress.update(bar, advance=len(chunk))
        sink.flush()
        os.fsync(sink.fileno())
        arrived = sink.tell()
    if total is not None and arrived < total:
        raise _Interrupted(f"{arrived} of {total} bytes arrived")


@contextmanager
def _open(job: _Job, have: int) -> Iterator[tuple[IO[bytes], int, int | None]]:
    """The response, the offset at which its first byte belongs, and the whole file's size where the server tells it."""
    request = urllib.request.Request(job.url, headers={"User-Agent": "equizoo"})
    if have and not job.url.startswith("file:"):
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is as long as the file, or longer: it cannot be continued
            job.part.unlink()
            raise _Interrupted("the server refused to continue the partial file") from error
        raise ZooError(f"{job.description}: {job.url} answered {error.code} {error.reason}; {job.by_hand()}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise ZooError(f"{job.description}: {job.url} cannot be reached ({reason}); with no network, {job.by_hand()}") from error
    with response:
        length = response.headers.get("Content-Length")
        resumed = re.match(rf"bytes {have}-", response.headers.get("Content-Range") or "") if have else None
        start = have if resumed is not None and response.status == 206 else 0
        yield response, start, start + int(length) if length is not None else job.size


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True)
