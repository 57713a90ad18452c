"""How long a run is in optimizer steps, which is known once its data has been read."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.training.config import TrainingConfig


@dataclass(frozen=True)
class Plan:
    """The length of a run.

    Attributes:
        steps: of the optimizer.
        warmup_steps: of these, at most half: a longer warm-up would end the run before its full rate.
        steps_per_epoch: batches in a pass over the training frames, the last of which may be smaller.
    """

    steps: int
    warmup_steps: int
    steps_per_epoch: int

    @classmethod
    def of(cls, config: TrainingConfig, frame_count: int) -> Plan:
        """The plan of ``config`` for a training split of ``frame_count`` frames; parts of an epoch are cut to whole steps."""
        steps_per_epoch = -(-frame_count // config.batch_size)
        steps = config.steps if config.steps is not None else max(1, _whole(config.epochs, steps_per_epoch))
        schedule = config.schedule
        warmup = schedule.warmup_steps if schedule.warmup_steps is not None else _whole(schedule.warmup_epochs, steps_per_epoch)
        return cls(steps, min(warmup, steps // 2), steps_per_epoch)

    def __str__(self) -> str:
        """For the log."""
        epochs = self.steps / self.steps_per_epoch
        return f"{self.steps:,} steps ({epochs:.3g} epochs of {self.steps_per_epoch:,}), {self.warmup_steps:,} of them warm-up"


def _whole(epochs: float | None, steps_per_epoch: int) -> int:
    assert epochs is not None  # the config has either steps or epochs
    return int(epochs * steps_per_epoch + 1e-9)  # 0.29 * 100 is 28.999999999999996
