"""Pickled data without running code from it: tensors, arrays and PyG's `Data`, and nothing else.

A pickle is a program that may name any function and call it, also through the ``__setstate__`` of any class. Here every name is looked up
in one short table; what stands in it builds inert objects of this module, so not even NumPy's or PyG's own code is reached. A tensor's
numbers are a second pickle within the first, which goes through ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.data.unpacking import check_whole_archive
from zoo.errors import ZooError, first_line

_PLAIN_NUMBERS = re.compile(r"[fiu][1248]|b1")
_PYG_CLASSES = (
    "torch_geometric.data.data.Data",
    "torch_geometric.data.data.DataEdgeAttr",
    "torch_geometric.data.data.DataTensorAttr",
    "torch_geometric.data.storage.BaseStorage",
    "torch_geometric.data.storage.NodeStorage",
    "torch_geometric.data.storage.EdgeStorage",
    "torch_geometric.data.storage.GlobalStorage",
    "zoo.graph.AtomGraph",
)
# a record of the Open Catalyst sets takes some hundreds; twenty thousand nested tuples do not exhaust the stack
_MOST_OPERATIONS = 20_000
_ADVICE = "only tensors, arrays and PyG Data are read; do not use a file you do not trust"


class RefusedError(Exception):
    """A pickle that names, or builds, what plain data does not need."""


class PygObject:
    """Stands in for a PyG object: holds the state that was pickled, and runs nothing."""

    __slots__ = ("state",)
    state: Mapping[str, Any]

    def __new__(cls, *arguments: Any) -> PygObject:
        """An object without state, whatever it is called with."""
        instance = super().__new__(cls)
        instance.state = {}
        return instance

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise RefusedError(f"a PyG object whose state is a {type(state).__name__}")
        self.state = state


class _Array:
    """Stands in for an ndarray, a tensor or a tensor's storage."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[Any] | None = None) -> None:
        self.values = values

    def __setstate__(self, state: Any) -> None:
        if self.values is not None:
            raise RefusedError("an array that is changed after it was made")
        _, shape, dtype, is_fortran, raw = state
        self.values = _array_of_bytes(raw, dtype, shape, "F" if is_fortran else "C").values


class _DType:
    """Stands in for a NumPy dtype of plain numbers."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _PLAIN_NUMBERS.fullmatch(code):
            raise RefusedError(f"an array of {code!r}, which are no plain numbers")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise RefusedError(f"an array of the byte order {state[1]!r}")
        self._order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._order + self._code)


class _Function:
    """An allowed call. A pickle can set attributes of what it names, so it never gets hold of a real function."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("a function that is given a state")


