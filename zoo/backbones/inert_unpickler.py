"""What each name in a pickled module means here: a tensor of its bytes, a plain container, or an inert record; nothing is imported or run.

A file must not cost more than its size: tensors are views of their storages, and what copies its argument has a budget.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.backbones.inert_objects import BytesStream, Inert, NumpyArray, NumpyType, RefusedError, TorchScript, UntrustedError

# packages whose names a model's pickle may hold; they become inert objects all the same
_EXPECTED_PACKAGES = frozenset({"mace", "e3nn", "torch", "__torch__", "numpy", "opt_einsum_fx"})
_EXPECTED_BUILTINS = frozenset(f"builtins.{name}" for name in ("getattr", "object", "slice", "int", "float", "bool", "str", "tuple"))
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LARGEST_GROWTH = 4


class Unpickler(pickle.Unpickler):
    """Looks every name up in a short table; the rest are inert classes.

    Args:
        stream: of the pickle; what follows it is left there.
        storage: the bytes of a storage by its key; None where the pickle has none of its own.
        trust_pickle: take names of packages that no model needs; they become inert too.
    """

    def __init__(self, stream: io.BytesIO, storage: Callable[[str], bytes] | None = None, trust_pickle: bool = False) -> None:
        super().__init__(stream)
        _check_memo(stream)
        self._storage = storage
        self._trust_pickle = trust_pickle
        self._storages: dict[str, Tensor] = {}
        self._items_left = _LARGEST_GROWTH * stream.getbuffer().nbytes

    def persistent_load(self, identifier: Any) -> Tensor:
        """A storage as a flat tensor."""
        _, dtype, key, _, count = identifier
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or not key.isdecimal() or not isinstance(count, int):
            raise RefusedError("a storage of something else than numbers")
        if self._storage is None:
            raise RefusedError("a storage outside an archive")
        if key not in self._storages:
            content = bytearray(self._storage(key))
            if len(content) != count * dtype.itemsize:
                raise ValueError(f"storage {key} has {len(content)} bytes, wanted {count * dtype.itemsize}")
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self._storages[key]

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle means by ``module.name``."""
        module = {"__builtin__": "builtins", "numpy._core.multiarray": "numpy.core.multiarray"}.get(module, module)
        qualified = f"{module}.{name}"
        if qualified in _COPYING:
            return self._within_budget(_COPYING[qualified])
        if qualified in _TABLE:
            return _TABLE[qualified]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module.partition(".")[0] in _EXPECTED_PACKAGES or qualified in _EXPECTED_BUILTINS or self._trust_pickle:
            return type(name, (Inert,), {"qualified_name": qualified})
        raise UntrustedError(f"it names {qualified[:200]}")

    def _within_budget(self, copying: Callable[..., Any]) -> Callable[..., Any]:
        """The function, refused once all of its kind have copied several times more items than the pickle has bytes."""

        def spend(*arguments: Any) -> Any:
            self._items_left -= sum(len(argument) for argument in arguments if hasattr(argument, "__len__"))
            if self._items_left < 0:
                raise RefusedError("more copies of one list than the file is long")
            return copying(*arguments)

        return spend


def _check_memo(stream: io.BytesIO) -> None:
    """Refuse a pickle that asks for a memo larger than itself, for which memory is taken at once; the stream stays where it was."""
    start, length = stream.tell(), stream.getbuffer().nbytes
    for opcode, argument, _ in pickletools.genops(stream):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > length:
            raise RefusedError(f"a memo of {argument:,} entries")
    stream.seek(start)


class _LegacyUnpickler(Unpickler):
    """Of the pickles in front of a single storage."""

    def persistent_load(self, identifier: Any) -> Any:
        """Type, key and size of the storage; its numbers come later."""
        _, dtype, key, _, count, *_ = identifier
        return dtype, key, count


def _load_from_bytes(content: bytes) -> Tensor:
    """A storage in torch's older format, which a tensor in a plain pickle carries: five pickles, then sizes and numbers.

    The pickles are torch's magic number, a version, facts about the machine, the storage by its key, and the keys in the order they follow.
    """
    stream = io.BytesIO(content)
    for _ in range(3):
        _LegacyUnpickler(stream).load()
    dtype, announced, size = _LegacyUnpickler(stream).load()
    (key,) = _LegacyUnpickler(stream).load()
    count = int.from_bytes(stream.read(8), "little")
    if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or key != announced or not isinstance(size, int) or count != size:
        raise RefusedError("a storage that is not the one announced")
    numbers = bytearray(stream.read(count * dtype.itemsize))
    if len(numbers) != count * dtype.itemsize:
        raise ValueError(f"storage {key} has {len(numbers)} bytes, wanted {count * dtype.itemsize}")
    return torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A view: as many tensors as a file likes may lie on one storage."""
    if not isinstance(size, tuple) or not all(isinstance(length, int) for length in size) or math.prod(size) > storage.numel():
        raise RefusedError(f"a tensor of more than the {storage.numel():,} numbers of its storage")
    return torch.as_strided(storage, size, stride, offset)


def _rebuild_parameter(data: Tensor, requires_grad: bool, *_: Any) -> nn.Parameter:
    return nn.Parameter(data, requires_grad=requires_grad)


def _set_attributes(instance: Inert, state: Any) -> None:
    instance.__setstate__(state)


def _numpy_scalar(numpy_type: NumpyType, content: bytes) -> float | int:
    value: float | int = np.frombuffer(content, numpy_type.dtype)[0].item()
    return value


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise RefusedError("bytes in another encoding than latin1")
    return text.encode("latin1")  # how protocol 2 writes bytes


_COPYING: dict[str, Callable[..., Any]] = {
    "torch.storage._load_from_bytes": _load_from_bytes,
    "torch.Size": tuple,
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "_codecs.encode": _encode,
}
_TABLE: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._utils._set_obj_state": _set_attributes,
    "torch.jit._serialization.load": TorchScript,
    "_io.BytesIO": BytesStream,
    "copyreg._reconstructor": lambda kind, _base, state: kind(state),
    "numpy.dtype": NumpyType,
    "numpy.ndarray": type("ndarray", (Inert,), {"qualified_name": "numpy.ndarray"}),
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": NumpyArray,
}
