"""What a commit changes, and the content of its files, read out of git's objects: nothing of that commit is checked out or run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ZooError

_COMMIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./@{}~^-]*")


@dataclass(frozen=True)
class Change:
    """One path that a pull request changes: status ``A`` (added), ``M``, ``D`` or ``T``, and its new mode (``100644`` is a plain file)."""

    path: str
    status: str
    mode: str


@dataclass(frozen=True)
class Repository:
    """A git repository by its top folder."""

    root: Path

    @classmethod
    def around(cls, folder: Path) -> Repository:
        """The repository that ``folder`` lies in; raises `ZooError` where there is none."""
        return cls(Path(cls(folder)._run(["rev-parse", "--show-toplevel"]).decode().strip()))

    def changes(self, base: str, head: str) -> list[Change]:
        """What ``head`` changes since it left ``base``, renames as a deletion and an addition; raises `ZooError` for unknown commits."""
        words = ["diff", "--raw", "--no-renames", "--no-abbrev", "-z", f"{_checked(base)}...{_checked(head)}"]
        fields = self._run(words).decode("utf-8", "surrogateescape").split("\0")[:-1]
        found = []
        for description, path in zip(fields[::2], fields[1::2], strict=True):
            _, mode, _, _, status = description.split(" ")
            found.append(Change(path, status[0], mode))
        return found

    def merge_base(self, base: str, head: str) -> str:
        """The commit where ``head`` left ``base``."""
        return self._run(["merge-base", _checked(base), _checked(head)]).decode().strip()

    def files(self, commit: str, folder: str) -> list[str]:
        """Paths below ``folder`` in ``commit``."""
        words = ["ls-tree", "-r", "-z", "--name-only", _checked(commit), "--", folder]
        return [path for path in self._run(words).decode("utf-8", "surrogateescape").split("\0") if path]

    def contents(self, commit: str, paths: Sequence[str], most_bytes: int) -> dict[str, bytes]:
        """Path to content in ``commit``; raises `ZooError` for one that is missing or larger than ``most_bytes``."""
        names = [f"{_checked(commit)}:{path}" for path in paths]
        if any("\n" in name for name in names):
            raise ZooError("a path with a line break in its name; rename it")
        request = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        lines = self._run(["cat-file", "--batch-check"], request).decode("utf-8", "replace").split("\n")[:-1]
        for path, line in zip(paths, lines, strict=True):
            kind, _, size = line.rpartition(" ")
            if not kind.endswith(" blob"):
                raise ZooError(f"{path}: no file in {commit}")
            if int(size) > most_bytes:
                raise ZooError(f"{path}: {size} bytes, wanted at most {most_bytes}")
        answer, found, at = self._run(["cat-file", "--batch"], request), {}, 0
        for path in paths:
            end = answer.index(b"\n", at)
            size_of_blob = int(answer[at:end].rsplit(b" ", 1)[1])
            found[path] = answer[end + 1 : end + 1 + size_of_blob]
            at = end + 1 + size_of_blob + 1
        return found

    def _run(self, words: Sequence[str], request: bytes = b"") -> bytes:
        try:
            return subprocess.run(["git", *words], cwd=self.root, input=request, capture_output=True, check=True).stdout
        except FileNotFoundError:
            raise ZooError("git is not installed, or the repository's folder is not there; install git") from None
        except subprocess.CalledProcessError as error:
            lines = error.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
            said = next((line for line in lines if line.startswith("fatal:")), lines[-1])
            raise ZooError(f"git {words[0]} failed in {self.root} ({said}); fetch both commits with their history") from None


def _checked(commit: str) -> str:
    """A name that git cannot take for an option."""
    if not _COMMIT.fullmatch(commit):
        raise ZooError(f"{commit!r} is not the name of a commit")
    return commit
