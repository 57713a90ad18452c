"""What an adapter method is: a block -> trainable factors, factors -> delta, and how its factors are optimised. Methods register by name.

A new method is one file in this folder with a ``@register``-ed subclass of `AdapterMethod`, and its module's name in `_METHOD_MODULES`.
One of another package is declared by that package (`adapters.plugins`).
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from torch import Tensor, nn

from adapters.blocks import Coverage, WeightBlock
from adapters.conditions import Condition
from adapters.errors import AdapterError, first_problem, nearest_name_hint
from adapters.plugins import ADAPTERS, plugins

if TYPE_CHECKING:
    from adapters.adapter import Adapter

_METHOD_MODULES = (
    "adapters.elora",
    "adapters.dense",
    "adapters.freeze",
    "adapters.bias",
    "adapters.sparse",
    "adapters.lora_mace",
    "adapters.mmea",
    "adapters.bottleneck",
)
_METHODS: dict[str, type[AdapterMethod]] = {}


class MethodConfig(BaseModel):
    """Settings that every method has; unknown keys are refused.

    Attributes:
        roles: adapt only blocks of these roles; None for all.
        exclude_roles: adapt no block of these roles.
        select: conditions on the degree l and the order |m| of weights, such as ``"l>=1"`` and ``"m<=2"``, all of which must hold; each
            concerns only the blocks that have the number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    roles: tuple[str, ...] | None = None
    exclude_roles: tuple[str, ...] = ()
    select: tuple[str, ...] = ()

    @field_validator("select")
    @classmethod
    def _as_conditions(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Condition.parse(text)) for text in texts)


