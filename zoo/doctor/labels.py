"""Which labels were found: in the frames of each part, and under which keys of the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from zoo.data.config import FILE_SET, DataConfig
from zoo.data.frame import Frame
from zoo.data.labels import Label
from zoo.data.raw import RawFrame, ReadOptions
from zoo.data.readers import formats
from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.subject import Subject, by_name
from zoo.errors import USER_ERRORS

LABELS: tuple[Label, ...] = ("energy", "forces", "stress")
RAW_FRAMES = 1000
"""Of each file, whose keys are counted; a key that only later frames have is found by the counts of labels."""
_WORDS = {"energy": ("energy", "energies"), "forces": ("force", "gradient"), "stress": ("stress", "virial")}


def label_counts(frames: Iterable[Frame]) -> dict[Label, int]:
    """How many of ``frames`` have each label."""
    counts: Counter[Label] = Counter()
    for frame in frames:
        counts.update(label for label in LABELS if getattr(frame, f"has_{label}"))
    return {label: counts[label] for label in LABELS}


@check("labels.parts", "Does every training and validation frame have the labels that the loss weighs?", needs=("config",))
def parts_have_labels(subject: Subject) -> Iterator[Finding]:
    """As `zoo.training.sanity.check_labels` demands, but with every frame that fails."""
    from zoo.training.sanity import labels_of_every_frame, needed_labels

    loss = subject.run.training.loss
    parts = {"train": subject.splits.train, "valid": subject.splits.valid}
    for part, frames in parts.items():
        if not frames:
            yield Finding(
                "warning", "labels.parts", f"the {part} part has no frames", "some", "evaluate only, or give it frames to train on"
            )
            continue
        for label in needed_labels(loss):
            missing = [frame for frame in frames if not getattr(frame, f"has_{label}")]
            remedy = f"pass data.{label}_key=... or set training.loss.{label}.weight=0"
            if missing and (label in labels_of_every_frame(loss) or len(missing) == len(frames)):
                found = f"{len(missing):,} of {len(frames):,} {part} frames have no {label}"
                yield Finding("error", "labels.parts", found, f"{label} in every frame: the loss weighs it", remedy, by_name(missing))
            elif missing:
                found = f"{len(frames) - len(missing):,} of {len(frames):,} {part} frames have a stress, and alone count in its loss"
                yield Finding("note", "labels.parts", found)
    stressed = label_counts(subject.splits.train)["stress"]
    if stressed and loss.stress.weight == 0:
        found = f"{stressed:,} training frames have a stress, which the loss does not weigh"
        yield Finding("note", "labels.parts", found, remedy="training.loss.stress.weight=... trains it")


@check("labels.keys", "Does a file hold labels under keys that are not read?", needs=("config",))
def keys_are_read(subject: Subject) -> Iterator[Finding]:
    """Only for the user's own files: a published set's card names its keys."""
    data = subject.run.data
    if data.name != FILE_SET:
        return
    for path in own_files(data):
        count, found = _counted_keys(path, data)
        for label, key in _read_keys(data).items():
            if key is not None and key in found and found[key] < count:
                text = f"{path}: {found[key]:,} of {count:,} frames have {key!r}"
                yield Finding("note", "labels.keys", text, f"{key!r} in every frame, unless a {label} is really unknown there")
            if key is None or key in found:
                continue
            others = [name for name in found if any(word in name.lower() for word in _WORDS[label]) and not name.startswith("magnetic")]
            if others:
                text = f"{path}: no {key!r}, but {', '.join(f'{name!r} in {found[name]:,}' for name in sorted(others))} of {count:,} frames"
                option = "virial_key" if label == "stress" and "virial" in others[0].lower() else f"{label}_key"
                remedy = f"pass data.{option}={sorted(others)[0]} if that is the {label}"
                yield Finding("warning", "labels.keys", text, f"the {label} under {key!r}", remedy)


@check("labels.zeros", "Are labels placeholders: exactly zero, or all the same?", cheap=True)
def labels_are_no_placeholders(subject: Subject) -> Iterator[Finding]:
    """Zeros written where a calculation gave nothing would be learnt as labels."""
    for label in ("forces", "stress"):
        labelled = [frame for frame in subject.frames if len(frame) > 1 and getattr(frame, f"has_{label}")]
        zero = [frame for frame in labelled if not np.any(np.nan_to_num(getattr(frame, label)))]
        if zero and len(zero) == len(labelled):
            found = f"the {label} of all {len(zero):,} frames are exactly zero"
            remedy = f"pass data.{label}_key=null where they were never computed"
            yield Finding("error" if len(zero) > 1 else "warning", "labels.zeros", found, "values", remedy, by_name(zero))
        elif zero:
            found = f"the {label} of {len(zero):,} of {len(labelled):,} frames are exactly zero"
            yield Finding(
                "note", "labels.zeros", found, "so in relaxed crystals of high symmetry; else a placeholder", frames=by_name(zero)
            )
    energies = [frame for frame in subject.frames if frame.has_energy]
    if len(energies) > 2 and len({frame.energy for frame in energies}) == 1:
        found = f"all {len(energies):,} frames have the energy {energies[0].energy:.6g} eV"
        yield Finding("error", "labels.zeros", found, "an energy of each frame", "pass data.energy_key=... of the frames' own energies")


def own_files(data: DataConfig) -> list[str]:
    """The paths that a configuration with ``data=file`` names."""
    tests = data.test or []
    named = list(tests.values()) if isinstance(tests, Mapping) else [tests] if isinstance(tests, str) else list(tests)
    return [path for path in (data.path, data.train, data.valid, *named) if path is not None]


def _read_keys(data: DataConfig) -> dict[Label, str | None]:
    return {"energy": data.energy_key, "forces": data.forces_key, "stress": data.virial_key or data.stress_key}


def _counted_keys(path: str, data: DataConfig) -> tuple[int, Counter[str]]:
    """How many of the first frames of a file have each key; (0, nothing) where it cannot be read, which another finding says."""
    counts: Counter[str] = Counter()
    frames = 0
    try:
        for raw in islice(_raw_frames(Path(path), data), RAW_FRAMES):
            counts.update(key for key, value in raw.found.items() if value is not None)
            frames += 1
    except (*USER_ERRORS, OSError, ValueError, KeyError, IndexError, TypeError):
        return 0, Counter()
    return frames, counts


def _raw_frames(path: Path, data: DataConfig) -> Iterator[RawFrame]:
    known = formats()
    chosen = known[data.format] if data.format in known else next(one for one in known.values() if one.recognises(path))
    return chosen.read(path, ReadOptions(type_map=data.type_map))
