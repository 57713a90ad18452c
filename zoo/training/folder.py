"""The run folder: what lies where, refused when it holds another run, and what is needed to reproduce it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.errors import ZooError
from zoo.evaluation.provenance import environment
from zoo.files import write_text_atomically
from zoo.training.checkpoints import LAST
from zoo.training.config import RunConfig, parse_config

# what may differ between a run and its resumption: none of it changes a number
_FREE_TO_CHANGE = {("run", "resume"), ("run", "folder"), ("training", "progress_bar"), ("evaluation",)}


class RunFolder:
    """Paths inside one run's folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

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
    def record(self) -> Path:
        """The result in the leaderboard's schema."""
        return self.path / "record.json"

    @property
    def checkpoint(self) -> Path:
        """Where a killed run continues."""
        return self.path / "checkpoints" / LAST

    def prepare(self, config: RunConfig) -> None:
        """Create the folder and write the resolved config and the environment.

        Raises:
            ZooError: where the folder cannot be written, holds files and ``run.resume`` is false, or holds a run of another config.
        """
        occupied = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        values = config.model_dump(mode="json")
        if occupied and not config.run.resume:
            raise ZooError(f"{self.path}: not empty; pass run.resume=true to continue that run, or another run.name=...")
        if occupied and self.config.exists():
            _check_same_config(self.config, values)
        write_text_atomically(self.config, yaml.safe_dump(values, sort_keys=False))
        write_text_atomically(self.environment, json.dumps(environment(), indent=2) + "\n")

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


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ZooError(f"{path}: cannot be read ({str(error).splitlines()[0]}); start a new run") from None
    if not isinstance(values, dict):
        raise ZooError(f"{path}: not a run's config; start a new run")
    return values


def _check_same_config(path: Path, values: Mapping[str, Any]) -> None:
    saved, current = dict(_flatten(_read_yaml(path))), dict(_flatten(values))
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
