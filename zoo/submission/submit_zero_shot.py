"""A base evaluated on a protocol and written as an archive of the board's own, with the evidence that a run's row has."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import ZooError
from zoo.evaluation.asked import asked_of
from zoo.evaluation.evaluate import prepare_parts
from zoo.evaluation.metrics import compute_metrics
from zoo.evaluation.prediction_files import predictions_npz
from zoo.evaluation.predictions import predict_frames
from zoo.evaluation.provenance import base_record, data_record, made_here, reference_energy_record
from zoo.evaluation.record import build_record, metric_records
from zoo.evaluation.record_parts import SubmissionRecord
from zoo.submission.archive import Submission, canonical_json, sha256_of
from zoo.submission.labels import tested_frames
from zoo.submission.recompute import Choice
from zoo.submission.statement import Statement, check_statement
from zoo.submission.written import Submitted, write_submission
from zoo.submission.zero_shot import ZeroShotConfig, load_evaluated_base


def submit_zero_shot(config: ZeroShotConfig, statement: Statement, output: Path, choice: Choice | None = None) -> Submitted:
    """Evaluate a base on the test sets of a protocol, and write archive and record as `zoo.submission.submit.submit` does for a run.

    Args:
        config: base, data and reference energies; nothing of it may be a file of one's own.
        statement: author and licence, with ``reproduced=True``.
        output: of the archive; the record is written beside it, as ``.json``.
        choice: which predictions the verification computes again, and the device.

    Raises:
        ZooError: a base that has no card, data without a test set, or an archive that the verifier refuses, with the first of its reasons.
    """
    where, choice = f"{config.backbone.name} on {config.data.name}", choice or Choice()
    check_statement(statement)
    if not statement.reproduced:
        raise ZooError(f"{where}: a base without adapter is entered by the board's maintainers; pass reproduced=true, or submit a run")
    splits = tested_frames(config.data, config.split, config.reference_energies)
    potential = load_evaluated_base(config).to(choice.device)
    prepare_parts(potential, splits, config.split, config.batch_size, config.reference_energies)
    predictions = {name: predict_frames(potential, frames, config.batch_size) for name, frames in splits.tests.items()}
    npz = predictions_npz(splits.tests, predictions)
    plain = config.model_dump(mode="json")
    plain["backbone"] |= {"device": "auto"}
    fields = {
        **made_here(),
        "base": base_record(potential),
        "adapter": None,
        "data": data_record(splits).model_copy(update={"notes": ()}),
        "seed": None,
        "reference_energies": reference_energy_record(potential, "base", config.reference_energies),
        "training": None,
        "evaluation": {"task": "labels", "asked": asked_of(config, config.data)},
        "metrics": metric_records({name: compute_metrics(predictions[name], frames) for name, frames in splits.tests.items()}),
        "zero_shot_metrics": (),
        "cost": None,
        "provenance": "reproduced",
        "author": statement.author,
        "licence": statement.licence,
        "submission": SubmissionRecord(
            config_sha256=sha256_of(canonical_json(plain).encode()), predictions_sha256=sha256_of(npz), predictions_bytes=len(npz)
        ),
    }
    return write_submission(Submission(build_record(**fields), plain, None, npz), output, choice, where)
