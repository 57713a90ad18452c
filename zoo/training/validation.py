"""Every few steps: validate with the weights a user would get, keep the best (or the last), write the history and a checkpoint.

One callback does all four in a fixed order after the optimizer step, so that a checkpoint always lies after its validation and a resumed
run repeats neither and skips neither.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from zoo.data.label_counts import LabelCounts
from zoo.errors import ZooError
from zoo.files import write_text_atomically
from zoo.graph import AtomGraph
from zoo.training.checkpoints import LAST, drop_older_weights, write_kept_weights
from zoo.training.cost import Stopwatch
from zoo.training.losses import loss_terms, weighted_sum
from zoo.training.module import FineTuning


class Validation(Callback):
    """Validation, kept weights, history and checkpoint every ``validate_every`` steps and at the last one.

    Args:
        batches: the validation frames, on the device of the run.
        folder: of the run; ``checkpoints/`` and ``history.csv`` go there.
        stopwatch: its time is carried over a resumption.
        per_batch: labels of a mean validation batch, where batches are limited by size: the loss is then the one over all labels at once.

    Attributes:
        best_step: the step with the lowest validation loss, 0 before the first validation.
        kept_step: the step whose weights are kept (``training.keep``), 0 before the first validation.
        history: one row a validation: step, losses, force and energy errors, learning rate, the adapters' own report.
    """

    def __init__(self, batches: Iterable[AtomGraph], folder: Path, stopwatch: Stopwatch, per_batch: LabelCounts | None = None) -> None:
        self._per_batch = per_batch
        self._batches = batches
        self._folder = folder
        self._stopwatch = stopwatch
        self._train_losses: list[float] = []
        self._best_loss = math.inf
        self._waited = 0
        self.best_step = self.kept_step = 0
        self.history: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Time counts from the first step; a run that was killed after it had stopped early takes no further one."""
        self._stopwatch.start()
        self._stop_where_patience_ended(trainer, module)

    def on_train_end(self, *_: object) -> None:
        """Time ends with the last step."""
        self._stopwatch.stop()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, *_: object) -> None:
        """Count the step's loss; validate where it is time."""
        assert isinstance(module, FineTuning)
        self._train_losses.append(float(outputs["loss"]))
        step = trainer.global_step
        if step % module.config.validate_every and step != module.plan.steps:
            return
        with module.evaluation_weights():
            row = {**self._validate(module), **module.potential.adapters.report()}
            improved = row["valid/loss"] < self._best_loss
            kept = improved or module.config.keep == "last"
            if kept:
                write_kept_weights(self._folder / "checkpoints", step, module.trainable)
        if improved:
            self._best_loss, self.best_step, self._waited = row["valid/loss"], step, 0
        else:
            self._waited += 1
        self.kept_step = step if kept else self.kept_step
        self._record(trainer, module, step, row)
        if module.plateau is not None:
            module.plateau.observe(row["valid/loss"])
        trainer.save_checkpoint(self._folder / "checkpoints" / LAST)
        drop_older_weights(self._folder / "checkpoints", self.kept_step)
        self._stop_where_patience_ended(trainer, module)

    def _stop_where_patience_ended(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, FineTuning)
        patience = module.config.early_stopping_patience
        if patience is not None and self._waited >= patience:
            trainer.should_stop = True

    @property
    def last_step(self) -> int:
        """The step of the last validation; early stopping can end a run before its last step."""
        return int(self.history[-1]["step"]) if self.history else 0

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for the checkpoint."""
        return {
            "best_loss": self._best_loss,
            "best_step": self.best_step,
            "kept_step": self.kept_step,
            "waited": self._waited,
            "history": self.history,
            "cost": self._stopwatch.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._best_loss = state_dict["best_loss"]
        self.best_step = state_dict["best_step"]
        self.kept_step = state_dict.get("kept_step", self.best_step)  # absent before training.keep was there
        self._waited = state_dict["waited"]
        self.history = state_dict["history"]
        self._stopwatch.load_state_dict(state_dict["cost"])

    def _validate(self, module: FineTuning) -> dict[str, float]:
        """Loss over the validation frames, each batch weighted by its frames, and force and energy errors over all of them at once."""
        module.potential.eval()
        total, weights = 0.0, 0
        energy_errors: list[torch.Tensor] = []
        force_errors: list[torch.Tensor] = []
        for batch in self._batches:
            results = module.potential(batch, stress=module.wants_stress)
            loss = weighted_sum(loss_terms(results, batch, module.config.loss, self._per_batch), module.config.loss)
            weight = batch.graph_count if self._per_batch is None else 1
            total += float(loss) * weight
            weights += weight
            energy_errors.append((results["energy"] - batch.energy) / batch.atom_counts)
            force_errors.append((results["forces"] - batch.forces).flatten())
        module.potential.train()
        if not math.isfinite(total):
            raise ZooError(
                f"step {module.trainer.global_step}: the validation loss is not a number; lower training.optimizer.learning_rate or "
                "check the validation labels"
            )
        row = {"valid/loss": total / weights}
        for name, errors in (("valid/energy_mae_mev_per_atom", energy_errors), ("valid/force_mae_mev_per_angstrom", force_errors)):
            joined = torch.cat(errors)
            known = joined[torch.isfinite(joined)]
            if known.numel():
                row[name] = 1000 * float(known.abs().mean())
        return row

    def _record(self, trainer: Trainer, module: FineTuning, step: int, row: dict[str, float]) -> None:
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        train_loss = sum(self._train_losses) / len(self._train_losses)
        self._train_losses.clear()
        full = {"step": float(step), "train/loss": train_loss, **row, "learning_rate": rate}
        self.history.append(full)
        for logger in trainer.loggers:
            logger.log_metrics(row, step)
        write_text_atomically(self._folder / "history.csv", history_csv(self.history))


def history_csv(rows: Sequence[dict[str, float]]) -> str:
    """The rows as CSV with the union of their columns, in order of first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
