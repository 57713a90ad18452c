"""Configurations of ``nequip-train`` (``.yaml``), read as values: nothing of the machine is filled in, and no alias runs away.

OmegaConf, which reads them for upstream, writes out every alias and fills in environment variables; here the file's own values are
looked up, and `zoo.backbones.nequip_config.plain_values` bounds what they come to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.backbones.nequip_config import Config, clean_config, plain_values
from zoo.errors import ZooError, first_line

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_WANTED = "no nequip-train configuration"


def is_configuration(path: Path) -> bool:
    """Whether the name is a configuration's; its content is judged by `read_configuration`."""
    return path.suffix in (".yaml", ".yml")


def read_configuration(path: Path) -> Config:
    """``training_module.model`` of what ``nequip-train`` takes, its references (``${model_type_names}``) looked up in the file.

    Raises:
        ZooError: for other YAML, and for interpolations that only a run can resolve (statistics of the data).
    """
    try:
        whole = yaml.load(path.read_bytes(), _Loader)  # a safe one: no tag makes an object
        raw = whole["training_module"]["model"]
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise ZooError(f"{path}: {_WANTED} ({first_line(error)}); it has a training_module.model") from None
    except (KeyError, TypeError):
        raise ZooError(f"{path}: {_WANTED}; it has a training_module.model") from None
    return clean_config(plain_values(raw, str(path), lambda text: _meant(text, whole, str(path))), str(path))


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with the numbers of YAML 1.2 (``1e-3``) and without merge keys, which grow as aliases do."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("merge keys (<<) are not read: write the entries out")


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def _meant(text: str, whole: Any, source: str) -> Any:
    """The file's value that ``${a.b}`` names; None for a text that names nothing."""
    if "${" not in text:
        return None
    match = _REFERENCE.fullmatch(text)
    found = whole
    for part in match[1].split(".") if match else ():
        found = found.get(part) if isinstance(found, Mapping) else None
    if not match or found is None:
        raise ZooError(f"{source}: {text} is not a value of this file; write the numbers instead of what only nequip-train can fill in")
    return found
