"""The result record: one immutable JSON a result, which the leaderboard takes as it is.

Unknown keys, numbers that are not finite, unknown metrics and metrics with another unit than theirs are refused. What a paper does not
state may be null in a ``reported`` record and in no other. A ``local`` record is a run's own, not yet verified by anyone. The id ends in a
hash of the content, so an edited record no longer carries its own name (that is a guard against accidents and edits in review;
verification by recomputation is the leaderboard's part).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, JsonValue, NonNegativeFloat, NonNegativeInt, StringConstraints, ValidationError, model_validator

from zoo.errors import ZooError, first_problem, nearest_name_hint
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record_parts import (
    AdapterRecord,
    BaseModelRecord,
    Citation,
    CostRecord,
    DataRecord,
    ForgettingRecord,
    GitCommit,
    MetricRecord,
    RecordPart,
    ReferenceEnergyRecord,
    ReportedDetails,
    SubmissionRecord,
    Text,
)
from zoo.files import write_text_atomically

SCHEMA_VERSION = 1
LARGEST_RECORD_BYTES = 4 * 2**20
_ADDED_LATER = ("reported", "submission")
_ALWAYS_KNOWN_OF_A_BASE = ("values_sha256", "conservative", "symmetry", "parameter_count")


class RecordContent(RecordPart):
    """Everything a result says, without its name; ``adapter`` and ``training`` are null for zero-shot."""

    schema_version: Literal[1] = 1
    created: AwareDatetime
    base: BaseModelRecord
    adapter: AdapterRecord | None
    data: DataRecord
    seed: NonNegativeInt | None
    reference_energies: ReferenceEnergyRecord
    training: dict[str, JsonValue] | None
    evaluation: dict[str, JsonValue]
    metrics: tuple[MetricRecord, ...]
    zero_shot_metrics: tuple[MetricRecord, ...]
    cost: CostRecord | None
    versions: dict[Text, Text]
    git_commit: GitCommit | None
    provenance: Literal["local", "reproduced", "submitted", "reported"]
    citation: Citation | None = None
    author: Text | None
    licence: Text | None = None
    equivariance_residual: dict[Text, NonNegativeFloat] | None
    forgetting: ForgettingRecord | None
    submission: SubmissionRecord | None = None
    reported: ReportedDetails | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for field in ("metrics", "zero_shot_metrics"):
            _check_metrics(field, getattr(self, field), self.data)
        if self.provenance == "reported" and self.citation is None:
            raise ValueError("a reported record names its paper and table in 'citation'")
        if self.provenance != "reported" and self.reported is not None:
            raise ValueError("'reported' holds what a paper printed, which only a record with provenance 'reported' has")
        if not self.metrics and not (self.reported and self.reported.quantities):
            raise ValueError("metrics: wanted at least 1 item; only a record with provenance 'reported' may hold other quantities alone")
        if self.provenance != "reported":
            _check_nothing_unstated(self)
        return self

    def content_sha256(self) -> str:
        """SHA-256 of the content as canonical JSON (sorted keys, no spaces), the id left out."""
        content = self.model_dump(mode="json", exclude={"id"})
        for name in _ADDED_LATER:  # records written before a field existed keep their name
            if content[name] is None:
                del content[name]
        if self.adapter is not None and not self.adapter.report:
            del content["adapter"]["report"]  # so that records from before there were reports keep their ids
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


class Record(RecordContent):
    """One result with its name: ``<card>.<method>.<data>.s<seed>-<first 12 hex digits of the content's hash>``."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,190}-[0-9a-f]{12}$")]

    @model_validator(mode="after")
    def _id_belongs_to_content(self) -> Self:
        wanted = self.content_sha256()[:12]
        if not self.id.endswith(f"-{wanted}"):
            raise ValueError(f"id {self.id!r} is not of this content (wanted ...-{wanted}): the record was edited; write a new one instead")
        return self


def build_record(**fields: Any) -> Record:
    """A `Record` from the fields of `RecordContent` (models or plain dicts); the id is computed.

    Unless given, ``created`` is now and ``evaluation`` that of predicted labels.

    Raises:
        ZooError: one line naming the first field that is wrong.
    """
    try:
        content = RecordContent.model_validate({"created": datetime.now(UTC), "evaluation": {"task": "labels"}, **fields})
        # one round through JSON, so that the object equals what a reader will get from the file
        plain = content.model_dump_json(exclude={"id"})
        return Record.model_validate({**json.loads(plain), "id": f"{_slug(content)}-{content.content_sha256()[:12]}"})
    except ValidationError as error:
        raise ZooError(f"result record: {_first_problem(error)}") from error


def metric_records(by_test_set: Mapping[str, Mapping[str, float]]) -> tuple[MetricRecord, ...]:
    """``{test set: compute_metrics(...)}`` as record entries with unit, kind and normalisation filled in.

    Raises:
        ZooError: for an unknown metric name, or a value that is not finite or not one its kind can have (a negative error).
    """
    entries = []
    for test_set, metrics in by_test_set.items():
        for name, value in metrics.items():
            if name not in METRICS:
                raise ZooError(f"unknown metric {name!r}; {nearest_name_hint(name, METRICS)}")
            known = METRICS[name]
            fields = {"value": value, "unit": known.unit, "kind": known.kind, "normalisation": known.normalisation}
            try:
                entries.append(MetricRecord.model_validate({"test_set": test_set, "name": name, **fields}))
            except ValidationError as error:
                raise ZooError(f"metric {name!r} of {test_set!r}: {_first_problem(error)}") from error
    return tuple(entries)