def _array_of_bytes(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    if not isinstance(raw, (bytes, bytearray)) or not isinstance(dtype, _DType) or order not in ("C", "F"):
        raise RefusedError("an array that is not made of plain numbers")
    return _Array(np.frombuffer(bytes(raw), dtype.dtype).reshape(shape, order=order))


def _empty_array(*_: Any) -> _Array:
    return _Array()


def _number_of_bytes(dtype: Any, raw: Any) -> Any:
    return _array_of_bytes(raw, dtype, (), "C").values.item()  # type: ignore[union-attr]


def _latin1(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError(f"text in the encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _storage_of_bytes(payload: Any) -> _Array:
    """The numbers of a tensor, from the bytes that torch writes for a storage within a plain pickle."""
    storage = _load(io.BytesIO(payload), {})
    if not isinstance(storage, torch.storage.TypedStorage):
        raise RefusedError(f"a tensor whose numbers are a {type(storage).__name__}")
    return _Array(torch.empty(0, dtype=storage.dtype).set_(storage).numpy())


def _tensor_of_storage(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Array:
    """The view that torch's ``_rebuild_tensor_v2`` makes, within the bounds of the storage."""
    if not isinstance(storage, _Array) or storage.values is None:
        raise RefusedError("a tensor without numbers")
    held = storage.values
    shape, steps = [int(one) for one in size], [int(one) for one in stride]
    last = offset + sum((count - 1) * step for count, step in zip(shape, steps, strict=True))
    if math.prod(shape) == 0:
        return _Array(np.empty(shape, held.dtype))
    if min([offset, *shape, *steps]) < 0 or last >= len(held) or math.prod(shape) > len(held):
        raise RefusedError(f"a tensor of shape {tuple(shape)} that reaches beyond its {len(held)} stored numbers")
    view = np.lib.stride_tricks.as_strided(held[offset:], shape, [step * held.itemsize for step in steps])
    return _Array(view.copy())


_ALLOWED: dict[str, Any] = {
    **dict.fromkeys(_PYG_CLASSES, PygObject),
    "collections.OrderedDict": dict,
    "torch._utils._rebuild_tensor_v2": _Function(_tensor_of_storage),
    "torch.storage._load_from_bytes": _Function(_storage_of_bytes),
    "numpy.ndarray": PygObject,  # only ever named, as an argument of _reconstruct
    "numpy.dtype": _Function(_DType),
    # bytes as Python 3 writes them for Python 2
    "_codecs.encode": _Function(_latin1),
    "__builtin__.bytes": _Function(_no_bytes),
    **{f"numpy.{core}.multiarray._reconstruct": _Function(_empty_array) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Function(_number_of_bytes) for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _Function(_array_of_bytes) for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name not in _ALLOWED:
            raise RefusedError(full_name)
        return _ALLOWED[full_name]


def load_pickle(payload: bytes, where: str) -> Any:
    """What a pickle holds: plain Python values, and `PygObject` for PyG's; read a record's fields with `fields_of`.

    Args:
        payload: the pickle, of any protocol.
        where: names it in errors.

    Raises:
        ZooError: a pickle that names anything beside PyG's `Data`, tensors and arrays, naming it; and bytes that are no pickle.
    """
    try:
        _check_size(payload)
        return _Unpickler(io.BytesIO(payload)).load()
    except RefusedError as refused:
        raise ZooError(f"{where}: its pickle holds {refused}, which is not read because it could run code; {_ADVICE}") from None
    except Exception as error:  # a broken pickle raises whatever its opcodes meet
        raise ZooError(f"{where}: is no pickle of PyG data ({first_line(error)}); is the file complete?") from error


def _check_size(payload: bytes) -> None:
    """Refuse what would end the process or fill its memory: a deep nest, or an entry of the memo far beyond what the pickle can hold."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(payload)):
        if count >= _MOST_OPERATIONS:
            raise RefusedError(f"more than {_MOST_OPERATIONS:,} operations")
        if "PUT" in opcode.name and isinstance(argument, int) and argument > _MOST_OPERATIONS:
            raise RefusedError(f"a memo of {argument:,} entries")


def load_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU: tensors and plain Python values, and `PygObject` for PyG's.

    Raises:
        ZooError: a file that names anything else, naming it, or that is no such file.
    """
    try:
        if zipfile.is_zipfile(path):
            check_whole_archive(path)  # torch does not look at the checksums
        with path.open("rb") as file:
            return _load(file, dict.fromkeys(_PYG_CLASSES, PygObject))
    except RefusedError as refused:
        raise ZooError(f"{path}: holds {refused}, which is not read because it could run code; {_ADVICE}") from None
    except ZooError:
        raise
    except Exception as error:  # as above
        raise ZooError(f"{path}: cannot be read as tensors ({first_line(error)}); is it complete, and a file of torch.save?") from error


def fields_of(record: Any) -> dict[str, Any]:
    """The fields of a pickled `Data` of PyG 1.x (in its ``__dict__``) or 2.x (in its store), or of a dict; None and private ones left out.

    Raises:
        RefusedError: a record of another kind.
    """
    state = record.state if isinstance(record, PygObject) else record
    store = state.get("_store") if isinstance(state, dict) else None
    if isinstance(store, PygObject):
        state = store.state.get("_mapping")
    if not isinstance(state, dict):
        raise RefusedError(f"a {type(record).__name__} where a PyG Data was expected")
    plain = {name: value.values if isinstance(value, _Array) else value for name, value in state.items()}
    return {name: value for name, value in plain.items() if value is not None and isinstance(name, str) and not name.startswith("_")}


def _load(file: BinaryIO, stand_ins: Mapping[str, Any]) -> Any:
    with _only(stand_ins):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL (\S+)|error: (.+)", str(error))  # within a page of advice to load it without the check
            raise RefusedError((named[1] or named[2]) if named else "what is no tensor") from None


@contextmanager
def _only(stand_ins: Mapping[str, Any]) -> Iterator[None]:
    """Torch's list of allowed classes, which every imported package may lengthen, replaced by our own meanwhile."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(stand_in, name) for name, stand_in in stand_ins.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
