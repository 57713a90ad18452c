"""Runs in processes of their own: so many at a time, each with a log; one that fails stops no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from zoo.errors import ZooError
from zoo.sweeps.jobs import Job

_POLL_SECONDS = 0.1
_ERROR = "zoo: error: "


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    stream: IO[bytes]
    log: Path
    log_begins: int
    started: float


def run_jobs(jobs: Sequence[Job], at_a_time: int, logs: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Run ``zoo train`` for each; those whose folder holds something go on where they stopped.

    Args:
        jobs: in this order.
        at_a_time: how many processes; with more than one the processor's cores are shared out, unless ``OMP_NUM_THREADS`` says otherwise.
        logs: the folder for what they print, one file a job.
        say: receives a line as each one begins and ends.

    Returns:
        why a job failed, by its name.

    Raises:
        ZooError: where the logs cannot be written.
    """
    with _terminated_in_order():
        return _run(jobs, at_a_time, logs, say)


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """SIGTERM (``timeout``, SLURM) ends the process as an exception, so that it ends its own processes first."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _run(jobs: Sequence[Job], at_a_time: int, logs: Path, say: Callable[[str], None]) -> dict[str, str]:
    waiting, running, failed = list(jobs), list[_Running](), dict[str, str]()
    try:
        while waiting or running:
            while waiting and len(running) < at_a_time:
                job = waiting.pop(0)
                say(f"[{len(jobs) - len(waiting)}/{len(jobs)}] {job.name}: {'goes on' if job.is_begun else 'begins'}")
                running.append(_start(job, at_a_time, logs))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                one.stream.close()
                reason = _failure(one)
                if reason is not None:
                    failed[one.job.name] = reason
                say(f"{one.job.name}: {f'failed: {reason}' if reason is not None else f'done in {time.monotonic() - one.started:.0f} s'}")
            if running:
                time.sleep(_POLL_SECONDS)
    finally:
        # an interruption is no reason to leave processes behind; what they have done so far they go on from
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
            one.stream.close()
    return failed


def _start(job: Job, at_a_time: int, logs: Path) -> _Running:
    environment = dict(os.environ)
    if at_a_time > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // at_a_time)))
    log = logs / f"{job.name}.txt"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        stream = log.open("ab")
        begins = stream.seek(0, os.SEEK_END)  # what comes before is of an earlier attempt
    except OSError as error:
        raise ZooError(f"{log}: cannot be written ({error.strerror or error}); pass another sweep.folder=...") from None
    command = [sys.executable, "-m", "zoo", "train", *job.command(resume=job.is_begun)]
    process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment)
    return _Running(job, process, stream, log, begins, time.monotonic())


def _failure(one: _Running) -> str | None:
    """Why a process that ended did not finish its run, in one line; None where it did."""
    code = one.process.returncode
    if code == 0 and one.job.is_finished:
        return None
    text = one.log.read_bytes()[one.log_begins :].decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("zoo: ", "Error"))]
    reason = (said or lines or ["it said nothing"])[-1].removeprefix(_ERROR)
    return f"killed by signal {-code} ({one.log})" if code < 0 else reason
