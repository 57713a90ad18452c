"""What the words of ``zoo`` commands mean: one configuration a command, and the model that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from zoo.compose import compose
from zoo.data.config import DataConfig
from zoo.data.reference_choice import ReferenceChoice
from zoo.errors import ZooError
from zoo.evaluation.relaxations import RelaxationSettings
from zoo.training.config import BackboneConfig, parse_config

if TYPE_CHECKING:
    from zoo.potential import Potential


class ModelChoice(BaseModel):
    """A finished run's model (``run=FOLDER``), or a base with or without an adapter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneConfig
    run: str | None = None
    adapter: str | dict[str, Any] | None = None


class EvaluateConfig(ModelChoice):
    """``split``: one part of the data, all test sets where None. ``reference_energies``: see `ReferenceChoice`.

    A run brings its own data unless ``data`` is named. ``metrics``: print those of the data's protocol, or all. ``task=relaxation`` relaxes
    the frames instead of predicting their labels; ``relaxation`` says how (`RelaxationSettings`).
    """

    data: DataConfig
    split: str | None = None
    batch_size: int = Field(default=16, ge=1)
    reference_energies: ReferenceChoice = "base"
    metrics: Literal["protocol", "all"] = "protocol"
    record: str | None = None
    task: Literal["labels", "relaxation"] = "labels"
    relaxation: RelaxationSettings = RelaxationSettings()


class PredictConfig(ModelChoice):
    """``input``: anything ASE reads; ``output``: extended XYZ.

    With another ``format`` the npz of the OC20 leaderboard, and ``input`` names a file for each of its four test splits.
    """

    input: str | dict[str, str]
    output: str
    format: Literal["extxyz", "oc20_s2ef", "oc20_is2re"] = "extxyz"
    batch_size: int = Field(default=16, ge=1)


class ExportConfig(ModelChoice):
    """``format``: one of the family's own package; ``output``: None for a file in the run's folder."""

    format: str = "native"
    output: str | None = None


class CheckConfig(ModelChoice):
    """``randomise``: fill the adapter with weights of ``relative_size`` of the base's first, since an untrained one hides every fault."""

    randomise: bool = True
    relative_size: float = Field(default=0.1, gt=0)
    input: str | None = None
    frames: int = Field(default=4, ge=1)
    seed: int = 0


def parse_choice(name: str, arguments: Sequence[str], model: type[ModelChoice]) -> Any:
    """Compose and validate a command's words; a base named beside a run, which would be ignored, is refused."""
    config = parse_config(compose(name, arguments), model)
    ignored = [word for word in words_of("backbone", arguments) if key_of(word) != "backbone.device"]
    if config.run is not None and ignored:
        raise ZooError(f"run={config.run} brings its own base; leave {ignored[0]} out")
    return config


def words_of(group: str, arguments: Sequence[str]) -> list[str]:
    """Those that choose or set a group, such as ``data`` and ``data.n_train=50``."""
    return [word for word in arguments if key_of(word).partition(".")[0] == group]


def key_of(word: str) -> str:
    """``data.n_train`` of ``data.n_train=50``."""
    return word.lstrip("+~").partition("=")[0]


def choose_model(choice: ModelChoice, dtype: str | None = None) -> Potential:
    """Load what a command's words name."""
    from zoo.loading import load
    from zoo.training.finished import load_finished
    from zoo.training.folder import RunFolder

    if choice.run is None:
        backbone = choice.backbone
        if backbone.elements == "data":
            raise ZooError("backbone.elements=data is for zoo train, whose data decide; name the elements here: backbone.elements=[H,C,O]")
        return load(
            backbone.name,
            adapter=choice.adapter,
            elements=backbone.elements,
            dtype=dtype or backbone.dtype,
            device=backbone.torch_device,
            head=backbone.head,
            forces=backbone.forces,
            trust_pickle=backbone.trust_pickle,
        )
    if choice.adapter is not None:
        raise ZooError(f"run={choice.run} brings its own adapter; leave adapter={choice.adapter} out")
    folder, config = RunFolder.existing(choice.run)
    return load_finished(folder, config, dtype or config.backbone.dtype, choice.backbone.torch_device)
