"""Processes that start at once on one cache, one file or one run folder: each succeeds, waits, or is refused in one line."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

import zoo.training.run
from tests.kills import Command, ended, half_written
from tests.unit_zoo.kill_phases import ELORA, RUN, Phase, weights
from zoo.locks import one_at_a_time
from zoo.scratch import scratch_folder


def at_once(commands: list[Command]) -> list[int]:
    """The exit codes of commands that start together."""
    return [ended(child) for child in [command.start() for command in commands]]


@pytest.mark.parametrize("phase", ["download", "cache build"], indirect=True)
def test_three_starts_on_one_cache_make_it_once_and_agree(phase: Phase, tmp_path: Path) -> None:
    phase.measure(tmp_path / "alone")
    commands = [phase.command(tmp_path / str(number)) for number in range(3)]
    (commands[0].folder / "cache").mkdir(exist_ok=True)
    for command in commands[1:]:
        (command.folder / "cache").symlink_to(commands[0].folder / "cache")
    assert at_once(commands) == [0, 0, 0], [command.said for command in commands]
    for command in commands:
        phase.check(command.folder)


@pytest.mark.parametrize("phase", ["download"], indirect=True)
def test_a_second_process_says_that_it_waits_for_a_download(phase: Phase, tmp_path: Path) -> None:
    command = phase.command(tmp_path / "here")
    place = tmp_path / "here/cache/data/kill-set"
    place.mkdir(parents=True)
    with one_at_a_time(place / "pool.xyz.lock", "-"):
        child = command.start()
        said = tmp_path / "here/said.txt"
        deadline = time.monotonic() + 120
        while not (said.exists() and "waiting" in command.said) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert ended(child) == 0, command.said
    assert command.said.count(f"zoo: another process is fetching {place / 'pool.xyz'}; waiting for it\n") == 1


@pytest.mark.parametrize("phase", ["export", "adapter file"], indirect=True)
def test_three_writers_of_one_file_leave_it_whole(phase: Phase, tmp_path: Path) -> None:
    phase.measure(tmp_path / "alone")
    command = phase.command(tmp_path / "here")
    assert at_once([command, command, command]) == [0, 0, 0], command.said
    phase.check(command.folder)


def _refused(commands: list[Command], codes: list[int]) -> str:
    """The line of the one that was refused, where the other was not."""
    assert sorted(codes) == [0, 1], [command.said for command in commands]
    lines = [line for line in commands[codes.index(1)].said.splitlines() if line.startswith("zoo: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("resume", [False, True])
def test_of_two_that_begin_one_run_at_once_one_is_refused(resume, small_run, finished_run, tmp_path):
    words = ["train", *small_run, *ELORA, "run.name=run", f"run.resume={resume}", f"run.folder={tmp_path / 'run'}"]
    commands = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        commands.append(Command(words, tmp_path / name))
    barrier = get_context("fork").Barrier(2)

    def both_have_looked() -> None:
        prepare = zoo.training.run.prepare
        zoo.training.run.prepare = lambda *args: (prepare(*args), barrier.wait(300))[0]

    children = [command.start(both_have_looked) for command in commands]
    line = _refused(commands, [ended(child) for child in children])
    assert "another process is running it" in line or "another process has just begun this run" in line
    assert weights(tmp_path / "run") == weights(finished_run)
    assert half_written(tmp_path) == []


def test_a_run_that_is_running_is_not_resumed_beside_it(small_run, finished_run, killer, tmp_path):
    words = ["train", *small_run, *ELORA, *RUN, f"run.folder={tmp_path / 'run'}"]
    commands = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        commands.append(Command(words, tmp_path / name))
    first = commands[0].start(killer("zoo.training.module:FineTuning.training_step", 5, number=signal.SIGSTOP))
    assert os.WIFSTOPPED(os.waitpid(first, os.WUNTRACED)[1])
    second = commands[1].run()
    os.kill(first, signal.SIGCONT)
    line = _refused(commands, [ended(first), second])
    assert "another process is running it; wait until that ends" in line
    assert weights(tmp_path / "run") == weights(finished_run)
    assert commands[1].run() == 0  # it has ended: the lock is free
    assert "this run is finished" in commands[1].said


def test_what_a_kill_left_is_removed_and_what_another_process_writes_is_not(tmp_path):
    from zoo.files import remove_partials, write_atomically, write_text_atomically

    left = tmp_path / ".a.txt.0123abcd.partial"
    left.write_text("of a process that was killed")
    (tmp_path / ".b.txt.0123abcd.partial").write_text("of another file")

    def beside(partial: Path) -> None:
        partial.write_text("mine")
        child = os.fork()
        if child == 0:
            remove_partials(tmp_path)
            os._exit(0)
        assert ended(child) == 0
        assert partial.read_text() == "mine"

    write_atomically(tmp_path / "a.txt", beside)
    assert (tmp_path / "a.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]  # the child removed what was left, b's too
    left.write_text("of a process that was killed")
    write_text_atomically(tmp_path / "a.txt", "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]


def test_scratch_folders_of_killed_processes_are_removed_and_those_in_use_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    hour_ago = time.time() - 3600
    for name in ("left", "of another version"):
        (tmp_path / f"equizoo-{name}").mkdir()
        (tmp_path / f"equizoo-{name}/content").write_text("much")
    (tmp_path / "equizoo-left/.lock").touch()
    os.utime(tmp_path / "equizoo-left/.lock", (hour_ago, hour_ago))
    with scratch_folder() as mine:
        os.utime(mine / ".lock", (hour_ago, hour_ago))
        child = os.fork()
        if child == 0:
            with scratch_folder():
                os._exit(0)  # as if killed: its own stays
        assert ended(child) == 0
        assert mine.is_dir()
        assert not (tmp_path / "equizoo-left").exists()
        assert (tmp_path / "equizoo-of another version/content").exists()
    assert not mine.exists()


def test_what_was_left_of_any_store_is_removed_by_the_next_build(tmp_path, monkeypatch):
    from tests.unit_zoo.test_array_store import build
    from zoo.data.store_builder import obtain_store

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    for key in ("gone", "busy"):
        (tmp_path / f"kind/.{key}.123.partial").mkdir(parents=True)
    with one_at_a_time(tmp_path / "kind/busy.lock", "-"):
        obtain_store("kind", "key", build)
    assert sorted(path.name for path in (tmp_path / "kind").iterdir() if path.suffix != ".lock") == [".busy.123.partial", "key"]
