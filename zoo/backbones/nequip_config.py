"""What a model configuration of the NequIP framework may say here; whatever else a file's configuration says is refused before a build."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from zoo.errors import ZooError, first_problem

Config = dict[str, Any]

ALLEGRO_COMMAND = "pip install -c constraints.txt nequip-allegro"
_BUILDERS = {
    "nequip": {
        f"{module}.{name}"
        for module in ("nequip.model", "nequip.model.nequip_models")
        for name in ("NequIPGNNModel", "PresetNequIPGNNModel", "FullNequIPGNNModel")
    },
    "allegro": {f"allegro.model.{name}" for name in ("AllegroModel", "allegro_models.AllegroModel", "allegro_models.FullAllegroModel")},
}
# hydra calls whatever a nested ``_target_`` names, so a file's configuration may name these and nothing else
_PARTS = {
    "nequip.nn.pair_potential.ZBL",
    "nequip.nn.pair_potential.LennardJones",
    "allegro.nn.TwoBodyBesselScalarEmbed",
    "allegro.nn.TwoBodySplineScalarEmbed",
    "allegro.nn.scalarembed.TwoBodyBesselScalarEmbed",
    "allegro.nn.scalarembed.TwoBodySplineScalarEmbed",
}
_MODIFY = ("nequip.model.modify", "nequip.model.modify_utils.modify")
_HARMLESS_MODIFIERS = ("enable_", "disable_ForceStressOutput", "modify_PerTypeScaleShift")
# a table of cutoffs for every pair of 118 elements has 14,000 entries; YAML's aliases and pickles write 10^7 in a few hundred bytes
_MOST_ENTRIES = 100_000
_DEEPEST = 30

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


_Model = TypeVar("_Model", bound=BaseModel)


class _Settings(BaseModel):
    """What every builder is told and this project relies on; the builder checks what is its own alone."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    model_dtype: Literal["float32", "float64"]
    type_names: list[str] = Field(min_length=1)
    r_max: _Positive
    parity: bool = True
    avg_num_neighbors: _Positive | dict[str, _Positive] | None = None
    per_type_energy_scales: _Finite | dict[str, _Finite] | list[_Finite] | None = None  # lists: of older versions
    per_type_energy_shifts: _Finite | dict[str, _Finite] | list[_Finite] | None = None

    @field_validator("type_names")
    @classmethod
    def _are_elements(cls, names: list[str]) -> list[str]:
        """An atom's type is found by its element, so each has one."""
        unknown = [name for name in names if name not in atomic_numbers or name == "X"]
        if unknown:
            raise ValueError(f"its atom types must be chemical symbols to be matched with elements (found {unknown[0]!r})")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"its atom types must differ to be matched with elements (found {twice[0]!r} twice)")
        return names


class _Modified(BaseModel):
    """A model and what was changed on it."""

    model: dict[str, Any]
    modifiers: list[dict[str, Any]] | None = None


def clean_config(raw: Any, source: str) -> Config:
    """The builder's own arguments, kernels for faster inference and ``torch.compile`` left out: they change no number.

    Args:
        raw: ``training_module.model`` of a run.
        source: for the messages.

    Raises:
        ZooError: for a builder this project does not know, or one whose package is missing, for settings that cannot be meant, for energies
            in another unit than eV, and for inputs an `AtomGraph` does not carry.
    """
    if not isinstance(raw, Mapping):
        raise ZooError(
            f"{source}: its model configuration is a {type(raw).__name__}, wanted a mapping with _target_; pass a file nequip wrote"
        )
    config: Config = plain_values(raw, source)
    if config.get("_target_") in _MODIFY:
        return clean_config(_unmodified(_checked(_Modified, config, source), source), source)
    family_of_config(config, source)
    _check_parts(config, source)
    if config.get("categorical_graph_field_embed"):
        raise ZooError(
            f"{source}: the model reads categorical fields of each structure, which structures here do not carry; it cannot be used"
        )
    _checked(_Settings, config, source)
    pair = config.get("pair_potential")
    if isinstance(pair, Mapping) and pair.get("units") == "real":
        raise ZooError(f"{source}: its ZBL term is in kcal/mol (units: real) and energies here are in eV; train it in eV with units: metal")
    config.pop("compile_mode", None)
    return config


