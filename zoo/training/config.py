"""What Hydra composed, validated: every key known, every value in range, one clear line otherwise.

Units: energies eV, lengths Å, forces eV/Å, stress eV/Å^3; loss weights multiply squared or absolute errors in those units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zoo.data.batches import BatchLimits
from zoo.data.config import DataConfig
from zoo.data.reference_choice import ReferenceChoice
from zoo.errors import ZooError, first_problem, nearest_name_hint
from zoo.evaluation.forgetting_settings import ForgettingSettings


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _in_place_of_default(values: Any, chosen: str, default: str) -> Any:
    """Without the default of one key where the other is given, so that a default does not count as a second choice."""
    if isinstance(values, Mapping) and values.get(chosen) is not None and default not in values:
        return {**values, default: None}
    return values


def _check_one_of(config: BaseModel, first: str, second: str, group: str) -> None:
    given = [name for name in (first, second) if getattr(config, name) is not None]
    if len(given) == 2:
        raise ValueError(f"both {first} and {second} are given, which are one choice; set {group}{first}=null or {group}{second}=null")
    if not given:
        raise ValueError(f"neither {first} nor {second} is given; pass {group}{first}=... or {group}{second}=...")


class BackboneConfig(_Strict):
    """Which base model, as `zoo.load` takes it; ``elements=data`` cuts it to the elements of the run's own data.

    ``forces``: None for the model's own way, ``gradient`` or ``direct``. ``dtype``: None for the precision of the file.
    """

    name: str
    head: str | None = None
    elements: tuple[str, ...] | Literal["data"] | None = None
    forces: Literal["gradient", "direct"] | None = None
    dtype: Literal["float32", "float64"] | None = None
    device: str = "auto"
    trust_pickle: bool = False

    @property
    def torch_device(self) -> str:
        """The device as torch names it: ``auto`` is a GPU where there is one."""
        import torch

        return ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device


class LossTerm(_Strict):
    """One label's part of the loss.

    ``mse``, ``mae`` and ``huber`` are means over components; ``l2norm`` is the mean over atoms of the force error's Euclidean norm
    (EquiformerV2's per-atom L2 norm) and exists for forces only. Errors are divided by ``scale`` (eV, eV/Å or eV/Å^3) first: a recipe for
    targets that were normalised by a standard deviation has that here, and its weights stay as published.
    """

    kind: Literal["mse", "mae", "huber", "l2norm"] = "mse"
    weight: float = Field(ge=0)
    huber_delta: float = Field(default=0.01, gt=0)
    scale: float = Field(default=1.0, gt=0)


class LossConfig(_Strict):
    """Weighted sum of the labels' terms; energies enter per atom unless ``energy_per_atom`` is false."""

    energy: LossTerm = LossTerm(weight=100.0)
    forces: LossTerm = LossTerm(weight=1000.0)
    stress: LossTerm = LossTerm(weight=0.0)
    energy_per_atom: bool = True

    @model_validator(mode="after")
    def _weighs_something(self) -> LossConfig:
        if not self.energy.weight + self.forces.weight + self.stress.weight > 0:
            raise ValueError("every weight is 0, so there is nothing to train on; set training.loss.forces.weight=1000")
        return self

    @model_validator(mode="after")
    def _l2norm_is_for_forces(self) -> LossConfig:
        for name in ("energy", "stress"):
            if getattr(self, name).kind == "l2norm":
                raise ValueError(f"{name}.kind=l2norm is defined for forces only; choose mse, mae or huber")
        return self


class OptimizerConfig(_Strict):
    """``amsgrad`` is Adam with the AMSGrad correction; ``schedule_free_adamw`` is Defazio et al. 2024 and takes no schedule of its own."""

    name: Literal["adam", "amsgrad", "adamw", "schedule_free_adamw"] = "adamw"
    learning_rate: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=1e-8, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)


