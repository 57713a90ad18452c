"""From what a card says of a file to a verified copy on this disk: below ``ZOO_DATA``, else in the cache, else fetched into the cache.

A file is recognised by its checksum, so the folders of ``ZOO_DATA`` may be named as their owner likes. Where nobody has verified one, it
is recognised by its name, and `unverified_note` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from zoo.cache import cache_root, data_roots
from zoo.data.folders import Listing, listings
from zoo.data.paths import below, safe_parts
from zoo.digests import Expected, file_sha256
from zoo.download import fetch_remembering, remembered_sha256
from zoo.errors import ZooError


@dataclass(frozen=True)
class Wanted:
    """One published file.

    Attributes:
        filename: its name, after its folders where it has some.
        sha256, md5, size: what is known of it; None where nobody has verified one.
        url: where it is published; None where no address is known.
        place: its folder below the cache's ``data``.
    """

    filename: str
    sha256: str | None
    size: int | None
    md5: str | None
    url: str | None
    place: str

    @property
    def expected(self) -> Expected:
        """What its content is checked against."""
        return Expected(self.sha256, self.md5, self.size)

    @property
    def destination(self) -> Path:
        """Where it lies in the cache."""
        return below(cache_root() / "data" / self.place, self.filename)


def find_local(wanted: Wanted, roots: Sequence[Path]) -> Path | None:
    """The file below one of ``roots``, to a depth of four; None where it is not there.

    With a checksum, files of its name come first, then those of its size under any name. Without, a file is taken by its name (and its
    folders, where the published name has some) and size.
    """
    found = listings(roots)
    candidates = _named(wanted, found)
    if wanted.expected.has_checksum:
        sized = [path for listing in found for path in listing.by_size.get(-1 if wanted.size is None else wanted.size, ())]
        candidates = list(dict.fromkeys([*candidates, *sized]))
    else:
        candidates = [path for path in candidates if path.parts[-len(_parts(wanted)) :] == _parts(wanted)]
    return next((path for path in candidates if _difference(path, wanted.expected) is None), None)


def obtain(wanted: Wanted) -> Path:
    """The file from ``ZOO_DATA``, else from the cache, else downloaded into the cache.

    Raises:
        ZooError: where it is nowhere and cannot be downloaded; names a file of ``ZOO_DATA`` that has its name and other content.
    """
    roots = data_roots()
    found = find_local(wanted, roots) or _in_cache(wanted)
    return _download(wanted, _lookalike(wanted, roots)) if found is None else found


def unverified_note(wanted: Wanted, path: Path) -> str | None:
    """What a log says of a file at ``path`` that was taken without a published checksum; None where there was one."""
    if wanted.expected.has_checksum:
        return None
    return f"{path} was taken by its name, nobody has verified its checksum (SHA-256 {file_sha256(path)})"


def obtain_tree(
    name: str, entries: Sequence[tuple[str | None, int | None, str]], base_url: str | None, place: str, roots: Sequence[Path]
) -> Path:
    """A folder that holds every listed file: below ``roots`` under any name, else downloaded file by file into the cache.

    Args:
        name: the published name of the folder.
        entries: (SHA-256, bytes, path below the folder) of each file.
        base_url: where the folder is published; None where no address is known.
        place: its place below the cache's ``data``.
        roots: the user's data folders. A folder there that lacks a file, has one of other content, or holds further files of the kinds
            listed (a reader would take them for part of the set) is passed over.

    Raises:
        ZooError: where it is nowhere and cannot be downloaded whole; names a folder that came near.
    """
    if any(sha256 is None for sha256, _, _ in entries) or not entries:
        raise ZooError(f"{place}/{name}: its checksum list is empty or lacks a SHA-256, without which no folder is recognised; complete it")
    near = ""
    for folder in _tree_candidates(name, entries, roots):
        difference = _tree_difference(folder, entries)
        if difference is None:
            return folder
        near = near or f"; {folder} is not it: {difference}"
    destination = below(cache_root() / "data" / place, name)
    if _tree_difference(destination, entries) is None:
        return destination
    if base_url is None:
        raise ZooError(f"{place}/{name}: no address is known to fetch it from; get it by hand and put it into a folder of ZOO_DATA{near}")
    for sha256, size, path in entries:
        wanted = Wanted(path, sha256, size, None, f"{base_url}/{quote(f'{name}/{path}')}", f"{place}/{name}")
        if _in_cache(wanted) is None:
            _download(wanted, near)
    difference = _tree_difference(destination, entries)
    if difference is not None:
        raise ZooError(f"{destination}: {difference}; delete that file, or the folder, which is then fetched anew")
    return destination


def _download(wanted: Wanted, hint: str) -> Path:
    what = f"{wanted.place}/{wanted.filename}"
    try:
        if wanted.url is None:
            raise ZooError(f"{what}: no address is known to fetch it from; get it by hand and put it into a folder of ZOO_DATA")
        return fetch_remembering(wanted.url, wanted.destination, sha256=wanted.sha256, md5=wanted.md5, size=wanted.size, description=what)
    except ZooError as error:
        raise ZooError(f"{error}{hint}") from error


def _parts(wanted: Wanted) -> tuple[str, ...]:
    return safe_parts(wanted.filename) or (wanted.filename,)


def _named(wanted: Wanted, found: Sequence[Listing]) -> list[Path]:
    return [path for listing in found for path in listing.by_name.get(_parts(wanted)[-1], ())]


def _difference(path: Path, expected: Expected) -> str | None:
    try:
        return expected.difference(path)
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


def _in_cache(wanted: Wanted) -> Path | None:
    """The file in the cache, looked at without a lock: a cache may be shared and not writable."""
    expected, path = wanted.expected, wanted.destination
    if not expected.has_checksum:
        expected = Expected(remembered_sha256(path), None, wanted.size)
    taken = expected.has_checksum and path.is_file() and _difference(path, expected) is None
    return path if taken else None


def _lookalike(wanted: Wanted, roots: Sequence[Path]) -> str:
    for path in _named(wanted, listings(roots)):
        difference = _difference(path, wanted.expected)
        if difference is not None:
            return f"; {path} has that name, but is not it: {difference}"
    return ""


def _tree_candidates(name: str, entries: Sequence[tuple[str | None, int | None, str]], roots: Sequence[Path]) -> Iterator[Path]:
    """Folders in which the first listed file lies, those of the published name first."""
    folders = [folder for listing in listings(roots) for folder in listing.folders]
    for folder in sorted(folders, key=lambda folder: folder.name != name):
        if below(folder, entries[0][2]).is_file():
            yield folder


def _tree_difference(folder: Path, entries: Sequence[tuple[str | None, int | None, str]]) -> str | None:
    """How a folder differs from what is listed; the cheap looks come first."""
    paths = {below(folder, path): Expected(sha256, None, size) for sha256, size, path in entries}
    for path in paths:
        if not path.is_file():
            return f"{path.relative_to(folder)} is missing"
    kinds = {path.name for path in paths}
    for path in sorted(folder.rglob("*")):
        if path.name in kinds and path not in paths and path.is_file():
            return f"{path.relative_to(folder)} is not part of the set"
    for size_only in (True, False):
        for path, expected in paths.items():
            difference = _difference(path, Expected(size=expected.size) if size_only else expected)
            if difference is not None:
                return f"{path.relative_to(folder)} has {difference}"
    return None
