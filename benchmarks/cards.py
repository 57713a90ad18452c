"""README's tables of models and data sets, from the cards: ``python -m benchmarks.cards``."""

from __future__ import annotations

from benchmarks.tables import ROOT, markdown_table, write_between_markers
from zoo.data.catalogue import data_card, sets_by_card
from zoo.registry import describe, list_models


def models_table() -> str:
    """One row a model card."""
    rows = []
    for name in list_models():
        card = describe(name)
        theory = "; ".join(f"head `{head}`: {text}" for head, text in card.level_of_theory_of_head.items()) or card.level_of_theory
        weights = "the `sevenn` package" if card.file.package == "sevenn" else "download"
        rows.append(
            [f"`{name}`", f"{card.parameter_count:,}", f"{card.cutoff_angstrom:g}", str(card.element_count), theory, card.licence, weights]
        )
    return markdown_table(
        ["card", "trainable parameters", "cutoff / Å", "elements", "level of theory", "licence of the weights", "weights from"], rows
    )


def data_table() -> str:
    """The embedded set, then one row a card; a card of several sets alike is one row."""
    from zoo.data import emt

    rows = [["`emt-cuau`", "Cu-Au crystals, slabs and clusters, made on the fly", emt.LEVEL_OF_THEORY, "MIT (part of equizoo)"]]
    for names in sets_by_card().values():
        cards = [data_card(name) for name in names]
        theories = list(dict.fromkeys(card.level_of_theory for card in cards))
        title = (
            f"`{names[0]}`" if len(names) == 1 else f"`{names[0].split('/')[0]}/` " + ", ".join(f"`{name.split('/')[1]}`" for name in names)
        )
        first = " ".join(cards[0].description.split()).split(". ")[0].rstrip(".")
        what = first if len(names) == 1 else f"{len(names)} sets, the first: {first}"
        rows.append([title, what, theories[0] if len(theories) == 1 else "see `zoo data NAME`", cards[0].licence])
    return markdown_table(["set", "what it is", "level of theory", "licence"], rows)


if __name__ == "__main__":
    write_between_markers(ROOT / "README.md", "models", models_table())
    write_between_markers(ROOT / "README.md", "data-sets", data_table())
