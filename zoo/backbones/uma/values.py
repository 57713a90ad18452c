"""Plain values out of configurations that come from files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.errors import ZooError

# element references of 8 tasks and 100 elements are 800 numbers; YAML's aliases write 10^7 in a few hundred bytes
_MOST_ENTRIES = 100_000
_DEEPEST = 60


class Record:
    """Stands for a class while a file is read: whatever the file says of an object becomes its attributes."""


def plain(raw: Any, source: str) -> Any:
    """A copy of dictionaries, lists, text and numbers, or of OmegaConf's containers and nodes of them.

    Raises:
        ZooError: for anything else, for references (``${cutoff}``) that only a training run resolves, and for more than any model says.
    """
    return _Copy(source)(raw, 0)


class _Copy:
    def __init__(self, source: str) -> None:
        self.source, self.entries_left = source, _MOST_ENTRIES

    def __call__(self, value: Any, depth: int) -> Any:
        self.entries_left -= 1
        if self.entries_left < 0 or depth > _DEEPEST:
            raise ZooError(f"{self.source}: its configuration has more than {_MOST_ENTRIES:,} entries, or lies in itself; it is no model's")
        if isinstance(value, Record):
            inner = vars(value)
            return self(inner.get("_content", inner.get("_val")), depth + 1)
        if isinstance(value, Mapping):
            return {self._key(key): self(one, depth + 1) for key, one in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return [self(one, depth + 1) for one in value]
        if isinstance(value, str) and "${" in value:
            raise ZooError(f"{self.source}: {value[:60]!r} stands for a value that only a training run has; write the value out")
        if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        raise ZooError(f"{self.source}: its configuration holds a {type(value).__name__} ({str(value)[:40]!r}); wanted text and numbers")

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise ZooError(f"{self.source}: its configuration has the key {str(key)[:40]!r}, wanted text")
        return key
