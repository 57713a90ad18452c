"""``zoo adapter combine``: one adapter file of several, with the base that they are of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch

from adapters.combination import CombinationMethod
from zoo.errors import ZooError, nearest_name_hint

if TYPE_CHECKING:
    from zoo.potential import Potential

_KEYS = ("into", "weights", "method", "rank", "backbone")
_OPTION = re.compile(r"[A-Za-z_.]+=")  # and not runs/lr=0.01/adapter.safetensors
_SUFFIX = ".safetensors"
_RESULT = "combined"


@dataclass(frozen=True)
class Combination:
    """What is combined, and how.

    Attributes:
        sources: paths or addresses of adapter files of one base.
        into: the file that is written; one of that name is replaced.
        weights: of each source; None for their mean.
        method: ``"linear"``, the exact sum, or ``"svd"``, its nearest adapter of a rank (`adapters.stack.AdapterStack.combine`).
        rank: for ``"svd"``.
        backbone: card or checkpoint of the base; None for the card that the first file names.
    """

    sources: tuple[str, ...]
    into: Path
    weights: tuple[float, ...] | None = None
    method: CombinationMethod = "linear"
    rank: int | None = None
    backbone: str | None = None

    @classmethod
    def parse(cls, words: Sequence[str]) -> Combination:
        """From ``A B into=FILE weights=0.7,0.3 method=svd rank=8``.

        Raises:
            ZooError: unknown or missing words, values of another kind, or not a weight for each file.
        """
        is_option = [_OPTION.match(word) is not None for word in words]
        options = {key: value for key, _, value in (word.partition("=") for word, one in zip(words, is_option, strict=True) if one)}
        sources = tuple(word for word, one in zip(words, is_option, strict=True) if not one)
        unknown = next((key for key in options if key not in _KEYS), None)
        if unknown is not None:
            raise ZooError(f"zoo adapter combine has no key {unknown!r}; {nearest_name_hint(unknown, _KEYS)}")
        flags = [word for word in sources if word.startswith("-")]
        if flags or not sources:
            found = f"unknown {flags[0]}" if flags else "found none"
            raise ZooError(f"zoo adapter combine takes adapter files and into=FILE, {found}; see zoo adapter --help")
        if not options.get("into", "").endswith(_SUFFIX):
            raise ZooError(f"zoo adapter combine: into={options.get('into', '')}: wanted the file to write, such as into=mixed{_SUFFIX}")
        method = options.get("method", "linear")
        if method not in get_args(CombinationMethod):
            raise ZooError(f"zoo adapter combine: method={method}: {nearest_name_hint(method, get_args(CombinationMethod))}")
        weights = _numbers(options["weights"], len(sources)) if "weights" in options else None
        if "rank" in options and not re.fullmatch(r"[1-9]\d*", options["rank"]):
            raise ZooError(f"zoo adapter combine: rank={options['rank']}: wanted a whole number from 1")
        rank = int(options["rank"]) if "rank" in options else None
        if (method == "svd") != (rank is not None):
            raise ZooError("zoo adapter combine: method=svd and rank=R belong together; give both, or neither for the exact sum")
        chosen: CombinationMethod = "svd" if method == "svd" else "linear"
        return cls(sources, Path(options["into"]).expanduser(), weights, chosen, rank, options.get("backbone"))


def _numbers(text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.strip("[]").split(","))
    except ValueError:
        values = ()
    if len(values) != count or not all(map(math.isfinite, values)):
        raise ZooError(f"zoo adapter combine: weights={text}: wanted {count} numbers with commas between, one for each file, as in 0.7,0.3")
    return values


def combine_files(combination: Combination) -> str:
    """Write the combined adapter, with its reference energies; returns what was done, in one line.

    Raises:
        ZooError: a base that is not here, or files of several families, heads or ways to forces.
        adapters.errors.AdapterError: files that are damaged or of several bases, or a method that changes activations.
    """
    potential = _base_of(combination)
    names = _names(combination.sources)
    for name, source in zip(names, combination.sources, strict=True):
        potential.load_adapter(source, name)
    given = combination.weights or (1 / len(names),) * len(names)
    weights = dict(zip(names, given, strict=True))
    result = potential.adapters.combine(weights, _RESULT, combination.method, combination.rank)
    potential.save_adapter(_RESULT, combination.into)
    text = " + ".join(f"{weight:g} x {source}" for weight, source in zip(given, combination.sources, strict=True))
    lost = f", off from the sum by {_distance(potential, weights):.2%} of its norm" if combination.method == "svd" else ""
    rank = f" of rank {result.method.config_dict['rank']}" if "rank" in result.method.config_dict else ""
    return f"{text} -> {combination.into}: {result.method.name}{rank}, {result.trainable_count:,} numbers, on {potential.source}{lost}"


def _base_of(combination: Combination) -> Potential:
    """The base as the first file says: its head, elements and way to forces."""
    from zoo.adapter_files import read_trained
    from zoo.adapter_sources import local_adapter
    from zoo.loading import load
    from zoo.registry import list_models

    path = local_adapter(combination.sources[0])
    base = combination.backbone or read_trained(path)[0].base_card
    if combination.backbone is None and base not in list_models() and not Path(base).is_file():
        raise ZooError(f"{path}: made for {base!r}, which is no card and no file here; pass backbone=CARD|FILE")
    potential = load(base, adapter=path)
    potential.adapters.delete(potential.adapters.names[0])
    return potential


def _names(sources: Sequence[str]) -> list[str]:
    """``runs/acac-full/adapter.safetensors`` -> ``acac-full``; what the combined file calls its parts, each name once."""
    names: list[str] = []
    for source in sources:
        parts = [part for part in re.split(r"[/\\]", source.removesuffix(_SUFFIX)) if part]
        informative = [part for part in parts if part not in ("adapter", "..", ".")] or ["adapter"]
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", informative[-1]).strip("-") or "adapter"
        taken = {*names, _RESULT}
        names.append(next(one for one in (name, *(f"{name}-{number}" for number in range(2, len(sources) + 3))) if one not in taken))
    return names


@torch.no_grad()
def _distance(potential: Potential, weights: Mapping[str, float]) -> float:
    """|result - sum| / |sum| over all weights, Frobenius."""
    adapters = potential.adapters
    result = adapters.get(_RESULT).deltas()
    total, off = 0.0, 0.0
    parts = {name: adapters.get(name).deltas() for name in weights}
    for parameter in {parameter for deltas in parts.values() for parameter in deltas}:
        pieces = [weights[name] * deltas[parameter].double() for name, deltas in parts.items() if parameter in deltas]
        wanted = torch.stack(pieces).sum(0)
        total += float(wanted.square().sum())
        off += float((wanted - result[parameter]).square().sum())
    return math.sqrt(off / total) if total else 0.0
