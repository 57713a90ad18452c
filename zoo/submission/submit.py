"""A finished run as a submission: its files collected, its numbers computed again, and the verifier's own judgement of the archive."""

from __future__ import annotations

from pathlib import Path

from zoo.data.catalogue import data_set_names
from zoo.data.config import EMBEDDED_SET
from zoo.data.parts import DataSplits
from zoo.data.source import load_splits
from zoo.errors import ZooError
from zoo.evaluation.metrics import compute_metrics
from zoo.evaluation.prediction_files import parse_predictions, predictions_npz
from zoo.evaluation.predictions import predict_frames
from zoo.evaluation.provenance import data_record
from zoo.evaluation.record import Record, build_record, metric_records
from zoo.evaluation.record_parts import SubmissionRecord
from zoo.registry import describe, list_models
from zoo.submission.archive import DEFAULT_NAME as DEFAULT_NAME
from zoo.submission.archive import Submission, canonical_json, sha256_of
from zoo.submission.labels import aligned
from zoo.submission.recompute import Choice, equivariance_residual
from zoo.submission.statement import Statement as Statement
from zoo.submission.statement import check_statement
from zoo.submission.written import Submitted as Submitted
from zoo.submission.written import write_submission
from zoo.training.config import RunConfig
from zoo.training.finished import load_finished, valid_record
from zoo.training.folder import RunFolder


def submit(run: str | Path, statement: Statement, output: Path | None = None, choice: Choice | None = None) -> Submitted:
    """Make the archive of a finished run and verify it as the board will.

    Args:
        run: the run's folder.
        statement: author and licence.
        output: of the archive; ``submission.zip`` in the run's folder where None. The record is written beside it, as ``.json``.
        choice: which predictions the verification computes again.

    Raises:
        ZooError: a run that is not finished, was changed or is being worked on by another process, data or base that cannot be had or that
            nobody else has, or an archive that the verifier refuses, with the first of its reasons; nothing is left behind then.
    """
    folder, config = RunFolder.existing(run)
    _check_others_have_it(config, str(run))
    check_statement(statement, describe(config.backbone.name).licence)
    choice = choice or Choice()
    with folder.alone():
        submission = _collected(folder, config, statement, choice.device)
        return write_submission(submission, output or folder.path / DEFAULT_NAME, choice, str(run))


def _check_others_have_it(config: RunConfig, run: str) -> None:
    if config.backbone.name not in list_models():
        raise ZooError(f"{run}: its base {config.backbone.name} has no card, so that nobody else could load it; write a card for it first")
    if config.data.name not in (EMBEDDED_SET, *data_set_names()):
        raise ZooError(
            f"{run}: its data is a file of your own, whose labels nobody else has to compute with; write a card for the set (docs/data.md)"
        )


def _collected(folder: RunFolder, config: RunConfig, statement: Statement, device: str) -> Submission:
    run = folder.path
    own = valid_record(folder)
    if own is None:
        raise ZooError(f"{folder.record}: missing, damaged, or not of the adapter beside it; finish the run with run.resume=true")
    splits = load_splits(config.data, needs=())
    if not splits.tests:
        raise ZooError(f"{run}: its data has no test set, and errors on validation frames are not entered; name one with data.test=...")
    predictions = _predictions(folder, config, splits, device)
    residual = equivariance_residual(load_finished(folder, config, config.backbone.dtype, "cpu")) if statement.equivariance else None
    return _submission(folder, own.model_copy(update={"equivariance_residual": residual}), splits, predictions, statement)


def _predictions(folder: RunFolder, config: RunConfig, splits: DataSplits, device: str) -> bytes:
    """The npz that the run kept, or of its model where it kept none (a run of an older version) or of other frames."""
    if folder.predictions.is_file():
        content = folder.predictions.read_bytes()
        if not aligned(parse_predictions(content, str(folder.predictions)), splits.tests)[1]:
            return content
    potential = load_finished(folder, config, config.backbone.dtype, device)
    batch_size = config.evaluation.batch_size
    return predictions_npz(
        splits.tests, {name: predict_frames(potential, frames, batch_size=batch_size) for name, frames in splits.tests.items()}
    )


def _submission(folder: RunFolder, own: Record, splits: DataSplits, predictions: bytes, statement: Statement) -> Submission:
    """With the record as the board shows it: the run's own, without what a submission cannot prove."""
    parsed = parse_predictions(predictions, "predictions.npz")
    metrics = {name: compute_metrics(parsed[name].of_frames(frames), frames) for name, frames in splits.tests.items()}
    training = own.training or {}
    fields = own.model_dump(mode="json", exclude={"id", "created"})
    fields |= {
        "created": own.created,
        "data": data_record(splits).model_copy(update={"notes": ()}),  # a verdict says them anew
        "metrics": metric_records(metrics),
        "zero_shot_metrics": (),
        "provenance": "reproduced" if statement.reproduced else "submitted",
        "author": statement.author,
        "licence": statement.licence,
        "submission": SubmissionRecord(
            config_sha256=sha256_of(canonical_json(training).encode()),
            predictions_sha256=sha256_of(predictions),
            predictions_bytes=len(predictions),
        ),
    }
    return Submission(build_record(**fields), training, folder.adapter.read_bytes(), predictions)
