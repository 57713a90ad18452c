"""What is examined: frames by part, the model, the configuration of a run; with what several checks need, worked out once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from zoo.data.frame import Frame
from zoo.data.parts import DataSplits
from zoo.data.stored_frames import join, take
from zoo.doctor.pairs import Pair, close_pairs

if TYPE_CHECKING:
    from zoo.evaluation.predictions import Predictions
    from zoo.potential import Potential
    from zoo.training.config import RunConfig

MOST_SAMPLED_ATOMS = 1000
"""In all frames of the sample: half a minute of SevenNet-0 in dense metals on one core."""


class Subject:
    """One model, data set and configuration under examination.

    Args:
        splits: the frames by part.
        potential: the model as a run starts with it; None where there is none.
        config: of the run; None where only frames are looked at.
        sample_size: how many frames the model predicts.
        most_frames: of a part that are looked at closely and held in memory, spread over it; None for all.
        scans_all: whether the checks that read frames one by one (`scanned`) read every one all the same.
    """

    def __init__(
        self,
        splits: DataSplits,
        potential: Potential | None = None,
        config: RunConfig | None = None,
        sample_size: int = 24,
        most_frames: int | None = None,
        scans_all: bool = False,
    ) -> None:
        self.splits = splits
        self.potential = potential
        self.config = config
        self._sample_size = sample_size
        self._most_frames = most_frames
        self._scans_all = scans_all

    @property
    def model(self) -> Potential:
        """The potential, for checks that need one."""
        assert self.potential is not None
        return self.potential

    @property
    def run(self) -> RunConfig:
        """The configuration, for checks that need one."""
        assert self.config is not None
        return self.config

    @property
    def given_units(self) -> tuple[float, float]:
        """(eV, eV/Å): see `zoo.data.config.DataConfig.given_units`; 1 without a configuration."""
        return (1.0, 1.0) if self.config is None else self.config.data.given_units

    @property
    def parts(self) -> Mapping[str, Sequence[Frame]]:
        """The frames by part; parts without frames are left out."""
        return self.splits.parts

    @cached_property
    def frames(self) -> list[Frame]:
        """The frames that are looked at closely, each structure of a file once, though several parts may hold it."""
        looked_at = map(self._some, self.parts.values())
        return list({(frame.source, frame.frame_id): frame for frames in looked_at for frame in frames}.values())

    def _some(self, frames: Sequence[Frame]) -> list[Frame]:
        """As many of ``frames`` as are looked at closely of one part."""
        return spread(frames, self._most_frames or len(frames))

    @property
    def is_spread(self) -> bool:
        """Whether `frames` leaves some out."""
        return self._most_frames is not None and any(len(frames) > self._most_frames for frames in self.parts.values())

    @cached_property
    def scanned(self) -> Sequence[Frame]:
        """Frames to be read one by one, of which few may be held: every one, or `frames`."""
        return join(list(self.parts.values())) if self._scans_all and self.is_spread else self.frames

    @cached_property
    def pairs(self) -> list[Pair]:
        """Frames of one composition that are close to each other, with changes of energy and the work of forces and stress."""
        return close_pairs(self.frames)

    @property
    def has_trained_weights(self) -> bool:
        """Whether the model's predictions mean anything before training."""
        return self.potential is not None and (self.config is None or self.config.strategy.weights == "card")

    @cached_property
    def sample(self) -> list[Frame]:
        """Labelled frames for predictions, spread over the training frames (all frames, where there are none)."""
        known, reads_charge = frozenset(self.model.backbone.elements), self.model.backbone.reads_charge
        source = self.splits.train or self.frames
        usable = [
            index
            for index in _spread_indices(len(source), self._most_frames or len(source))
            if ((frame := source[index]).has_energy or frame.has_forces)
            and known.issuperset(frame.atomic_numbers.tolist())
            and (reads_charge or not frame.charge)
        ]
        chosen: list[Frame] = []
        atoms = 0
        for frame in spread(take(source, usable), self._sample_size):
            if chosen and atoms + len(frame) > MOST_SAMPLED_ATOMS:
                continue
            chosen.append(frame)
            atoms += len(frame)
        return chosen

    @cached_property
    def predictions(self) -> Predictions:
        """Of the base, without adapters and the reference energies that they bring, for `sample`."""
        from zoo.evaluation.predictions import predict_frames

        with self.base_alone():
            return predict_frames(self.model, self.sample)

    @contextmanager
    def base_alone(self) -> Iterator[None]:
        """The potential without its adapters, put back afterwards."""
        adapters = self.model.adapters
        names = adapters.active
        adapters.activate([])
        try:
            yield
        finally:
            adapters.activate(names)


def spread(frames: Sequence[Frame], count: int) -> list[Frame]:
    """At most ``count`` of ``frames``, evenly spaced, the first and the last among them."""
    return [frames[index] for index in _spread_indices(len(frames), count)]


def _spread_indices(of: int, count: int) -> list[int]:
    return list(range(of)) if of <= count else np.linspace(0, of - 1, count).round().astype(int).tolist()


def by_name(frames: Sequence[Frame]) -> tuple[str, ...]:
    """The names of ``frames``, as findings carry them."""
    return tuple(frame.name for frame in frames)
