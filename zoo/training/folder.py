"""The run folder: what lies where, refused when it holds another run, and what is needed to reproduce it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from zoo.errors import ZooError
from zoo.evaluation.provenance import environment
from zoo.files import is_partial, remove_partials, write_text_atomically
from zoo.training.checkpoints import LAST
from zoo.training.config import RunConfig, parse_config
from zoo.yaml_text import read_yaml

_LOCK = ".lock"

# what may differ between a run and its resumption: none of it changes a number
_FREE_TO_CHANGE = {
    ("run", "resume"),
    ("run", "folder"),
    ("training", "progress_bar"),
    ("evaluation",),
    ("data", "cache"),
    ("data", "workers"),
}


class RunFolder:
    """Paths inside one run's folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: FileLock | None = None

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, machine and commit."""
        return self.path / "environment.json"

    @property
    def log(self) -> Path:
        """Every line printed."""
        return self.path / "log.txt"

    @property
    def history(self) -> Path:
        """One row a validation."""
        return self.path / "history.csv"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.path / "adapter.safetensors"

    @property
    def model(self) -> Path:
        """The whole model as a checkpoint of its own package, where the base's weights are in no card."""
        return self.path / "model.pth"

    @property
    def predictions(self) -> Path:
        """The fine-tuned model's predictions of the test frames (`zoo.evaluation.prediction_files`)."""
        return self.path / "predictions.npz"

    @property
    def record(self) -> Path:
        """The result in the leaderboard's schema."""
        return self.path / "record.json"

    @property
    def checkpoint(self) -> Path:
        """Where a killed run continues."""
        return self.path / "checkpoints" / LAST

    def check(self, config: RunConfig) -> None:
        """Refuse a folder that this run must not or cannot use; writes nothing.

        Raises:
            ZooError: where the folder cannot be written, holds files and ``run.resume`` is false, or holds another run or none.
        """
        existing = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise ZooError(
                f"{self.path}: cannot be written ({existing} is a file, not a folder); pass another run.name=... or hydra.run.dir=..."
            )
        if not os.access(existing, os.W_OK | os.X_OK):
            raise ZooError(f"{self.path}: cannot be written (no permission in {existing}); pass another run.name=... or hydra.run.dir=...")
        names = sorted(path.name for path in self.path.iterdir()) if self.path.exists() else []
        found = [name for name in names if name != _LOCK and not is_partial(name)]  # what a kill leaves before there is a config
        if found and not config.run.resume:
            raise ZooError(f"{self.path}: not empty; pass another run.name=..., or run.resume=true to continue that run")
        if self.config.exists():
            _check_same_config(self.config, config.model_dump(mode="json"))
        elif found:
            raise ZooError(f"{self.path}: holds files ({found[0]}, ...) but no config.yaml, so no run to resume; pass another run.name=...")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process out of this run: one that is begun from here on, a new one from `prepare` on.

        Raises:
            ZooError: where another process has it, or the lock cannot be made.
        """
        self._lock = FileLock(self.path / _LOCK)
        try:
            if self.config.exists():
                self._acquire(self._lock)
            yield
        finally:
            self._lock.release()
            self._lock = None

    def _acquire(self, lock: FileLock) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise ZooError(f"{self.path}: another process is running it; wait until that ends, or pass another run.name=...") from None
        except OSError as error:
            raise ZooError(
                f"{self.path}: cannot be written ({error.strerror or error}); free disk space or pass another run.name=..."
            ) from None

    def prepare(self, config: RunConfig, device: torch.device) -> None:
        """Create the folder, write the resolved config and the first environment, and remove what a kill left half-written.

        Raises:
            ZooError: where the folder cannot be written, or another process has begun the run meanwhile.
        """
        if self._lock is not None and not self._lock.is_locked:
            self._acquire(self._lock)
            if self.config.exists():
                raise ZooError(f"{self.path}: another process has just begun this run; wait until it ends, or pass another run.name=...")
        for folder, _, _ in os.walk(self.path):
            remove_partials(Path(folder))
        write_text_atomically(self.config, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        if not self.environment.exists():
            write_text_atomically(self.environment, json.dumps(environment(device), indent=2) + "\n")

    @classmethod
    def existing(cls, path: str | Path) -> tuple[RunFolder, RunConfig]:
        """A finished run and its config; raises `ZooError` where ``path`` is not one."""
        folder = cls(Path(path))
        if not folder.config.is_file():
            raise ZooError(f"{path}: not a run folder (it has no config.yaml); pass the folder that zoo train wrote")
        config: RunConfig = parse_config(_read_yaml(folder.config))
        if not folder.adapter.is_file():
            raise ZooError(f"{path}: the run has no adapter.safetensors yet; finish it with the same command and run.resume=true")
        return folder, config


class RunLog:
    """Lines for people, which also go to the run's ``log.txt``: from the first one on, though the folder comes later.

    Args:
        say: shows a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._waiting: list[str] = []
        self._path: Path | None = None

    def tell(self, line: str) -> None:
        """Show a line and keep it; raises `ZooError` where it cannot be kept."""
        self._say(line)
        self._waiting.append(line)
        if self._path is not None:
            self._write(self._path)

    def keep_in(self, path: Path) -> None:
        """From now on, append to ``path`` what was told and what will be."""
        self._path = path
        self._write(path)

    def _write(self, path: Path) -> None:
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.writelines(f"{line}\n" for line in self._waiting)
        except OSError as error:
            raise ZooError(
                f"{path}: cannot be written ({error.strerror or error}); free disk space and run again with run.resume=true"
            ) from None
        self._waiting.clear()


def _read_yaml(path: Path) -> dict[str, Any]:
    values = read_yaml(path, "start a new run")
    if not path.read_bytes().endswith(b"\n"):
        raise ZooError(f"{path}: ends within a line, so it is not complete; copy the run again, or start a new one")
    if not isinstance(values, dict):
        raise ZooError(f"{path}: not a run's config; start a new run")
    return values


def _check_same_config(path: Path, values: Mapping[str, Any]) -> None:
    try:  # through the model, so that a setting which is younger than the run has its default there
        saved = dict(_flatten(parse_config(_read_yaml(path)).model_dump(mode="json")))
    except ZooError as error:
        raise ZooError(f"{path}: not the config of a run that can go on ({error}); start a new run") from None
    current = dict(_flatten(values))
    for key in sorted(set(saved) | set(current)):
        if any(key[: len(free)] == free for free in _FREE_TO_CHANGE):
            continue
        if saved.get(key) != current.get(key):
            name = ".".join(key)
            raise ZooError(
                f"{path.parent}: that run had {name}={saved.get(key)!r}, this one has {current.get(key)!r}; "
                "resume with the same config, or start another run.name=..."
            )


def _flatten(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    leaves: list[tuple[tuple[str, ...], Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            leaves.extend(_flatten(value, (*prefix, str(key))))
        else:
            leaves.append(((*prefix, str(key)), value))
    return leaves
