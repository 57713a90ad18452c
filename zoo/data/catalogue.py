"""The published data sets by name.

A card is one YAML file in ``zoo/data/sets``; a user's own are found in the folders that ``ZOO_SETS`` names. A card with ``members`` is a
collection of sets alike in everything but a name, such as the molecules of rMD17; one with ``checksums`` takes them from a list beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zoo.data.cards import DataCard
from zoo.data.checksums import read_checksums
from zoo.errors import ZooError, first_problem, nearest_name_hint
from zoo.yaml_text import read_yaml


def data_set_names() -> tuple[str, ...]:
    """Names of the published sets, sorted; the members of a collection as ``collection/member``."""
    return tuple(sorted(_raw_cards(_card_folders())))


def sets_by_card() -> dict[str, list[str]]:
    """The file name of every card to the sets that it describes, both sorted."""
    found: dict[str, list[str]] = {}
    for name in data_set_names():
        found.setdefault(_raw_cards(_card_folders())[name][0].name, []).append(name)
    return dict(sorted(found.items()))


def data_card(name: str) -> DataCard:
    """The card of a published set; raises `ZooError` with the nearest name for an unknown one."""
    return _card(name, _card_folders())


def checksum_list(name: str) -> Path:
    """The checksum list of that name beside the cards; raises `ZooError` where there is none."""
    for folder in _card_folders():
        if (folder / name).is_file():
            return folder / name
    raise ZooError(f"no checksum list {name!r} beside the cards of data sets; correct the card or add the list")


def _card_folders() -> tuple[Path, ...]:
    extra = os.environ.get("ZOO_SETS", "")
    return (Path(__file__).parent / "sets", *(Path(folder) for folder in extra.split(os.pathsep) if folder))


@lru_cache(maxsize=256)
def _card(name: str, folders: tuple[Path, ...]) -> DataCard:
    known = _raw_cards(folders)
    if name not in known:
        raise ZooError(f"unknown data set {name!r}; {nearest_name_hint(name, known)}")
    path, values = known[name]
    try:
        return DataCard.model_validate(values)
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{path}: {first.key or 'card'}: {first.message}; repair the card") from None


@lru_cache(maxsize=4)
def _raw_cards(folders: tuple[Path, ...]) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Set name to its file and its values, collections taken apart and checksum lists worked in."""
    cards: dict[str, tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            for name, values in _sets_of(path).items():
                if name in cards:
                    raise ZooError(f"{path}: a data set named {name!r} exists already; rename one of the two")
                cards[name] = (path, values)
    return cards


def _sets_of(path: Path) -> dict[str, dict[str, Any]]:
    values = read_yaml(path, "repair the card")
    if not isinstance(values, dict) or "name" not in values:
        raise ZooError(f"{path}: a card is a mapping with a name; repair the card")
    for part in ("files", "members"):
        if not isinstance(values.get(part) or {}, dict):
            raise ZooError(f"{path}: {part} is not a mapping of names to their settings; repair the card")
    members, checksums = values.pop("members", None), values.pop("checksums", None)
    known = read_checksums(path.with_name(checksums)) if checksums is not None else {}
    if members is None:
        return {values["name"]: _with_checksums(values, known)}
    named = {f"{values['name']}/{member}": _filled(values, {"member": member, **(facts or {})}) for member, facts in members.items()}
    return {name: _with_checksums({**member_values, "name": name}, known) for name, member_values in named.items()}


def _filled(value: Any, facts: Mapping[str, object]) -> Any:
    """``value`` with ``{member}`` and the member's facts put into every text."""
    if isinstance(value, str):
        for key, fact in facts.items():
            value = value.replace("{" + key + "}", str(fact))
        return value
    if isinstance(value, dict):
        return {key: _filled(entry, facts) for key, entry in value.items()}
    return [_filled(entry, facts) for entry in value] if isinstance(value, list) else value


def _with_checksums(values: dict[str, Any], known: Mapping[str, tuple[str | None, int | None]]) -> dict[str, Any]:
    files = {}
    for key, file in values.get("files", {}).items():
        filled = file
        if isinstance(file, dict):  # else the schema says what is wrong
            sha256, size = known.get(file.get("filename", ""), (None, None))
            filled = {"sha256": sha256, "size": size, **file}
        files[key] = filled
    return {**values, "files": files}
