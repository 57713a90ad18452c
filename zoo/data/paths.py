"""Names that others chose (in cards, checksum lists, archives) as paths that stay below the folder they belong to."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from zoo.errors import ZooError


def safe_parts(name: str) -> tuple[str, ...] | None:
    """``"./a//b/"`` gives ``("a", "b")``; None for a name that is empty or leads elsewhere: absolute, with ``..`` or a backslash."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        return None
    return parts


def below(folder: Path, name: str) -> Path:
    """The path of ``name`` in ``folder``; raises `ZooError` where that would lie outside of it."""
    parts = safe_parts(name)
    if parts is None:
        raise ZooError(f"{name!r} is not the name of a file below a folder; write it relative, with '/', and without '..'")
    return folder.joinpath(*parts)
