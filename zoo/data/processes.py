"""The same work on many pieces in several processes, with the answers in the order of the pieces, whoever was first."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zoo.errors import ZooError

Piece = TypeVar("Piece")
Answer = TypeVar("Answer")

_work: Callable[[Any], Any] | None = None


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def context() -> Any:
    """How processes are started: forked on Linux, so that they share what was read and need no guarded main module."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else None)


def in_order(work: Callable[[Piece], Answer], pieces: Iterable[Piece], processes: int) -> Iterator[Answer]:
    """``work`` of every piece, in the order of the pieces; few answers wait at any time.

    Args:
        work: may hold what it needs; is pickled where processes are not forked.
        pieces: small things such as ranges; pickled.
        processes: how many to start; with one everything is done in this process.

    Raises:
        ZooError: where a process died. Whatever ``work`` raises.
    """
    if processes <= 1:
        yield from map(work, pieces)
        return
    pool = ProcessPoolExecutor(processes, mp_context=context(), initializer=_begin, initargs=(work, os.getpid()))
    try:
        waiting: deque[Future[Any]] = deque()
        for piece in pieces:
            with warnings.catch_warnings():
                # Python warns of a fork beside threads: these processes touch NumPy and files, and none of torch's
                warnings.filterwarnings("ignore", category=DeprecationWarning)
                waiting.append(pool.submit(_do, piece))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise ZooError(f"one of {processes} processes was killed, perhaps for want of memory; pass data.workers=1 or free memory") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to answer
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A parent that is killed outright tells nobody, and its children would wait for work forever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _do(piece: Any) -> Any:
    assert _work is not None
    return _work(piece)


def with_progress(answers: Iterable[tuple[int, Answer]], what: str, total: int | None) -> Iterator[Answer]:
    """The answers, while a bar on standard error counts what each stands for, where a person looks on.

    Args:
        answers: (how many frames the answer is for, the answer).
        what: names the bar.
        total: frames of all answers, None where that is not known.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        for count, answer in answers:
            bar.advance(task, count)
            yield answer
