"""What lies in the user's data folders, listed once per process and again only where a folder has changed."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_FILE_DEPTH = 4  # ZOO_DATA/collection/set/part/file
# A file may be added within the tick of the clock in which its folder was listed: listings this fresh are not relied on.
_SETTLED_NANOSECONDS = 1_000_000_000
_listings: dict[Path, Listing] = {}


@dataclass(frozen=True)
class Listing:
    """The folders and files below one root, the shallow ones first and then by name.

    Attributes:
        root: where it begins.
        began: time in ns.
        folders: each with its time of change in ns, the root included.
        by_name: file name to paths.
        by_size: bytes to paths, at the time of listing.
    """

    root: Path
    began: int
    folders: dict[Path, int] = field(default_factory=dict)
    by_name: defaultdict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    by_size: defaultdict[int, list[Path]] = field(default_factory=lambda: defaultdict(list))

    def is_current(self) -> bool:
        """Whether no folder has gained, lost or renamed anything since."""
        if max(self.folders.values()) > self.began - _SETTLED_NANOSECONDS:
            return False
        try:
            return all(folder.stat().st_mtime_ns == changed for folder, changed in self.folders.items())
        except OSError:
            return False


def listings(roots: Sequence[Path]) -> list[Listing]:
    """The current listing of each root, to a depth of four; hidden folders and what cannot be read are left out."""
    found = []
    for root in roots:
        known = _listings.get(root)
        if known is None or not known.is_current():
            known = _listings[root] = _list(root)
        found.append(known)
    return found


def _list(root: Path) -> Listing:
    listing = Listing(root, time.time_ns())
    visited: set[tuple[int, int]] = set()
    level = [root]
    for depth in range(1, _FILE_DEPTH + 1):
        inner = [folder for outer in level for folder in _enter(outer, listing, visited)]
        level = inner if depth < _FILE_DEPTH else []
    return listing


def _enter(folder: Path, listing: Listing, visited: set[tuple[int, int]]) -> list[Path]:
    """Add the files of one folder; returns the folders in it."""
    inner = []
    try:
        # the time is read before the names: what is added in between makes the listing stale, not wrong
        state = folder.stat()
        if (state.st_dev, state.st_ino) in visited:  # a link back
            return []
        visited.add((state.st_dev, state.st_ino))
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []
    listing.folders[folder] = state.st_mtime_ns
    for entry in found:
        try:
            if not entry.is_dir():
                size = entry.stat().st_size
                listing.by_name[entry.name].append(folder / entry.name)
                listing.by_size[size].append(folder / entry.name)
            elif not entry.name.startswith("."):
                inner.append(folder / entry.name)
        except OSError:  # a link to nowhere
            continue
    return inner
