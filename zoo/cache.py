"""Where files live on this computer: the cache for downloads, and the folders in which the user keeps data sets."""

from __future__ import annotations

import os
from pathlib import Path

from zoo.errors import ZooError


def cache_root() -> Path:
    """The folder for downloads: ``$ZOO_CACHE``, else ``$XDG_CACHE_HOME/equizoo``, else ``~/.cache/equizoo``; not created here."""
    if own := os.environ.get("ZOO_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "equizoo"


def data_roots() -> list[Path]:
    """The folders of ``$ZOO_DATA`` (separated as in ``$PATH``), in order; empty where it is not set.

    Raises:
        ZooError: for a folder that does not exist, because a misspelt one would silently turn into a download.
    """
    roots = [Path(entry).expanduser() for entry in os.environ.get("ZOO_DATA", "").split(os.pathsep) if entry]
    for root in roots:
        if not root.is_dir():
            raise ZooError(f"ZOO_DATA names {str(root)!r}, which is not a folder; create it or correct ZOO_DATA")
    return roots
