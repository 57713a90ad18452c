"""From a user's ``key=value`` words to Hydra's overrides: names and files written as values of a group become that group's keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from zoo.config_groups import adapter_names, group_options, methods_of_other_packages
from zoo.errors import ZooError, nearest_name_hint


def rewrite_overrides(arguments: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Card names, data files and adapter files written as values of a group become that group's keys.

    ``backbone=sevennet-0`` -> ``backbone=card backbone.name=sevennet-0``; ``data=rmd17/aspirin`` -> ``data=named data.name=rmd17/aspirin``;
    ``data=my.extxyz`` -> ``data=file data.path=my.extxyz``; ``adapter=run/adapter.safetensors`` -> ``adapter=file adapter.path=...``. Every
    other key is forced in: Hydra knows only those that stand in a file, while the pydantic models know them all and refuse the rest with
    the nearest name.

    Args:
        arguments: ``key=value`` words.
        groups: the Hydra groups of the config file they are for.

    Raises:
        ZooError: for a value that is neither an option of its group nor an existing file, with the nearest name.
    """
    return [word for argument in arguments for word in _rewrite(argument, groups)]


def quoted(value: str) -> str:
    """A path as Hydra's grammar takes it: in quotes where it has more than letters, digits and ``_./-``."""
    return value if re.fullmatch(r"[\w./-]+", value) else "'" + value.replace("'", "\\'") + "'"


def _rewrite(argument: str, groups: Sequence[str]) -> list[str]:
    key, _, value = argument.partition("=")
    if key.startswith(("hydra", "+", "~")):
        return [argument]
    if key not in groups:
        return [f"++{key}={quoted(value) if _is_there(value) else value}"]
    if not value:
        raise ZooError(f"{key}= has no value; give a name or a file")
    options = group_options(key)
    if value in options or value == "null":
        return [argument]
    if key == "adapter" and value in methods_of_other_packages():
        return ["adapter=plugin", f"++adapter.name={value}"]
    if key == "data" and _names_published_sets(value):
        return ["data=named", f"data.name={value}"]
    if "," in value and not _is_there(value):  # a sweep: -m adapter=elora,full
        return _swept(key, value, options)
    if key == "backbone":
        return ["backbone=card", f"backbone.name={quoted(value)}"]
    if key == "data":
        options = [*options, *_published_sets()]
    if key == "adapter" and "://" in value:
        return ["adapter=file", f"adapter.path={quoted(value)}"]
    if (key == "data" and _is_there(value)) or (key in ("data", "adapter") and (Path(value).suffix or "/" in value)):
        if not _is_there(value):
            raise ZooError(f"{key}={value}: no such file{_or_name(value, options)}")
        return [f"{key}=file", f"{key}.path={quoted(value)}"]
    if key == "adapter":
        options = adapter_names()
    raise ZooError(f"{key}={value}: not an option; {nearest_name_hint(value, options)}")


def _swept(key: str, value: str, options: Sequence[str]) -> list[str]:
    """Several values with commas: of one kind, because each kind has its own key."""
    if key == "backbone":
        return [f"backbone.name={value}"]
    values = value.split(",")
    if key in ("data", "adapter") and all(_is_there(one) for one in values):
        return [f"{key}=file", f"{key}.path={','.join(quoted(one) for one in values)}"]
    for one in values:
        if one not in options:
            raise ZooError(f"{key}={value}: a sweep takes names of one kind or files, and {one!r} is neither here; sweep them one by one")
    return [f"{key}={value}"]


def _or_name(value: str, options: Sequence[str]) -> str:
    return f"; pass an existing file or a name: {nearest_name_hint(value, options)}"


def _names_published_sets(value: str) -> bool:
    """Whether ``value`` is the name of a published set, or several of them with commas (a sweep)."""
    return all(name in _published_sets() for name in value.split(","))


def _published_sets() -> tuple[str, ...]:
    from zoo.data.catalogue import data_set_names

    return data_set_names()


def _is_there(value: str) -> bool:
    """Whether ``value`` is a file or a folder (of DeePMD systems, say)."""
    with suppress(OSError):  # a long list is not a file's name
        return Path(value).exists()
    return False
