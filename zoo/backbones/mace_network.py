"""A MACE network from a configuration that is plain data: the names of its blocks, irreps as text, numbers.

``import mace`` switches torch's protection against hostile pickles off for the whole process (``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``);
here it is imported inside a guard that puts the variable back. Nothing of mace is imported before a network is built.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from zoo.backbones.default_dtype import default_dtype
from zoo.errors import ZooError, nearest_name_hint

HIGHEST_ATOMIC_NUMBER = 118
_UNSAFE_DEFAULT = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


_Irreps = Annotated[str, Field(pattern=r"^[1-9]\d*x\d+[eo](\+[1-9]\d*x\d+[eo])*$")]
_Positive = Annotated[int, Field(ge=1)]
_Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MaceConfig(BaseModel):
    """What a MACE network is built from; its numbers (weights, reference energies, scale and shift) are in the state.

    Attributes:
        model: class in ``mace.modules``; the interaction energy of ScaleShiftMACE is scaled and shifted, that of MACE is not.
        r_max: cutoff, Å.
        interaction_cls: class of every interaction but the first, in ``mace.modules``.
        interaction_cls_first: class of the first interaction.
        hidden_irreps: between the layers, as text (``"128x0e+128x1o"``).
        mlp_irreps: of one head's last readout.
        atomic_numbers: in the order of the one-hot node attributes.
        correlation: body order minus one, of each layer.
        gate: activation of the last readout.
        heads: levels of theory; a single name where there is nothing to choose.
        atomic_energies_shape: (elements,) or (heads, elements).
        scale_shape: () or (heads,), of scale and shift.
        trained_buffers: names that this version of mace makes buffers and the file has as parameters (the Bessel frequencies of the first
            published models).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Literal["MACE", "ScaleShiftMACE"]
    r_max: _Size
    num_bessel: _Positive
    num_polynomial_cutoff: _Positive
    max_ell: int = Field(ge=0)
    interaction_cls: str
    interaction_cls_first: str
    num_interactions: _Positive
    hidden_irreps: _Irreps
    mlp_irreps: _Irreps
    avg_num_neighbors: _Size
    atomic_numbers: tuple[Annotated[int, Field(ge=1, le=HIGHEST_ATOMIC_NUMBER)], ...] = Field(min_length=1)
    correlation: tuple[_Positive, ...]
    gate: Literal["silu", "tanh", "abs"] | None
    pair_repulsion: bool = False
    apply_cutoff: bool = True
    use_reduced_cg: bool = False
    use_so3: bool = False
    use_agnostic_product: bool = False
    use_last_readout_only: bool = False
    use_edge_irreps_first: bool = False
    keep_last_layer_irreps: bool = False
    distance_transform: Literal["None", "Agnesi", "Soft"] = "None"
    edge_irreps: _Irreps | None = None
    radial_mlp: tuple[_Positive, ...] = (64, 64, 64)
    radial_type: Literal["bessel", "gaussian", "chebyshev"] = "bessel"
    readout_cls: str = "NonLinearReadoutBlock"
    heads: tuple[str, ...] = Field(("Default",), min_length=1)
    atomic_energies_shape: tuple[int, ...]
    scale_shape: tuple[int, ...] = ()
    trained_buffers: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _numbers_fit_together(self) -> Self:
        elements, heads = len(self.atomic_numbers), len(self.heads)
        if len(set(self.atomic_numbers)) < elements:
            raise ValueError("an atomic number stands twice")
        if len({name.casefold() for name in self.heads}) < heads:  # they are chosen by name, whatever its case
            raise ValueError("two heads have the same name")
        if len(self.correlation) != self.num_interactions:
            raise ValueError(f"{len(self.correlation)} correlations for {self.num_interactions} interactions")
        if self.atomic_energies_shape != (heads, elements) and (heads > 1 or self.atomic_energies_shape != (elements,)):
            raise ValueError(f"reference energies of shape {self.atomic_energies_shape} for {heads} heads and {elements} elements")
        if self.scale_shape != (heads,) and (heads > 1 or self.scale_shape != ()) and self.model == "ScaleShiftMACE":
            raise ValueError(f"a scale of shape {self.scale_shape} for {heads} heads")
        return self


def build_network(config: MaceConfig, dtype: torch.dtype, generated_code: Literal["eager", "script"] = "eager") -> nn.Module:
    """The network with random weights from torch's global generator, its constants computed in ``dtype``.

    Args:
        config: of the network.
        dtype: of weights and constants.
        generated_code: what e3nn makes of its generated code; TorchScript is what pickled models hold that every e3nn reads.

    Raises:
        ZooError: for a block that the installed mace does not have.
    """
    modules = import_mace()
    taken = config.model_dump(
        include={
            *("r_max", "num_bessel", "num_polynomial_cutoff", "max_ell", "num_interactions", "avg_num_neighbors", "pair_repulsion"),
            *("apply_cutoff", "use_reduced_cg", "use_so3", "use_agnostic_product", "use_last_readout_only", "use_edge_irreps_first"),
            *("keep_last_layer_irreps", "distance_transform", "radial_type"),
        }
    )
    from e3nn.o3 import Irreps

    if config.model == "ScaleShiftMACE":
        taken.update(atomic_inter_scale=np.ones(config.scale_shape), atomic_inter_shift=np.zeros(config.scale_shape))
    with default_dtype(dtype), _generated_code(generated_code):
        network: nn.Module = getattr(modules, config.model)(
            **taken,
            radial_MLP=list(config.radial_mlp),
            MLP_irreps=Irreps(config.mlp_irreps),
            hidden_irreps=Irreps(config.hidden_irreps),
            edge_irreps=None if config.edge_irreps is None else Irreps(config.edge_irreps),
            interaction_cls=_named(modules.interaction_classes, config.interaction_cls),
            interaction_cls_first=_named(modules.interaction_classes, config.interaction_cls_first),
            readout_cls=_named(modules.readout_classes, config.readout_cls),
            num_elements=len(config.atomic_numbers),
            atomic_numbers=list(config.atomic_numbers),
            atomic_energies=np.zeros(config.atomic_energies_shape),
            correlation=list(config.correlation),
            gate=modules.gate_dict[str(config.gate)],
            heads=list(config.heads),
        ).to(dtype)
    for name in config.trained_buffers:
        owner, _, short = name.rpartition(".")
        module = network.get_submodule(owner)
        value = module.get_buffer(short)
        del module._buffers[short]
        module.register_parameter(short, nn.Parameter(value))
    return network


def import_mace() -> Any:
    """``mace.modules``, with torch's default for loading pickles left as it was."""
    with _environment_kept(), contextlib.redirect_stdout(io.StringIO()):  # it prints that cuequivariance is not installed
        return importlib.import_module("mace.modules")


def _named(classes: dict[str, Any], name: str) -> Any:
    if name not in classes:
        raise ZooError(f"the installed mace-torch has no block {name!r}; {nearest_name_hint(name, classes)}")
    return classes[name]


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    before = os.environ.get(_UNSAFE_DEFAULT)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_UNSAFE_DEFAULT, None)
        else:
            os.environ[_UNSAFE_DEFAULT] = before


@contextlib.contextmanager
def _generated_code(mode: str) -> Iterator[None]:
    """e3nn's default depends on the version of torch, and nequip changes it for the process; networks here do not depend on either."""
    import e3nn

    previous = e3nn.get_optimization_defaults()["jit_mode"]
    e3nn.set_optimization_defaults(jit_mode=mode)
    try:
        yield
    finally:
        e3nn.set_optimization_defaults(jit_mode=previous)
