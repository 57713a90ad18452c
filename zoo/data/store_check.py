"""Whether a store of the cache can be what it says: its checksums guard against damage, and not against whoever writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.data.array_store import ArrayStore

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")
_PLAIN_NUMBERS = re.compile(r"<[fiu][248]|\|[iub]1")
_MOST_ROWS = 1 << 48


def is_plain(name: str, one: Mapping[str, Any]) -> bool:
    """Whether a manifest's ``name`` is a file within the folder, and ``one`` says plain numbers of a size that can be."""
    sizes = [*one["shape"], one["header_bytes"]]
    is_named = _PLAIN_NAME.fullmatch(name) is not None and _PLAIN_NUMBERS.fullmatch(one["dtype"]) is not None
    return is_named and all(type(size) is int and 0 <= size < _MOST_ROWS for size in sizes)


def require_rows(store: ArrayStore, rows: Mapping[str, int], meta: Sequence[str]) -> None:
    """Refuse a store that is whole and of another kind, or that contradicts itself.

    Args:
        store: an open one.
        rows: how many each array must have.
        meta: what must be remembered with them.

    Raises:
        ZooError: naming the first array that is wrong.
    """
    wrong = next((name for name, count in rows.items() if name not in store or len(store[name]) != count), None)
    absent = next((name for name in meta if name not in store.meta), None)
    if wrong is not None or absent is not None:
        raise ZooError(f"{store.folder}: contradicts itself ({absent or wrong}); delete this folder of the cache, and it is built anew")
