"""A tiny run of SevenNet-0 and its submission."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit_leaderboard.forgery import Forger
from zoo.submission.archive import parse_archive
from zoo.submission.recompute import Choice

TINY_RUN = (
    *("backbone=sevennet-0", "adapter=elora", "adapter.rank=1", "data=emt-cuau", "data.n_train=4", "data.n_valid=2", "data.n_test=6"),
    *("data.test=[]", "training.steps=2", "training.validate_every=1", "training.batch_size=2", "training.threads=1"),
    *("training.loggers.tensorboard=false", "training.progress_bar=false", "evaluation.plots=false", "evaluation.zero_shot=false"),
)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two steps: SevenNet-0 with ELoRA of rank 1 on the embedded Cu-Au set, six test frames."""
    from zoo.compose import compose
    from zoo.training.config import parse_config
    from zoo.training.run import fine_tune

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    fine_tune(parse_config(compose("train", [*TINY_RUN, f"run.folder={folder}", "run.name=tiny"])), say=lambda _: None)
    return folder


@pytest.fixture(scope="session")
def honest(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of that run."""
    from zoo.submission.submit import Statement, submit

    output = tmp_path_factory.mktemp("submissions") / "honest.zip"
    return submit(tiny_run, Statement("A. Person", "CC-BY-4.0"), output, Choice(most=2)).archive


@pytest.fixture(scope="session", autouse=True)
def _data_read_once() -> Iterator[None]:
    """Each verification reads the data; here it is the same each time."""
    from zoo.submission import labels

    read, known = labels.load_splits, {}

    def remembered(config: Any, needs: Any) -> Any:
        key = config.model_dump_json()
        if key not in known:
            known[key] = read(config, needs)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "load_splits", remembered)
        yield


@pytest.fixture(scope="session")
def forger(honest: Path) -> Forger:
    return Forger(parse_archive(honest.read_bytes(), "honest.zip").submission)
