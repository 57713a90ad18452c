"""The Lightning module: one optimizer step on the adapters of a Potential."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from zoo.data.label_counts import LabelCounts
from zoo.errors import ZooError
from zoo.graph import AtomGraph
from zoo.potential import Potential
from zoo.training.config import TrainingConfig
from zoo.training.ema import ExponentialMovingAverage
from zoo.training.losses import loss_terms, weighted_sum
from zoo.training.optimizers import PlateauFactor, make_optimizer, make_schedule
from zoo.training.plan import Plan


class FineTuning(LightningModule):
    """Trains the active adapters of ``potential``; the base stays frozen and out of every checkpoint.

    Args:
        potential: with at least one trainable adapter.
        config: loss, optimizer, schedule, EMA.
        plan: how long the run is.
        identity: name to SHA-256 of what a resumed run must find unchanged; kept in checkpoints.
        per_batch: labels of a mean batch, where batches are limited by size (`zoo.training.losses.loss_terms`).
    """

    def __init__(
        self, potential: Potential, config: TrainingConfig, plan: Plan, identity: Mapping[str, str], per_batch: LabelCounts | None = None
    ) -> None:
        super().__init__()
        self._per_batch = per_batch
        self._identity = dict(identity)
        self.potential = potential
        self.config = config
        self.plan = plan
        self.trainable = dict(potential.adapters.named_parameters())
        self.ema: ExponentialMovingAverage | None = None
        if config.ema_decay is not None:
            self.ema = ExponentialMovingAverage(self.trainable, config.ema_decay, warmup=config.ema_warmup)
        self.plateau = PlateauFactor(config.schedule) if config.schedule.name == "plateau" else None

    @property
    def wants_stress(self) -> bool:
        """Whether the loss looks at the stress, which costs a little extra."""
        return self.config.loss.stress.weight > 0

    def training_step(self, batch: AtomGraph, batch_index: int) -> Tensor:
        """Loss of one batch; refuses to go on from a loss that is not a number."""
        self.potential.adapters.before_forward()
        terms = loss_terms(self.potential(batch, stress=self.wants_stress), batch, self.config.loss, self._per_batch)
        loss = weighted_sum(terms, self.config.loss)
        if not torch.isfinite(loss):
            frames = ", ".join(f"{source}:{int(frame)}" for source, frame in zip(batch.source, batch.frame_id, strict=True))
            raise ZooError(
                f"step {self.global_step}: the loss is not a number (frames {frames}); "
                "lower training.optimizer.learning_rate or check these frames' labels"
            )
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=batch.graph_count)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=batch.graph_count)
        return loss

    def on_train_start(self) -> None:
        """Training mode everywhere; the schedule-free optimizer takes gradients elsewhere than it evaluates and must be told which."""
        self.potential.train()  # Lightning keeps whatever mode it finds
        if self.config.optimizer.name == "schedule_free_adamw":
            self._plain_optimizer().train()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """The adapters' own hook between gradients and step, with this step's rate."""
        self.potential.adapters.before_step(float(optimizer.param_groups[0]["lr"]), self.config.optimizer.weight_decay)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimizer's step, then the adapters' own step hook, then the average."""
        super().optimizer_step(*args, **kwargs)
        self.potential.adapters.after_step()
        if self.ema is not None:
            self.ema.update()

    def configure_optimizers(self) -> Any:
        """The adapters' own parameter groups under the configured optimizer and schedule."""
        config = self.config
        groups = self.potential.adapters.param_groups(config.optimizer.learning_rate, config.optimizer.weight_decay)
        optimizer = make_optimizer(groups, config.optimizer, self.plan.warmup_steps)
        if config.optimizer.name == "schedule_free_adamw":
            return optimizer
        schedule = make_schedule(optimizer, config.schedule, self.plan, self.plateau)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """The weights a user gets: the moving average where one is kept, the schedule-free average, or the live ones."""
        if self.ema is not None:
            return self.ema.applied()
        if self.config.optimizer.name == "schedule_free_adamw":
            return self._schedule_free_average()
        return nullcontext()

    @contextmanager
    def _schedule_free_average(self) -> Iterator[None]:
        saved = self.state_dict()
        optimizer = self._plain_optimizer()
        optimizer.eval()
        self.potential.adapters.after_step()  # the switch moves the tensors as a step does
        try:
            yield
        finally:
            optimizer.train()
            self.load_state_dict(saved)  # train() interpolates back and would change the last bits

    def _plain_optimizer(self) -> Any:
        wrapped = self.optimizers()
        return wrapped.optimizer if isinstance(wrapped, LightningOptimizer) else wrapped

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The trained tensors only: the frozen base would add its whole size to every checkpoint."""
        return {name: value.detach().clone() for name, value in self.trainable.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Restore `state_dict`; raises `ZooError` where the names differ."""
        if set(state_dict) != set(self.trainable):
            different = sorted(set(state_dict) ^ set(self.trainable))
            raise ZooError(
                f"checkpoint: trained tensors do not match the adapter's (first difference: {different[0]}); resume with the same config"
            )
        for name, value in state_dict.items():
            if value.shape != self.trainable[name].shape:
                found, wanted = tuple(value.shape), tuple(self.trainable[name].shape)
                raise ZooError(f"checkpoint: {name} has shape {found}, and the adapter's has {wanted}; resume with the same config")
        with torch.no_grad():
            for name, value in state_dict.items():
                self.trainable[name].copy_(value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know: what the run is made from, EMA, plateau, reference energies, the random generators."""
        checkpoint["equizoo"] = {
            "identity": self._identity,
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "plateau": self.plateau.state_dict() if self.plateau is not None else None,
            "reference_shifts": self.potential.shifts_with(self.potential.adapters.active).clone(),
            "random_state": torch.random.get_rng_state(),
            "cuda_random_state": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        extra = checkpoint["equizoo"]
        if self.ema is not None:
            self.ema.load_state_dict(extra["ema"])
        if self.plateau is not None:
            self.plateau.load_state_dict(extra["plateau"])
        shifts = extra["reference_shifts"].tolist()
        self.potential.set_reference_shifts({number: value for number, value in enumerate(shifts) if value != 0})
        torch.random.set_rng_state(extra["random_state"].cpu())
        if extra["cuda_random_state"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(extra["cuda_random_state"])
