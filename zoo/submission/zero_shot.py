"""A base without adapter on the board: its predictions of a protocol's test frames as an archive, verified as a run's is.

There is nothing to train and nothing to attach, so the archive has no adapter file; its config says how the base was evaluated. Such rows
are the board's own (``reproduced``): a base is evaluated once, not by everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from zoo.data.config import DataConfig
from zoo.data.parts import DataSplits
from zoo.data.reference_choice import ReferenceChoice
from zoo.evaluation.asked import asked_of
from zoo.evaluation.forgetting_settings import ForgettingSettings
from zoo.evaluation.provenance import reference_energy_record
from zoo.evaluation.record import Record
from zoo.evaluation.reference import set_reference_energies
from zoo.potential import Potential
from zoo.submission.archive import Submission
from zoo.submission.consistency import card_differences, differs, file_differences, statement_differences
from zoo.submission.recompute import base_differences, load_card
from zoo.training.config import BackboneConfig, parse_config

_SHIFT_TOLERANCE_EV = 1e-3
"""Of a reference energy: a fit to float32 predictions; what it adds to an energy is compared with the predictions."""


class ZeroShotConfig(BaseModel):
    """How a base was evaluated: the words of ``zoo evaluate`` that change a number; of ``split``, a test set alone or ``whole``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneConfig
    data: DataConfig
    split: str | None = None
    reference_energies: ReferenceChoice = "base"
    batch_size: int = Field(default=16, ge=1)


def load_evaluated_base(config: ZeroShotConfig) -> Potential:
    """The base on the CPU; raises as `zoo.submission.recompute.load_card`."""
    backbone = config.backbone
    elements = None if backbone.elements == "data" else backbone.elements
    return load_card(backbone.name, dtype=backbone.dtype, head=backbone.head, elements=elements, forces=backbone.forces)


@dataclass(frozen=True)
class ZeroShotEntry:
    """`zoo.submission.entry.Entry` of a base without adapter."""

    submission: Submission
    settings: ZeroShotConfig

    @classmethod
    def of(cls, submission: Submission) -> ZeroShotEntry:
        """Raises ZooError where the config cannot be read."""
        return cls(submission, parse_config(submission.config, ZeroShotConfig))

    @property
    def record(self) -> Record:
        """The result."""
        return self.submission.record

    @property
    def data(self) -> DataConfig:
        """What the protocol's frames are drawn by."""
        return self.settings.data

    @property
    def part(self) -> str | None:
        """The test set that is evaluated alone."""
        return self.settings.split

    @property
    def forgetting(self) -> ForgettingSettings | None:
        """A base has forgotten nothing."""
        return None

    def differences(self) -> Iterator[str]:
        """Every disagreement among the files, one line each."""
        record, settings = self.record, self.settings
        yield from file_differences(self.submission)
        yield from statement_differences(record, asked_of(settings, settings.data))
        if record.provenance == "submitted":
            yield "a base without adapter is entered by the board itself, as 'reproduced'; submit a run"
        for name in ("training", "seed", "cost", "equivariance_residual", "forgetting"):
            if getattr(record, name) is not None:
                yield f"{name} belongs to a run, and this record is of a base without adapter"
        yield from differs("base.card", record.base.card, settings.backbone.name, "config.json")
        yield from differs("base.initial_weights", record.base.initial_weights, "card", "a row without training")
        yield from card_differences(record.base)
        yield from differs("reference_energies.before", record.reference_energies.before, "base", "a row without training")
        yield from differs("reference_energies.after", record.reference_energies.after, settings.reference_energies, "config.json")
        yield from differs("data.name", record.data.name, settings.data.name, "config.json")

    def model(self, splits: DataSplits) -> tuple[Potential, list[str]]:
        """`zoo.submission.entry.Entry.model`: the base, with its reference energies fitted again."""
        potential, record = load_evaluated_base(self.settings), self.record
        reasons = list(base_differences(record, potential))
        set_reference_energies(self.settings.reference_energies, potential, splits, self.settings.batch_size)
        found = reference_energy_record(potential, "base", self.settings.reference_energies).values
        stated = record.reference_energies.values
        if stated.keys() != found.keys() or any(abs(stated[name] - found[name]) > _SHIFT_TOLERANCE_EV for name in found):
            reasons.append(f"reference_energies.values are {stated} in the record, {found} fitted again here")
        return potential, reasons
