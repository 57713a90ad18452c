"""``zoo list``, ``zoo info`` and ``zoo data``: what the cards of models and data sets say, without loading torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from zoo.data.config import EMBEDDED_SET
from zoo.errors import ZooError, nearest_name_hint
from zoo.registry import describe, list_models


def list_cards(pattern: str = "*") -> None:
    """``zoo list``: the cards, one line each."""
    cards = {name: describe(name) for name in _matching(pattern, list_models(), "model")}
    licences = {name: card.licence.split(" (")[0].split(", ")[0] for name, card in cards.items()}
    width = max(map(len, licences.values()))
    rows = {}
    for name, card in cards.items():
        count = "        " if card.parameter_count is None else f"{card.parameter_count / 1e6:6.2f} M"
        rows[name] = f"{count}  {licences[name]:<{width}}  {card.description}"
    _print_rows(rows)


def list_data(pattern: str = "*") -> None:
    """``zoo data``: the embedded set and the published ones, one line each."""
    from zoo.data import emt
    from zoo.data.catalogue import data_card, data_set_names

    rows = {}
    for name in _matching(pattern, (EMBEDDED_SET, *data_set_names()), "data set"):
        if name == EMBEDDED_SET:
            rows[name] = f"{emt.LICENCE:<10}  {emt.LEVEL_OF_THEORY:<24}  {emt.DESCRIPTION}"
            continue
        card = data_card(name)
        rows[name] = f"{card.licence:<10}  {card.level_of_theory:<24}  {card.description.splitlines()[0]}"
    _print_rows(rows)


def describe_data_set(name: str) -> None:
    """``zoo data NAME``: everything the card of a data set says."""
    from zoo.data import emt
    from zoo.data.card_files import availability
    from zoo.data.catalogue import data_card

    if name == EMBEDDED_SET:
        frames = f"{emt.POOL_FRAMES} to train and validate on, {emt.TEST_FRAMES} to test on"
        rows = {"name": name, "description": emt.DESCRIPTION, "level of theory": emt.LEVEL_OF_THEORY, "licence": emt.LICENCE}
        _print_rows(rows | {"frames": frames, "files": "none: nothing is downloaded"})
        return
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