class AdapterMethod(ABC):
    """One way to parametrise a change of weights.

    Attributes:
        name: as users write it.
        Config: its settings.
        mergeable: whether its effect is a change of weights, so that it can be merged into the base; else it is an `ActivationMethod`.
        equivariant: whether any values of its factors keep the symmetry of the base.
        requires_decoupled_weight_decay: whether its parameter groups only mean what they say under AdamW-like optimizers.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    mergeable: ClassVar[bool] = True
    equivariant: ClassVar[bool] = True
    requires_decoupled_weight_decay: ClassVar[bool] = False

    def __init__(self, config: MethodConfig) -> None:
        self.config = config
        self._conditions = tuple(Condition.parse(text) for text in config.select)

    @property
    def starts_at_base(self) -> bool:
        """Whether the untrained adapter changes nothing (bit for bit)."""
        return True

    @property
    def start_note(self) -> str:
        """One sentence on how the adapter starts, for logs and records."""
        return "starts at the base: every delta is exactly zero"

    @property
    def needs_base(self) -> bool:
        """Whether `delta` gets the base's weights of its blocks too, as the factor ``W``."""
        return False

    @property
    def why_not_averaged(self) -> str | None:
        """Why a moving average of the tensors is no adapter of this method; None where it is one."""
        return None

    @property
    def decays_by_itself(self) -> bool:
        """Whether `before_step` does what AdamW's decoupled weight decay does elsewhere, so that no other optimizer's decay fits."""
        return False

    @property
    def surrogate_gradient(self) -> bool:
        """Whether its tensors are trained by something else than the derivative of the loss, by design (straight-through estimators)."""
        return False

    @property
    def config_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values; ``create_method({"name": name, **config_dict})`` gives the method back."""
        settings = self.config.model_dump(mode="json")
        if not self._conditions:  # so that files without conditions stay as they were before there were any
            del settings["select"]
        return settings

    def check(self, coverage: Coverage) -> None:
        """Raise `AdapterError` where the settings name roles, degrees or orders that the model does not have."""
        for role in (*(self.config.roles or ()), *self.config.exclude_roles):
            if role not in coverage.roles:
                raise AdapterError(f"adapter {self.name}: the model has no role {role!r}; {nearest_name_hint(role, coverage.roles)}")
        for condition in self._conditions:
            condition.check(coverage)

    def is_chosen(self, block: WeightBlock) -> bool:
        """Whether ``roles``, ``exclude_roles`` and ``select`` let the block through."""
        wanted = self.config.roles is None or block.role in self.config.roles
        fulfilled = all(condition.lets_through(block) for condition in self._conditions)
        return wanted and fulfilled and block.role not in self.config.exclude_roles

    def selects(self, block: WeightBlock) -> bool:
        """Whether the method adapts the block."""
        return self.is_chosen(block)

    def kind(self, block: WeightBlock) -> str:
        """What form the delta of a selected block has; trainable weights are counted by it."""
        return self.name

    @abstractmethod
    def initial_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """Factor name -> tensor, for a block that the method selects.

        Args:
            block: the block to adapt.
            generator: on the CPU; draw in float64 and cast, so that a seed means the same start in every precision.
            dtype: of the base parameter.

        Returns:
            Tensors with the leading stack dimension left out where ``block.stack`` is 1.
        """

    def layer_factors(self, block: WeightBlock, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
        """Factor name -> tensor that the adapted blocks of one parameter share, a scalar unless `delta` takes more; none by default.

        Args:
            block: the first of the parameter's adapted blocks.
            generator: as in `initial_factors`.
            dtype: of the base parameter.
        """
        return {}

    @abstractmethod
    def delta(self, factors: Mapping[str, Tensor]) -> Tensor:
        """The change of weights of B same-shaped blocks at once.

        Args:
            factors: block factors ``(B, ...)`` as in `initial_factors` with a batch dimension in front, layer factors ``(B,)``; with
                `needs_base` also ``W``, the base's weights ``(B, [stack,] rows, cols)``.

        Returns:
            ``(B, stack, rows, cols)``, or without the stack dimension where it is 1; the caller reshapes.
        """

    def as_product(self, factors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """The delta of one block as left ([stack,] rows, r) times right ([stack,] r, cols); None where the method has no such form.

        Args:
            factors: of the block, as in `initial_factors`.
        """
        return None

    def rate_factor(self, block: WeightBlock, coverage: Coverage) -> float:
        """What the rate of the block's tensors is multiplied with, whatever group they are in."""
        return 1.0

    def param_groups(self, adapter: Adapter, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer parameter groups; the first has the run's rate.

        Args:
            adapter: its trainable tensors, by file key (``<parameter>/<label>/<factor>``) in ``adapter.tensors``.
            learning_rate: the run's.
            weight_decay: the run's, decoupled.
        """
        return [{"params": list(adapter.tensors.values()), "lr": learning_rate, "weight_decay": weight_decay}]

    def before_forward(self, adapter: Adapter) -> None:
        """Called before each training forward."""

    def before_step(self, adapter: Adapter, base: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """Called when the gradients are there, right before each optimizer step.

        Args:
            adapter: whose step it is.
            base: the model, with the base's weights.
            learning_rate: of this step.
            weight_decay: the run's.
        """

    def after_step(self, adapter: Adapter) -> None:
        """Called after each optimizer step."""

    def report(self, adapter: Adapter) -> dict[str, float]:
        """Statistics of the method that a trainer logs; none by default."""
        return {}


MethodType = TypeVar("MethodType", bound=type[AdapterMethod])


def register(method: MethodType) -> MethodType:
    """Class decorator: make a method known under its ``name``.

    Raises:
        AdapterError: where another module has a method of this name.
    """
    known = _METHODS.get(method.name)
    if known is not None and (known.__module__, known.__qualname__) != (method.__module__, method.__qualname__):
        raise AdapterError(
            f"adapter method {method.name!r} of {method.__module__}: {known.__module__} has a method of this name; choose another"
        )
    _METHODS[method.name] = method
    return method


def check_patterns(setting: str, patterns: Iterable[str], names: Iterable[str]) -> None:
    """Raise `AdapterError` where a pattern of a setting matches none of the model's adaptable parameters."""
    names = set(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise AdapterError(
                f"adapter.{setting}: {pattern!r} matches no adaptable parameter of the model; {nearest_name_hint(pattern, names)}"
            )


def method_names() -> tuple[str, ...]:
    """Names of all methods, sorted; those of other packages among them, which are imported when one is created."""
    return tuple(sorted({*_load_methods(), *plugins(ADAPTERS)}))


def create_method(spec: str | Mapping[str, Any]) -> AdapterMethod:
    """A method from its name, or from its name and settings.

    Args:
        spec: ``"elora"`` or ``{"name": "elora", "rank": 8}``.

    Raises:
        AdapterError: unknown method or setting (with the nearest name), or a value that the setting does not take.
    """
    settings = {"name": spec} if isinstance(spec, str) else {str(key): value for key, value in spec.items()}
    methods = _load_methods()
    if "name" not in settings:
        raise AdapterError(f"adapter configuration {settings}: no 'name'; wanted one of: {', '.join(method_names())}")
    name = str(settings.pop("name"))
    if name in plugins(ADAPTERS):
        _load_plugin(name)
    if name not in methods:
        raise AdapterError(f"unknown adapter method {name!r}; {nearest_name_hint(name, method_names())}")
    method = methods[name]
    try:
        config = method.Config(**settings)
    except ValidationError as error:
        raise AdapterError(_one_line(name, method.Config, error)) from None
    return method(config)


def _load_methods() -> dict[str, type[AdapterMethod]]:
    for module in _METHOD_MODULES:
        importlib.import_module(module)
    return _METHODS


def _load_plugin(name: str) -> None:
    """Import the method that another package declares under ``name``, and register it where that package did not."""
    plugin, kind = plugins(ADAPTERS)[name], "adapter method"
    own = [known for known, method in _METHODS.items() if method.__module__ in _METHOD_MODULES]
    found = plugin.load(kind, own)
    if not (isinstance(found, type) and issubclass(found, AdapterMethod)):
        raise plugin.wrong(kind, repr(found), "a subclass of adapters.method.AdapterMethod")
    if getattr(found, "name", None) != name:
        raise plugin.wrong(kind, f"called {getattr(found, 'name', None)!r}", f"a method of the name {name!r}")
    register(found)


def _one_line(method: str, config: type[MethodConfig], error: ValidationError) -> str:
    """The first of pydantic's complaints, in one line."""
    first = first_problem(error)
    if first.kind == "extra_forbidden":
        return f"adapter.{first.key}: {method} has no such setting; {nearest_name_hint(first.key, config.model_fields)}"
    return f"adapter.{first.key}: {first.message} (found: {first.found!r})" if first.key else f"adapter {method}: {first.message}"
