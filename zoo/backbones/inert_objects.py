"""What objects of a pickle become that is read as data: records of their class's name and state, which run nothing.

Nothing here makes a text of what a file holds: a few hundred bytes can describe a list whose text would fill the memory.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

_PLAIN_NUMBERS = re.compile(r"[<|=]?([fiu][1248]|b1)")


class RefusedError(Exception):
    """The file holds what no model needs."""


class UntrustedError(RefusedError):
    """The file names what no model needs."""


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
                self.state = {**self.state, **part} if self.state else part  # no copy: a file may give one large state to many objects

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


class BytesStream:
    """Stands for a ``BytesIO``."""

    content = b""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state[0], bytes):
            raise RefusedError("a stream of something else than bytes")
        self.content = state[0]


class TorchScript:
    """A TorchScript module as the call that would load it."""

    def __init__(self, stream: BytesStream) -> None:
        self.stream = stream


class NumpyType:
    """A NumPy dtype of plain numbers."""

    def __init__(self, code: str, *_: Any) -> None:
        if not _PLAIN_NUMBERS.fullmatch(code):
            raise RefusedError("a NumPy type of other things than numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|", "="):
            raise RefusedError("numbers in big-endian order")


class NumpyArray:
    """An ndarray in the two steps NumPy pickles it in."""

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, numpy_type, fortran_order, content = state
        flat = np.frombuffer(content, numpy_type.dtype)
        self.values = flat.reshape(shape, order="F" if fortran_order else "C")
