"""A disk that is full in the middle of a file: one line, nothing left that is trusted, and a clean start once there is room."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kills import Command, half_written
from tests.unit_zoo.kill_phases import ELORA, RUN, Phase, weights


def at_bytes(limit: int) -> Callable[[], None]:
    """A sabotage: no file grows beyond ``limit`` bytes, whoever writes it: Python, torch's C++ or safetensors' Rust."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def at_flush(number: int) -> Callable[[], None]:
    """A sabotage: from the ``number``-th flush on (counted from 1), the disk has no room."""

    def sabotage() -> None:
        flush, calls = os.fsync, 0

        def full(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            if calls >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(descriptor)

        os.fsync = full  # type: ignore[assignment]

    return sabotage


def refusal(command: Command, code: int) -> str:
    """What a command whose disk was full says: one line, and no traceback."""
    lines = [line for line in command.said.splitlines() if line.startswith("zoo: ") and "nobody has verified" not in line]
    assert code == 1, command.said
    assert len(lines) == 1, command.said
    assert lines[0].startswith("zoo: error: ")
    assert "Traceback" not in command.said
    return lines[0]


FULL = {
    "download": [
        ("bytes", 300_000, "pack.tar.gz"),
        ("flush", 1, "pool.xyz.part.etag"),
        ("flush", 3, "pool.xyz.sha256"),
        ("flush", 5, "archives"),
    ],
    "cache build": [("bytes", 20_000, "cache/frames"), ("flush", 5, "cache/frames"), ("bytes", 100_000, "cache/edges")],
    "training": [("bytes", 12_000, "last.ckpt"), *(("flush", number, "") for number in (1, 3, 4, 15))],
    "export": [("bytes", 8_000, "out.pth"), ("flush", 1, "out.pth")],
    "record": [("flush", 1, "record.json")],
    "adapter file": [("bytes", 5_000, "out.safetensors"), ("flush", 1, "out.safetensors")],
    "predictions": [("bytes", 5_000, "out.xyz"), ("flush", 1, "out.xyz")],
}


@pytest.mark.parametrize("phase", FULL, indirect=True)
def test_a_full_disk_is_one_line_and_the_next_start_ends_as_if_it_had_not_been(phase: Phase, tmp_path: Path) -> None:
    phase.measure(tmp_path / "alone")
    for number, (kind, limit, named) in enumerate(FULL[phase.name]):
        command = phase.command(tmp_path / str(number))
        said = refusal(command, command.run(at_bytes(limit) if kind == "bytes" else at_flush(limit)))
        assert named in said, (kind, limit)
        assert "cannot be written" in said, (kind, limit)
        assert half_written(command.folder) == [], (kind, limit)
        phase.look(command.folder)
        assert command.run() == 0, command.said
        phase.check(command.folder)


def test_weights_that_do_not_fit_are_one_line(small_run, finished_run, tmp_path):
    # written by safetensors itself, which has an error of its own
    words = ["train", *small_run, "adapter=full", *RUN, "run.folder=run"]
    command = Command(words, tmp_path)
    assert "kept-00000003.safetensors: cannot be written" in refusal(command, command.run(at_bytes(5_000)))
    assert half_written(tmp_path) == []


def test_event_files_that_do_not_fit_are_one_line_and_the_run_goes_on_to_the_same_bits(small_run, finished_run, tmp_path):
    def sabotage() -> None:
        from tensorboard.summary.writer import record_writer

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        record_writer.RecordWriter.write = full
        record_writer.RecordWriter.flush = full

    words = [word for word in small_run if "tensorboard" not in word]
    command = Command(["train", *words, *ELORA, *RUN, "run.folder=run"], tmp_path)
    said = refusal(command, command.run(sabotage))
    assert "run: cannot be written (No space left on device); free disk space and run again with run.resume=true" in said
    assert command.run() == 0, command.said
    assert weights(tmp_path / "run") == weights(finished_run)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size; the test skips where this process may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "equizoo-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this process may not mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


@pytest.mark.parametrize("phase", ["download", "cache build", "training", "export"], indirect=True)
def test_a_real_disk_without_room_is_one_line_and_goes_on_when_there_is_some(phase, tmp_path):
    phase.measure(tmp_path / "alone")
    with small_disk(tmp_path / "disk", 1 << 15) as disk:
        command = phase.command(disk / "here")
        filler = disk / "filler"
        with filler.open("wb") as stream:
            free = shutil.disk_usage(disk).free
            stream.write(bytes(max(0, free - 24_000)))
        command.output = tmp_path / "said.txt"  # not on the disk that is full
        said = refusal(command, command.run())
        assert "cannot be written" in said or "GB free" in said
        assert half_written(command.folder) == []
        phase.look(command.folder)
        filler.unlink()
        command.output = None
        assert command.run() == 0, command.said
        phase.check(command.folder)
