"""Whether the parts of a submission say the same: record, config, adapter file and its manifest, and the card of the base.

Each check yields one line for everything that disagrees, and nothing where all agrees. None of them needs the data or the base.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from torch import Tensor

from adapters.manifest import AdapterManifest
from adapters.method import create_method
from zoo.errors import USER_ERRORS
from zoo.evaluation.record import Record
from zoo.evaluation.record_parts import BaseModelRecord
from zoo.registry import describe, list_models
from zoo.submission.archive import Submission, canonical_json, sha256_of
from zoo.training.config import RunConfig

LICENCES = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "MIT", "Apache-2.0", "BSD-3-Clause")
"""What a submission may be licensed under, besides the licence of its base: the board passes records and adapters on."""
_AUTHOR = re.compile(r"[^\x00-\x1f\x7f<>]{2,200}")


@dataclass(frozen=True)
class Parts:
    """A submission with its config and its adapter file taken apart.

    Attributes:
        settings: the config as a run reads it; its run folder is a placeholder.
        manifest, tensors: of the adapter file.
    """

    submission: Submission
    settings: RunConfig
    manifest: AdapterManifest
    tensors: Mapping[str, Tensor]

    @property
    def record(self) -> Record:
        """The submission's."""
        return self.submission.record


def differences(parts: Parts) -> Iterator[str]:
    """Every disagreement, one line each."""
    yield from file_differences(parts.submission)
    yield from statement_differences(parts.record)
    for check in (_config, _adapter, _base, _reference_energies, _data):
        yield from check(parts)


def differs(name: str, found: object, wanted: object, source: str) -> Iterator[str]:
    """One line where ``found`` is not ``wanted``."""
    if found != wanted:
        yield f"{name} is {_short(found)} in the record, {_short(wanted)} in {source}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def file_differences(submission: Submission) -> Iterator[str]:
    """Where the record names other files than are there."""
    record, named = submission.record, submission.record.submission
    if named is None:
        yield "the record names no submitted files; write the archive with zoo submit"
        return
    if record.adapter is not None and submission.adapter is not None:
        yield from differs("adapter.file_sha256", record.adapter.file_sha256, sha256_of(submission.adapter), "the adapter file itself")
        yield from differs("adapter.file_bytes", record.adapter.file_bytes, len(submission.adapter), "the adapter file itself")
    config_sha256 = sha256_of(canonical_json(submission.config).encode())
    yield from differs("submission.config_sha256", named.config_sha256, config_sha256, "the config itself")
    yield from differs("submission.predictions_sha256", named.predictions_sha256, sha256_of(submission.predictions), "the npz itself")
    yield from differs("submission.predictions_bytes", named.predictions_bytes, len(submission.predictions), "the npz itself")


def person_differences(author: str | None, licence: str | None, base_licence: str | None) -> Iterator[str]:
    """What is wrong with a name, and with the licence that an author chose."""
    if author is None or not _AUTHOR.fullmatch(author) or not author.isprintable() or author != author.strip():
        yield f"author is {_short(author)}, wanted a name of 2 to 200 characters on one line, without < and >"
    allowed = (*LICENCES, *([base_licence] if base_licence else []))
    if licence not in allowed:
        yield f"licence is {_short(licence)}, wanted one of {', '.join(dict.fromkeys(allowed))}{_meant(licence, allowed)}"


def _meant(licence: str | None, allowed: Sequence[str]) -> str:
    """The licence that differs in case and separators alone."""

    def plain(name: str) -> str:
        return "".join(character for character in name.lower() if character.isalnum())

    found = next((name for name in allowed if licence and plain(name) == plain(licence)), None)
    return f"; did you mean {found!r}?" if found else ""


def statement_differences(record: Record, asked: Mapping[str, Any] | None = None) -> Iterator[str]:
    """What an author says, and what he must not say; ``asked`` is how a base without adapter was evaluated."""
    if record.provenance not in ("submitted", "reproduced"):
        yield f"provenance is {record.provenance!r}, wanted 'submitted'; write the archive with zoo submit"
    yield from person_differences(record.author, record.licence, record.base.licence)
    wanted = {"task": "labels"} if asked is None else {"task": "labels", "asked": asked}
    if record.evaluation != wanted:
        yield f"evaluation is {_short(record.evaluation)}; only labels of test frames can be recomputed, wanted {_short(wanted)}"
    if record.citation is not None:
        yield "citation is for rows reported from a paper; leave it out of a submission"
    if record.zero_shot_metrics:
        yield "zero_shot_metrics are the base's, not this model's; the record must leave them empty"
    if record.data.notes:
        yield "data.notes are what a reader of the data says; a submission leaves them to the verdict"
    if record.created > datetime.now(UTC) + timedelta(days=1):
        yield f"created is {record.created.isoformat()}, which is in the future"


