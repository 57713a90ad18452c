"""Lightning's Trainer as the project uses it: quiet, deterministic, one device, checkpoints from the validation callback."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

from zoo.errors import ZooError, is_full_disk
from zoo.training.checkpoints import AtomicCheckpointIO
from zoo.training.config import RunConfig
from zoo.training.folder import RunFolder
from zoo.training.validation import Validation


def make_trainer(config: RunConfig, folder: RunFolder, validation: Validation, steps: int, device: torch.device) -> Any:
    """A Trainer on ``device`` for ``steps`` optimizer steps; it leaves validation and checkpoints to ``validation``."""
    from lightning.pytorch import Trainer

    training = config.training
    on_gpu = device.type == "cuda"
    return Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="gpu" if on_gpu else "cpu",
        devices=[device.index or 0] if on_gpu else 1,
        callbacks=[validation, *([_progress_bar()] if training.progress_bar else [])],
        logger=_loggers(config, folder),
        plugins=[AtomicCheckpointIO()],
        gradient_clip_val=training.gradient_clip_norm,
        gradient_clip_algorithm="norm",
        limit_val_batches=0,  # the Validation callback validates, at a point where a checkpoint can follow
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=training.progress_bar,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        default_root_dir=folder.path,
    )


def _progress_bar() -> Any:
    """Lightning's rich bar, counting the steps of the run: its one epoch and a logger's version mean nothing to the reader."""
    from lightning.pytorch.callbacks import RichProgressBar

    class StepBar(RichProgressBar):
        @property
        def total_train_batches(self) -> int:  # Lightning's counts what remains, beside a position that a resumed run begins at its step
            return int(self.trainer.max_steps)

        def _get_train_description(self, current_epoch: int) -> str:
            return "step"

        def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
            metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
            return {name: value for name, value in metrics.items() if name != "v_num"}

    return StepBar()


def check_loggers(config: RunConfig) -> None:
    """Refuse a logger whose package is missing, before anything is written."""
    if config.training.loggers.wandb_project is not None and find_spec("wandb") is None:
        raise ZooError("training.loggers.wandb_project needs the package 'wandb', which is not installed; run: pip install wandb")


def _loggers(config: RunConfig, folder: RunFolder) -> list[Any]:
    loggers: list[Any] = []
    if config.training.loggers.tensorboard:
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(folder.path, name="", version="tensorboard"))
    project = config.training.loggers.wandb_project
    if project is not None:
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(project=project, name=config.run.name, save_dir=folder.path))
    return loggers


@contextmanager
def deterministic(threads: int | None) -> Iterator[None]:
    """Deterministic operations, on ``threads`` threads where given; the process's own settings again afterwards.

    Gradients of indexing are otherwise summed in whatever order two threads meet; operations without such a version still run.
    """
    threads_before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    # a debugging aid that costs a fifth of the step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


@contextmanager
def interruptible() -> Iterator[None]:
    """Lightning answers Ctrl+C with exit code 1 and is deaf to the next one; here it stays a `KeyboardInterrupt`."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def one_line_for_full_disks(folder: RunFolder) -> Iterator[None]:
    """Loggers report a disk without room as they like; raises `ZooError` instead."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise ZooError(
            f"{error.filename or folder.path}: cannot be written ({error.strerror}); free disk space and run again with run.resume=true"
        ) from error


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's tips and its remarks on a loop we chose on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", category=UserWarning, message=".*(does not have many workers|mid-epoch|lr_scheduler.step).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
