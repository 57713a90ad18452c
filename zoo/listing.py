"""``zoo list`` and ``zoo info``: what the cards say, without loading torch."""

from __future__ import annotations

from zoo.errors import ZooError, nearest_name_hint
from zoo.registry import describe, list_models


def list_cards(pattern: str = "*") -> None:
    """``zoo list``: the cards, one line each."""
    names = list_models(pattern)
    if not names:
        raise ZooError(f"no model matches {pattern!r}; {nearest_name_hint(pattern.strip('*'), list_models())}")
    width = max(map(len, names))
    for name in names:
        card = describe(name)
        print(f"{name:<{width}}  {card.parameter_count / 1e6:6.2f} M  {card.licence:<6}  {card.description}")


def info(name: str, elements: bool = False) -> None:
    """``zoo info CARD``: everything the card says; ``elements`` loads the weights and lists the elements."""
    card = describe(name)
    print(card.text())
    if elements:
        from ase.data import chemical_symbols

        from zoo.loading import load

        backbone = load(name, head=card.heads[0] if card.heads else None).backbone
        print("elements              " + " ".join(chemical_symbols[number] for number in backbone.elements))
