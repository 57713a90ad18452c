"""Whole-module pickles read as data: which classes a file names and what state they had, without importing or running any of them.

A published MACE ``.model`` is a pickle of the module itself. Unpickling it runs code from the file and depends on the versions of e3nn and
mace that wrote it (e3nn 0.6 cannot read what 0.4.4 wrote). Here every class becomes an `Inert` object that only holds its state, tensors
are read from their bytes, and e3nn's compiled parts, which are TorchScript archives inside the pickle, are read the same way.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from zoo.backbones.torch_archive import DAMAGED_ARCHIVE, check_archive
from zoo.errors import ZooError, first_line

DAMAGED = (*DAMAGED_ARCHIVE, KeyError, IndexError, TypeError, AttributeError)
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
_LARGEST_LEGACY_STORAGE = 2**28
_PLAIN_NUMBERS = re.compile(r"[<|=]?([fiu][1248]|b1)")


class RefusedError(Exception):
    """The file names something that no model needs."""


class Inert:
    """Stands for an object of the file's: its class by name, the arguments it was made with, and its state.

    Attributes:
        qualified_name: ``module.Class`` as the file names it.
        arguments: of the constructor (a tuple subclass holds its items here).
        state: what ``__setstate__`` was given.
    """

    qualified_name = ""

    def __new__(cls, *arguments: Any, **_: Any) -> Inert:
        """An object without state, whatever the class would have done."""
        instance = super().__new__(cls)
        instance.arguments = arguments
        instance.state = {}
        instance.items = []
        return instance

    def __init__(self, *_: Any, **__: Any) -> None:
        self.arguments: tuple[Any, ...]
        self.state: dict[str, Any]
        self.items: list[Any]

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.state.update(part)

    def append(self, item: Any) -> None:
        """An item of a list subclass."""
        self.items.append(item)

    def extend(self, items: Any) -> None:
        """Items of a list subclass."""
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    @property
    def class_name(self) -> str:
        """The class's own name, without its module."""
        return self.qualified_name.rpartition(".")[2]

    @property
    def fields(self) -> dict[str, Any]:
        """The object's attributes; an fx GraphModule keeps its own in the first argument."""
        if self.class_name == "reduce_graph_module" and self.arguments and isinstance(self.arguments[0], dict):
            return self.arguments[0]
        return self.state

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, submodule, parameter or buffer by name."""
        for group in ("_modules", "_parameters", "_buffers"):
            if name in self.fields.get(group, {}):
                return self.fields[group][name]
        return self.fields.get(name, default)

    def at(self, path: str) -> Any:
        """``get`` along a dotted path; None where a part is missing."""
        node: Any = self
        for name in path.split("."):
            node = node.get(name) if isinstance(node, Inert) else None
        return node


def read_module(path: Path, trust_pickle: bool = False) -> Inert:
    """The pickled module in a file that ``torch.save`` wrote.

    Args:
        path: of the file.
        trust_pickle: read a file that names packages no model needs; these become inert too, nothing of the file is run.

    Raises:
        ZooError: a damaged file, one that is no pickled module, or one that names such a package.
    """
    check_archive(path, "a pickled model")
    try:
        with zipfile.ZipFile(path) as archive:
            module = _read_archive(archive, trust_pickle)
    except (RefusedError, pickle.UnpicklingError) as error:
        raise ZooError(
            f"{path}: the file would run code when loaded ({first_line(error)}); "
            "if you trust where it comes from, pass trust_pickle=True (backbone.trust_pickle=true)"
        ) from None
    except ZooError:
        raise
    except DAMAGED as error:
        raise ZooError(f"{path}: cannot be read as a pickled model ({first_line(error)}); fetch the file again") from None
    if not isinstance(module, Inert):
        raise ZooError(f"{path}: holds a {type(module).__name__}, wanted a pickled model; pass the .model that training wrote")
    return module


def state_of(module: Inert, trust_pickle: bool = False) -> dict[str, Tensor]:
    """Every parameter and buffer by its name, as the module's ``state_dict`` would give it."""
    return dict(_tensors(module, "", trust_pickle))


def _tensors(module: Inert, prefix: str, trust_pickle: bool) -> Iterator[tuple[str, Tensor]]:
    fields = module.fields
    if "_parameters" not in fields and "_modules" not in fields:  # TorchScript keeps them all as plain attributes
        for name, value in fields.items():
            if isinstance(value, Tensor):
                yield prefix + name, value.detach()
            elif isinstance(value, Inert):
                yield from _tensors(value, f"{prefix}{name}.", trust_pickle)
        return
    transient = fields.get("_non_persistent_buffers_set", set())
    for group in ("_parameters", "_buffers"):
        for name, value in fields.get(group, {}).items():
            if isinstance(value, Tensor) and not (group == "_buffers" and name in transient):
                yield prefix + name, value.detach()
    generated = fields.get("__codegen__")
    codes = dict(generated) if isinstance(generated, dict) else {}
    for name, child in fields.get("_modules", {}).items():
        if isinstance(child, Inert):
            yield from _tensors(child, f"{prefix}{name}.", trust_pickle)
        elif isinstance(child, _TorchScript):
            codes[name] = child.stream.content
    for name, code in codes.items():
        kind, content = code if isinstance(code, tuple) else ("torchscript", code)  # e3nn 0.4 stored the bytes alone
        if kind == "fx":
            compiled = _Unpickler(_bounded(content), _no_storage, trust_pickle).load()
        else:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                compiled = _read_archive(archive, trust_pickle)
        yield from _tensors(compiled, f"{prefix}{name}.", trust_pickle)


