"""The tables of models, data, protocols, formats, metrics and adapter methods, from what declares them: ``python -m benchmarks.cards``."""

from __future__ import annotations

import json
from collections.abc import Callable

from adapters.method import MethodConfig, create_method, method_names
from benchmarks.tables import ROOT, markdown_table, write_between_markers
from zoo.data.cards import DataCard, DataFile, Protocol
from zoo.data.catalogue import data_card, sets_by_card
from zoo.data.readers import formats
from zoo.evaluation.metrics import METRICS
from zoo.registry import Card, describe, list_models


def models_table() -> str:
    """One row a model card."""
    rows = []
    for name in list_models():
        card = describe(name)
        theory = "; ".join(f"head `{head}`: {text}" for head, text in card.level_of_theory_of_head.items()) or card.level_of_theory
        if len(card.heads) > 2:
            theory = f"{len(card.heads)} heads (`zoo info {name}`)"
        weights = "the `sevenn` package" if card.file.package == "sevenn" else "download"
        rows.append(
            [
                f"`{name}`",
                _count(card),
                "" if card.cutoff_angstrom is None else f"{card.cutoff_angstrom:g}",
                "" if card.element_count is None else str(card.element_count),
                theory,
                card.licence,
                weights,
            ]
        )
    return markdown_table(
        ["card", "trainable parameters", "cutoff / Å", "elements", "level of theory", "licence of the weights", "weights from"], rows
    )


def _count(card: Card) -> str:
    return "" if card.parameter_count is None else f"{card.parameter_count:,}"


def data_table() -> str:
    """The embedded set, then one row a card; a card of several sets alike is one row."""
    from zoo.data import emt

    rows = [["`emt-cuau`", emt.DESCRIPTION, emt.LEVEL_OF_THEORY, emt.LICENCE]]
    for names in sets_by_card().values():
        cards = [data_card(name) for name in names]
        theories = list(dict.fromkeys(card.level_of_theory for card in cards))
        first = " ".join(cards[0].description.split()).split(". ")[0].rstrip(".")
        what = first if len(names) == 1 else f"{len(names)} sets, the first: {first}"
        rows.append([_title(names), what, theories[0] if len(theories) == 1 else "see `zoo data NAME`", cards[0].licence])
    return markdown_table(["set", "what it is", "level of theory", "licence"], rows)


def protocols_table() -> str:
    """One row a protocol of each card: the pool and the sizes that are drawn from it, what was done, and the numbers that are reported."""
    rows = []
    for names in sets_by_card().values():
        card = data_card(names[0])
        for name, protocol in card.protocols.items():
            title = f"`{name}`" + (" (default)" if name == card.default_protocol else "")
            numbers = ", ".join(f"`{metric}`" for metric in protocol.metrics)
            words = " ".join(protocol.description.split())
            rows.append([_collection(names), title, _drawn(card, protocol), words, numbers, protocol.source])
    return markdown_table(["set", "protocol", "drawn", "in words", "numbers", "after"], rows)


def formats_table() -> str:
    """One row a format, in the order in which they are tried."""
    return markdown_table(["`data.format`", "what it reads"], [[f"`{one.name}`", one.description] for one in formats().values()])


def metrics_table() -> str:
    """One row a metric."""
    rows = [[f"`{one.name}`", one.label, one.unit or "none", one.normalisation, one.better] for one in METRICS.values()]
    return markdown_table(["name", "meaning", "unit", "mean over", "better"], rows)


def unverified_table() -> str:
    """The files whose SHA-256 nobody here knows, and what they are recognised by instead."""
    rows = []
    for names in sets_by_card().values():
        by_md5: list[str] = []
        by_name: list[str] = []
        card = data_card(names[0])
        for key, file in card.files.items():
            containers = [card.archives[one.archive] if one.archive else one for one in (file, *file.alternatives)]
            if not any(one.sha256 or (isinstance(one, DataFile) and one.tree) for one in containers):
                (by_md5 if any(one.md5 for one in containers) else by_name).append(f"`{key}`")
        if by_md5 or by_name:
            rows.append([_collection(names), ", ".join(by_md5) or "none", ", ".join(by_name) or "none"])
    return markdown_table(["set", "known by the publisher's MD5", "known by name alone"], rows)


def _drawn(card: DataCard, protocol: Protocol) -> str:
    """``300K: n_train=450 n_valid=50``."""
    sizes = ("n_train", "n_valid", "n_test", "valid_fraction", "test_fraction")
    pool = protocol.subset or card.default_pool
    words = [f"{name}={getattr(protocol, name)}" for name in sizes if getattr(protocol, name) is not None]
    if protocol.valid_from is not None:
        words.append(f"(validation from `{protocol.valid_from}`)")
    return " ".join(([f"`{pool}`:"] if pool else ["tests alone"]) + words)


def _collection(names: list[str]) -> str:
    """``rmd17/*`` for sets alike in everything but a name."""
    return f"`{names[0]}`" if len(names) == 1 else f"`{names[0].split('/')[0]}/*` ({len(names)})"


def _title(names: list[str]) -> str:
    if len(names) == 1:
        return f"`{names[0]}`"
    return f"`{names[0].split('/')[0]}/` " + ", ".join(f"`{name.split('/')[1]}`" for name in names)


def methods_table() -> str:
    """One row an adapter method: what it is, whether it merges and keeps the symmetry, and its own settings with their defaults."""
    rows = []
    for name in method_names():
        method = create_method(name)
        defaults = method.config.model_dump(mode="json")
        settings = [
            f"`{key}={json.dumps(value).strip(chr(34))}`" for key, value in defaults.items() if key not in MethodConfig.model_fields
        ]
        text = (type(method).__doc__ or "").strip().splitlines()[0]
        flags = ["yes" if flag else "**no**" for flag in (method.starts_at_base, method.mergeable, method.equivariant)]
        rows.append([f"`{name}`", text, *flags, ", ".join(settings)])
    return markdown_table(["method", "what it is", "starts at the base", "merges", "equivariant", "own settings"], rows)


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "models"): models_table,
    ("README.md", "data-sets"): data_table,
    ("docs/data.md", "formats"): formats_table,
    ("docs/data.md", "metrics"): metrics_table,
    ("docs/adapters.md", "methods"): methods_table,
    ("docs/benchmarks-data.md", "protocols"): protocols_table,
    ("docs/benchmarks-data.md", "unverified"): unverified_table,
}
"""(page, markers) to what stands between them."""

if __name__ == "__main__":
    for (page, name), table in TABLES.items():
        write_between_markers(ROOT / page, name, table())
