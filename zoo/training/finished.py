"""What a finished run left, read back: its model and its results."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from zoo.errors import ZooError
from zoo.evaluation.record import Record, read_record
from zoo.evaluation.record_parts import MetricRecord
from zoo.loading import load
from zoo.potential import Potential
from zoo.training.artefacts import MetricsByTest, TestResults
from zoo.training.config import RunConfig
from zoo.training.folder import RunFolder


def load_finished(folder: RunFolder, config: RunConfig, dtype: str | None, device: str) -> Potential:
    """The fine-tuned model: the base with the run's adapter, or ``model.pth`` of a run whose base no card holds.

    Raises:
        ZooError: where a file is missing or broken.
        adapters.errors.AdapterError: an adapter file that is broken, or of another base.
    """
    backbone = config.backbone
    if config.strategy.weights == "card":
        return load(
            backbone.name, adapter=folder.adapter, dtype=dtype, device=device, head=backbone.head, trust_pickle=backbone.trust_pickle
        )  # forces come with the adapter
    potential = load(folder.model, dtype=dtype, device=device, head=backbone.head, forces=backbone.forces)
    potential.level_of_theory = read_record(folder.record).data.level_of_theory or ""
    return potential


def valid_record(folder: RunFolder) -> Record | None:
    """The record of a run that is finished; None where it is missing or damaged, or is not of the adapter file beside it."""
    try:
        record = read_record(folder.record)
        digest = hashlib.sha256(folder.adapter.read_bytes()).hexdigest()
    except (ZooError, OSError):
        return None
    return record if record.adapter is not None and record.adapter.file_sha256 == digest else None


def results_of(record: Record) -> TestResults:
    """The metrics by test set again."""
    return TestResults(_by_test(record.zero_shot_metrics), _by_test(record.metrics))


def _by_test(metrics: Sequence[MetricRecord]) -> MetricsByTest:
    found: MetricsByTest = {}
    for metric in metrics:
        found.setdefault(metric.test_set, {})[metric.name] = metric.value
    return found
