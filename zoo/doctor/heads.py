"""Whether another head of the base fits the labels better than the one that was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zoo.data.frame import Frame
from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.subject import Subject, by_name, spread
from zoo.errors import ZooError

FRAMES = 6
CLEARLY = 3.0
RATHER = 1.5


@check("heads.fit", "Does another head of the base fit the labels better?", needs=("weights", "config"))
def heads(subject: Subject) -> Iterator[Finding]:
    """Force errors of each head on a few frames; heads are levels of theory, and forces have no zero to disagree about."""
    potential = subject.model
    own = potential.backbone.head
    frames = spread([frame for frame in subject.sample if frame.has_forces], FRAMES)
    if len(potential.backbone.heads) < 2 or own is None or not frames:
        return
    errors = {}
    for head in potential.backbone.heads:
        try:
            errors[head] = _force_error(subject, head, frames)
        except ZooError as error:  # a head that does not know an element of the frames
            yield Finding("note", "heads.fit", f"head {head} was not compared: {error}")
    if own not in errors:
        return
    table = ", ".join(f"{head} {value * 1e3:.3g}" for head, value in sorted(errors.items(), key=lambda item: item[1]))
    found = f"head {own} was chosen; force RMSE of each in meV/Å on {len(frames)} frames: {table}"
    best = min(errors, key=errors.__getitem__)
    ratio = errors[own] / max(errors[best], 1e-9)
    if ratio > RATHER:
        remedy = f"pass backbone.head={best}, unless the labels are known to be at the level of theory of {own}"
        yield Finding("error" if ratio > CLEARLY else "warning", "heads.fit", found, f"the best of them: {best}", remedy, by_name(frames))
    else:
        yield Finding("note", "heads.fit", found)


def _force_error(subject: Subject, head: str, frames: Sequence[Frame]) -> float:
    """eV/Å, root mean square over known components."""
    from zoo.evaluation.predictions import predict_frames
    from zoo.loading import load

    config, potential = subject.run, subject.model
    if head == potential.backbone.head:
        with subject.base_alone():
            predictions = predict_frames(potential, frames)
    else:
        backbone = config.backbone
        other = load(
            backbone.name,
            head=head,
            dtype=backbone.dtype,
            device=potential.device,
            forces=backbone.forces,
            trust_pickle=backbone.trust_pickle,
        )
        predictions = predict_frames(other, frames)
    off = np.concatenate([(mine - frame.forces)[frame.free].ravel() for mine, frame in zip(predictions.forces, frames, strict=True)])
    return float(np.sqrt(np.nanmean(np.square(off))))
