"""How a store of the cache, its lock, and what is set aside of it are named: whoever builds or removes one must mean the same files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

_ASIDE = re.compile(r"\.(?P<key>[^.]+)\.\d+\.(?:partial|old)")


def aside(store: Path, word: Literal["partial", "old"]) -> Path:
    """Where this process puts a store that it is writing (``partial``) or has done away with (``old``)."""
    return store.with_name(f".{store.name}.{os.getpid()}.{word}")


def is_aside(path: Path) -> bool:
    """Whether it is what a process has set aside, which a kill can leave."""
    return _ASIDE.fullmatch(path.name) is not None


def key_of(path: Path) -> str:
    """Of a store, or of what is set aside of it: the name that it has when it is whole."""
    found = _ASIDE.fullmatch(path.name)
    return path.name if found is None else found["key"]


def lock_file(path: Path) -> Path:
    """The lock of a store, or of what is set aside of it."""
    return path.with_name(f"{key_of(path)}.lock")
