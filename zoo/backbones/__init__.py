"""The model families, imported one at a time and only when asked for.

A new family is one module with a ``FAMILY`` object and one line in `_MODULES`; the contract tests meet it through `family_names`. One of
another package is declared by that package (`adapters.plugins`).
"""

from __future__ import annotations

import importlib
import importlib.util
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.plugins import BACKBONES, Plugin, plugins
from zoo.errors import ZooError, nearest_name_hint

if TYPE_CHECKING:
    from zoo.backbones.base import Family

_MODULES = {
    "allegro": "zoo.backbones.allegro",
    "equiformer_v2": "zoo.backbones.equiformer_v2.family",
    "mace": "zoo.backbones.mace",
    "nequip": "zoo.backbones.nequip",
    "nequix": "zoo.backbones.nequix",
    "sevennet": "zoo.backbones.sevennet",
    "uma": "zoo.backbones.uma",
}
_PACKAGES = {
    "allegro": ("allegro", "pip install -c constraints.txt nequip-allegro"),
    "equiformer_v2": ("torch", "pip install -c constraints.txt torch"),
    "mace": ("mace", "pip install --no-deps mace-torch==0.3.16"),
    "nequip": ("nequip", "pip install -c constraints.txt nequip"),
    "nequix": ("e3nn", "pip install -c constraints.txt e3nn"),
    "sevennet": ("sevenn", "pip install -c constraints.txt sevenn"),
    "uma": ("fairchem.core", "pip install -c constraints.txt '.[fairchem]' && pip install --no-deps fairchem-core==2.24.0"),
}


def family_names() -> tuple[str, ...]:
    """The registered families, in alphabetical order; those of other installed packages among them."""
    return tuple(sorted({*_MODULES, *plugins(BACKBONES)}))


def is_installed(name: str) -> bool:
    """Whether the package of a registered family is there; it is not imported (of a namespace's part, the namespace is).

    What another package declares counts as installed, whether or not it can be imported: `load_family` says.
    """
    if name not in _PACKAGES:
        return name in plugins(BACKBONES)
    try:
        return importlib.util.find_spec(_PACKAGES[name][0]) is not None
    except ModuleNotFoundError:  # not even the namespace is there
        return False


def load_family(name: str) -> Family:
    """Import one family's module and return its `Family` object.

    Raises:
        ZooError: for an unknown family, where its package is not installed (with the command that installs it), or where another
            package declares it and it cannot be imported, is no family, or has a name that is taken.
    """
    if name in plugins(BACKBONES):
        return _family_of(plugins(BACKBONES)[name])
    if name not in _MODULES:
        raise ZooError(f"unknown family {name!r}; {nearest_name_hint(name, family_names())}")
    package, command = _PACKAGES[name]
    if not is_installed(name):
        raise ZooError(f"family {name!r} needs the package {package!r}, which is not installed; run: {command}")
    family: Family = importlib.import_module(_MODULES[name]).FAMILY
    return family


def _family_of(plugin: Plugin) -> Family:
    from zoo.backbones.base import Family

    found = plugin.load("family", _MODULES, ZooError)
    if not isinstance(found, Family):
        raise plugin.wrong("family", repr(found), "a zoo.backbones.base.Family", ZooError)
    if found.name != plugin.name:
        raise plugin.wrong("family", f"called {found.name!r}", f"a family of the name {plugin.name!r}", ZooError)
    return found


def _is_cut_archive(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(path)


def family_of_checkpoint(path: Path) -> Family:
    """The family whose checkpoint format ``path`` is in; raises `ZooError` when none recognises it.

    Families whose package is not installed, and those of other packages that cannot be used, are left out, and named in the error.
    """
    missing = []
    for name in sorted(family_names(), key=lambda name: name in plugins(BACKBONES)):
        if not is_installed(name):
            missing.append(f"{name} (run: {_PACKAGES[name][1]})")
            continue
        try:
            family = load_family(name)
        except ZooError as error:  # what another package declares and cannot be used, or a name that two packages claim
            missing.append(f"{name} ({error})")
            continue
        if family.recognises(path):
            return family
    if _is_cut_archive(path):
        raise ZooError(f"{path}: an archive whose end is missing, as of a download that was broken off; fetch the file again")
    absent = f"; not installed: {', '.join(missing)}" if missing else ""
    raise ZooError(
        f"{path}: not a checkpoint of any known family ({', '.join(family_names())}); pass a card's name or one of their files{absent}"
    )