def family_of_config(config: Mapping[str, Any], source: str) -> str:
    """``"nequip"`` or ``"allegro"``, from the builder's name.

    Raises:
        ZooError: for another builder, or Allegro's where its package is not installed.
    """
    target = str(config.get("_target_"))
    for family, builders in _BUILDERS.items():
        if target in builders:
            if family == "allegro" and importlib.util.find_spec("allegro") is None:
                raise ZooError(
                    f"{source}: an Allegro model needs the package 'nequip-allegro', which is not installed; run: {ALLEGRO_COMMAND}"
                )
            return family
    known = ", ".join(sorted(name for builders in _BUILDERS.values() for name in builders if name.count(".") == 2))
    raise ZooError(f"{source}: the model is built by {target}, which is not known here (known: {known}); save it as one of these")


def by_type(names: Sequence[str], values: Sequence[float], source: str) -> dict[str, float]:
    """Atom type to its value, where a file may have one value for all types.

    Raises:
        ZooError: for another number of values.
    """
    if len(values) not in (1, len(names)):
        raise ZooError(f"{source}: found {len(values)} energy scales or shifts for {len(names)} atom types; the file is inconsistent")
    return dict(zip(names, [*values] * len(names) if len(values) == 1 else values, strict=True))


def plain_values(raw: Any, source: str, look_up: Callable[[str], Any] = lambda text: None) -> Any:
    """Mappings and sequences of whatever type as dicts and lists of their own, each entry as often as it is named.

    Args:
        raw: of a file.
        source: for the message.
        look_up: what a text stands for; None for itself.

    Raises:
        ZooError: for more entries, or deeper ones, than a configuration has: a small file can name the same entry a billion times.
    """
    entries = 0

    def plain(value: Any, depth: int) -> Any:
        nonlocal entries
        entries += 1
        if entries > _MOST_ENTRIES or depth > _DEEPEST:
            raise ZooError(
                f"{source}: its configuration has more than {_MOST_ENTRIES:,} entries or is nested more than {_DEEPEST} deep; "
                "pass a file nequip wrote"
            )
        if isinstance(value, str):
            meant = look_up(value)
            return value if meant is None else plain(meant, depth + 1)
        if isinstance(value, Mapping):
            return {str(key): plain(entry, depth + 1) for key, entry in value.items()}
        return [plain(entry, depth + 1) for entry in value] if isinstance(value, (list, tuple)) else value

    return plain(raw, 0)


def _checked(model: type[_Model], config: Config, source: str) -> _Model:
    try:
        return model.model_validate(config)
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{source}: {first.location[0]}: {first.message}; mend the configuration, or pass a file nequip wrote") from None


def _unmodified(modified: _Modified, source: str) -> Config:
    """The inner configuration with what ``modify_PerTypeScaleShift`` makes trainable; the values come with the weights."""
    config = dict(modified.model)
    for entry in modified.modifiers or ():
        name = str(entry.get("modifier"))
        if not name.startswith(_HARMLESS_MODIFIERS):
            raise ZooError(f"{source}: the model modifier {name!r} is not known here; save the model without it")
        if name == "modify_PerTypeScaleShift":
            for quantity in ("scales", "shifts"):
                config[f"per_type_energy_{quantity}_trainable"] = bool(entry.get(f"{quantity}_trainable", False))
    return config


def _check_parts(config: Mapping[str, Any], source: str) -> None:
    for value in config.values():
        for target in _targets(value):
            if str(target) not in _PARTS:
                raise ZooError(
                    f"{source}: its configuration would call {target}, which is not one of the framework's known parts; do not load it"
                )


def _targets(value: Any) -> Iterable[Any]:
    """Every ``_target_`` in a value."""
    if isinstance(value, Mapping):
        if value.get("_target_") is not None:
            yield value["_target_"]
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from _targets(entry)
