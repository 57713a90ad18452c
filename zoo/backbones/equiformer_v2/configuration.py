"""Configurations in YAML, in the form of upstream's training files: an architecture without weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from zoo.errors import ZooError, first_line

_MAX_BYTES = 2**20
_NAMED = re.compile(rb"""\b(name|model)['"]?\s*:\s*['"]?equiformer_v2""")


def is_configuration(path: Path) -> bool:
    """Whether the name is a configuration's."""
    return path.suffix in (".yaml", ".yml")


def names_the_model(path: Path) -> bool:
    """Whether a YAML file names EquiformerV2 as its model; it is judged by `read_configuration`."""
    with path.open("rb") as stream:
        return _NAMED.search(stream.read(_MAX_BYTES)) is not None


def read_configuration(path: Path) -> dict[str, Any]:
    """The file's values, of which ``model`` and the ``dataset``'s normalisers are read.

    Raises:
        ZooError: for what is no YAML, or has no ``model``.
    """
    try:
        content = path.read_bytes()
        if len(content) > _MAX_BYTES:
            raise ValueError(f"{len(content)} bytes")
        settings = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise ZooError(f"{path}: no configuration of EquiformerV2 ({first_line(error)}); it has a model with its name") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("model"), dict | str):
        raise ZooError(f"{path}: no configuration of EquiformerV2; it has a model with name: equiformer_v2")
    return settings
