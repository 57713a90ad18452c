"""What was found in the frames, and whether the model can take them: printed before a run, refused before epoch 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ase.data import chemical_symbols

from zoo.data.frame import Frame
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
    def of(cls, frames: Iterable[Frame]) -> LabelReport:
        """Count the labels of ``frames`` by their source."""
        by_source: dict[str, list[Frame]] = {}
        for frame in frames:
            by_source.setdefault(frame.source, []).append(frame)
        rows = (
            LabelCount(
                source=source,
                frames=len(group),
                energy=sum(frame.has_energy for frame in group),
                forces=sum(frame.has_forces for frame in group),
                stress=sum(frame.has_stress for frame in group),
            )
            for source, group in by_source.items()
        )
        return cls(tuple(rows))

    def text(self) -> str:
        """One line per source: ``"train_300K.xyz: 500 frames, energy 500, forces 500, stress 0"``."""
        return "\n".join(
            f"{row.source}: {row.frames} frames, energy {row.energy}, forces {row.forces}, stress {row.stress}" for row in self.rows
        )


def elements_of(frames: Iterable[Frame]) -> tuple[int, ...]:
    """Atomic numbers that occur in ``frames``, ascending."""
    return tuple(sorted({int(number) for frame in frames for number in frame.atomic_numbers}))


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
    charged = next((frame for frame in frames if frame.charge), None)
    if charged is not None and not reads_charge:
        raise ZooError(
            f"{charged.name} has charge {charged.charge:+d}, and {model} has no input for a charge; choose a model that has (uma), or "
            "remove info['charge'] where the charge is meant to be a property of the whole data set"
        )


def _symbol(number: int) -> str:
    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else f"Z={number}"
