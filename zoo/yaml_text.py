"""YAML that others wrote, as plain values or one clear error: no tags, no bytes that are no text, no aliases that explode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from zoo.errors import ZooError, first_line

MOST_VALUES = 1_000_000
"""Aliases written out; the longest list of atomic energies of a published configuration has some thousands."""


def read_yaml(path: Path, remedy: str) -> Any:
    """The values of a file; raises `ZooError`, ending in ``remedy``, for one that is absent or no plain YAML."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from None
    return parse_yaml(content, str(path), remedy)


def parse_yaml(content: bytes | str, where: str, remedy: str) -> Any:
    """The values of a YAML text.

    Args:
        content: the text, as UTF-8 where it is bytes.
        where: names it in errors.
        remedy: what to do, as errors end.

    Raises:
        ZooError: for what is no YAML of plain values, or aliases that stand for more than `MOST_VALUES` values.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        values = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except UnicodeDecodeError as error:
        raise ZooError(f"{where}: is not UTF-8 text ({error.reason} at byte {error.start}); {remedy}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: a date that is none
        raise ZooError(f"{where}: not valid YAML ({first_line(error)}); {remedy}") from None
    except (RecursionError, MemoryError):
        raise ZooError(f"{where}: nested too deeply to be read; {remedy}") from None
    _refuse_explosion(values, where, remedy)
    return values


def _refuse_explosion(values: Any, where: str, remedy: str) -> None:
    """Count values with aliases written out, each node once; an alias to what it stands in is endless."""
    sizes: dict[int, float] = {}
    open_nodes: set[int] = set()
    stack = [(values, False)]
    while stack:
        node, is_counted = stack.pop()
        inner = [*node.keys(), *node.values()] if isinstance(node, dict) else node if isinstance(node, list) else None
        if inner is None or id(node) in sizes:
            continue
        if is_counted:
            sizes[id(node)] = 1 + sum(sizes.get(id(one), 1) for one in inner)
            open_nodes.discard(id(node))
            continue
        open_nodes.add(id(node))
        if any(id(one) in open_nodes for one in inner):
            raise ZooError(f"{where}: holds an alias to what it stands in; {remedy}")
        stack += [(node, True), *((one, False) for one in inner)]
    if sizes.get(id(values), 1) > MOST_VALUES:
        raise ZooError(f"{where}: its aliases stand for more than {MOST_VALUES:,} values; {remedy}")
