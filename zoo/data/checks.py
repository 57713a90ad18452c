"""What was found in the frames, and whether the model can take them: printed before a run, refused before epoch 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from zoo.data.facts import LABEL_BITS, elements_in, has_charge, mask_of
from zoo.data.frame import Frame
from zoo.data.labels import Label
from zoo.data.stored_frames import StoredFrames
from zoo.errors import ZooError


@dataclass(frozen=True)
class LabelCount:
    """How many frames of one source carry which label."""

    source: str
    frames: int
    energy: int
    forces: int
    stress: int


@dataclass(frozen=True)
class LabelReport:
    """Counts of the labels found, one row per source, in the order the sources appear."""

    rows: tuple[LabelCount, ...]

    @classmethod
    def of(cls, *parts: Sequence[Frame]) -> LabelReport:
        """Count the labels of the frames of all parts by their source."""
        counts: dict[str, Counter[str]] = {}
        for frames in parts:
            for source, found in _labels_by_frame(frames):
                counts.setdefault(source, Counter()).update(found)
        return cls(tuple(LabelCount(source, one["frames"], one["energy"], one["forces"], one["stress"]) for source, one in counts.items()))

    def text(self) -> str:
        """One line per source: ``"train_300K.xyz: 500 frames, energy 500, forces 500, stress 0"``."""
        return "\n".join(
            f"{row.source}: {row.frames} frames, energy {row.energy}, forces {row.forces}, stress {row.stress}" for row in self.rows
        )


def _labels_by_frame(frames: Sequence[Frame]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(source, what is counted) of each frame."""
    if isinstance(frames, StoredFrames):
        found = [("frames", *(name for name, bit in LABEL_BITS.items() if bits & bit)) for bits in range(8)]
        yield from ((source, found[bits % 8]) for source, bits in zip(frames.source_names(), frames.fact("labels").tolist(), strict=True))
        return
    for frame in frames:
        yield frame.source, ("frames", *(name for name in LABEL_BITS if getattr(frame, f"has_{name}")))


def elements_of(frames: Iterable[Frame]) -> tuple[int, ...]:
    """Atomic numbers that occur in ``frames``, ascending."""
    if isinstance(frames, StoredFrames):
        return elements_in(frames.fact("elements"))
    return tuple(sorted({int(number) for frame in frames for number in frame.atomic_numbers}))


def without_label(frames: Sequence[Frame], label: Label) -> Sequence[Frame]:
    """Those that lack a label."""
    if isinstance(frames, StoredFrames):
        return frames.take(np.flatnonzero(frames.fact("labels") & LABEL_BITS[label] == 0))
    return [frame for frame in frames if not getattr(frame, f"has_{label}")]


def check_elements(frames: Iterable[Frame], known_elements: Sequence[int], model: str = "the model") -> None:
    """Refuse frames with an element that ``model`` does not know.

    Args:
        frames: structures to check.
        known_elements: atomic numbers the model was made for.
        model: how the error names it.

    Raises:
        ZooError: naming the first such frame and its unknown elements.
    """
    known = frozenset(known_elements)
    if isinstance(frames, StoredFrames):
        frames = frames.take(np.flatnonzero((frames.fact("elements") & ~mask_of(known_elements)).any(axis=1))[:1])
    for frame in frames:
        unknown = sorted({int(number) for number in frame.atomic_numbers} - known)
        if unknown:
            names = ", ".join(_symbol(number) for number in unknown)
            knows = ", ".join(_symbol(number) for number in sorted(known)) if len(known) <= 12 else f"{len(known)} elements"
            raise ZooError(
                f"{frame.name} has {names}, which {model} does not know (it knows {knows}); remove the frame or choose another model"
            )


def check_charges(frames: Iterable[Frame], reads_charge: bool, model: str = "the model") -> None:
    """Refuse charged frames where ``model`` has no input for a charge: it would predict them as if they were neutral.

    Args:
        frames: structures to check.
        reads_charge: as `zoo.backbones.base.Backbone.reads_charge`.
        model: how the error names it.

    Raises:
        ZooError: naming the first such frame and its charge.
    """
    if isinstance(frames, StoredFrames):
        frames = frames.take(np.flatnonzero(has_charge(frames.fact("labels")))[:1])
    charged = next((frame for frame in frames if frame.charge), None)
    if charged is not None and not reads_charge:
        raise ZooError(
            f"{charged.name} has charge {charged.charge:+d}, and {model} has no input for a charge; choose a model that has (uma), or "
            "remove info['charge'] where the charge is meant to be a property of the whole data set"
        )


def _symbol(number: int) -> str:
    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else f"Z={number}"
