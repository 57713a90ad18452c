"""How many labels of each kind some frames have: what a loss over batches of different sizes is divided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.data.facts import LABEL_BITS, labelled_atoms
from zoo.data.frame import Frame
from zoo.data.stored_frames import StoredFrames


@dataclass(frozen=True)
class LabelCounts:
    """Labels by kind, as a loss averages over them; of all frames, or a batch's share of these.

    Attributes:
        energy: frames with an energy.
        forces: atoms with a force.
        stress: frames with a stress.
    """

    energy: float
    forces: float
    stress: float

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> LabelCounts:
        """Of all ``frames``."""
        if isinstance(frames, StoredFrames):
            labels = frames.fact("labels")
            with_energy, with_stress = (int((labels & LABEL_BITS[name] != 0).sum()) for name in ("energy", "stress"))
            return cls(with_energy, int(frames.fact("labelled_atoms").sum()), with_stress)
        counted = [(frame.has_energy, labelled_atoms(frame), frame.has_stress) for frame in frames]
        return cls(*(float(sum(column)) for column in zip(*counted, strict=True)))

    def per_batch(self, batches: int) -> LabelCounts:
        """The mean over ``batches`` batches of these frames."""
        return LabelCounts(self.energy / batches, self.forces / batches, self.stress / batches)