class ScheduleConfig(_Strict):
    """Learning rate over steps: linear warm-up, then constant, a cosine to ``final_fraction``, or plateau on the validation loss.

    Attributes:
        name: of the schedule.
        warmup_steps, warmup_epochs: length of the warm-up, one of the two (of an epoch also a part), but at most half of the run.
        warmup_factor: where the warm-up starts, as a fraction of the rate; None for one step's share of it.
        final_fraction: where the cosine ends, as a fraction of the rate.
        cosine_begins: ``after_warmup``, or ``at_start`` of the run, so that the warm-up ends on a cosine that is under way (fairchem).
        plateau_factor, plateau_patience: see `zoo.training.optimizers.PlateauFactor`.
    """

    name: Literal["constant", "cosine", "plateau"] = "cosine"
    warmup_steps: int | None = Field(default=20, ge=0)
    warmup_epochs: float | None = Field(default=None, ge=0)
    warmup_factor: float | None = Field(default=None, ge=0, le=1)
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    cosine_begins: Literal["after_warmup", "at_start"] = "after_warmup"
    plateau_factor: float = Field(default=0.8, gt=0, lt=1)
    plateau_patience: int = Field(default=5, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _epochs_replace_the_default_steps(cls, values: Any) -> Any:
        return _in_place_of_default(values, "warmup_epochs", "warmup_steps")

    @model_validator(mode="after")
    def _one_length_of_warmup(self) -> ScheduleConfig:
        _check_one_of(self, "warmup_steps", "warmup_epochs", "training.schedule.")
        if self.cosine_begins == "at_start" and self.name != "cosine":
            raise ValueError(f"cosine_begins=at_start says nothing of the {self.name} schedule; leave it out or choose name=cosine")
        return self


class LoggerConfig(_Strict):
    """Besides ``history.csv``, which is always written."""

    tensorboard: bool = True
    wandb_project: str | None = None


class TrainingConfig(_Strict):
    """The optimisation itself.

    Attributes:
        steps, epochs: length of the run, one of the two: optimizer steps, or passes over the training frames.
        batch_size: structures a step, at the most; None where the next two alone limit a batch.
        max_atoms_per_batch, max_edges_per_batch: of all structures of a step together, at the most; None for no such limit.
        seed: of the order of the batches, the initial weights, and dropout.
        validate_every: steps.
        gradient_clip_norm: the norm of all gradients together is at most this; None for no clipping.
        ema_decay: of the moving average of the trained weights, None for none.
        ema_warmup: whether the average forgets faster in the beginning (`zoo.training.ema`).
        dropout, stochastic_depth: rates of what the base leaves out at random while it trains; None for its own
            (`zoo.backbones.base.DropoutRates`).
        early_stopping_patience: validations without a better loss after which the run ends.
        loss, optimizer, schedule, loggers: see there.
        threads: of torch; None leaves them.
        keep: which weights the run ends with: the ``best`` by validation loss, or the ``last``; a method whose result is a state at the end
            (the sparsity of sparse deltas) wants the last.
        progress_bar: whether one is shown.
    """

    steps: int | None = Field(default=200, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int | None = Field(default=5, ge=1)
    max_atoms_per_batch: int | None = Field(default=None, ge=1)
    max_edges_per_batch: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    validate_every: int = Field(default=20, ge=1)
    gradient_clip_norm: float | None = Field(default=100.0, gt=0)
    ema_decay: float | None = Field(default=0.99, gt=0, lt=1)
    ema_warmup: bool = True
    dropout: float | None = Field(default=None, ge=0, lt=1)
    stochastic_depth: float | None = Field(default=None, ge=0, lt=1)
    early_stopping_patience: int | None = Field(default=None, ge=1)
    keep: Literal["best", "last"] = "best"
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loggers: LoggerConfig = LoggerConfig()
    threads: int | None = Field(default=None, ge=1)
    progress_bar: bool = True

    @model_validator(mode="before")
    @classmethod
    def _epochs_replace_the_default_steps(cls, values: Any) -> Any:
        return _in_place_of_default(values, "epochs", "steps")

    @model_validator(mode="after")
    def _one_length(self) -> TrainingConfig:
        _check_one_of(self, "steps", "epochs", "training.")
        return self

    @property
    def batch_limits(self) -> BatchLimits:
        """How large a batch may be."""
        return BatchLimits(self.batch_size, self.max_atoms_per_batch, self.max_edges_per_batch)

    @model_validator(mode="after")
    def _limits_batches(self) -> TrainingConfig:
        if self.batch_size is None and not self.batch_limits.by_size:
            raise ValueError("batch_size is null and nothing else limits a batch; set training.max_atoms_per_batch=... or a batch_size")
        return self

    @model_validator(mode="after")
    def _schedule_free_averages_by_itself(self) -> TrainingConfig:
        if self.optimizer.name == "schedule_free_adamw" and (self.ema_decay is not None or self.schedule.name != "constant"):
            raise ValueError(
                "schedule_free_adamw averages and schedules by itself; set training.ema_decay=null training.schedule.name=constant"
            )
        if self.optimizer.name == "schedule_free_adamw" and self.schedule.warmup_factor is not None:
            raise ValueError("schedule_free_adamw warms up by itself, from zero; set training.schedule.warmup_factor=null")
        return self


class StrategyConfig(_Strict):
    """How the base is used.

    Attributes:
        name: for the record.
        weights: ``card`` for the pretrained weights, ``random`` to train from scratch.
        reference_energies_before: where per-element energies come from: ``model`` (label minus the model's own prediction on the training
            split), ``least_squares`` (labels alone, also written ``average``), ``isolated_atoms`` or ``linear`` (the data set's tables), or
            ``base`` (the base's own). See `ReferenceChoice`.
        refit_reference_energies: fit them again on the training split after training.
    """

    name: str
    weights: Literal["card", "random"] = "card"
    reference_energies_before: ReferenceChoice = "model"
    refit_reference_energies: bool = True


class EvaluationConfig(_Strict):
    """What a finished run is tested with; ``forgetting``: and on which frames of the base's own kind (`zoo.evaluation.forgetting`)."""

    batch_size: int = Field(default=16, ge=1)
    zero_shot: bool = True
    plots: bool = True
    forgetting: ForgettingSettings | None = None


class RunFolderConfig(_Strict):
    """Where results go; a non-empty folder is refused unless ``resume``."""

    name: str
    folder: str
    resume: bool = False


class RunConfig(_Strict):
    """A whole fine-tuning run."""

    backbone: BackboneConfig
    adapter: dict[str, Any]
    data: DataConfig
    training: TrainingConfig
    strategy: StrategyConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunFolderConfig

    @model_validator(mode="after")
    def _has_something_to_forget(self) -> RunConfig:
        asked = self.evaluation.forgetting
        if asked is not None and self.strategy.weights == "random":
            raise ValueError("evaluation.forgetting: random weights know nothing that they could forget; set evaluation.forgetting=null")
        if asked is not None and asked.data == self.data.name:
            raise ValueError(f"evaluation.forgetting.data={asked.data}: the run is trained on it; name a set of the base's own kind")
        return self


def parse_config(values: Mapping[str, Any], model: type[BaseModel] = RunConfig) -> Any:
    """Validate what Hydra composed.

    Raises:
        ZooError: one line with the dotted key, what is wrong and, for a misspelt key, the nearest name.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ZooError(_one_line(error, model)) from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    first = first_problem(error)
    location = _known_part(model, list(first.location))
    key = ".".join(location)
    if first.kind == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        prefix = ".".join(location[:-1])
        if not prefix and location[-1] in BackboneConfig.model_fields:
            return f"config: unknown key {key!r}; pass backbone.{key}=..."
        return f"config: unknown key {key!r}; {nearest_name_hint(location[-1], known)}{f' (in {prefix})' if prefix else ''}"
    if first.kind == "missing":
        return f"config: {key} is missing; pass {key}=..."
    value = "" if isinstance(first.found, Mapping) else f"={first.found!r}"  # a whole group would fill the screen
    where = f"{key}{value}: " if key else ""  # what is wrong between groups names its keys itself
    return f"config: {where}{first.message[0].lower()}{first.message[1:]}"


def _known_part(model: type[BaseModel], location: list[str]) -> list[str]:
    """Without what pydantic appends for the members of a union; an unknown last key stays."""
    for depth in range(len(location) - 1):
        if not any(_keys_at(model, location[: depth + 1])):
            return location[: depth + 1]
    return location


def _keys_at(model: type[BaseModel], location: list[str]) -> Iterator[str]:
    current: Any = model
    for part in location:
        field = current.model_fields.get(part) if hasattr(current, "model_fields") else None
        if field is None:
            return
        current = field.annotation
    yield from getattr(current, "model_fields", {})
