"""Runs cases in forked processes that may crash, hang or fill the memory, and says how each ended."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import USER_ERRORS

SECONDS = 60.0
"""Of the processor for one case, so that a busy machine makes nothing hang."""
MOST_WALL_SECONDS = 900.0
MEMORY_BYTES = 3 * 2**30
LONGEST_MESSAGE = 2000


@dataclass(frozen=True)
class Case:
    """One input: ``make(folder)`` writes it and returns what ``read`` is given; ``canary`` must not come to be."""

    name: str
    make: Callable[[Path, Path], Path]
    read: Callable[[Path], object]


@dataclass(frozen=True)
class Outcome:
    """How a case ended: ``read``, ``refused`` (one clear line), or what went wrong."""

    name: str
    kind: str
    message: str

    @property
    def is_right(self) -> bool:
        """A correct read, or one clear error."""
        return self.kind in ("read", "refused")


def run_cases(cases: Sequence[Case], folder: Path) -> list[Outcome]:
    """Every case in order; a process that dies takes one case with it, and the next ones get a new process."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(cases):
        outcomes += _run_in_child(cases[len(outcomes) :], folder)
    return outcomes


def _run_in_child(cases: Sequence[Case], folder: Path) -> list[Outcome]:
    """The outcomes of the cases up to the one that ended the process, or of all."""
    receiving, sending = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        _child(cases, folder, sending)
    os.close(sending)
    outcomes: list[Outcome] = []
    ended = ""
    with os.fdopen(receiving, "rb", buffering=0) as stream:
        pending = b""
        deadline = time.monotonic() + MOST_WALL_SECONDS
        while len(outcomes) < len(cases):
            ready, _, _ = select.select([stream], [], [], max(deadline - time.monotonic(), 0.0))
            if not ready:
                ended = "hung"
                os.kill(child, signal.SIGKILL)
                break
            received = stream.read(65536)
            if not received:
                break
            *lines, pending = (pending + received).split(b"\n")
            outcomes += [Outcome(*json.loads(line)) for line in lines]
            deadline = time.monotonic() + MOST_WALL_SECONDS
    _, status = os.waitpid(child, 0)
    if len(outcomes) < len(cases):
        code = os.waitstatus_to_exitcode(status)
        ended = ended or ("hung" if code == -signal.SIGPROF else "crashed")
        outcomes.append(Outcome(cases[len(outcomes)].name, ended, f"exit code {code}"))
    return outcomes


def _child(cases: Sequence[Case], folder: Path, sending: int) -> None:
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        warnings.simplefilter("ignore")
        faulthandler.disable()
        _limit_memory()
        for case in cases:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process, unless the case ends before
            outcome = _outcome(case, folder)
            os.write(sending, json.dumps([outcome.name, outcome.kind, outcome.message]).encode() + b"\n")
    finally:
        os._exit(0)


def _limit_memory() -> None:
    """So much more than the process has at the start, its libraries included."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if Path("/proc/self/statm").exists() else 2**36
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY_BYTES, has + MEMORY_BYTES))


def _outcome(case: Case, folder: Path) -> Outcome:
    own = Path(tempfile.mkdtemp(dir=folder))
    canary = own / "canary"
    kind, message = "read", ""
    try:
        path = case.make(own, canary)
        try:
            case.read(path)
        except USER_ERRORS as error:
            message = str(error)
            kind = "refused" if message and "\n" not in message and len(message) < LONGEST_MESSAGE else "unclear"
        except BaseException as error:
            kind, message = "raised", f"{type(error).__name__}: {error}"[:500]
        if any(own.glob("canary*")):
            kind = "ran code"
    finally:
        shutil.rmtree(own, ignore_errors=True)
    return Outcome(case.name, kind, message)
