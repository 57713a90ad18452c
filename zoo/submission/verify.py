"""The judgement of a submission: every reason to refuse it, or the verdict that the board shows beside its record.

Nothing that a submission states is believed where it can be computed. Its labels are those of the data set's own files, its metrics those
of its predictions, its predictions those of base and adapter where the base can be had. What is left is listed as stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from zoo.data.parts import DataSplits
from zoo.errors import USER_ERRORS, ZooError
from zoo.evaluation.prediction_files import parse_predictions
from zoo.evaluation.predictions import Predictions
from zoo.evaluation.provenance import versions
from zoo.evaluation.record import Record
from zoo.submission.archive import ArchiveFile, Submission, read_archive
from zoo.submission.entry import BaseNotHere, Entry
from zoo.submission.labels import aligned, copied_labels, metric_differences, protocol_frames, warnings
from zoo.submission.recompute import Choice, forgetting_found, recompute, residual_differences
from zoo.submission.run_entry import RunEntry
from zoo.submission.verdict import RECOMPUTED_METRICS, RECOMPUTED_PREDICTIONS, RecomputedFrames, Verdict
from zoo.submission.zero_shot import ZeroShotEntry

_CHECKED = ("config", "adapter file", "data and splits", "predictions of all test frames", "every metric")
_CHECKED_WITH_BASE = ("values of the base", "trained numbers and coverage", "predictions of the recomputed frames")
_STATED_WITHOUT_TRAINING = ("created", "versions", "git_commit")
UNFORESEEN = "the verifier failed on it"
"""How the reason begins that nobody has thought of; a fault of ours, and the submission is not accepted."""
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
        if verdict.recomputed is None:
            lines.append(f"         the weaker of two: {RECOMPUTED_PREDICTIONS!r} needs the base, and frames other than 0")
        else:
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
        return Judgement((one_line(str(error)),), None, None)
    except Exception as error:
        return Judgement((one_line(_unforeseen(error)),), None, None)
    return verify_archive(archive, choice or Choice())


def verify_archive(archive: ArchiveFile, choice: Choice) -> Judgement:
    """Judge an archive that has been read; as `verify`, without exceptions."""
    try:
        found = _judged(archive.submission, archive.sha256, choice)
    except USER_ERRORS as error:
        found = [str(error)]
    except Exception as error:
        found = [_unforeseen(error)]
    if isinstance(found, list):
        return Judgement(tuple(one_line(reason) for reason in found), None, archive)
    record = archive.submission.record
    verdict = Verdict(
        record=record.id,
        archive_sha256=archive.sha256,
        archive_bytes=archive.bytes,
        badge=RECOMPUTED_METRICS if found.recomputed is None else RECOMPUTED_PREDICTIONS,
        recomputed=found.recomputed,
        checked=_checked(record, found.recomputed is not None),
        stated=_STATED if record.adapter is not None else _STATED_WITHOUT_TRAINING,
        notes=tuple(one_line(note) for note in found.notes),
        verified=datetime.now(UTC),
        versions=versions(),
    )
    return Judgement((), verdict, archive)


def _unforeseen(error: Exception) -> str:
    """What a stranger sent must not end the program that reads it, be it by a fault of ours."""
    return f"{UNFORESEEN} ({type(error).__name__}: {error}); report it with the archive"


@dataclass(frozen=True)
class _Accepted:
    recomputed: RecomputedFrames | None
    notes: tuple[str, ...]


def _judged(submission: Submission, archive_sha256: str, choice: Choice) -> _Accepted | list[str]:
    """What an acceptable submission rests on, or every reason to refuse it."""
    entry: Entry = ZeroShotEntry.of(submission) if submission.record.adapter is None else RunEntry.of(submission)
    saved = parse_predictions(submission.predictions, "predictions.npz")
    reasons = list(entry.differences())
    splits, more = protocol_frames(entry.record, entry.data, entry.part)
    reasons += more
    if splits is None:
        return reasons
    predictions, more = aligned(saved, splits.tests)
    reasons += more
    if more:  # metrics of other frames would say nothing
        return reasons
    reasons += metric_differences(entry.record, predictions, splits.tests)
    reasons += copied_labels(predictions, splits.tests)
    if reasons:  # no model is loaded by the word of a submission that is refused anyway
        return reasons
    recomputed, reasons, notes = _from_base(entry, choice, archive_sha256, predictions, splits)
    return reasons or _Accepted(recomputed, (*notes, *warnings(predictions, splits)))


def _checked(record: Record, with_base: bool) -> tuple[str, ...]:
    without = "adapter file" if record.adapter is None else ""
    return tuple(name for name in (*_CHECKED, *(_CHECKED_WITH_BASE if with_base else ())) if name != without)


def one_line(text: str, most: int = 500) -> str:
    """``text`` as it may be shown: on one line, without what moves a terminal's cursor, and not longer than somebody reads."""
    words = " ".join(text.split())[: most + 1]
    plain = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in words)
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def _from_base(
    entry: Entry, choice: Choice, archive_sha256: str, predictions: Mapping[str, Predictions], splits: DataSplits
) -> tuple[RecomputedFrames | None, list[str], list[str]]:
    """(what was recomputed, or None without the base; reasons; notes)."""
    stated = [name for name in ("equivariance_residual", "forgetting") if getattr(entry.record, name) is not None]
    unproven = [f"{name} cannot be recomputed without the base" for name in stated]
    if choice.most == 0:
        return None, unproven, ["the base was not loaded, as asked for"]
    try:
        potential, reasons = entry.model(splits)
    except BaseNotHere as error:
        return None, unproven, [str(error)]
    except USER_ERRORS as error:
        return None, [f"base or adapter.safetensors: {error}"], []
    if reasons:
        return None, reasons, []
    reasons = list(residual_differences(entry.record, potential))
    found = recompute(potential.to(choice.device), choice, archive_sha256, predictions, splits.tests)
    total = sum(len(frames) for frames in splits.tests.values())
    reasons += forgetting_found(entry.record, entry.forgetting, potential, choice.batch_size)
    made = RecomputedFrames(
        frames=found.frames,
        of=total,
        salt=choice.salt if found.frames < total else "",
        largest=found.largest,
        tolerated=found.tolerated,
        device=choice.device,
    )
    return made, [*reasons, *found.reasons], []