def _config(parts: Parts) -> Iterator[str]:
    record, settings = parts.record, parts.settings
    config: Mapping[str, Any] = parts.submission.config
    own: Mapping[str, Any] = record.training or {}
    for key in sorted(config.keys() | own.keys()):
        yield from differs(f"training.{key}", own.get(key), config.get(key), "config.json")
    yield from differs("seed", record.seed, settings.training.seed, "config.json")
    yield from differs("seed", record.seed, parts.manifest.training.get("seed"), "the adapter file")
    asked = settings.evaluation.forgetting
    if (asked is None) != (record.forgetting is None):
        wanted = "asks for none" if asked is None else f"asks for that of {asked.data}"
        yield f"forgetting is {'stated' if record.forgetting else 'left out'} in the record, and config.json {wanted}"
    yield from differs("base.initial_weights", record.base.initial_weights, settings.strategy.weights, "config.json")


def _adapter(parts: Parts) -> Iterator[str]:
    record, manifest = parts.record.adapter, parts.manifest
    if record is None:
        return
    yield from differs("adapter.method", record.method, manifest.method, "the adapter file")
    yield from differs("adapter.config", record.config, manifest.config, "the adapter file")
    count = sum(tensor.numel() for tensor in parts.tensors.values())
    yield from differs("adapter.trainable_count", record.trainable_count, count, "the tensors of the adapter file")
    if manifest.trainable_count != count:
        yield f"the adapter file states {manifest.trainable_count} trained numbers and holds {count}"
    if "path" in parts.settings.adapter:  # a run that went on from another adapter took its method and settings
        return
    try:
        asked = create_method(parts.settings.adapter)
    except USER_ERRORS as error:
        yield f"config.json: {error}"
        return
    if (asked.name, asked.config_dict) != (manifest.method, manifest.config):
        found = f"{manifest.method} {_short(manifest.config)}"
        yield f"config.json asks for the adapter {asked.name} {_short(asked.config_dict)}, the adapter file is {found}"


def _base(parts: Parts) -> Iterator[str]:
    base, manifest = parts.record.base, parts.manifest
    yield from differs("base.values_sha256", base.values_sha256, manifest.base_sha256, "the adapter file, made for that base alone")
    yield from differs("base.card", base.card, manifest.base_card, "the adapter file")
    yield from differs("base.family", base.family, manifest.base_family, "the adapter file")
    yield from differs("base.licence", base.licence or "", manifest.base_licence, "the adapter file")
    yield from differs("base.card", base.card, parts.settings.backbone.name, "config.json")
    for name in ("head", "forces"):
        asked, found = getattr(parts.settings.backbone, name), getattr(manifest, name)
        if asked is not None and asked != found:
            yield f"config.json asks for backbone.{name}={asked}, the adapter file is of {_short(found)}"
    yield from card_differences(base)


def card_differences(base: BaseModelRecord) -> Iterator[str]:
    """Where the record says other things of the base than its card."""
    if base.card not in list_models():
        yield f"base.card {_short(base.card)} is no card of the zoo, so that nobody else could load the base; write a card for it first"
        return
    card = describe(base.card)
    yield from differs("base.family", base.family, card.family, "the card")
    yield from differs("base.licence", base.licence, card.licence, "the card")


def _reference_energies(parts: Parts) -> Iterator[str]:
    found, strategy = parts.record.reference_energies, parts.settings.strategy
    before = strategy.reference_energies_before
    yield from differs("reference_energies.values", found.values, parts.manifest.reference_energies, "the adapter file")
    yield from differs("reference_energies.before", found.before, before, "config.json")
    after = "model" if strategy.refit_reference_energies else before
    yield from differs("reference_energies.after", found.after, after, "config.json")


def _data(parts: Parts) -> Iterator[str]:
    data, manifest = parts.record.data, parts.manifest
    stated = {"name": data.name, "protocol": data.protocol, "licence": data.licence or ""}
    hashes = {name: split.sha256 for name, split in data.splits.items()}
    yield from differs("data", {**stated, **hashes}, manifest.data, "the adapter file")
    yield from differs("data.level_of_theory", data.level_of_theory or "", manifest.level_of_theory, "the adapter file")
    yield from differs("data.name", data.name, parts.settings.data.name, "config.json")
