"""What a forger makes of an honest submission, knowing the format as well as we do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors

from adapters import state
from zoo.evaluation.metrics import compute_metrics
from zoo.evaluation.prediction_files import parse_predictions, predictions_npz
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.record import build_record, metric_records
from zoo.submission.archive import ArchiveFile, Submission, canonical_json, parse_archive, sha256_of
from zoo.submission.recompute import Choice
from zoo.submission.verify import Judgement, verify_archive

TEST_SET = "test"
"""The six frames of the tiny run that are drawn from the pool."""


@dataclass(frozen=True)
class Forger:
    """Changes an honest submission. ``sealed`` makes every hash and the id fit again, as anyone can who knows the format."""

    submission: Submission

    def fields(self) -> dict[str, Any]:
        """The record's content as plain data."""
        return json.loads(self.submission.record.model_dump_json(exclude={"id"}))

    def sealed(self, change: Callable[[dict[str, Any]], None] = lambda fields: None, **files: Any) -> Submission:
        """With other files (``config``, ``adapter``, ``predictions``) and a record that names them, then changed by ``change``."""
        forged, fields = replace(self.submission, **files), self.fields()
        fields["training"] = json.loads(json.dumps(forged.config))  # a copy: ``change`` may reach into it
        fields["adapter"] |= {"file_sha256": sha256_of(forged.adapter), "file_bytes": len(forged.adapter)}
        fields["submission"] |= {
            "config_sha256": sha256_of(canonical_json(forged.config).encode()),
            "predictions_sha256": sha256_of(forged.predictions),
            "predictions_bytes": len(forged.predictions),
        }
        change(fields)
        return replace(forged, record=build_record(**fields))

    def config_with(self, group: str, **changes: Any) -> dict[str, Any]:
        """The config with some settings of one group changed."""
        config: dict[str, Any] = self.submission.config
        return {**config, group: {**config[group], **changes}}

    def frames(self) -> list[Any]:
        """The test frames with their labels."""
        from zoo.data.config import DataConfig
        from zoo.submission import labels

        return labels.load_splits(DataConfig.model_validate(self.submission.config["data"]), ()).tests[TEST_SET]

    def predicted(self) -> Predictions:
        """The honest predictions."""
        return parse_predictions(self.submission.predictions, "honest")[TEST_SET].of_frames(self.frames())

    def with_predictions(self, predictions: Predictions, frames: list[Any] | None = None, metrics: bool = True) -> Submission:
        """With other predictions, and unless ``metrics`` is false the metrics that they give."""
        frames = frames or self.frames()

        def change(fields: dict[str, Any]) -> None:
            if metrics:
                found = metric_records({TEST_SET: compute_metrics(predictions, frames)})
                fields["metrics"] = [metric.model_dump(mode="json") for metric in found]

        return self.sealed(change, predictions=predictions_npz({TEST_SET: frames}, {TEST_SET: predictions}))

    def changed_predictions(self, change: Callable[[Any, np.ndarray], np.ndarray], frames: int = 6) -> Predictions:
        """With the forces of the first frames changed by ``change(frame, forces)``."""
        honest = self.predicted()
        pairs = zip(self.frames(), honest.forces, strict=True)
        forces = [change(frame, values) if index < frames else values for index, (frame, values) in enumerate(pairs)]
        return replace(honest, forces=tuple(forces))

    def adapter_file(self, **changes: Any) -> bytes:
        """The adapter file with another manifest (or tensors multiplied by ``factor``), and the hash that fits."""
        manifest = json.loads(state._metadata_text(self.submission.adapter, "honest"))
        tensors = {name: tensor * changes.get("factor", 1.0) for name, tensor in parse_safetensors(self.submission.adapter).items()}
        manifest |= {name: value for name, value in changes.items() if name != "factor"}
        manifest.pop("content_sha256")
        text = state._canonical({**manifest, "content_sha256": state._content_sha256(manifest, tensors)})
        return serialise_safetensors(tensors, metadata={"equizoo": text})

    def adapter_manifest(self) -> dict[str, Any]:
        """What the adapter file says of itself."""
        return json.loads(state._metadata_text(self.submission.adapter, "honest"))


def judged(submission: Submission, most: int = 0) -> Judgement:
    """The verifier's judgement of a forged submission; without the base where ``most`` is 0."""
    content = submission.archive()
    return verify_archive(ArchiveFile(parse_archive(content, "forged.zip").submission, sha256_of(content), len(content)), Choice(most))
