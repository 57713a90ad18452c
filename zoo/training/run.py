"""One fine-tuning run, from a validated config to a folder with the adapter, the plots and the record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo.data.batches import BatchStream, readers_watched
from zoo.data.frame import Frame
from zoo.data.label_counts import LabelCounts
from zoo.data.parts import DataSplits
from zoo.evaluation.forgetting import check_forgetting, forgetting_frames, forgetting_text, measure_forgetting
from zoo.evaluation.prediction_files import write_predictions
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.record import Record
from zoo.evaluation.reference import fit_to_own_error
from zoo.potential import Potential
from zoo.training import artefacts
from zoo.training.artefacts import TestResults
from zoo.training.checkpoints import drop_older_weights, read_kept_weights
from zoo.training.config import RunConfig
from zoo.training.cost import Stopwatch
from zoo.training.finished import load_finished, results_of, valid_record
from zoo.training.folder import RunFolder, RunLog
from zoo.training.module import FineTuning
from zoo.training.preparation import Material, estimate_reference, prepare
from zoo.training.sanity import Say
from zoo.training.trainer import deterministic, interruptible, make_trainer, one_line_for_full_disks, quiet_lightning
from zoo.training.validation import Validation
from zoo.training.validation_batches import ValidationBatches


@dataclass(frozen=True)
class RunResult:
    """What a finished run hands back.

    Attributes:
        folder: where everything lies.
        potential: fine-tuned, with the kept weights and the refitted reference energies.
        results: zero-shot and fine-tuned metrics by test set.
        summary: the table the command line prints.
    """

    folder: Path
    potential: Potential
    results: TestResults
    summary: str


def fine_tune(config: RunConfig, say: Say = print) -> RunResult:
    """Fine-tune, test and write the run folder; with ``run.resume`` continue where a killed run stopped, to the same bits.

    A finished run is left as it is, and its results are read back.

    Args:
        config: validated; see `zoo.training.config`.
        say: receives every line for people; they also go to ``log.txt``.

    Raises:
        ZooError: before the first step, and before anything is written, for anything wrong with model, data, adapter or folder, and where
            another process is running it.
        adapters.errors.AdapterError: a wrong adapter configuration.
    """
    folder = RunFolder(Path(config.run.folder))
    folder.check(config)
    with folder.alone():
        record = valid_record(folder)
        if record is not None:
            return _read_back(config, folder, record, say)
        checkpoint = folder.checkpoint if config.run.resume and folder.checkpoint.is_file() else None
        log = RunLog(say)
        with deterministic(config.training.threads):
            material = prepare(config, checkpoint, log.tell)
            probes = _forgetting_frames(config, material.potential)
            folder.prepare(config, material.potential.device)
            log.keep_in(folder.log)
            stopwatch = Stopwatch()
            validation = _fit(config, folder, material, checkpoint, stopwatch)
            kept = "" if validation.kept_step == validation.best_step else f"; the weights of step {validation.kept_step} are kept"
            log.tell(f"trained to step {validation.last_step}; best validation loss at step {validation.best_step}{kept}")
            return _finish(config, folder, material, probes, stopwatch, validation, log.tell)


def _read_back(config: RunConfig, folder: RunFolder, record: Record, say: Say) -> RunResult:
    results = results_of(record)
    summary = artefacts.summary_table(results)
    say(f"{folder.path}: this run is finished (record {record.id}); pass another run.name=... for a new one")
    say(summary)
    potential = load_finished(folder, config, config.backbone.dtype, config.backbone.torch_device)
    return RunResult(folder.path, potential, results, summary)


def _fit(config: RunConfig, folder: RunFolder, material: Material, checkpoint: Path | None, stopwatch: Stopwatch) -> Validation:
    """The training itself; leaves the kept weights in the adapters."""
    training, limits, device, readers = (
        config.training,
        config.training.batch_limits,
        material.potential.device,
        config.data.cache_choice.readers,
    )
    valid_batches = ValidationBatches(material.valid, limits, device, readers)
    stream = BatchStream(material.train, limits, material.plan.steps, training.seed, material.first_step, readers)
    per_batch, valid_per_batch = None, None
    if limits.by_size:
        per_batch = LabelCounts.of(material.splits.train).per_batch(stream.plan.batches_in_pass(0))
        valid_per_batch = LabelCounts.of(material.splits.valid).per_batch(len(valid_batches))
    module = FineTuning(material.potential, training, material.plan, material.identity, per_batch)
    validation = Validation(valid_batches, folder.path, stopwatch, valid_per_batch)
    with quiet_lightning():
        trainer = make_trainer(config, folder, validation, material.plan.steps, device)
        with interruptible(), readers_watched(), one_line_for_full_disks(folder):
            trainer.fit(module, stream, ckpt_path=checkpoint, weights_only=True)
    material.potential.to(device)  # Lightning leaves it on the CPU
    drop_older_weights(folder.path / "checkpoints", validation.kept_step)  # a kill after the last checkpoint may have left some
    module.load_state_dict(read_kept_weights(folder.path / "checkpoints", validation.kept_step))
    material.potential.eval()
    return validation


def _forgetting_frames(config: RunConfig, potential: Potential) -> list[Frame]:
    """Those that forgetting is measured on, checked; none where it is not asked for."""
    settings = config.evaluation.forgetting
    if settings is None:
        return []
    frames = forgetting_frames(settings)
    check_forgetting(settings, frames, potential)
    return frames


def _zero_shot(config: RunConfig, potential: Potential, splits: DataSplits) -> dict[str, Predictions]:
    """The base's predictions of the test sets, with reference energies of its own: the run's may be of an adapter that starts off it."""
    names, shifts = potential.adapters.active, potential.get_reference_shifts()
    potential.adapters.activate([])
    potential.set_reference_shifts({})
    estimate_reference(config, potential, splits)
    predictions = artefacts.predict_tests(potential, splits, config.evaluation.batch_size)
    potential.adapters.activate(names)
    potential.set_reference_shifts(shifts)
    return predictions


def _finish(
    config: RunConfig,
    folder: RunFolder,
    material: Material,
    probes: list[Frame],
    stopwatch: Stopwatch,
    validation: Validation,
    tell: Say,
) -> RunResult:
    """Zero-shot and fine-tuned tests around the final reference fit, what was forgotten, then every file of the folder."""
    potential, splits, batch_size = material.potential, material.splits, config.evaluation.batch_size
    zero_shot = _zero_shot(config, potential, splits) if config.evaluation.zero_shot else {}
    if config.strategy.refit_reference_energies:
        tell(f"after training, {fit_to_own_error(potential, splits.train, batch_size, splits.cache).note}")
    fine_tuned = artefacts.predict_tests(potential, splits, batch_size)
    cost = stopwatch.record(potential.device)  # of the run itself, without what is measured besides
    settings = config.evaluation.forgetting
    forgetting = None if settings is None else measure_forgetting(potential, settings, probes, batch_size)
    potential.level_of_theory = splits.level_of_theory
    results = artefacts.score(splits, zero_shot, fine_tuned)
    write_predictions(folder.predictions, splits.tested, fine_tuned)
    artefacts.write_whole_model(config, folder, potential)
    adapter_file = artefacts.write_adapter_file(config, folder, material, validation)
    if config.evaluation.plots:
        artefacts.write_plots(folder, validation.history, splits, zero_shot, fine_tuned)
    artefacts.write_run_record(config, folder, potential, splits, results, forgetting, cost)
    summary = artefacts.summary_table(results)
    tell(summary)
    if forgetting is not None:
        tell(forgetting_text(forgetting))
    tell(f"adapter: {adapter_file} ({adapter_file.stat().st_size / 1e6:.2f} MB, {potential.adapters.trainable_count:,} values)")
    if folder.model.is_file():
        tell(f"the whole model, since its base had random weights: {folder.model}; zoo.load and backbone= take it")
    tell(f"record, plots and log: {folder.path}/")
    return RunResult(folder.path, potential, results, summary)
