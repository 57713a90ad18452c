"""The files of a published set: found on this disk or downloaded, and read as the card says.

A file is recognised by its checksum, so the folders of ``ZOO_DATA`` may be named as their owner likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from zoo.cache import cache_root, data_roots
from zoo.data.archives import obtain_member, taken_out
from zoo.data.cache_choice import CacheChoice
from zoo.data.cards import ArchiveFile, DataCard, DataFile
from zoo.data.catalogue import checksum_list
from zoo.data.checksums import read_checksums
from zoo.data.conversion import read_source
from zoo.data.folders import listings
from zoo.data.labels import Label
from zoo.data.local import Wanted, find_local, obtain, obtain_tree, unverified_note
from zoo.data.readers import FileContent
from zoo.errors import ZooError

_ARCHIVES = "archives"


def read_card_file(card: DataCard, key: str, needs: Sequence[Label] = (), choice: CacheChoice | None = None) -> FileContent:
    """The frames of one file of a set; those labels are needed that the card promises, besides ``needs``."""
    path, file = local_path(card, key)
    wanted = tuple(dict.fromkeys((*needs, *(label for label in file.labels if label != "stress"))))
    content = read_source(path, card.keys_of(file), card.level_of_theory, wanted, choice)
    note = _unverified_note(card, file, path)
    return content if note is None else replace(content, notes=(note, *content.notes))


def _unverified_note(card: DataCard, file: DataFile, path: Path) -> str | None:
    if file.tree is not None:
        return None
    if file.archive is None:
        return unverified_note(_wanted(card, file), path)
    if _unpacked_by_hand(file.filename) == path:
        return f"{path.name} was taken by its name, nobody has verified that it is what {card.name} means"
    return None


def local_path(card: DataCard, key: str) -> tuple[Path, DataFile]:
    """The verified file, folder or archive member ``key`` of a set, and which of its containers that is.

    Looked for in ``ZOO_DATA``, then in the cache, then at its published address.

    Raises:
        ZooError: where it is nowhere and cannot be downloaded.
    """
    file = card.files[key]
    containers = (file, *file.alternatives)
    for one in containers:
        found = _found(card, one)
        if found is not None:
            return found, one
    here = next((one for one in containers if _place_here(card, one) is not None), None)
    one = here or next((one for one in containers if one.archive or one.tree or _address(card, one)), file)
    return _obtained(card, one), one


def _found(card: DataCard, file: DataFile) -> Path | None:
    """What is there without the network: a tree by its checksums, what was unpacked by hand by its name; None where it is not."""
    if file.tree is not None:
        with suppress(ZooError):
            return obtain_tree(file.filename, _entries(file.tree), None, _place(card), data_roots())
        return None
    if file.archive is not None:
        return _unpacked_by_hand(file.filename) or taken_out(file.filename, _unpacked(card.archives[file.archive]))
    return find_local(_wanted(card, file), data_roots())


def _unpacked(archive: ArchiveFile) -> Path:
    """Where members of an archive are taken out to: a folder for this very content, because what is there is not compared again."""
    content = (archive.sha256 or archive.md5 or "unverified")[:12]
    return cache_root() / "data" / _ARCHIVES / f"{archive.filename}-{content}"


def _unpacked_by_hand(member: str) -> Path | None:
    """A file or folder below ``ZOO_DATA`` whose path ends in that of an archive's member."""
    parts = Path(member).parts
    for listing in listings(data_roots()):
        candidates: list[Path] = [*listing.folders, *listing.by_name.get(parts[-1], ())]
        for path in candidates:
            if path.parts[-len(parts) :] == parts:
                return path
    return None


def _obtained(card: DataCard, file: DataFile) -> Path:
    if file.tree is not None:
        return obtain_tree(file.filename, _entries(file.tree), card.base_url, _place(card), data_roots())
    if file.archive is not None:
        archive = card.archives[file.archive]
        return obtain_member(obtain(_wanted(card, archive)), file.filename, _unpacked(archive))
    return obtain(_wanted(card, file))


def _entries(tree: str) -> list[tuple[str | None, int | None, str]]:
    return [(sha256, size, name) for name, (sha256, size) in read_checksums(checksum_list(tree)).items()]


def _wanted(card: DataCard, file: ArchiveFile) -> Wanted:
    # sets share archives
    place = _place(card) if isinstance(file, DataFile) else _ARCHIVES
    return Wanted(filename=file.filename, sha256=file.sha256, size=file.size, md5=file.md5, url=_address(card, file), place=place)


def _address(card: DataCard, file: ArchiveFile) -> str | None:
    return file.url or (f"{card.base_url}/{file.filename}" if card.base_url is not None else None)


def _place(card: DataCard) -> str:
    return card.name.replace("/", "-")


def on_this_disk(card: DataCard, key: str) -> bool:
    """Whether the file can be had without the network; nothing is downloaded or unpacked."""
    file = card.files[key]
    return any(_place_here(card, one) is not None for one in (file, *file.alternatives))


def availability(card: DataCard) -> dict[str, str]:
    """File key to where it is, or where it would come from; nothing is downloaded or unpacked."""
    return {key: _state(card, file) for key, file in card.files.items()}


def _place_here(card: DataCard, file: DataFile) -> Path | None:
    """The file, or the archive that holds it."""
    found = _found(card, file)
    if found is None and file.archive is not None:
        return find_local(_wanted(card, card.archives[file.archive]), data_roots())
    return found


def _state(card: DataCard, file: DataFile) -> str:
    containers = (file, *file.alternatives)
    for one in containers:
        found = _place_here(card, one)
        if found is not None:
            verified = "unknown" if _unverified_note(card, one, found) or not _has_checksum(card, one) else "verified"
            return f"{found} (checksum {verified})"
    if file.tree is not None:
        return f"a folder of {len(_entries(file.tree))} files, each verified, from {card.base_url}"
    if file.archive is not None:
        archive = card.archives[file.archive]
        return f"{file.filename} in {archive.filename}, from {_address(card, archive)}"
    address = next((address for one in containers if (address := _address(card, one)) is not None), None)
    return f"to be downloaded from {address}" if address is not None else "not downloaded by equizoo: put it into a folder of ZOO_DATA"


def _has_checksum(card: DataCard, file: DataFile) -> bool:
    known = card.archives[file.archive] if file.archive is not None else file
    return bool(known.sha256 or known.md5 or file.tree)
