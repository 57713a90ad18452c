"""What an adapter file holds, read without a model: blocks by role and path, the size of each delta, and two files side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.errors import AdapterError
from adapters.manifest import AdapterManifest, BlockEntry
from adapters.method import create_method
from adapters.state import read_adapter


@dataclass(frozen=True)
class BlockSize:
    """One block's delta in numbers.

    Attributes:
        entry: the block.
        count: trained numbers of its own.
        norm: Frobenius norm of its delta.
        stable_rank: squared Frobenius over squared spectral norm, the mean over the block's stack; 0 for a delta of zero.
        nonzero: share of its weights that the delta changes.
    """

    entry: BlockEntry
    count: int
    norm: float
    stable_rank: float
    nonzero: float


@dataclass(frozen=True)
class AdapterFile:
    """An adapter file and the deltas it makes.

    Attributes:
        path: of the file.
        manifest: what it says of itself.
        tensors: file key -> tensor.
        size_bytes: of the file.
    """

    path: Path
    manifest: AdapterManifest
    tensors: Mapping[str, Tensor]
    size_bytes: int

    @classmethod
    def read(cls, path: Path) -> AdapterFile:
        """Read and check a file.

        Raises:
            AdapterError: as `read_adapter`, and where tensors do not belong to the blocks that the file lists.
        """
        manifest, tensors = read_adapter(path)
        file = cls(path, manifest, tensors, path.stat().st_size)
        known = [f"{entry.key}/" for entry in manifest.blocks] + [f"{entry.parameter}/*/" for entry in manifest.blocks]
        beginnings = {key[: key.rindex("/") + 1] for key in tensors if "/" in key}
        stray = sorted(beginnings.difference(known))
        if stray or any("/" not in key for key in tensors):
            raise AdapterError(f"{path}: holds tensors of no block that it lists ({', '.join(stray) or 'without a block'}); write it again")
        return file

    def factors(self, entry: BlockEntry) -> dict[str, Tensor]:
        """Factor name -> tensor of one block, those of its layer included."""
        own = {key.rpartition("/")[2]: tensor for key, tensor in self.tensors.items() if key.rpartition("/")[0] == entry.key}
        shared = f"{entry.parameter}/*"
        return own | {key.rpartition("/")[2]: tensor for key, tensor in self.tensors.items() if key.rpartition("/")[0] == shared}

    @torch.no_grad()
    def deltas(self) -> dict[str, Tensor]:
        """Block key -> delta (stack, in, out), float64.

        Raises:
            AdapterError: for a method that changes activations and has none, one whose deltas depend on the base's weights, or factors
                that do not make a delta of the block's shape.
        """
        method = create_method({**self.manifest.config, "name": self.manifest.method})
        if not method.mergeable:
            raise AdapterError(f"{self.path}: method {method.name} changes activations, which no change of weights in a file can stand for")
        if method.needs_base:
            raise AdapterError(
                f"{self.path}: with its settings {method.name} makes a delta of the base's weights, which a file does not hold; load it on "
                f"its base ({self.manifest.base_card}) and take deltas() there"
            )
        found = {}
        for entry in self.manifest.blocks:
            try:
                delta = method.delta({name: tensor.double()[None] for name, tensor in self.factors(entry).items()})
                found[entry.key] = delta.reshape(entry.shape)
            except (RuntimeError, KeyError) as error:
                reason = " ".join(str(error).split())
                raise AdapterError(f"{self.path}: {entry.key}: its factors make no delta of shape {entry.shape} ({reason})") from None
        return found

    def sizes(self) -> list[BlockSize]:
        """Each block's delta in numbers, in the file's order; raises as `deltas`."""
        deltas, counts = self.deltas(), self._counts()
        return [_size_of(entry, counts.get(entry.key, 0), deltas[entry.key]) for entry in self.manifest.blocks]

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for key, tensor in self.tensors.items():
            counts[key.rpartition("/")[0]] = counts.get(key.rpartition("/")[0], 0) + tensor.numel()
        return counts


def _size_of(entry: BlockEntry, count: int, delta: Tensor) -> BlockSize:
    return BlockSize(entry, count, float(delta.norm()), stable_rank(delta), float(torch.count_nonzero(delta)) / delta.numel())


def stable_rank(delta: Tensor) -> float:
    """Squared Frobenius over squared spectral norm of (stack, rows, cols), the mean over the stack's matrices that are not zero; else 0."""
    spectral = torch.linalg.matrix_norm(delta, ord=2)  # (stack,)
    there = spectral > 0
    ratios = delta.square().sum(dim=(1, 2))[there] / spectral[there].square()
    return float(ratios.mean()) if bool(there.any()) else 0.0


@dataclass(frozen=True)
class BlockDifference:
    """The deltas of one block in two files.

    Attributes:
        entry: the block.
        norms: of each file's delta; None where the file does not have the block.
        distance: Frobenius norm of the difference, a missing delta counted as zero.
        cosine: of the angle between the two deltas; None where one is zero or missing.
    """

    entry: BlockEntry
    norms: tuple[float | None, float | None]
    distance: float
    cosine: float | None


def compare(one: AdapterFile, other: AdapterFile) -> list[BlockDifference]:
    """The two files' deltas block by block, whatever their methods.

    Raises:
        AdapterError: where a block of one name has two shapes, or for a method without deltas.
    """
    deltas = one.deltas(), other.deltas()
    entries = {entry.key: entry for file in (one, other) for entry in file.manifest.blocks}
    found = []
    for key, entry in entries.items():
        first, second = (known.get(key) for known in deltas)
        if first is not None and second is not None and first.shape != second.shape:
            raise AdapterError(
                f"{key}: {tuple(first.shape)} in {one.path}, {tuple(second.shape)} in {other.path}; they are of different architectures"
            )
        a = torch.zeros(entry.shape, dtype=torch.float64) if first is None else first
        b = torch.zeros(entry.shape, dtype=torch.float64) if second is None else second
        norms = float(a.norm()), float(b.norm())
        cosine = float((a * b).sum()) / (norms[0] * norms[1]) if norms[0] * norms[1] > 0 else None
        there = (None if first is None else norms[0], None if second is None else norms[1])
        found.append(BlockDifference(entry, there, float((a - b).norm()), cosine))
    return found


def differing_fields(one: AdapterManifest, other: AdapterManifest) -> dict[str, tuple[Any, Any]]:
    """Manifest field -> the two values, for each that differs; nested settings by ``field.key``, the block table by its length."""
    a, b = (_flat({**file.model_dump(mode="json"), "blocks": f"{len(file.blocks)} blocks"}) for file in (one, other))
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for key, one in fields.items()
        for name, value in ({f"{key}.{inner}": value for inner, value in one.items()} if isinstance(one, dict) else {key: one}).items()
    }