def _read_archive(archive: zipfile.ZipFile, trust_pickle: bool) -> Any:
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise RefusedError(f"{len(pickles)} pickles in one archive, wanted 1")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise RefusedError("numbers in big-endian order")
    content = _stored(archive, pickles[0])
    return _Unpickler(_bounded(content), lambda key: _stored(archive, f"{root}data/{key}"), trust_pickle).load()


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's bytes; torch compresses none of what is read here, and a compressed one may be any size."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise RefusedError(f"the compressed entry {name!r}")
    return archive.read(name)


def _bounded(content: bytes) -> io.BytesIO:
    """The pickle, unless it asks for a memo larger than itself, for which memory is taken at once."""
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(content):
            raise RefusedError(f"a memo of {argument:,} entries")
    return io.BytesIO(content)


def _no_storage(key: str) -> bytes:
    raise RefusedError(f"a storage {key!r} outside an archive")


def _load_from_bytes(content: bytes) -> Tensor:
    """A storage in torch's older format, which a tensor in a plain pickle carries: five pickles, then sizes and numbers.

    The pickles are torch's magic number, a version, facts about the machine, the storage by its key, and the keys in the order they follow.
    """
    stream = io.BytesIO(content)
    unpickler = _LegacyUnpickler(stream)
    for _ in range(3):
        _LegacyUnpickler(stream).load()
    storage = unpickler.load()
    (key,) = _LegacyUnpickler(stream).load()
    count = int.from_bytes(stream.read(8), "little")
    numbers = bytearray(stream.read(count * storage.dtype.itemsize))
    if key != unpickler.key or count != storage.numel():
        raise RefusedError("a storage that is not the one announced")
    return torch.frombuffer(numbers, dtype=storage.dtype) if numbers else storage


class _Unpickler(pickle.Unpickler):
    """Looks every name up in a short table; the rest are inert classes."""

    def __init__(self, stream: BinaryIO, storage: Callable[[str], bytes], trust_pickle: bool) -> None:
        super().__init__(stream)
        self._storage = storage
        self._trust_pickle = trust_pickle
        self._storages: dict[str, Tensor] = {}

    def persistent_load(self, identifier: Any) -> Tensor:
        """A storage as a flat tensor."""
        _, dtype, key, _, count = identifier
        if not isinstance(dtype, torch.dtype) or not re.fullmatch(r"\d+", str(key)):
            raise RefusedError(f"a storage {key!r} of {dtype!r}")
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
        if qualified in _TABLE:
            return _TABLE[qualified]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module.partition(".")[0] in _EXPECTED_PACKAGES or qualified in _EXPECTED_BUILTINS or self._trust_pickle:
            return type(name, (Inert,), {"qualified_name": qualified})
        raise RefusedError(f"it names {qualified}")


class _LegacyUnpickler(_Unpickler):
    """Of a single storage, whose numbers follow behind the pickles."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream, _no_storage, trust_pickle=False)
        self.key = ""

    def persistent_load(self, identifier: Any) -> Tensor:
        """A flat tensor of the storage's type and size, not yet filled."""
        _, dtype, self.key, _, count, *_ = identifier
        if not isinstance(dtype, torch.dtype) or count > _LARGEST_LEGACY_STORAGE:
            raise RefusedError(f"a storage of {count} numbers of {dtype!r}")
        return torch.empty(count, dtype=dtype)


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if math.prod(size) > storage.numel():
        raise RefusedError(f"a tensor of {tuple(size)} from {storage.numel():,} numbers")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset).clone()


def _rebuild_parameter(data: Tensor, requires_grad: bool, *_: Any) -> nn.Parameter:
    return nn.Parameter(data, requires_grad=requires_grad)


class _Bytes:
    """Stands for a ``BytesIO``."""

    content = b""

    def __setstate__(self, state: Any) -> None:
        self.content = bytes(state[0])


class _TorchScript:
    """A TorchScript module as the call that would load it."""

    def __init__(self, stream: _Bytes) -> None:
        self.stream = stream


def _set_attributes(instance: Inert, state: Any) -> None:
    instance.__setstate__(state)


class _NumpyType:
    """A NumPy dtype of plain numbers."""

    def __init__(self, code: str, *_: Any) -> None:
        if not _PLAIN_NUMBERS.fullmatch(code):
            raise RefusedError(f"a NumPy type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|", "="):
            raise RefusedError("numbers in big-endian order")


class _NumpyArray:
    """An ndarray in the two steps NumPy pickles it in."""

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, numpy_type, fortran_order, content = state
        flat = np.frombuffer(content, numpy_type.dtype)
        self.values = flat.reshape(shape, order="F" if fortran_order else "C")


def _numpy_scalar(numpy_type: _NumpyType, content: bytes) -> float | int:
    value: float | int = np.frombuffer(content, numpy_type.dtype)[0].item()
    return value


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise RefusedError(f"bytes in {encoding!r}")
    return text.encode("latin1")  # how protocol 2 writes bytes


_TABLE: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.storage._load_from_bytes": _load_from_bytes,
    "torch._utils._set_obj_state": _set_attributes,
    "torch.jit._serialization.load": _TorchScript,
    "_io.BytesIO": _Bytes,
    "torch.Size": tuple,
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "copyreg._reconstructor": lambda kind, _base, state: kind(state),
    "_codecs.encode": _encode,
    "numpy.dtype": _NumpyType,
    "numpy.ndarray": type("ndarray", (Inert,), {"qualified_name": "numpy.ndarray"}),
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": _NumpyArray,
}
