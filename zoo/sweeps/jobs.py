"""The runs of a sweep: each composed and checked before the first one starts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zoo.compose import compose
from zoo.errors import USER_ERRORS, ZooError
from zoo.overrides import quoted
from zoo.sweeps.kinds import Kind, Value
from zoo.sweeps.request import Method, SweepRequest
from zoo.training.config import RunConfig, parse_config

# what tells the runs apart, and where they go, is the sweep's to say
_TAKEN = {
    "adapter": "methods=[...]",
    "training.seed": "seeds=[...]",
    "run.name": "sweep.folder=...",
    "run.folder": "sweep.folder=...",
    "run.resume": "nothing: what was interrupted goes on",
}


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        method: as the user wrote it.
        value: of the swept key; None where nothing is varied.
        seed: of the training.
        folder: of the run.
        words: of ``zoo train``.
        config: what they compose to, validated.
    """

    name: str
    method: str
    value: Value | None
    seed: int
    folder: Path
    words: tuple[str, ...]
    config: RunConfig

    def command(self, resume: bool) -> list[str]:
        """The words of ``zoo train`` that run it, or go on with it."""
        return [*self.words, f"hydra.run.dir={quoted(str(self.folder))}", *(["run.resume=true"] if resume else [])]

    def line(self, resume: bool) -> str:
        """The command as a shell takes it."""
        return shlex.join(["zoo", "train", *self.command(resume)])

    @property
    def is_begun(self) -> bool:
        """Whether its folder holds anything."""
        return self.folder.is_dir() and any(self.folder.iterdir())

    @property
    def is_finished(self) -> bool:
        """Whether it has a record of the adapter beside it."""
        from zoo.training.finished import valid_record
        from zoo.training.folder import RunFolder

        return valid_record(RunFolder(self.folder)) is not None

    def check_folder(self) -> None:
        """Raise `ZooError` where the folder holds a run of another configuration, or cannot be written."""
        from zoo.training.folder import RunFolder

        resuming = self.config.model_copy(update={"run": self.config.run.model_copy(update={"resume": True})})
        try:
            RunFolder(self.folder).check(resuming)
        except ZooError as error:
            raise ZooError(f"{error} (a sweep needs a folder of its own: sweep.folder=...)") from None


def jobs_of(request: SweepRequest, folder: Path) -> list[Job]:
    """Every run, method by method, in the order of the values and seeds.

    Raises:
        ZooError, adapters.errors.AdapterError: for words that no run takes, or that the sweep sets itself.
    """
    kind = request.the_kind
    _check_free(kind, request.words)
    combinations = [(method, value, seed) for method in request.the_methods for value in request.the_values for seed in request.seeds]
    return [_job(request, folder, *combination) for combination in combinations]


def default_folder(request: SweepRequest) -> Path:
    """``sweeps/KIND-BASE-DATA`` below the current folder."""
    config = _composed(request.words, "x", Path("x"))  # the adapter's settings may be those of no default, so they are not looked at
    data = config.data
    labels = [request.kind, config.backbone.name, str(data.path or data.train or data.name)]
    return Path("sweeps") / "-".join(_label(label) for label in labels)


def _label(text: str) -> str:
    """``my/model.pth`` -> ``model``, ``rmd17/aspirin`` -> ``rmd17_aspirin``."""
    name = Path(text).stem if Path(text).is_file() or ("/" in text and Path(text).suffix) else text
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def _job(request: SweepRequest, folder: Path, method: Method, value: Value | None, seed: int) -> Job:
    kind = request.the_kind
    varied = [] if value is None else [f"{kind.key}={value_text(value)}"]
    name = "-".join([method.slug, *([] if value is None else [kind.name, value_text(value)]), f"s{seed}"])
    words = (*kind.words, *request.words, *method.words, *varied, f"training.seed={seed}", f"run.name={name}")
    place = folder / "runs" / name
    try:
        config = _composed(words, name, place)
        _check_adapter(kind, config)
    except USER_ERRORS as error:
        raise type(error)(f"{name}: {error}") from None
    return Job(name, method.text, value, seed, place, words, config)


def _composed(words: Iterable[str], name: str, folder: Path) -> RunConfig:
    config: RunConfig = parse_config(compose("train", [*words, f"run.name={name}", f"run.folder={quoted(str(folder))}"]))
    return config


def _check_adapter(kind: Kind, config: RunConfig) -> None:
    if "path" not in config.adapter:
        from adapters.method import create_method

        create_method(config.adapter)
    for key in kind.fixed_by:
        if config.adapter.get(key) is not None:
            raise ZooError(f"adapter.{key}={config.adapter[key]} fixes what {kind.name} varies; leave it out, or take methods=[sparse]")


def _check_free(kind: Kind, words: Iterable[str]) -> None:
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key in _TAKEN:
            raise ZooError(f"zoo sweep {kind.name}: {key} is set by the sweep; give {_TAKEN[key]}")
        if key == kind.key:
            raise ZooError(f"zoo sweep {kind.name}: {key} is what it varies; give values=[...]")


def value_text(value: Value) -> str:
    """A value as a word and a folder's name has it: ``16``, ``0.01``, ``1e-05``."""
    return str(value) if isinstance(value, int) else f"{value:.12g}"
