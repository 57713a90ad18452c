"""The parts of a result record: base, adapter, data, metrics, cost, and what each of their fields means.

Null is allowed where a paper may be silent; `zoo.evaluation.record` refuses it in a record of our own runs.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from zoo.errors import nearest_name_hint
from zoo.evaluation.metrics import METRICS, VALUE_RANGES, Kind

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
ReferenceTreatment = Literal["base", "model", "isolated_atoms", "least_squares", "linear", "unstated"]
"""How per-element reference energies were set: the words of `zoo.data.reference_choice`, or ``unstated`` where a paper is silent."""


class RecordPart(BaseModel):
    """Frozen, unknown keys refused, and every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BaseModelRecord(RecordPart):
    """The foundation model. ``values_sha256`` is `adapters.state.base_fingerprint`; ``parameter_count`` its trainable parameters.

    ``conservative``: the forces of this result are the gradient of the energy, be it the model's own way or asked for.
    """

    card: Text
    family: Text
    values_sha256: Sha256 | None
    licence: Text | None
    conservative: bool | None
    symmetry: Literal["SO(3)", "O(3)"] | None
    parameter_count: PositiveInt | None
    initial_weights: Literal["card", "random"] = "card"


class AdapterRecord(RecordPart):
    """Method, full config and file.

    ``trainable_count`` is every number trained; ``coverage_share`` the share of the base's parameters in blocks the method adapts, 0 to 1;
    ``report`` what the method says of the weights in the file (`adapters.method.AdapterMethod.report`), such as its sparsity.
    """

    method: Text
    config: dict[str, JsonValue]
    file_sha256: Sha256 | None
    file_bytes: PositiveInt | None
    trainable_count: PositiveInt | None
    coverage_share: Annotated[float, Field(ge=0, le=1)] | None
    report: dict[str, float] = {}


class SplitRecord(RecordPart):
    """One list of frames: how many, and a hash of their content (`zoo.data.splits.frames_sha256`)."""

    frames: NonNegativeInt | None
    sha256: Sha256 | None


class DataRecord(RecordPart):
    """The data set and every split used: ``train``, ``valid`` and one a test set, which metrics refer to by name.

    ``notes``: how files were read, and structures that parts share.
    """

    name: Text
    protocol: Text
    level_of_theory: Text | None
    licence: Text | None
    splits: dict[Text, SplitRecord]
    notes: tuple[Text, ...] = ()


class ReferenceEnergyRecord(RecordPart):
    """Reference energies before and after training; ``values`` (eV by symbol) is the total shift added to the base."""

    before: ReferenceTreatment
    after: ReferenceTreatment
    values: dict[Text, float]


def _value_ranges_schema() -> JsonValue:
    """`VALUE_RANGES` in JSON Schema, so that other tools refuse a negative error too."""
    return [
        {
            "if": {"properties": {"kind": {"const": kind}}},
            "then": {"properties": {"value": {"minimum": lowest} if highest is None else {"minimum": lowest, "maximum": highest}}},
        }
        for kind, (lowest, highest) in VALUE_RANGES.items()
    ]


class MetricRecord(RecordPart):
    """One number with all that is needed to read it.

    Unit, kind and normalisation must be those of `METRICS`; an error is not negative, a cosine lies in -1 to 1, a percentage in 0 to 100.
    """

    model_config = ConfigDict(json_schema_extra={"allOf": _value_ranges_schema()})

    test_set: Text
    name: str
    value: float
    unit: str
    kind: Kind
    normalisation: str

    @model_validator(mode="after")
    def _matches_the_table(self) -> Self:
        if self.name not in METRICS:
            raise ValueError(f"unknown metric {self.name!r}; {nearest_name_hint(self.name, METRICS)}")
        metric = METRICS[self.name]
        wanted, found = (metric.unit, metric.kind, metric.normalisation), (self.unit, self.kind, self.normalisation)
        if wanted != found:
            raise ValueError(f"metric {self.name!r} is {wanted}, found {found}")
        lowest, highest = VALUE_RANGES[self.kind]
        if self.value < lowest or (highest is not None and self.value > highest):
            upper = "or more" if highest is None else f"to {highest}"
            raise ValueError(f"value: the kind of {self.name!r} is {self.kind}, wanted {lowest} {upper}, found {self.value}")
        return self


class CostRecord(RecordPart):
    """What the run cost; GPU fields are null on a CPU."""

    wall_seconds: NonNegativeFloat
    cpu_seconds: NonNegativeFloat
    gpu_seconds: NonNegativeFloat | None = None
    peak_memory_mib: NonNegativeFloat
    peak_gpu_memory_mib: NonNegativeFloat | None = None
    hardware: Text
    threads: PositiveInt


class ForgettingRecord(RecordPart):
    """The same metrics on frames of the base's own training distribution, before and after fine-tuning."""

    data_name: Text
    split: SplitRecord
    before: tuple[MetricRecord, ...]
    after: tuple[MetricRecord, ...]


class GitCommit(RecordPart):
    """The commit of the code, and whether the working tree had changes on top of it."""

    sha: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    dirty: bool


class Citation(RecordPart):
    """Where a ``reported`` number was printed."""

    reference: Text
    table: Text
    note: str = ""


class SubmissionRecord(RecordPart):
    """The files beside the adapter that a submitted result was recomputed from (`zoo.submission`), by their hashes.

    ``config_sha256`` is of the full config as canonical JSON, ``predictions_sha256`` of the npz with the predictions of all test frames.
    """

    format_version: Literal[1] = 1
    config_sha256: Sha256
    predictions_sha256: Sha256
    predictions_bytes: PositiveInt


class ReportedQuantity(RecordPart):
    """A printed number that is no metric of `METRICS`: a size, a cost, a sparsity, an error of a property the project does not predict.

    ``better`` is null where neither direction is (a number of parameters); ``deviation`` is the standard deviation over runs, if printed.
    """

    name: Text
    label: Text
    value: float
    unit: str
    better: Literal["lower", "higher"] | None
    test_set: str | None
    deviation: NonNegativeFloat | None


class ReportedDeviation(RecordPart):
    """The printed standard deviation over runs of one of the record's metrics, in that metric's unit."""

    test_set: Text
    metric: Text
    value: NonNegativeFloat


class ReportedDetails(RecordPart):
    """What only a table of a paper has: ``paper`` is our key of it, ``runs`` over how many runs its numbers are means, if it says so."""

    paper: Text
    runs: PositiveInt | None
    quantities: tuple[ReportedQuantity, ...]
    deviations: tuple[ReportedDeviation, ...]
