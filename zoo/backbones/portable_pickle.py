"""Modules with e3nn's generated code, pickled so that e3nn 0.4.4 and 0.6 both read them.

e3nn pickles generated code through ``CodeGenMixin.__getstate__``: as bytes in 0.4, as pairs of kind and bytes in 0.6, and neither reads the
other's. Here such a module is pickled as its plain attributes, set one by one without ``__setstate__``, and its generated code as a
TorchScript archive that ``torch.jit.load`` reads. Both names are torch's.
"""

from __future__ import annotations

import copyreg
import io
from typing import Any

import torch
from e3nn.util.codegen import CodeGenMixin
from torch import nn

_HOOK = "__reduce_ex__"  # pickle looks it up on the instance


def make_portable(network: nn.Module) -> None:
    """Prepare ``network`` for ``torch.save``; its generated code has to be TorchScript, and it computes as before."""
    for module in network.modules():
        if isinstance(module, CodeGenMixin):
            module.__dict__[_HOOK] = _Reduction(module)


class _Reduction:
    """What pickle asks an object for: its class, its attributes, and the function that sets them."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, protocol: int) -> tuple[Any, ...]:
        attributes = {name: value for name, value in self.module.__dict__.items() if name != _HOOK}
        attributes.pop("weight_index_slices", None)  # read by nobody, and of a class that e3nn 0.4 does not have
        generated = getattr(self.module, "__codegen__", [])
        attributes["_modules"] = {name: _Archived(child) if name in generated else child for name, child in self.module._modules.items()}
        return (copyreg.__newobj__, (type(self.module),), attributes, None, None, torch._utils._set_obj_state)  # type: ignore[attr-defined]


class _Archived:
    """A TorchScript module that is pickled as the call that loads it."""

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        stream = io.BytesIO()
        torch.jit.save(script, stream)
        self.content = stream.getvalue()

    def __reduce__(self) -> tuple[Any, ...]:
        return (torch.jit.load, (io.BytesIO(self.content),))