def write_record(path: Path, record: Record) -> None:
    """Write ``record`` as indented JSON, whole or not at all; raises `ZooError` where the file cannot be written."""
    write_text_atomically(path, record_text(record))


def read_record(path: Path) -> Record:
    """Read and check a record; nothing in the file is executed, and files above 4 MiB are not opened.

    Raises:
        ZooError: one line for a file that is missing, too large, not JSON, of another schema version, with unknown keys, with values out of
            range, or edited after it was written.
    """
    return parse_record(read_record_text(path), str(path))


def record_text(record: Record) -> str:
    """``record`` as indented JSON with a final newline: what its file holds; fields added later that are null are left out."""
    absent = {name for name in _ADDED_LATER if getattr(record, name) is None}
    return record.model_dump_json(indent=2, exclude=absent) + "\n"


def parse_record(text: str, path: str) -> Record:
    """The record that ``text`` holds; ``path`` is how errors name it. Raises `ZooError` as `read_record`."""
    try:
        content = json.loads(text, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ZooError(f"{path}: nested too deeply for a result record; write it with zoo train or zoo evaluate") from error
    except ValueError as error:
        raise ZooError(f"{path}: not valid JSON ({error}); write records with zoo train or zoo evaluate") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version is None:
        raise ZooError(f"{path}: not a result record (no schema_version); zoo train and zoo evaluate write them")
    if version != SCHEMA_VERSION:
        raise ZooError(f"{path}: schema_version {version!r}, wanted {SCHEMA_VERSION}; read it with the equizoo that wrote it")
    try:
        return Record.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ZooError(f"{path}: {_first_problem(error)}") from error


def _check_metrics(field: str, metrics: tuple[MetricRecord, ...], data: DataRecord) -> None:
    seen: set[tuple[str, str]] = set()
    for metric in metrics:
        if metric.test_set not in data.splits:
            raise ValueError(
                f"{field}: test set {metric.test_set!r} is not among the splits; {nearest_name_hint(metric.test_set, data.splits)}"
            )
        if (metric.test_set, metric.name) in seen:
            raise ValueError(f"{field}: {metric.name!r} of {metric.test_set!r} appears twice")
        seen.add((metric.test_set, metric.name))


def _check_nothing_unstated(record: RecordContent) -> None:
    """Only a paper may leave out what a run of ours always knows."""
    known: dict[str, object] = {f"base.{field}": getattr(record.base, field) for field in _ALWAYS_KNOWN_OF_A_BASE}
    for name, split in record.data.splits.items():
        known |= {f"data.splits.{name}.frames": split.frames, f"data.splits.{name}.sha256": split.sha256}
    if record.adapter is not None:
        for field in ("file_sha256", "file_bytes", "trainable_count", "coverage_share"):
            known[f"adapter.{field}"] = getattr(record.adapter, field)
        known |= {"seed": record.seed, "training": record.training, "cost": record.cost}
    missing = [name for name, value in known.items() if value is None]
    if missing:
        raise ValueError(f"{missing[0]} is null, which only a record with provenance 'reported' may leave out")
    if "unstated" in (record.reference_energies.before, record.reference_energies.after):
        raise ValueError("reference_energies are 'unstated', which only a record with provenance 'reported' may be")
    if not record.versions:
        raise ValueError("versions is empty, which only a record with provenance 'reported' may leave so")


def _slug(content: RecordContent) -> str:
    method = content.adapter.method if content.adapter else "zero-shot"
    seed = "" if content.seed is None else f".s{content.seed}"
    slug = re.sub(r"[^A-Za-z0-9._+-]+", "_", f"{Path(content.base.card).name}.{method}.{content.data.name}{seed}")
    return slug.lstrip("._+-")[:190] or "record"


def read_record_text(path: Path) -> str:
    """What the file of a record holds, not yet looked at; raises `ZooError` for a file that is missing, above 4 MiB or no text."""
    try:
        size = path.stat().st_size
        if size > LARGEST_RECORD_BYTES:
            raise ZooError(f"{path}: {size} bytes, a result record has at most {LARGEST_RECORD_BYTES}; is this another file?")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ZooError(f"{path}: cannot read the result record ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ZooError(f"{path}: not a text file; a result record is UTF-8 JSON") from error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"key {key[:80]!r} appears twice")
        content[key] = value
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _first_problem(error: ValidationError) -> str:
    """``"metrics.0.value: input should be a finite number (found nan)"`` and how many more there are."""
    first = first_problem(error)
    where = f"{first.key}: " if first.key else ""
    found = "" if first.kind in ("missing", "value_error") else f" (found {str(first.found)[:60]!r})"
    more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}{first.message}{found}{more}"
