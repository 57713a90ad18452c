"""One fine-tuning run, from a validated config to a folder with the adapter, the plots and the record."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapters.method import create_method
from zoo.data.loader import GraphDataset
from zoo.data.source import DataSplits, load_splits
from zoo.errors import ZooError
from zoo.evaluation.reference import fit_to_own_error, take_isolated_atoms, unit_hint
from zoo.graph import collate
from zoo.loading import load
from zoo.potential import Potential
from zoo.training import artefacts, sanity
from zoo.training.artefacts import TestResults
from zoo.training.checkpoints import AtomicCheckpointIO, read_best_weights
from zoo.training.config import RunConfig
from zoo.training.cost import Stopwatch
from zoo.training.folder import RunFolder
from zoo.training.module import FineTuning
from zoo.training.sanity import Say
from zoo.training.stream import BatchStream
from zoo.training.validation import Validation


@dataclass(frozen=True)
class RunResult:
    """What a finished run hands back.

    Attributes:
        folder: where everything lies.
        potential: fine-tuned, with the best weights and the refitted reference energies.
        results: zero-shot and fine-tuned metrics by test set.
        summary: the table the command line prints.
    """

    folder: Path
    potential: Potential
    results: TestResults
    summary: str


def fine_tune(config: RunConfig, say: Say = print) -> RunResult:
    """Fine-tune, test and write the run folder; with ``run.resume`` continue where a killed run stopped, to the same bits.

    Args:
        config: validated; see `zoo.training.config`.
        say: receives every line for people; they also go to ``log.txt``.

    Raises:
        ZooError: before the first step for anything wrong with model, data, adapter or folder.
        adapters.errors.AdapterError: a wrong adapter configuration.
    """
    folder = RunFolder(Path(config.run.folder))
    folder.prepare(config)
    with _logged(folder, say) as tell, _deterministic():
        if config.training.threads is not None:
            torch.set_num_threads(config.training.threads)
        potential = build_potential(config)
        splits = load_splits(config.data, sanity.needed_labels(config.training.loss))
        _check(config, potential, splits, tell)
        stopwatch = Stopwatch()
        validation = _fit(config, folder, potential, splits, stopwatch, tell)
        tell(f"trained to step {validation.last_step}; best validation loss at step {validation.best_step}")
        return _finish(config, folder, potential, splits, stopwatch, validation, tell)


def build_potential(config: RunConfig) -> Potential:
    """Base and fresh (or given) adapter as the config names them, on the device it names."""
    torch.manual_seed(config.training.seed)
    backbone = config.backbone
    device = ("cuda" if torch.cuda.is_available() else "cpu") if backbone.device == "auto" else backbone.device
    given_file = config.adapter.get("path")
    potential = load(
        backbone.name,
        adapter=Path(given_file) if given_file is not None else None,
        dtype=backbone.dtype,
        device=device,
        weights="card" if config.strategy.weights == "card" else None,
        head=backbone.head,
        trust_pickle=backbone.trust_pickle,
    )
    if given_file is None:
        method = create_method(config.adapter)
        optimizer = config.training.optimizer.name
        if method.requires_decoupled_weight_decay and optimizer in ("adam", "amsgrad"):
            raise ZooError(
                f"adapter {method.name!r} needs decoupled weight decay, which {optimizer} has not; set training.optimizer.name=adamw "
                "or schedule_free_adamw"
            )
        potential.adapters.add(method.name, method, seed=config.training.seed)
    return potential


def _check(config: RunConfig, potential: Potential, splits: DataSplits, tell: Say) -> None:
    """Everything that can be wrong, before the first step."""
    sanity.describe_data(splits, tell)
    sanity.check_labels(splits, config.training.loss)
    sanity.check_model_knows(potential, splits)
    tell(f"base: {potential.source}, parameter values SHA-256 {potential.base_sha256[:16]}...")
    sanity.describe_adapter(potential.adapters, tell)


def _fit(config: RunConfig, folder: RunFolder, potential: Potential, splits: DataSplits, stopwatch: Stopwatch, tell: Say) -> Validation:
    """Reference energies, step-0 check, and the training itself; leaves the best weights in the adapters."""
    training, batch_size = config.training, config.training.batch_size
    train = GraphDataset(splits.train, potential.backbone.cutoff)
    valid = GraphDataset(splits.valid, potential.backbone.cutoff)
    valid_batches = [collate(valid[start : start + batch_size]) for start in range(0, len(valid), batch_size)]
    checkpoint = folder.checkpoint if config.run.resume and folder.checkpoint.is_file() else None
    if checkpoint is None:
        _set_reference(config, potential, splits, tell)
        sanity.check_start(potential, collate([train[0]]).to(str(potential.device)), tell)
    first_step = 0 if checkpoint is None else int(AtomicCheckpointIO().load_checkpoint(checkpoint)["global_step"])
    module = FineTuning(potential, training)
    validation = Validation(valid_batches, folder.path, stopwatch)
    trainer = _trainer(config, folder, validation)
    stream = BatchStream(train, batch_size, training.steps, training.seed, first_step)
    with _quiet_lightning():
        trainer.fit(module, stream, ckpt_path=checkpoint, weights_only=True)
    module.load_state_dict(read_best_weights(folder.path / "checkpoints", validation.best_step))
    potential.eval()
    return validation


def _set_reference(config: RunConfig, potential: Potential, splits: DataSplits, tell: Say) -> None:
    sample = splits.train[: min(8, len(splits.train))]
    hint = unit_hint(potential, sample, config.training.batch_size) if config.strategy.weights == "card" else None
    if hint is not None:
        tell(f"warning: {hint}")
    before = config.strategy.reference_energies_before
    if before == "isolated_atoms":
        take_isolated_atoms(potential, splits.isolated_atom_energies)
        tell("reference energies: the data set's isolated atoms")
    elif before == "model":
        fitted = fit_to_own_error(potential, splits.train, config.training.batch_size)
        tell(fitted.note)
        sanity.check_reference(splits.train, fitted.rms_after_ev, tell)


def _finish(
    config: RunConfig,
    folder: RunFolder,
    potential: Potential,
    splits: DataSplits,
    stopwatch: Stopwatch,
    validation: Validation,
    tell: Say,
) -> RunResult:
    """Zero-shot and fine-tuned tests around the final reference fit, then every file of the folder."""
    batch_size = config.evaluation.batch_size
    names = potential.adapters.active
    potential.adapters.activate([])
    zero_shot = artefacts.predict_tests(potential, splits, batch_size) if config.evaluation.zero_shot else {}
    potential.adapters.activate(names)
    if config.strategy.refit_reference_energies:
        tell(f"after training, {fit_to_own_error(potential, splits.train, batch_size).note}")
    fine_tuned = artefacts.predict_tests(potential, splits, batch_size)
    potential.level_of_theory = splits.level_of_theory
    results = artefacts.score(splits, zero_shot, fine_tuned)
    adapter_file = artefacts.write_adapter_file(config, folder, potential, splits, validation.best_step)
    if config.evaluation.plots:
        artefacts.write_plots(folder, validation.history, splits, zero_shot, fine_tuned)
    artefacts.write_run_record(config, folder, potential, splits, results, stopwatch)
    summary = artefacts.summary_table(results)
    tell(summary)
    tell(f"adapter: {adapter_file} ({adapter_file.stat().st_size / 1e6:.2f} MB, {potential.adapters.trainable_count:,} values)")
    tell(f"record, plots and log: {folder.path}/")
    return RunResult(folder.path, potential, results, summary)


def _trainer(config: RunConfig, folder: RunFolder, validation: Validation) -> Any:
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import RichProgressBar

    training = config.training
    uses_gpu = torch.cuda.is_available() and config.backbone.device != "cpu"
    return Trainer(
        max_steps=training.steps,
        max_epochs=-1,
        accelerator="gpu" if uses_gpu else "cpu",
        devices=1,
        callbacks=[validation, *([RichProgressBar()] if training.progress_bar else [])],
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


def _loggers(config: RunConfig, folder: RunFolder) -> list[Any]:
    loggers: list[Any] = []
    if config.training.loggers.tensorboard:
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(folder.path, name="", version="tensorboard"))
    project = config.training.loggers.wandb_project
    if project is not None:
        try:
            from lightning.pytorch.loggers import WandbLogger

            loggers.append(WandbLogger(project=project, name=config.run.name, save_dir=folder.path))
        except (ImportError, ModuleNotFoundError):
            raise ZooError(
                "training.loggers.wandb_project needs the package 'wandb', which is not installed; run: pip install wandb"
            ) from None
    return loggers


@contextmanager
def _logged(folder: RunFolder, say: Say) -> Iterator[Say]:
    """Lines for people also go to the folder's ``log.txt``."""
    with folder.log.open("a", encoding="utf-8") as stream:

        def tell(line: str) -> None:
            say(line)
            stream.write(line + "\n")
            stream.flush()

        yield tell


@contextmanager
def _deterministic() -> Iterator[None]:
    """Gradients of indexing are otherwise summed in whatever order two threads meet; operations without such a version still run."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def _quiet_lightning() -> Iterator[None]:
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
