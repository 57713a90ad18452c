"""One verified file from a published address: resumed, checked, and put in place only when complete.

Bytes go to ``<name>.part`` beside the destination and the finished file is renamed, so a reader never sees half a file. A lock
beside it makes a second process wait and then find the finished file. What an earlier process began is continued where something tells
that both halves are of one file, a checksum or else the server's entity tag (``<name>.part.etag``). A file that nobody has verified is
trusted on first use: its SHA-256 is kept beside it as ``<name>.sha256``, and every later copy must show the same.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from zoo.digests import Expected, file_sha256
from zoo.errors import ZooError
from zoo.files import write_text_atomically
from zoo.locks import one_at_a_time
from zoo.tokens import TokenAtHome, token_for, token_variable, wants_an_account

_CHUNK_BYTES = 1 << 16
_ATTEMPTS = 3
_TIMEOUT_SECONDS = 60.0
_SCHEMES = ("https", "http", "file")


@dataclass(frozen=True)
class _Job:
    url: str
    destination: Path
    expected: Expected
    description: str
    remembered: Path | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def part(self) -> Path:
        return self.destination.with_name(self.destination.name + ".part")

    @property
    def tag(self) -> Path:
        """The entity tag of what `part` is the beginning of, where no checksum is known."""
        return self.destination.with_name(self.destination.name + ".part.etag")

    def discard(self) -> None:
        """Forget what has arrived."""
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def by_hand(self) -> str:
        return f"fetch {self.url} by hand and place it at {self.destination} (or, its checksum known, in a folder of ZOO_DATA)"

    def remedy(self) -> str:
        """What to do about a file of other content."""
        if self.remembered is None:
            return f"check the address, or {self.by_hand()}"
        return f"nobody has verified either; to accept a new version delete {self.remembered}, which keeps what the first download was"


class _Interrupted(Exception):
    """The connection ended early; what arrived is kept and the next attempt continues there."""


def fetch(
    url: str, destination: Path, *, sha256: str | None, md5: str | None = None, size: int | None = None, description: str = ""
) -> Path:
    """Bring ``url`` to ``destination``; does nothing where that file is there already and passes its checks.

    Args:
        url: an ``https``, ``http`` or ``file`` address.
        destination: the final path; its folder is created.
        sha256: the expected SHA-256 in hexadecimal, or None where nobody has verified one (`fetch_remembering` trusts on first use).
        md5: the expected MD5, which counts where no SHA-256 is known.
        size: the expected number of bytes, where known.
        description: how the progress bar and errors name the file; its name by default.

    Returns:
        ``destination``.

    Raises:
        ZooError: no network, an answer other than success, a transfer that stays incomplete, a wrong size or checksum, or a disk that
            cannot take the file. ``destination`` is then as it was before.
    """
    return _bring(_Job(url, destination, Expected(sha256, md5, size), description or destination.name))


def fetch_remembering(
    url: str,
    destination: Path,
    *,
    sha256: str | None,
    md5: str | None = None,
    size: int | None = None,
    description: str = "",
    token: str | None = None,
) -> Path:
    """`fetch` that trusts on first use where neither SHA-256 nor MD5 is known, and says so on standard error.

    What is at ``destination`` after the first call is remembered beside it, in `remembered_path`; from then on it must stay the same.

    Args:
        url: as in `fetch`.
        destination: as in `fetch`.
        sha256: as in `fetch`.
        md5: as in `fetch`.
        size: as in `fetch`.
        description: as in `fetch`.
        token: sent as ``Authorization: Bearer`` to the address's own host, and not to one that it redirects to.

    Raises:
        ZooError: as `fetch`, and where the address serves a file other than the first.
    """
    expected, name = Expected(sha256, md5, size), description or destination.name
    first = _Job(url, destination, expected, name, token=token)
    if expected.has_checksum:
        return _bring(first)
    seen = remembered_sha256(destination)
    if seen is not None:
        job = replace(first, expected=Expected(seen, None, size), remembered=remembered_path(destination))
        try:
            return _bring(job)
        except ZooError as error:
            if not destination.is_file() or _complete(job):
                raise
            raise ZooError(
                f"{error}; the file that lies there has another SHA-256 than the {seen[:16]}... of the first use: if it is the right one, "
                f"delete {remembered_path(destination)}"
            ) from None
    _bring(first)
    digest = file_sha256(destination)
    write_text_atomically(remembered_path(destination), digest)
    print(f"zoo: {name}: nobody has verified this file yet; its SHA-256 is {digest}, which it must keep from now on", file=sys.stderr)
    return destination


def remembered_path(destination: Path) -> Path:
    """Where the SHA-256 of the first download of an unverified file is kept."""
    return destination.with_name(destination.name + ".sha256")


def remembered_sha256(destination: Path) -> str | None:
    """The SHA-256 that the first download of ``destination`` had; None where there was none. Raises `ZooError` where that is spoilt."""
    path = remembered_path(destination)
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        raise ZooError(f"{path}: holds {text[:20]!r} where a SHA-256 is expected; delete it, and what is fetched next is trusted")
    return text


def _bring(job: _Job) -> Path:
    if urllib.parse.urlsplit(job.url).scheme not in _SCHEMES:
        raise ZooError(f"{job.description}: {job.url!r} is not an address of a kind that can be fetched ({', '.join(_SCHEMES)})")
    try:
        job.destination.parent.mkdir(parents=True, exist_ok=True)
        lock_file = job.destination.with_name(job.destination.name + ".lock")
        with one_at_a_time(lock_file, f"zoo: another process is fetching {job.destination}; waiting for it"):
            if not _complete(job):
                _transfer(job)
    except OSError as error:
        raise ZooError(f"{job.destination}: cannot be written ({error}); free space or choose another folder with ZOO_CACHE") from error
    return job.destination


def _complete(job: _Job) -> bool:
    return job.destination.is_file() and job.expected.difference(job.destination) is None


def _transfer(job: _Job) -> None:
    if not job.expected.has_checksum and not job.tag.exists():
        job.discard()  # of whatever version the address served then
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
            job.discard()
            raise
        problem = job.expected.difference(job.part)
        if problem is None:
            job.tag.unlink(missing_ok=True)
            os.replace(job.part, job.destination)
            return
        job.discard()
        # the beginning may stem from an older version of the file: one clean attempt before giving up
        if not resumed or attempt == _ATTEMPTS:
            raise ZooError(f"{job.description}: {job.url} gave {problem}; the file was discarded: {job.remedy()}")


def _append(job: _Job) -> None:
    """Fetch what ``part`` lacks, from the start where the server cannot continue."""
    have = job.part.stat().st_size if job.part.exists() else 0
    # the part is opened last: an address that does not answer must not leave an empty file
    with _open(job, have) as (response, start, total):
        _check_space(job, 0 if total is None else total - start)
        with job.part.open("ab" if start else "wb") as sink, _progress() as progress:
            bar = progress.add_task(job.description, total=total, completed=start)
            while chunk := _read(response):
                sink.write(chunk)
                progress.update(bar, advance=len(chunk))
            sink.flush()
            os.fsync(sink.fileno())
            arrived = sink.tell()
    if total is not None and arrived < total:
        raise _Interrupted(f"{arrived} of {total} bytes arrived")


def _check_space(job: _Job, needed: int) -> None:
    free = shutil.disk_usage(job.destination.parent).free
    if needed > free:
        raise ZooError(
            f"{job.description}: {needed / 1e9:.3g} GB are to be downloaded, but {job.destination.parent} has {free / 1e9:.3g} GB free; "
            "free space or choose another folder with ZOO_CACHE"
        )


@contextmanager
def _open(job: _Job, have: int) -> Iterator[tuple[IO[bytes], int, int | None]]:
    """The response, the offset at which its first byte belongs, and the whole file's size where the server tells it."""
    request = urllib.request.Request(job.url, headers={"User-Agent": "equizoo"})
    token = token_for(job.url)
    if token:  # not redirected: the server sends on to others, who must not see it
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    if have and not job.url.startswith("file:"):
        request.add_header("Range", f"bytes={have}-")
    if job.token is not None:
        request.add_unredirected_header("Authorization", f"Bearer {job.token}")  # of its own accord urllib sends it nowhere else
    try:
        response = urllib.request.build_opener(TokenAtHome).open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is as long as the file, or longer: it cannot be continued
            job.part.unlink()
            raise _Interrupted("the server refused to continue the partial file") from error
        if error.code in (401, 403) and token_variable(job.url):
            raise ZooError(f"{job.description}: {wants_an_account(job.url, f'{error.code} {error.reason}', bool(token))}") from error
        raise ZooError(f"{job.description}: {job.url} answered {error.code} {error.reason}; {job.by_hand()}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise ZooError(f"{job.description}: {job.url} cannot be reached ({reason}); with no network, {job.by_hand()}") from error
    with response:
        length = response.headers.get("Content-Length")
        resumed = re.match(rf"bytes {have}-", response.headers.get("Content-Range") or "") if have else None
        start = have if resumed is not None and response.status == 206 else 0
        if not job.expected.has_checksum:
            _check_version(job, response.headers.get("ETag") or "", start)
        yield response, start, start + int(length) if length is not None else job.expected.size


def _check_version(job: _Job, tag: str, start: int) -> None:
    """Whether the rest is of the file whose beginning is here; of a file from its start, remember which it is."""
    tag = "" if tag.startswith("W/") else tag.strip()  # a weak one may stand for other bytes
    if start:
        if tag != (job.tag.read_text(encoding="utf-8") if job.tag.exists() else ""):
            job.discard()
            raise _Interrupted("the file has changed since its beginning was fetched")
        return
    job.discard()  # lest a kill leaves a part with the tag of another file
    if tag:
        write_text_atomically(job.tag, tag)


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (http.client.HTTPException, OSError) as error:  # of the connection, TLS and time-outs included; not of this disk
        raise _Interrupted(str(error) or type(error).__name__) from error


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True)
