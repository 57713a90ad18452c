"""A submitted run: its config and adapter file taken apart, and base + adapter as the model that predicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from adapters.state import load_into
from zoo.data.config import DataConfig
from zoo.data.parts import DataSplits
from zoo.errors import ZooError
from zoo.evaluation.forgetting_settings import ForgettingSettings
from zoo.evaluation.record import Record
from zoo.potential import Potential
from zoo.submission.archive import Submission
from zoo.submission.consistency import Parts, differences
from zoo.submission.recompute import adapter_differences, base_differences, load_base, read_adapter_bytes
from zoo.training.config import parse_config


@dataclass(frozen=True)
class RunEntry:
    """`zoo.submission.entry.Entry` of a run."""

    parts: Parts

    @classmethod
    def of(cls, submission: Submission) -> RunEntry:
        """Raises ZooError or AdapterError where config or adapter file cannot be read."""
        if submission.adapter is None:
            raise ZooError("no adapter.safetensors; write the archive with zoo submit")
        settings = parse_config({**submission.config, "run": {"name": "submitted", "folder": "submitted"}})
        return cls(Parts(submission, settings, *read_adapter_bytes(submission.adapter)))

    @property
    def record(self) -> Record:
        """The result."""
        return self.parts.record

    @property
    def data(self) -> DataConfig:
        """What the protocol's frames are drawn by."""
        return self.parts.settings.data

    @property
    def part(self) -> str | None:
        """A run is tested on all."""
        return None

    @property
    def forgetting(self) -> ForgettingSettings | None:
        """On which frames what was forgotten is measured."""
        return self.parts.settings.evaluation.forgetting

    def differences(self) -> Iterator[str]:
        """Every disagreement among the files, one line each."""
        return differences(self.parts)

    def model(self, splits: DataSplits) -> tuple[Potential, list[str]]:
        """`zoo.submission.entry.Entry.model`: the base with the adapter attached."""
        potential, manifest = load_base(self.parts), self.parts.manifest
        adapter = load_into(potential.adapters, manifest.method, manifest, self.parts.tensors)
        return potential, [*base_differences(self.record, potential), *adapter_differences(self.record, potential, adapter)]
