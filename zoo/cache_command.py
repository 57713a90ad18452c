"""``zoo cache``: what lies in the cache, and room made there."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zoo.cache import cache_root
from zoo.data.stores import KINDS, KeptStore, kept_stores, size_of
from zoo.errors import ZooError, nearest_name_hint

_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def cache_command(words: Sequence[str]) -> None:
    """``zoo cache`` lists; ``zoo cache remove NAME ...``, ``unused=DAYS`` or ``all`` deletes copies of frames and edges.

    Raises:
        ZooError: for words that it does not know, a name that is nothing in the cache, or what is in use where it was asked for by name.
    """
    if not words:
        _list()
    elif words[0] == "remove":
        _remove(words[1:])
    else:
        raise ZooError(f"zoo cache takes nothing or remove, found: {' '.join(words)}; see zoo cache --help")


def _list() -> None:
    root, stores = cache_root(), kept_stores()
    print(f"{root}{'' if root.is_dir() else ' (not there yet)'}")
    rows = [(one.name, _bytes(one.size_bytes), f"{one.days_unused:.0f} days", one.description) for one in reversed(stores)]
    others = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name not in KINDS] if root.is_dir() else []
    rows += [(path.name, _bytes(size_of(path)), "", "not removed by this command") for path in others]
    if rows:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print("\n".join(f"{name:<{widths[0]}}  {size:>{widths[1]}}  {age:>{widths[2]}}  {text}".rstrip() for name, size, age, text in rows))
    print(f"{len(stores)} copies of frames and edges, {_bytes(sum(one.size_bytes for one in stores))}; zoo cache remove --help")


def _remove(words: Sequence[str]) -> None:
    wanted, by_name = _chosen(words, kept_stores())
    freed = 0
    for one in wanted:
        try:
            one.remove()
        except ZooError as error:
            if by_name:
                raise
            print(f"zoo: left alone: {error}", file=sys.stderr)
        else:
            freed += one.size_bytes
            print(f"removed {one.name} ({_bytes(one.size_bytes)}, {one.description})")
    print(f"{_bytes(freed)} freed")


def _chosen(words: Sequence[str], stores: Sequence[KeptStore]) -> tuple[list[KeptStore], bool]:
    """(what is to go, whether it was asked for by name)."""
    if list(words) == ["all"]:
        return list(stores), False
    if len(words) == 1 and words[0].startswith("unused="):
        days = _days(words[0].removeprefix("unused="))
        return [one for one in stores if one.days_unused >= days], False
    if not words or any("=" in word or word.startswith("-") for word in words):
        raise ZooError(f"zoo cache remove takes names of zoo cache, unused=DAYS or all, found: {' '.join(words) or 'nothing'}")
    chosen = []
    for word in words:
        found = [one for one in stores if one.name == word]
        if not found:
            raise ZooError(f"the cache has no {word!r}; {nearest_name_hint(word, [one.name for one in stores])}")
        chosen += found
    return chosen, True


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not days >= 0:
        raise ZooError(f"unused={text}: wanted a number of days, such as unused=30")
    return days


def _bytes(count: int) -> str:
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
