"""Commands in processes of their own that are killed: at a share of their work, or at a call that changes the disk.

Children are forked from this process, which has imported everything already; each leads a process group, and the whole group is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

DISK_CALLS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir")
KILLED = -signal.SIGKILL
_POLL_SECONDS = 0.002


@dataclass
class Command:
    """One command line in a folder of its own, with environment variables of its own.

    Attributes:
        words: after ``zoo``.
        folder: the working directory.
        environment: is added to this process's.
        output: the file that what it says goes to; ``said.txt`` in its folder by default.
    """

    words: Sequence[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    output: Path | None = None

    def start(self, sabotage: Callable[[], None] = lambda: None) -> int:
        """The id of a child, and of its process group, that runs it after ``sabotage()``."""
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            self._be_child(sabotage)
        with contextlib.suppress(OSError):  # the child does it too: whoever is first
            os.setpgid(child, child)
        return child

    def run(self, sabotage: Callable[[], None] = lambda: None) -> int:
        """The exit code, or minus the signal's number."""
        return ended(self.start(sabotage))

    def run_until(self, progress: Callable[[int], float], limit: float) -> int:
        """As `run`, killed where ``progress(child)`` has reached ``limit``."""
        child = self.start()
        while (code := code_of(child)) is None:
            if progress(child) >= limit:
                return kill(child)
            time.sleep(_POLL_SECONDS)
        return code

    @property
    def said(self) -> str:
        """What the latest of its processes printed on both streams."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    @property
    def _output(self) -> Path:
        return self.output or self.folder / "said.txt"

    def _be_child(self, sabotage: Callable[[], None]) -> None:
        code = 99
        try:
            os.setpgid(0, 0)
            os.chdir(self.folder)
            os.environ.update(self.environment)
            with (
                self._output.open("w", buffering=1, encoding="utf-8") as stream,
                contextlib.redirect_stdout(stream),
                contextlib.redirect_stderr(stream),
            ):
                from zoo.cli import main

                sabotage()
                try:
                    main(list(self.words))
                    code = 0
                except SystemExit as stop:
                    code = int(stop.code or 0)
        finally:
            os._exit(code)


def ended(child: int) -> int:
    """The exit code of a child, or minus the signal's number, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def code_of(child: int) -> int | None:
    """As `ended`, without waiting: None while it runs."""
    found, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def kill(child: int) -> int:
    """SIGKILL to its whole process group; how it ended, which may have been before."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return ended(child)


def work_seconds(child: int) -> float:
    """Processor time of a child's main thread: unlike the clock it does not depend on who else is busy."""
    try:
        return int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError):
        return 0.0


def at_disk_call(number: int, after: bool = False, count: Synchronized[int] | None = None) -> Callable[[], None]:
    """A sabotage that kills the process group as its ``number``-th call of `DISK_CALLS` begins, or has just ended.

    Args:
        number: counted from 1; 0 for never.
        after: whether the call is still made.
        count: receives how many calls there were.
    """

    def sabotage() -> None:
        calls = 0

        def spoilt(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                mine = calls
                if count is not None:
                    count.value = max(count.value, calls)  # processes of its own count too
                if mine == number and not after:
                    os.killpg(0, signal.SIGKILL)
                try:
                    return original(*args, **options)
                finally:  # it may well fail: a folder that is there already
                    if mine == number:
                        os.killpg(0, signal.SIGKILL)

            return call

        for name in DISK_CALLS:
            setattr(os, name, spoilt(getattr(os, name)))

    return sabotage


def content(folder: Path, *, without: Sequence[str] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder by its path there, hidden ones too, without those whose path begins so."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = ((path.relative_to(folder).as_posix(), path) for path in paths)
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in named if not name.startswith(tuple(without))}


def half_written(folder: Path) -> list[str]:
    """Names of files and folders that only an unfinished write leaves, below a folder."""
    marks = (".partial", ".part", ".old")
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name.endswith(marks))
