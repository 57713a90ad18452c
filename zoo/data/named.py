"""Published data sets by name: a card says what the files are, and they are found on this disk or downloaded.

A file is recognised by its SHA-256, so the folders of ``ZOO_DATA`` may be named as their owner likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from zoo.cache import cache_root, data_roots
from zoo.data.keys import LabelKeys
from zoo.data.labels import Label
from zoo.download import fetch, file_sha256
from zoo.errors import ZooError, nearest_name_hint

_FOLDER_DEPTH = 3


class DataFile(BaseModel):
    """One published file and the labels its frames carry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    filename: str
    sha256: str
    size: int
    labels: tuple[Label, ...]


class DataCard(BaseModel):
    """What a named set is, where it is published, and which file plays which part.

    Attributes:
        pools: name to the key of a file that training and validation frames are drawn from.
        default_pool: the one used where none is asked for.
        tests: name to the key of a test file.
        isolated_atoms: key of the file with the energies of isolated atoms, if the set has one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    base_url: str
    licence: str
    citation: str
    level_of_theory: str
    keys: LabelKeys
    files: dict[str, DataFile]
    pools: dict[str, str]
    default_pool: str
    tests: dict[str, str]
    isolated_atoms: str | None = None

    def pool(self, name: str | None) -> tuple[str, str]:
        """(pool name, file key) of ``name`` or of the default pool; raises `ZooError` with the nearest name."""
        chosen = self.default_pool if name is None else name
        if chosen not in self.pools:
            raise ZooError(f"{self.name} has no subset {chosen!r}; {nearest_name_hint(chosen, self.pools)}")
        return chosen, self.pools[chosen]


def data_set_names() -> tuple[str, ...]:
    """Names of the published sets, sorted."""
    return tuple(sorted(Path(entry.name).stem for entry in files("zoo.data").joinpath("sets").iterdir() if entry.name.endswith(".yaml")))


@cache
def data_card(name: str) -> DataCard:
    """The card of a published set; raises `ZooError` with the nearest name for an unknown one."""
    if name not in data_set_names():
        raise ZooError(f"unknown data set {name!r}; {nearest_name_hint(name, data_set_names())}")
    text = files("zoo.data").joinpath("sets", f"{name}.yaml").read_text(encoding="utf-8")
    return DataCard.model_validate(yaml.safe_load(text))


def local_file(card: DataCard, key: str) -> Path:
    """The verified file ``key`` of a set: from ``ZOO_DATA``, else from the cache, else downloaded into the cache.

    Raises:
        ZooError: where it is nowhere and cannot be downloaded.
    """
    wanted = card.files[key]
    for candidate in _candidates(wanted):
        if candidate.stat().st_size == wanted.size and file_sha256(candidate) == wanted.sha256:
            return candidate
    destination = cache_root() / "data" / card.name / wanted.filename
    return fetch(
        f"{card.base_url}/{wanted.filename}",
        destination,
        sha256=wanted.sha256,
        size=wanted.size,
        description=f"{card.name}/{wanted.filename}",
    )


def _candidates(wanted: DataFile) -> Iterator[Path]:
    """Files of ``ZOO_DATA`` to look into: those of the right name first, then those of the right size."""
    everything = [path for root in data_roots() for path in _files_below(root)]
    yield from (path for path in everything if path.name == wanted.filename)
    yield from (path for path in everything if path.name != wanted.filename and path.stat().st_size == wanted.size)


def _files_below(root: Path) -> Iterator[Path]:
    for depth in range(1, _FOLDER_DEPTH + 1):
        yield from sorted(path for path in root.glob("/".join("*" * depth)) if path.is_file())
