"""``zoo adapter``: what an adapter file holds, and what distinguishes two, without a model; and one of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from adapters.inspection import AdapterFile, BlockDifference, BlockSize, compare, differing_fields
from adapters.method import create_method
from zoo.adapter_combination import Combination, combine_files
from zoo.adapter_sources import local_adapter
from zoo.errors import ZooError, nearest_name_hint

_SHORT_HASH = 16
_COMBINE = "combine"


def adapter_command(words: Sequence[str]) -> None:
    """``zoo adapter inspect FILE``, ``zoo adapter diff A B`` (``--blocks`` lists block by block) or ``zoo adapter combine A B into=C``."""
    if words and words[0] == _COMBINE:
        print(combine_files(Combination.parse(words[1:])))
        return
    action, files, blocks = parse_words(words)
    _ACTIONS[action][1](*files, blocks=blocks)


def parse_words(words: Sequence[str]) -> tuple[str, list[str], bool]:
    """The action, its files and whether blocks are to be listed.

    Raises:
        ZooError: an unknown action or flag, or another number of files than the action takes.
    """
    plain = [word for word in words if word != "--blocks"]
    if not plain:
        raise ZooError("zoo adapter: no action; pass inspect FILE, diff A B, or combine A B into=C")
    action, files = plain[0], plain[1:]
    if action == _COMBINE:
        return action, list(Combination.parse(files).sources), False
    if action not in _ACTIONS:
        raise ZooError(f"zoo adapter: unknown action {action!r}; {nearest_name_hint(action, [*_ACTIONS, _COMBINE])}")
    count = _ACTIONS[action][0]
    unknown = [word for word in files if word.startswith("-")]
    if unknown or len(files) != count:
        found = f"unknown {unknown[0]}" if unknown else f"found {len(files)}"
        raise ZooError(f"zoo adapter {action} takes {count} file{'s' if count > 1 else ''} and --blocks, {found}; see zoo adapter --help")
    return action, files, "--blocks" in words


def inspect(source: str, *, blocks: bool = False) -> None:
    """Print what a file says of itself and the sizes of its deltas, by role, or block by block."""
    file = AdapterFile.read(local_adapter(source))
    manifest = file.manifest
    print(f"{file.path}: {file.size_bytes:,} bytes, {manifest.trainable_count:,} trained numbers in {len(file.tensors)} tensors")
    _print_rows(
        {
            "format": str(manifest.format_version),
            "method": f"{manifest.method} ({_settings(manifest.config)})",
            "base": f"{manifest.base_card} ({manifest.base_family}), values SHA-256 {manifest.base_sha256[:_SHORT_HASH]}...",
            "licence of the base": manifest.base_licence,
            "head": manifest.head or "",
            "forces": manifest.forces or "",
            "level of theory": manifest.level_of_theory,
            "reference energies": f"{_settings(manifest.reference_energies)}" if manifest.reference_energies else "",
            "data": _settings({key: value for key, value in manifest.data.items() if not str(key).endswith("sha256")}),
            "training": _settings(manifest.training),
            "made with": _settings(manifest.versions),
        }
    )
    method = create_method({**manifest.config, "name": manifest.method})
    if not method.mergeable:
        print(f"\n{manifest.method} changes activations: there is no change of weights to measure")
        return
    if method.needs_base:
        print(f"\n{manifest.method} with these settings makes its change of weights of the base's, which are not in the file")
        return
    sizes = file.sizes()
    print()
    _print_table([_SIZES_HEADER, *(_size_row(*row) for row in (_by_block(sizes) if blocks else _by_role(sizes)))])


_SIZES_HEADER = ("role", "path", "blocks", "trained", "norm of delta", "stable rank", "nonzero")


def _by_block(sizes: Iterable[BlockSize]) -> list[tuple[str, str, list[BlockSize]]]:
    return [(one.entry.role, f"{one.entry.key}  {one.entry.path}", [one]) for one in sizes]


def _by_role(sizes: Iterable[BlockSize]) -> list[tuple[str, str, list[BlockSize]]]:
    """Blocks of one role and one path together, in the file's order, and each role as a whole before its paths."""
    roles: dict[str, dict[str, list[BlockSize]]] = {}
    for one in sizes:
        roles.setdefault(one.entry.role, {}).setdefault(one.entry.path, []).append(one)
    rows = []
    for role, paths in roles.items():
        if len(paths) > 1:
            rows.append((role, "all", [one for members in paths.values() for one in members]))
        rows.extend((role, path, members) for path, members in paths.items())
    return rows


