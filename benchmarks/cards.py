"""README's tables of models and data sets, from the cards: ``python -m benchmarks.cards``."""

from __future__ import annotations

from benchmarks.tables import ROOT, markdown_table, write_between_markers
from zoo.data.named import data_card, data_set_names
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
    """The embedded set, then one row a data card."""
    from zoo.data import emt

    frames = f"{emt.POOL_FRAMES} + {emt.TEST_FRAMES} test, made on the fly"
    rows = [["`emt-cuau`", frames, emt.LEVEL_OF_THEORY, "MIT (part of equizoo)", "embedded"]]
    for name in data_set_names():
        card = data_card(name)
        tests = ", ".join(f"`{test}`" for test in card.tests)
        pools = " or ".join(f"`{pool}`" for pool in card.pools)
        rows.append([f"`{name}`", f"pools {pools}; tests {tests}", card.level_of_theory, card.licence, card.citation])
    return markdown_table(["set", "frames", "level of theory", "licence", "source"], rows)


if __name__ == "__main__":
    write_between_markers(ROOT / "README.md", "models", models_table())
    write_between_markers(ROOT / "README.md", "data-sets", data_table())
