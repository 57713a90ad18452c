"""``zoo list``, ``zoo info`` and ``zoo data``: what the cards of models and data sets say, without loading torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from zoo.errors import ZooError, nearest_name_hint
from zoo.registry import describe, list_models


def list_cards(pattern: str = "*") -> None:
    """``zoo list``: the cards, one line each."""
    rows = {}
    for name in _matching(pattern, list_models(), "model"):
        card = describe(name)
        count = "        " if card.parameter_count is None else f"{card.parameter_count / 1e6:6.2f} M"
        rows[name] = f"{count}  {card.licence.split(' ')[0]:<9}  {card.description}"
    _print_rows(rows)


def list_data(pattern: str = "*") -> None:
    """``zoo data``: the published sets, one line each, and whether their files are on this disk."""
    from zoo.data.catalogue import data_card, data_set_names

    rows = {}
    for name in _matching(pattern, data_set_names(), "data set"):
        card = data_card(name)
        rows[name] = f"{card.licence:<10}  {card.level_of_theory:<24}  {card.description.splitlines()[0]}"
    _print_rows(rows)


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
    _print_rows(rows)


def _matching(pattern: str, names: Sequence[str], kind: str) -> list[str]:
    found = fnmatch.filter(names, pattern)
    if not found:
        raise ZooError(f"no {kind} matches {pattern!r}; {nearest_name_hint(pattern.strip('*'), names)}")
    return found


def _print_rows(rows: Mapping[str, str]) -> None:
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {text}" for name, text in rows.items()))


def info(name: str, elements: bool = False) -> None:
    """``zoo info CARD``: everything the card says; ``elements`` loads the weights and lists the elements."""
    card = describe(name)
    print(card.text())
    if elements:
        from ase.data import chemical_symbols

        from zoo.loading import load

        backbone = load(name, head=card.heads[0] if card.heads else None).backbone
        print("elements              " + " ".join(chemical_symbols[number] for number in backbone.elements))
