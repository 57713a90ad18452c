"""What tables share that are made from finished runs and files: both, made where there are none, the words after ``--``, and notes."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.compose import compose
from zoo.evaluation.record import Record, read_record
from zoo.training.artefacts import training_settings
from zoo.training.config import RunConfig, parse_config


def own_and_extra_words() -> tuple[list[str], list[str]]:
    """The command line up to ``--``, and what comes after it: settings for every run."""
    words = sys.argv[1:]
    if "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def finished_record(folder: Path, name: str, words: Sequence[str]) -> Record:
    """The record of ``zoo train`` with these words in ``folder/runs/name``, after running it, or going on with it, where there is none.

    Raises:
        SystemExit: where the folder holds a run of another configuration.
    """
    run, words = folder / "runs" / name, [*words, f"run.name={name}"]
    path = run / "record.json"
    if not path.is_file():
        resume = ["run.resume=true"] if run.is_dir() and any(run.iterdir()) else []
        print(f"zoo train {' '.join([*words, *resume])}", flush=True)
        subprocess.run([sys.executable, "-m", "zoo", "train", *words, *resume], cwd=folder, check=True)
    record = read_record(path)
    config: RunConfig = parse_config(compose("train", [*words, f"run.folder={run}"]))
    # through the model, so that a setting which is younger than the run has its default there
    made: RunConfig = parse_config({**(record.training or {}), "run": {"name": name, "folder": str(run)}})
    if _numbers_of(training_settings(made)) != _numbers_of(training_settings(config)):
        raise SystemExit(f"{run}: holds a run of another configuration; move it away and run this again")
    return record


def made_once(command: str, path: Path, words: Sequence[str], make: Callable[[list[str]], object]) -> Path:
    """``path``, after making what it is to hold where it is not there yet; says so.

    Args:
        command: what a user would type before the words, ``"zoo evaluate"``.
        path: of the file; its folder is created.
        words: of the command, the file's own among them.
        make: does with the words what the command does.
    """
    if not path.is_file():
        print(f"{command} {' '.join(words)}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(list(words))
    return path


def _numbers_of(settings: Any) -> Mapping[str, Any]:
    """A run's configuration without what changes no number."""
    return {**settings, "training": {key: value for key, value in settings["training"].items() if key != "progress_bar"}}


def mean_and_range(values: Sequence[float], digits: int = 1) -> str:
    """``29.8 (29.7 to 29.9)``; the number alone where there is one."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def command_of(module: str, seeds: Sequence[int], extra: Sequence[str]) -> str:
    """The command that makes a table again."""
    return " ".join([f"python -m benchmarks.{module}", "--seeds", *map(str, seeds), *(["--", *extra] if extra else [])])


def hardware_of(records: Iterable[Record]) -> str:
    """Each kind of hardware that the runs were on, once."""
    return "; ".join(sorted({f"{one.cost.hardware}, {one.cost.threads} thread(s)" for one in records if one.cost is not None}))


def commits_of(records: Iterable[Record]) -> str:
    """``, commit ...`` with each commit that the runs were of, once; empty where none is known."""
    commits = {f"`{one.git_commit.sha[:12]}`{' with changes' if one.git_commit.dirty else ''}" for one in records if one.git_commit}
    return f", commit {', '.join(sorted(commits))}" if commits else ""
