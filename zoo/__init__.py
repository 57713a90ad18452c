"""equizoo: pretrained equivariant interatomic potentials, with adapters that work on every one of them.

>>> import zoo
>>> potential = zoo.load("sevennet-0", adapter="elora")
>>> atoms.calc = potential.calculator()

Nothing heavy is imported until it is used: no backbone, PyG, e3nn or Lightning by ``import zoo``.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.loading import load
    from zoo.potential import Potential
    from zoo.registry import describe, list_models

__version__ = "0.1.0"
__all__ = ["Potential", "__version__", "describe", "list_models", "load"]

_PACKAGES = ("doctor",)
_HOMES = {"load": "zoo.loading", "Potential": "zoo.potential", "describe": "zoo.registry", "list_models": "zoo.registry"}


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"zoo.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _refuse_foreign_adapters() -> None:
    """AdapterHub's package on PyPI has the same import name; found first, it would fail much later and say nothing useful."""
    spec = importlib.util.find_spec("adapters")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "elora.py").is_file():
        found = spec.origin if spec is not None else "none"
        raise ImportError(
            f"the package 'adapters' that Python finds is not equizoo's (found: {found}); "
            "run: pip uninstall adapters && pip install --force-reinstall --no-deps equizoo"
        )


_refuse_foreign_adapters()