def _size_row(role: str, path: str, members: Sequence[BlockSize]) -> tuple[str, ...]:
    """Norms joined as of one long vector; stable ranks as a mean over blocks, nonzero shares over weights."""
    weights = [one.entry.shape[0] * one.entry.shape[1] * one.entry.shape[2] for one in members]
    nonzero = sum(one.nonzero * count for one, count in zip(members, weights, strict=True)) / sum(weights)
    return (
        role,
        path,
        str(len(members)),
        f"{sum(one.count for one in members):,}",
        f"{sum(one.norm**2 for one in members) ** 0.5:.4g}",
        f"{sum(one.stable_rank for one in members) / len(members):.2f}",
        f"{nonzero:.1%}",
    )


def diff(one: str, other: str, *, blocks: bool = False) -> None:
    """Print the settings in which two files differ, and how far apart their deltas are, by role, or block by block."""
    files = [AdapterFile.read(local_adapter(source)) for source in (one, other)]
    fields = differing_fields(files[0].manifest, files[1].manifest)
    print(f"A  {files[0].path}\nB  {files[1].path}")
    if "base_sha256" in fields or "base_convention" in fields:
        print("the two are of different bases: their deltas are not changes of the same weights")
    _print_rows({key: f"{_short(a)}  |  {_short(b)}" for key, (a, b) in fields.items()})
    found = compare(*files)
    print("the changes of weights are the same" if all(row.distance == 0 for row in found) else "")
    rows = [(f"{row.entry.role}", f"{row.entry.key}  {row.entry.path}", [row]) for row in found] if blocks else _differences_by_role(found)
    _print_table([_DIFFERENCE_HEADER, *(_difference_row(*row) for row in rows)])


_DIFFERENCE_HEADER = ("role", "path", "blocks", "norm of A", "norm of B", "norm of A - B", "cosine")


def _differences_by_role(found: Iterable[BlockDifference]) -> list[tuple[str, str, list[BlockDifference]]]:
    roles: dict[str, list[BlockDifference]] = {}
    for one in found:
        roles.setdefault(one.entry.role, []).append(one)
    return [(role, "all", members) for role, members in roles.items()]


def _difference_row(role: str, path: str, members: Sequence[BlockDifference]) -> tuple[str, ...]:
    norms = [sum((one.norms[side] or 0.0) ** 2 for one in members) ** 0.5 for side in (0, 1)]
    there = [any(one.norms[side] is not None for one in members) for side in (0, 1)]
    products = sum((one.cosine or 0.0) * (one.norms[0] or 0.0) * (one.norms[1] or 0.0) for one in members)
    cosine = f"{products / (norms[0] * norms[1]):.3f}" if norms[0] * norms[1] > 0 else "-"
    shown = [f"{norm:.4g}" if present else "-" for norm, present in zip(norms, there, strict=True)]
    return role, path, str(len(members)), *shown, f"{sum(one.distance**2 for one in members) ** 0.5:.4g}", cosine


_ACTIONS: dict[str, tuple[int, Callable[..., None]]] = {"inspect": (1, inspect), "diff": (2, diff)}


def _settings(values: Any) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in values.items() if value not in (None, [], ()))


def _short(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{text[:_SHORT_HASH]}..." if len(text) == 64 and text.isalnum() else text  # a hash


def _print_rows(rows: dict[str, str]) -> None:
    shown = {name: text for name, text in rows.items() if text}
    width = max(map(len, shown), default=0)
    for name, text in shown.items():
        print(f"  {name:<{width}}  {text}")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        words = [f"{cell:<{width}}" for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
        print("  ".join([*words, *numbers]).rstrip())
