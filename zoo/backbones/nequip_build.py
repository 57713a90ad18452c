"""From a configuration to a network of the NequIP framework, with nothing global left changed.

``nequip`` refuses to build before ``set_global_state()``, which reseeds every generator and sets the default dtype, e3nn's code generation
and more for the whole process: a second family in the same process would then compute in another precision. What a build needs of it is set
here for as long as the build takes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import e3nn
import torch
from hydra.utils import get_method
from nequip.nn import GraphModel
from nequip.utils import global_state
from torch import nn

_DTYPE_NAMES = {torch.float32: "float32", torch.float64: "float64"}


@contextlib.contextmanager
def contained_global_state() -> Iterator[None]:
    """What NequIP needs of the process while it builds, put back afterwards; its random generators are its own to isolate."""
    initialised = global_state._GLOBAL_STATE_INITIALIZED
    e3nn_defaults = e3nn.get_optimization_defaults()
    default_dtype = torch.get_default_dtype()
    global_state._GLOBAL_STATE_INITIALIZED = True
    e3nn.set_optimization_defaults(specialized_code=True, optimize_einsums=True, jit_mode="eager")
    torch.set_default_dtype(torch.float64)  # the framework's data are always float64; a builder sets the network's own
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # advice on training from scratch
            yield
    finally:
        torch.set_default_dtype(default_dtype)
        e3nn.set_optimization_defaults(**e3nn_defaults)
        global_state._GLOBAL_STATE_INITIALIZED = initialised


def build_graph_model(config: Mapping[str, Any], dtype: torch.dtype) -> GraphModel:
    """Upstream's model with random weights from ``config["seed"]``, forces and stress included, in ``dtype``.

    Args:
        config: what a NequIP YAML file has under ``training_module.model``, cleaned by `zoo.backbones.nequip_config.clean_config`.
        dtype: of the network; its constants are computed in it.
    """
    arguments = {key: value for key, value in config.items() if key != "_target_"}
    with contained_global_state():
        model: GraphModel = get_method(config["_target_"])(**{**arguments, "model_dtype": _DTYPE_NAMES[dtype]})
    return model.eval()


def energy_network(model: GraphModel) -> nn.Module:
    """The part of upstream's model that ends with the energy, without its ``ForceStressOutput``."""
    network: nn.Module = model.model.func
    return network
