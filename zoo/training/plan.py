"""How long a run is in optimizer steps, which is known once its data has been read."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.data.batches import BatchPlan
from zoo.training.config import TrainingConfig


@dataclass(frozen=True)
class Plan:
    """The length of a run.

    Attributes:
        steps: of the optimizer.
        warmup_steps: of these, at most half: a longer warm-up would end the run before its full rate.
        steps_per_epoch: batches in the first pass over the training frames, the last of which may be smaller.
    """

    steps: int
    warmup_steps: int
    steps_per_epoch: int

    @classmethod
    def of(cls, config: TrainingConfig, split: int | BatchPlan) -> Plan:
        """The plan of ``config`` for a training split, of which the number of frames is enough where that alone limits batches.

        Parts of an epoch are cut to whole steps.
        """
        batches = _EqualPasses(split, config.batch_size) if isinstance(split, int) else split
        steps = config.steps if config.steps is not None else max(1, _steps_of(config.epochs, batches))
        schedule = config.schedule
        warmup = schedule.warmup_steps if schedule.warmup_steps is not None else _steps_of(schedule.warmup_epochs, batches)
        return cls(steps, min(warmup, steps // 2), batches.batches_in_pass(0))

    def __str__(self) -> str:
        """For the log."""
        epochs = self.steps / self.steps_per_epoch
        return f"{self.steps:,} steps ({epochs:.3g} epochs of {self.steps_per_epoch:,}), {self.warmup_steps:,} of them warm-up"


@dataclass(frozen=True)
class _EqualPasses:
    """The passes over so many frames, in batches of a count."""

    frames: int
    batch_size: int | None
    varies: bool = False

    def batches_in_pass(self, _: int) -> int:
        assert self.batch_size is not None  # whoever limits batches by size has a plan of them
        return -(-self.frames // self.batch_size)


def _steps_of(epochs: float | None, batches: BatchPlan | _EqualPasses) -> int:
    assert epochs is not None  # the config has either steps or epochs
    whole = int(epochs)
    if not batches.varies:
        return int(epochs * batches.batches_in_pass(0) + 1e-9)  # 0.29 * 100 is 28.999999999999996
    part = int((epochs - whole) * batches.batches_in_pass(whole) + 1e-9) if epochs > whole else 0
    return sum(batches.batches_in_pass(index) for index in range(whole)) + part
