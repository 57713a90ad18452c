"""What other installed packages bring, found by their entry points and imported only when it is asked for.

A package declares what it brings in its ``pyproject.toml``::

    [project.entry-points."equizoo.adapters"]
    my-method = "my_package.my_method:MyMethod"

Reading the declarations imports nothing, so that a package that cannot be imported disturbs no other.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from adapters.errors import AdapterError, first_line

ADAPTERS = "equizoo.adapters"
"""The group of adapter methods: name of the method = its class."""

BACKBONES = "equizoo.backbones"
"""The group of model families: name of the family = its `zoo.backbones.base.Family`."""


@dataclass(frozen=True)
class Plugin:
    """One declaration of an installed package.

    Attributes:
        name: as users write it.
        value: ``module:attribute``.
        package: name and version of the distribution that declares it.
        others: the other packages that declare the same name.
    """

    name: str
    value: str
    package: str
    others: tuple[str, ...]
    entry_point: EntryPoint

    def load(self, kind: str, taken: Collection[str], error: type[ValueError] = AdapterError) -> Any:
        """Import what is declared.

        Args:
            kind: what the name is of, for messages: ``"adapter method"``.
            taken: names that equizoo has itself.
            error: what to raise.

        Raises:
            ValueError: ``error``, in one line, for a name that is taken, or what cannot be imported.
        """
        self.refuse_taken(kind, taken, error)
        try:
            return self.entry_point.load()
        except Exception as reason:  # the code of another package may raise anything
            raise error(
                f"{kind} {self.name!r}: {self.value} of the package {self.package} cannot be imported "
                f"({type(reason).__name__}: {first_line(reason)}); mend that package or uninstall it"
            ) from reason

    def refuse_taken(self, kind: str, taken: Collection[str], error: type[ValueError] = AdapterError) -> None:
        """Raise ``error`` where equizoo or another package has something of the same name: none is taken silently."""
        owners = (*(("equizoo",) if self.name in taken else ()), *self.others)
        if owners:
            raise error(
                f"{kind} {self.name!r} is declared by the package {self.package} and by {', '.join(owners)}; rename the one or uninstall it"
            )

    def wrong(self, kind: str, found: object, wanted: str, error: type[ValueError] = AdapterError) -> ValueError:
        """The error of a declaration that leads to something else than it should."""
        declared = f"{self.value} of the package {self.package}"
        return error(f"{kind} {self.name!r}: {declared} is {found}, wanted {wanted}; mend that package or uninstall it")


def plugins(group: str) -> dict[str, Plugin]:
    """Name -> what installed packages declare in ``group``; read once for each search path."""
    return _found(group, tuple(sys.path))


@functools.lru_cache(maxsize=8)
def _found(group: str, search_path: tuple[str, ...]) -> dict[str, Plugin]:
    declared: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        declared.setdefault(entry.name, []).append(entry)
    found = {}
    for name, entries in declared.items():
        packages = [f"{entry.dist.name} {entry.dist.version}" if entry.dist else "of unknown name" for entry in entries]
        found[name] = Plugin(name, entries[0].value, packages[0], tuple(packages[1:]), entries[0])
    return found
