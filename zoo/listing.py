"""``zoo list``, ``zoo info`` and ``zoo data``: what the cards of models and data sets say, without loading torch."""

from __future__ import annotations

import fnmatch

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
        count = "        " if card.parameter_count is None else f"{card.parameter_count / 1e6:6.2f} M"
        print(f"{name:<{width}}  {count}  {card.licence.split(' ')[0]:<6}  {card.description}")


def list_data(pattern: str = "*") -> None:
    """``zoo data``: the published sets, one line each, and whether their files are on this disk."""
    from zoo.data.catalogue import data_card, data_set_names

    names = [name for name in data_set_names() if fnmatch.fnmatch(name, pattern)]
    if not names:
        raise ZooError(f"no data set matches {pattern!r}; {nearest_name_hint(pattern.strip('*'), data_set_names())}")
    width = max(map(len, names))
    for name in names:
        card = data_card(name)
        print(f"{name:<{width}}  {card.licence:<10}  {card.level_of_theory:<24}  {card.description.splitlines()[0]}")


def describe_data_set(name: str) -> None:
    """``zoo data NAME``: everything the card of a data set says."""
    from zoo.data.card_files import availability
    from zoo.data.catalogue import data_card

    card = data_card(name)
    rows = {
        "name": card.name,
        "description": " ".join(card.description.split()),
        "level of theory": card.level_of_theory,
        "licence": card.licence,
        "citation": card.citation,
        "pools": ", ".join(f"{pool} (default)" if pool == card.default_pool else pool for pool in card.pools),
        "tests": ", ".join(card.tests) or "none of its own",
        **({"subset of": card.subset_of} if card.subset_of else {}),
    }
    for protocol_name, protocol in card.protocols.items():
        default = " (default)" if protocol_name == card.default_protocol else ""
        words = " ".join(protocol.description.split())
        rows[f"protocol {protocol_name}"] = f"{words} [{', '.join(protocol.metrics)}; {protocol.source}]{default}"
    rows |= {f"file {key}": state for key, state in availability(card).items()}
    width = max(map(len, rows))
    print("\n".join(f"{key:<{width}}  {value}" for key, value in rows.items()))


def info(name: str, elements: bool = False) -> None:
    """``zoo info CARD``: everything the card says; ``elements`` loads the weights and lists the elements."""
    card = describe(name)
    print(card.text())
    if elements:
        from ase.data import chemical_symbols

        from zoo.loading import load

        backbone = load(name, head=card.heads[0] if card.heads else None).backbone
        print("elements              " + " ".join(chemical_symbols[number] for number in backbone.elements))
