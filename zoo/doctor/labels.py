"""Which labels were found: in the frames of each part, and under which keys of the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.config import FILE_SET, DataConfig
from zoo.data.frame import Frame
from zoo.data.labels import Label
from zoo.data.raw import RawFrame, ReadOptions
from zoo.data.readers import formats
from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.subject import Subject, by_name, spread
from zoo.doctor.symmetry import forces_vanish_by_symmetry
from zoo.errors import USER_ERRORS

LABELS: tuple[Label, ...] = ("energy", "forces", "stress")
RAW_FRAMES = 1000
"""Of each file, whose keys are counted; a key that only later frames have is found by the counts of labels."""
_LOOKED_AT = 200  # frames without forces, whose symmetry is worked out
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
        count, has, instead = _counted_keys(path, data)
        for label, key in _read_keys(data).items():
            if key is None or not count:
                continue
            others = sorted(instead[label])
            if others:
                names = ", ".join(f"{name!r} in {instead[label][name]:,}" for name in others)
                some = f"{has[label]:,} of {count:,} frames have {key!r}, and others" if has[label] else f"no {key!r}, but"
                option = "virial_key" if label == "stress" and "virial" in others[0].lower() else f"{label}_key"
                remedy = f"pass data.{option}={others[0]} if that is the {label}"
                if has[label]:
                    remedy = f"give all frames one key, or the two kinds in files of their own: {others[0]!r} may be the {label}"
                yield Finding("warning", "labels.keys", f"{path}: {some} {names} of {count:,} frames", f"the {label} under {key!r}", remedy)
            elif 0 < has[label] < count:
                text = f"{path}: {has[label]:,} of {count:,} frames have {key!r}"
                yield Finding("note", "labels.keys", text, f"{key!r} in every frame, unless a {label} is really unknown there")


@check("labels.zeros", "Are labels placeholders: exactly zero, or all the same?", cheap=True)
def labels_are_no_placeholders(subject: Subject) -> Iterator[Finding]:
    """Zeros written where a calculation gave nothing would be learnt as labels; zero by symmetry is no placeholder."""
    for label in ("forces", "stress"):
        labelled = [frame for frame in subject.frames if len(frame) > 1 and getattr(frame, f"has_{label}")]
        zero = [frame for frame in labelled if not np.any(np.nan_to_num(getattr(frame, label)))]
        odd = [frame for frame in spread(zero, _LOOKED_AT) if label == "stress" or not forces_vanish_by_symmetry(frame)]
        all_or_some = f"all {len(zero):,}" if len(zero) == len(labelled) else f"{len(zero):,} of {len(labelled):,}"
        if zero and not odd:
            found = f"the forces of {all_or_some} frames are exactly zero, as the symmetry of these structures demands"
            yield Finding("note", "labels.zeros", found, frames=by_name(zero))
        elif odd and len(zero) == len(labelled):
            remedy = f"pass data.{label}_key=null where they were never computed"
            found = f"the {label} of {all_or_some} frames are exactly zero"
            yield Finding("error" if len(zero) > 1 else "warning", "labels.zeros", found, "values", remedy, by_name(odd))
        elif odd:
            found = f"the {label} of {all_or_some} frames are exactly zero, in {len(odd):,} of them though no symmetry demands it"
            remedy = "leave out frames whose zeros stand for values that were never computed"
            yield Finding("warning", "labels.zeros", found, "values", remedy, by_name(odd))
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


def _counted_keys(path: str, data: DataConfig) -> tuple[int, Counter[Label], dict[Label, Counter[str]]]:
    """Of the first frames of a file: how many there are, how many have each label under its key, and what the others have instead.

    Nothing where the file cannot be read, which another finding says.
    """
    wanted = _read_keys(data)
    has: Counter[Label] = Counter()
    instead: dict[Label, Counter[str]] = {label: Counter() for label in LABELS}
    frames = 0
    try:
        for raw in islice(_raw_frames(Path(path), data), RAW_FRAMES):
            frames += 1
            for label, key in wanted.items():
                if raw.found.get(key or "") is not None:
                    has[label] += 1
                else:
                    instead[label].update(name for name, value in raw.found.items() if _may_be(label, name, value, len(raw.numbers)))
    except (*USER_ERRORS, OSError, ValueError, KeyError, IndexError, TypeError):
        return 0, Counter(), {label: Counter() for label in LABELS}
    return frames, has, instead


def _may_be(label: Label, name: str, value: Any, atoms: int) -> bool:
    """Whether a value could be the label, by its name and its size: ``stress_unit=kbar`` is none."""
    if name.startswith("magnetic") or not any(word in name.lower() for word in _WORDS[label]):
        return False
    values = np.asarray(value)
    sizes = {"energy": (1,), "forces": (3 * atoms,), "stress": (6, 9)}
    return values.dtype.kind in "fiu" and values.size in sizes[label]


def _raw_frames(path: Path, data: DataConfig) -> Iterator[RawFrame]:
    known = formats()
    chosen = known[data.format] if data.format in known else next(one for one in known.values() if one.recognises(path))
    return chosen.read(path, ReadOptions(type_map=data.type_map))
