"""What the cache keeps of data sets: listed with sizes and last use, and removed where nobody uses it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from zoo.cache import cache_root
from zoo.data.array_store import MANIFEST
from zoo.data.store_names import aside, key_of, lock_file
from zoo.data.store_use import in_use
from zoo.errors import ZooError

KINDS = ("frames", "edges")
_SHORT_NAME = 12
_SECONDS_OF_A_DAY = 86_400


@dataclass(frozen=True)
class KeptStore:
    """One folder of the cache that the next start would make again.

    Attributes:
        kind: one of `KINDS`.
        path: the folder.
        size_bytes: of its files.
        used: when it was last opened, in seconds since 1970.
        description: what is in it.
        whole: whether it has a manifest; what a kill left has none.
    """

    kind: str
    path: Path
    size_bytes: int
    used: float
    description: str
    whole: bool

    @property
    def name(self) -> str:
        """``"frames/0123456789ab"``; a leftover of a kill has the name of what it would have been."""
        return f"{self.kind}/{key_of(self.path)[:_SHORT_NAME]}"

    @property
    def days_unused(self) -> float:
        """Since it was last opened."""
        return (time.time() - self.used) / _SECONDS_OF_A_DAY

    def remove(self) -> None:
        """Delete it.

        Raises:
            ZooError: where a process is building it or has it open, or the folder cannot be changed.
        """
        lock = FileLock(lock_file(self.path))  # the file stays: another process may wait for this very one
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ZooError(f"{self.path}: a process is building it; wait for that process, or end it") from None
        except OSError as error:
            raise self._cannot_remove(error) from error
        try:
            if in_use(self.path / MANIFEST):
                raise ZooError(f"{self.path}: a process has it open; remove it when that process has ended")
            # under another name first, that of a leftover: whoever comes now finds nothing, and not half of it
            gone = self.path if not self.whole else self.path.rename(aside(self.path, "old"))
            shutil.rmtree(gone)
        except OSError as error:
            raise self._cannot_remove(error) from error
        finally:
            lock.release()

    def _cannot_remove(self, error: OSError) -> ZooError:
        return ZooError(f"{self.path}: cannot be removed ({error.strerror or error}); is the cache (ZOO_CACHE) yours?")


def kept_stores() -> list[KeptStore]:
    """Every copy of frames and edges in the cache, and what kills left of them, the longest unused first."""
    found = [_store(kind, path) for kind in KINDS for path in _folders(cache_root() / kind)]
    return sorted(found, key=lambda one: one.used)


def size_of(folder: Path) -> int:
    """Bytes of all files below; what goes away meanwhile counts nothing."""
    return sum(_size(path) for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _folders(kind: Path) -> Iterator[Path]:
    if kind.is_dir():
        yield from sorted(path for path in kind.iterdir() if path.is_dir())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _store(kind: str, path: Path) -> KeptStore:
    manifest = path / MANIFEST
    whole = manifest.is_file() and not path.name.startswith(".")
    try:
        used = (manifest if whole else path).stat().st_mtime
    except OSError:
        used = time.time()
    return KeptStore(kind, path, size_of(path), used, _described(kind, manifest) if whole else "left by a process that was ended", whole)


def _described(kind: str, manifest: Path) -> str:
    try:
        meta = json.loads(manifest.read_text(encoding="utf-8"))["meta"]
        if kind == "frames":
            first, more = meta["sources"][0], len(meta["sources"]) - 1
            return f"{meta['frames']:,} frames of {first}{f' and {more} more' if more else ''}"
        neighbours = "" if meta["max_neighbours"] is None else f", {meta['max_neighbours']} neighbours"
        return f"edges of {meta['frames']:,} frames within {meta['cutoff_angstrom']:g} Å{neighbours}"
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return "damaged; the next start builds it anew"
