"""The judgement of a submission: every reason to refuse it, or the verdict that the board shows beside its record.

Nothing that a submission states is believed where it can be computed. Its labels are those of the data set's own files, its metrics those
of its predictions, its predictions those of base and adapter where the base can be had. What is left is listed as stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.state import load_into
from zoo.data.parts import DataSplits
from zoo.errors import USER_ERRORS, ZooError
from zoo.evaluation.prediction_files import parse_predictions
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.provenance import versions
from zoo.submission.archive import ArchiveFile, Submission, read_archive
from zoo.submission.consistency import Parts, differences
from zoo.submission.labels import aligned, copied_labels, metric_differences, protocol_frames, warnings
from zoo.submission.recompute import (
    Choice,
    forgetting_found,
    load_base,
    model_differences,
    read_adapter_bytes,
    recompute,
    residual_differences,
)
from zoo.submission.verdict import RECOMPUTED_METRICS, RECOMPUTED_PREDICTIONS, RecomputedFrames, Verdict
from zoo.training.config import parse_config

_CHECKED = ("config", "adapter file", "data and splits", "predictions of all test frames", "every metric")
_CHECKED_WITH_BASE = ("values of the base", "trained numbers and coverage", "predictions of the recomputed frames")
_STATED = ("created", "cost", "versions", "git_commit", "that the weights came from this config and this training data alone")


@dataclass(frozen=True)
class Judgement:
    """What verification came to.

    Attributes:
        reasons: to refuse the submission, one line each; none where it is accepted.
        verdict: of an accepted submission, else None.
        archive: what was judged; None where it could not be read.
    """

    reasons: tuple[str, ...]
    verdict: Verdict | None
    archive: ArchiveFile | None

    @property
    def accepted(self) -> bool:
        """Whether there is a verdict."""
        return self.verdict is not None

    def text(self) -> str:
        """For people: the badge with what it rests on, or every reason."""
        if self.verdict is None:
            return "\n".join(f"refused  {reason}" for reason in self.reasons)
        verdict = self.verdict
        lines = [f"verified {verdict.record}", f"badge    {verdict.badge}"]
        if verdict.recomputed is not None:
            found, largest = verdict.recomputed, verdict.recomputed.largest
            away = f"{largest.energy_ev_per_atom:.1e} eV/atom and {largest.forces_ev_per_angstrom:.1e} eV/Å"
            lines.append(f"         {found.frames} of {found.of} test frames computed again on {found.device}, at most {away} away")
        lines += [f"checked  {', '.join(verdict.checked)}", f"stated   {', '.join(verdict.stated)}"]
        return "\n".join([*lines, *(f"note     {note}" for note in verdict.notes)])


def verify(path: Path, choice: Choice | None = None) -> Judgement:
    """Judge the archive at ``path``; whatever is wrong with it becomes a reason, never an exception.

    Args:
        path: of the archive.
        choice: which predictions to compute again; some of each test set where None.
    """
    try:
        archive = read_archive(path)
    except ZooError as error:
        return Judgement((str(error),), None, None)
    return verify_archive(archive, choice or Choice())


def verify_archive(archive: ArchiveFile, choice: Choice) -> Judgement:
    """Judge an archive that has been read."""

    def refused(*reasons: str) -> Judgement:
        return Judgement(reasons, None, archive)

    try:
        parts = _parts(archive.submission)
        saved = parse_predictions(archive.submission.predictions, "predictions.npz")
    except USER_ERRORS as error:
        return refused(str(error))
    reasons = list(differences(parts))
    splits, more = protocol_frames(parts.record, parts.settings.data)
    reasons += more
    if splits is None:
        return refused(*reasons)
    predictions, more = aligned(saved, splits.tests)
    reasons += more
    if more:  # metrics of other frames would say nothing
        return refused(*reasons)
    reasons += metric_differences(parts.record, predictions, splits.tests)
    reasons += copied_labels(predictions, splits.tests)
    recomputed, more, notes = _from_base(parts, choice, archive.sha256, predictions, splits)
    reasons += more
    if reasons:
        return refused(*reasons)
    verdict = Verdict(
        record=parts.record.id,
        archive_sha256=archive.sha256,
        archive_bytes=archive.bytes,
        badge=RECOMPUTED_METRICS if recomputed is None else RECOMPUTED_PREDICTIONS,
        recomputed=recomputed,
        checked=_CHECKED if recomputed is None else _CHECKED + _CHECKED_WITH_BASE,
        stated=_STATED,
        notes=(*notes, *warnings(predictions, splits)),
        verified=datetime.now(UTC),
        versions=versions(),
    )
    return Judgement((), verdict, archive)


def _parts(submission: Submission) -> Parts:
    """The config and the adapter file taken apart; raises an error of the user's kind where they cannot be."""
    settings = parse_config({**submission.config, "run": {"name": "submitted", "folder": "submitted"}})
    return Parts(submission, settings, *read_adapter_bytes(submission.adapter))


def _from_base(
    parts: Parts, choice: Choice, archive_sha256: str, predictions: Mapping[str, Predictions], splits: DataSplits
) -> tuple[RecomputedFrames | None, list[str], list[str]]:
    """(what was recomputed, or None without the base; reasons; notes)."""
    stated = [name for name in ("equivariance_residual", "forgetting") if getattr(parts.record, name) is not None]
    unproven = [f"{name} cannot be recomputed without the base" for name in stated]
    if choice.most == 0:
        return None, unproven, ["the base was not loaded, as asked for"]
    try:
        potential = load_base(parts)
    except ZooError as error:
        return None, unproven, [str(error)]
    try:
        adapter = load_into(potential.adapters, parts.manifest.method, parts.manifest, parts.tensors)
    except USER_ERRORS as error:
        return None, [f"adapter.safetensors: {error}"], []
    reasons = [*model_differences(parts.record, potential, adapter), *residual_differences(parts.record, potential)]
    potential = potential.to(choice.device)
    found = recompute(potential, choice, archive_sha256, predictions, splits.tests)
    total = sum(len(frames) for frames in splits.tests.values())
    reasons += forgetting_found(parts, potential, choice.batch_size)
    made = RecomputedFrames(
        frames=found.frames,
        of=total,
        salt=choice.salt if found.frames < total else "",
        largest=found.largest,
        tolerated=found.tolerated,
        device=choice.device,
    )
    return made, [*reasons, *found.reasons], []
