"""Model cards: what exists, where its weights are, under which licence; knows no backbone.

A card is one YAML file under ``zoo/cards``; a user's own cards are found in the folders that ``ZOO_CARDS`` names.
"""

from __future__ import annotations

import fnmatch
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zoo.errors import ZooError, first_problem, nearest_name_hint
from zoo.yaml_text import read_yaml


class CardFile(BaseModel):
    """Where a card's weights are: inside an installed package, or at an address.

    Attributes:
        package: import name of the package that ships the file at ``path``.
        path: path inside the package.
        url: https, http or file address, where no package ships the file.
        sha256: of the whole file; None where nobody has verified one yet: the first download is then trusted and remembered.
        size: bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str | None = None
    path: str | None = None
    url: str | None = None
    sha256: str | None = None
    size: int | None = None

    @model_validator(mode="after")
    def _one_place(self) -> CardFile:
        if (self.url is None) == (self.package is None or self.path is None):
            raise ValueError("give either url, or package and path")
        return self


_GRADIENT = "gradient of the energy (conservative)"
_DIRECT = "an output of their own (not conservative: dynamics does not conserve the energy); forces=gradient derives them from it"


class Card(BaseModel):
    """One published checkpoint. Energies in eV, lengths in Å.

    Attributes:
        parameter_count: trainable parameters, counted on the loaded weights; None where nobody has loaded them here yet.
        cutoff_angstrom: None where its authors do not state it beside the file; the file does.
        element_count: None where nobody has loaded the file here yet and its authors do not say.
        runs_code: whether the file is a package that brings its own code, which runs when it is loaded: it has to be trusted.
        accept_licence: word by which a user accepts a licence that forbids more than redistribution (``asl``), in ``ZOO_ACCEPT_LICENCES``;
            None where no acceptance is asked for.
        elements: symbols, where the file's tables have rows of elements that nothing was trained on; else all that the file has.
        architecture: what the family builds the network from without the file (`zoo.backbones.base.Family.build`), where it can.
        conservative: False for a model with a force output of its own.
        aliasing_floor: as `zoo.backbones.base.Backbone.aliasing_floor`: 0 for forces that turn with the structure to rounding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    family: str
    description: str
    file: CardFile
    parameter_count: int | None = None
    cutoff_angstrom: float | None = None
    element_count: int | None = None
    elements: tuple[str, ...] = ()
    architecture: dict[str, Any] | None = None
    heads: tuple[str, ...] = ()
    symmetry: Literal["SO(3)", "O(3)"]
    conservative: bool
    aliasing_floor: float = Field(default=0.0, ge=0)
    training_data: str
    level_of_theory: str
    level_of_theory_of_head: dict[str, str] = Field(default_factory=dict)
    runs_code: bool = False
    licence: str
    accept_licence: str | None = None
    citation: str

    @property
    def ships_with_a_package(self) -> bool:
        """Whether the weights are in an installed package: no download, no trust on first use."""
        return self.file.package is not None

    def _floor_text(self) -> str:
        return f"; forces turn with the structure to {self.aliasing_floor:.0e} of their size" if self.aliasing_floor else ""

    def text(self) -> str:
        """The card as aligned lines for people."""
        rows = {
            "name": self.name,
            "description": self.description,
            "family": self.family,
            "trainable parameters": "counted when loaded" if self.parameter_count is None else f"{self.parameter_count:,}",
            "cutoff": "known when loaded" if self.cutoff_angstrom is None else f"{self.cutoff_angstrom} Å",
            "elements": "known when loaded" if self.element_count is None else str(self.element_count),
            "heads": ", ".join(self.heads) or "one",
            "symmetry": f"{self.symmetry}{'' if self.symmetry == 'O(3)' else ': not invariant under inversion'}{self._floor_text()}",
            "forces": _GRADIENT if self.conservative else _DIRECT,
            "training data": self.training_data,
            "level of theory": "; ".join(f"{head}: {theory}" for head, theory in self.level_of_theory_of_head.items())
            or self.level_of_theory,
            "licence": self.licence + (f"; accept it with ZOO_ACCEPT_LICENCES={self.accept_licence}" if self.accept_licence else ""),
            "citation": self.citation,
            "weights": (self.file.url or f"inside the installed package {self.file.package!r}")
            + ("; runs its own code when loaded, so it wants trust_pickle=True" if self.runs_code else ""),
        }
        if self.file.url is not None:
            rows["SHA-256"] = self.file.sha256 or "none verified yet: the first download is trusted and remembered"
        width = max(map(len, rows))
        return "\n".join(f"{key:<{width}}  {value}" for key, value in rows.items())


def list_models(pattern: str = "*") -> list[str]:
    """Names of the cards that match an fnmatch pattern, in alphabetical order."""
    return sorted(name for name in _cards(_card_folders()) if fnmatch.fnmatch(name, pattern))


def describe(name: str) -> Card:
    """The card of that name; raises `ZooError` with the nearest name for an unknown one."""
    cards = _cards(_card_folders())
    if name not in cards:
        raise ZooError(f"unknown model {name!r}; {nearest_name_hint(name, cards)}")
    return cards[name]


def _card_folders() -> tuple[Path, ...]:
    extra = os.environ.get("ZOO_CARDS", "")
    return (Path(__file__).parent / "cards", *(Path(folder) for folder in extra.split(os.pathsep) if folder))


@lru_cache(maxsize=8)
def _cards(folders: tuple[Path, ...]) -> dict[str, Card]:
    cards: dict[str, Card] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            card = _read_card(path)
            if card.name in cards:
                raise ZooError(f"{path}: a card named {card.name!r} exists already; rename one of the two")
            cards[card.name] = card
    return cards


def _read_card(path: Path) -> Card:
    try:
        return Card.model_validate(read_yaml(path, "repair the card"))
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{path}: {first.key or 'card'}: {first.message}; repair the card") from None
