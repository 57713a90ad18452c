"""What the verification of a submission found: the badge it earns, what was recomputed within which tolerance, and what is only stated."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, NonNegativeFloat, NonNegativeInt, PositiveInt

from zoo.evaluation.record_parts import RecordPart, Sha256, Text

Badge = Literal["predictions recomputed from base + adapter", "metrics recomputed from predictions"]
RECOMPUTED_PREDICTIONS: Badge = "predictions recomputed from base + adapter"
RECOMPUTED_METRICS: Badge = "metrics recomputed from predictions"


class Difference(RecordPart):
    """The largest difference between submitted and recomputed predictions, and what is tolerated: eV/atom, eV/Å, eV/Å^3."""

    energy_ev_per_atom: NonNegativeFloat
    forces_ev_per_angstrom: NonNegativeFloat
    stress_ev_per_angstrom3: NonNegativeFloat


class RecomputedFrames(RecordPart):
    """Predictions that were computed again from base + adapter.

    Attributes:
        frames: how many, of all test sets.
        of: how many test frames there are.
        salt: what the choice was drawn with, besides the archive's hash; empty where that alone decided, or where all were computed.
        largest: difference found.
        tolerated: difference.
        device: what it was computed on.
    """

    frames: PositiveInt
    of: PositiveInt
    salt: str
    largest: Difference
    tolerated: Difference
    device: Text


class Verdict(RecordPart):
    """The board's word on one record, beside the record and no part of it: a later verification may say more.

    Attributes:
        record: its id.
        archive_sha256, archive_bytes: of the archive that was verified.
        badge: what the numbers rest on.
        recomputed: of the predictions, null where the base could not be had.
        checked: what agreed with what was recomputed.
        stated: what nobody can recompute and the author alone says.
        notes: for readers, such as frames that training and test share.
        verified: when.
        versions: of the packages that verified it.
    """

    schema_version: Literal[1] = 1
    record: Text
    archive_sha256: Sha256
    archive_bytes: NonNegativeInt
    badge: Badge
    recomputed: RecomputedFrames | None
    checked: tuple[Text, ...]
    stated: tuple[Text, ...]
    notes: tuple[Text, ...]
    verified: AwareDatetime
    versions: dict[Text, Text]
