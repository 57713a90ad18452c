"""Whole-module pickles read as data: which module a file holds and its tensors, without importing or running anything that it names.

A published MACE ``.model`` is a pickle of the module itself. Unpickling it runs code from the file and depends on the versions of e3nn and
mace that wrote it (e3nn 0.6 cannot read what 0.4.4 wrote). Here every class becomes an `Inert` object that only holds its state, tensors
are read from their bytes, and e3nn's compiled parts, which are TorchScript archives inside the pickle, are read the same way.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.backbones.inert_objects import Inert, RefusedError, TorchScript, UntrustedError
from zoo.backbones.inert_unpickler import Unpickler
from zoo.backbones.torch_archive import DAMAGED_ARCHIVE, check_archive, require_stored
from zoo.errors import ZooError, first_line

DAMAGED = (*DAMAGED_ARCHIVE, KeyError, IndexError, TypeError, AttributeError, pickle.UnpicklingError)
# far above published models: a few thousand modules, names of a hundred characters, each tensor in the file once
_MOST_MODULES = 100_000
_LONGEST_NAME = 1_000
_LARGEST_GROWTH = 4
_SMALL_STATE = 2**24  # bytes


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
    except (RefusedError, *DAMAGED) as error:
        raise readable_error(path, error) from None
    if not isinstance(module, Inert):
        raise ZooError(f"{path}: holds a {type(module).__name__}, wanted a pickled model; pass the .model that training wrote")
    return module


def readable_error(path: Path, error: Exception) -> ZooError:
    """What to tell the user of a file whose reading raised ``error``: of `DAMAGED`, or a `RefusedError`."""
    if isinstance(error, UntrustedError):
        return ZooError(
            f"{path}: the file would run code when loaded ({first_line(error)}); "
            "if you trust where it comes from, pass trust_pickle=True (backbone.trust_pickle=true)"
        )
    # the text of a KeyError is made of the key, which may be anything that the file holds
    reason = type(error).__name__ if isinstance(error, KeyError) else first_line(error)
    if isinstance(error, RefusedError):
        return ZooError(f"{path}: holds what no model needs ({reason}); fetch the file again, from its authors")
    return ZooError(f"{path}: cannot be read as a pickled model ({reason}); fetch the file again")


def state_of(module: Inert, file_size: int, trust_pickle: bool = False) -> dict[str, Tensor]:
    """Every parameter and buffer by its name, as the module's ``state_dict`` would give it, none sharing memory with another.

    Args:
        module: of `read_module`.
        file_size: bytes; what repeats its content to several times this size is refused.
        trust_pickle: as in `read_module`.

    Raises:
        RefusedError: for more modules or numbers than any model has that fits into such a file.
        Exception: of `DAMAGED`.
    """
    views = dict(_Walk(trust_pickle).tensors(module, ""))
    size = sum(view.numel() * view.element_size() for view in views.values())
    if size > _LARGEST_GROWTH * file_size + _SMALL_STATE:
        raise RefusedError(f"tensors of {size:,} bytes in a file of {file_size:,}")
    return {name: view.clone() for name, view in views.items()}


class _Walk:
    """Through the modules of one file; a module or a piece of code that is met again costs little, and has its limit."""

    def __init__(self, trust_pickle: bool) -> None:
        self._trust_pickle = trust_pickle
        self._modules_left = _MOST_MODULES
        self._compiled: dict[int, tuple[Any, Any]] = {}

    def tensors(self, module: Inert, prefix: str) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of a module and of those below it."""
        self._modules_left -= 1
        if self._modules_left < 0:
            raise RefusedError(f"more than {_MOST_MODULES:,} modules")
        if len(prefix) > _LONGEST_NAME:
            raise RefusedError(f"a name of more than {_LONGEST_NAME:,} characters")
        fields = module.fields
        if "_parameters" not in fields and "_modules" not in fields:  # TorchScript keeps them all as plain attributes
            for name, value in fields.items():
                if isinstance(value, Tensor):
                    yield prefix + name, value.detach()
                elif isinstance(value, Inert):
                    yield from self.tensors(value, f"{prefix}{name}.")
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
                yield from self.tensors(child, f"{prefix}{name}.")
            elif isinstance(child, TorchScript):
                codes[name] = child.stream.content
        for name, code in codes.items():
            yield from self.tensors(self._compiled_part(code), f"{prefix}{name}.")

    def _compiled_part(self, code: Any) -> Any:
        kind, content = code if isinstance(code, tuple) else ("torchscript", code)  # e3nn 0.4 stored the bytes alone
        if id(content) not in self._compiled:
            if kind == "fx":
                part = Unpickler(io.BytesIO(content), None, self._trust_pickle).load()
            else:
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    part = _read_archive(archive, self._trust_pickle)
            self._compiled[id(content)] = (content, part)  # the content too: its id is its own as long as it lives
        return self._compiled[id(content)][1]


def _read_archive(archive: zipfile.ZipFile, trust_pickle: bool) -> Any:
    require_stored(archive)
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise RefusedError(f"{len(pickles)} pickles in one archive, wanted 1")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise RefusedError("numbers in big-endian order")
    return Unpickler(io.BytesIO(archive.read(pickles[0])), lambda key: archive.read(f"{root}data/{key}"), trust_pickle).load()
