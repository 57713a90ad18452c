"""100 SIGKILLs spread over downloads, cache builds, training, checkpoints, exports and single files: every restart goes on to the same end.

``make kill-sweep`` prints how many kills each phase had. A kill falls at a share of the command's work, or where a call that changes the
disk begins or has just ended; up to three fall on one folder before the command may end.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest

import tests.kills
from tests.kills import KILLED, Command, at_disk_call, half_written
from tests.unit_zoo import kill_phases
from tests.unit_zoo.kill_phases import ELORA, RUN, Phase

# phase (`kill_phases.make`): kills at shares of the work, kills at calls that change the disk
PLAN = {
    "download": (14, 6),
    "cache build": (10, 10),
    "training": (22, 0),
    "checkpoints": (0, 16),
    "export": (5, 5),
    "record": (0, 3),
    "adapter file": (0, 3),
    "predictions": (0, 2),
}
KILLS_OF_THE_COMMAND = 4
IN_A_ROW = 3
ATTEMPTS = 6


@dataclass(frozen=True)
class Kill:
    """When: at a share of the work, or at a call (counted from 1), as it begins or once it has ended."""

    share: float | None = None
    call: int = 0
    after: bool = False


@dataclass
class Tally:
    """What a sweep of one phase came to."""

    kills: int = 0
    restarts: int = 0
    finished: int = 0
    half_written: int = 0

    def line(self, name: str) -> str:
        """For people."""
        return (
            f"{name}: {self.kills} kills ({self.half_written} left something half-written), {self.restarts} restarts went on, "
            f"{self.finished} of them to the end, each the same as without a kill"
        )


def kills(shares: int, calls: int, total_calls: int) -> list[Kill]:
    """Spread evenly over the work and over the calls, in an order that is the same each time."""
    spread = [Kill(share=(index + 0.5) / shares) for index in range(shares)]
    spread += [Kill(call=1 + index * total_calls // calls, after=bool(index % 2)) for index in range(calls)]
    random.Random(0).shuffle(spread)
    return spread


class Sweep:
    """Kills one phase's command again and again."""

    def __init__(self, phase: Phase, root: Path) -> None:
        self._phase = phase
        self._root = root
        self._folders = 0
        self.tally = Tally()
        phase.measure(self._new_folder())
        counter = get_context("fork").Value("i", 0)
        counted = phase.command(self._new_folder())
        assert counted.run(at_disk_call(0, count=counter)) == 0, counted.said
        self.calls: int = counter.value
        assert self.calls > 0

    def _new_folder(self) -> Path:
        self._folders += 1
        return self._root / str(self._folders)

    def run(self, planned: list[Kill]) -> Tally:
        """Every kill, and after a few on one folder a restart that is left alone."""
        command, in_a_row = self._phase.command(self._new_folder()), 0
        for kill in planned:
            for attempt in range(ATTEMPTS):
                self.tally.restarts += in_a_row > 0
                code = self._killed(command, kill, 0.8**attempt)
                if code == KILLED:
                    break
                # it was through before the kill, as a restart may be that had little left to do
                self._through(command, code, in_a_row > 0)
                command, in_a_row = self._phase.command(self._new_folder()), 0
            else:
                pytest.fail(f"{kill} of {self._phase.name} never fell before the end")
            self.tally.kills += 1
            self.tally.half_written += bool(half_written(command.folder))
            self._phase.look(command.folder)
            in_a_row += 1
            if in_a_row == IN_A_ROW or kill is planned[-1]:
                self.tally.restarts += 1
                self._through(command, command.run(), True)
                command, in_a_row = self._phase.command(self._new_folder()), 0
        return self.tally

    def _killed(self, command: Command, kill: Kill, scale: float) -> int:
        if kill.share is None:
            return command.run(at_disk_call(kill.call, kill.after))
        return command.run_until(self._phase.progress, kill.share * self._phase.work * scale)

    def _through(self, command: Command, code: int, was_killed: bool) -> None:
        assert code == 0, command.said
        self._phase.check(command.folder)
        self.tally.finished += was_killed
        shutil.rmtree(command.folder)


def test_the_plan_has_a_hundred_kills():
    assert sum(map(sum, PLAN.values())) + KILLS_OF_THE_COMMAND == 100
    spread = kills(10, 10, 40)
    assert sorted(kill.share for kill in spread if kill.share is not None)[-1] == 0.95
    assert {kill.call for kill in spread} == {0, *range(1, 41, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("phase", PLAN, indirect=True)
def test_every_restart_after_a_kill_goes_on_to_the_same_end(phase, tmp_path, capsys):
    sweep = Sweep(phase, tmp_path / "sweep")
    tally = sweep.run(kills(*PLAN[phase.name], sweep.calls))
    with capsys.disabled():
        print(f"\n{tally.line(phase.name)}")
    assert tally.kills == sum(PLAN[phase.name])
    assert tally.finished >= tally.kills // IN_A_ROW


@pytest.mark.parametrize("phase", ["export", "adapter file", "predictions"], indirect=True)
def test_a_killed_writer_of_one_file_goes_on_to_the_same_end(phase, tmp_path):
    sweep = Sweep(phase, tmp_path / "sweep")
    tally = sweep.run([Kill(call=call, after=after) for call in (1, sweep.calls // 2 + 1) for after in (False, True)])
    assert (tally.kills, tally.finished) == (4, 2)
    assert tally.half_written > 0


# Python runs it as it starts, where it is on the path; by the file's path, since packages called tests lie about
SITE = f"""import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("kills", {tests.kills.__file__!r})
sys.modules["kills"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
call = int(os.environ.get("KILL_AT_DISK_CALL", "0"))
if call:
    module.at_disk_call(call)()
"""


@pytest.mark.slow
def test_the_command_itself_goes_on_after_kills(small_run, tmp_path, capsys):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(SITE)
    paths = [str(tmp_path / "site"), str(Path(__file__).parents[2])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), "ZOO_CACHE": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "zoo", "train", *small_run, *ELORA, *RUN]

    def start(folder: Path, call: int = 0) -> subprocess.Popen[bytes]:
        here = {**environment, "KILL_AT_DISK_CALL": str(call)}
        return subprocess.Popen([*words, f"run.folder={folder}"], env=here, cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "alone/run").wait() == 0
    run, killed = tmp_path / "killed/run", 0
    for call in (4, 9, 14):
        killed += start(run, call).wait() == KILLED
        kill_phases.look_at_run(run)
    # the first three were at calls; this one is wherever it stands once it has written one more checkpoint
    before = (run / "checkpoints/last.ckpt").stat().st_mtime_ns if (run / "checkpoints/last.ckpt").exists() else 0
    process = start(run)
    while process.poll() is None:
        if (run / "checkpoints/last.ckpt").exists() and (run / "checkpoints/last.ckpt").stat().st_mtime_ns > before:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    killed += process.wait() == KILLED
    kill_phases.look_at_run(run)
    assert start(run).wait() == 0
    assert killed == KILLS_OF_THE_COMMAND
    assert kill_phases.weights(run) == kill_phases.weights(tmp_path / "alone/run")
    assert half_written(tmp_path) == []
    with capsys.disabled():
        print(
            f"\nthe zoo command: {killed} kills of it and its process group, {killed} restarts went on, to the same bits as without a kill"
        )
