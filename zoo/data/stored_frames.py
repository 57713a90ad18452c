"""Frames that are read one by one from disk, behind the same sequence as a list of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zoo.data.content import frame_sha256
from zoo.data.facts import facts_of, geometry_facts
from zoo.data.frame import Frame


class FrameSource(Protocol):
    """Frames by row, and their facts (`zoo.data.facts.facts_of`) without reading them."""

    def __len__(self) -> int: ...

    def frame(self, row: int) -> Frame:
        """One frame."""
        ...

    def numbers(self, row: int) -> NDArray[np.int64]:
        """(N,) the atomic numbers of one frame."""
        ...

    def fact(self, name: str) -> NDArray[Any]:
        """One fact of every frame."""
        ...

    def source_names(self, rows: NDArray[np.int64]) -> list[str]:
        """`Frame.source` of some frames."""
        ...


class HeldFrames:
    """A list of frames as a `FrameSource`, where it is joined with frames on disk."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = list(frames)
        self._facts: dict[str, NDArray[Any]] | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def frame(self, row: int) -> Frame:
        """One frame."""
        return self._frames[row]

    def numbers(self, row: int) -> NDArray[np.int64]:
        """(N,) the atomic numbers of one frame."""
        return self._frames[row].atomic_numbers

    def fact(self, name: str) -> NDArray[Any]:
        """One fact of every frame, worked out once."""
        if self._facts is None:
            self._facts = facts_of(self._frames)
        return self._facts[name]

    def source_names(self, rows: NDArray[np.int64]) -> list[str]:
        """`Frame.source` of some frames."""
        return [self._frames[row].source for row in rows]


class StoredFrames(Sequence[Frame]):
    """Some frames of one or several sources, read when they are asked for.

    Args:
        sources: where they are.
        which: (F,) the source of each.
        rows: (F,) its row there.
    """

    def __init__(self, sources: Sequence[FrameSource], which: NDArray[np.int16], rows: NDArray[np.int64]) -> None:
        self._sources = tuple(sources)
        self._which = which
        self._rows = rows

    @classmethod
    def all_of(cls, source: FrameSource) -> StoredFrames:
        """Every frame of a source."""
        return cls((source,), np.zeros(len(source), dtype=np.int16), np.arange(len(source)))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> StoredFrames: ...

    def __getitem__(self, index: int | slice) -> Frame | StoredFrames:
        if isinstance(index, slice):
            return StoredFrames(self._sources, self._which[index], self._rows[index])
        source: FrameSource = self._sources[self._which[index]]
        return source.frame(int(self._rows[index]))

    def __iter__(self) -> Iterator[Frame]:
        for which, row in zip(self._which, self._rows, strict=True):
            yield self._sources[which].frame(int(row))

    def atomic_numbers(self) -> Iterator[NDArray[np.int64]]:
        """(N,) of each frame, without the rest of it."""
        for which, row in zip(self._which, self._rows, strict=True):
            yield self._sources[which].numbers(int(row))

    def take(self, indices: ArrayLike) -> StoredFrames:
        """The frames at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return StoredFrames(self._sources, self._which[chosen], self._rows[chosen])

    def joined_with(self, other: StoredFrames) -> StoredFrames:
        """These and then the others."""
        which = np.concatenate([self._which, other._which + len(self._sources)]).astype(np.int16)
        return StoredFrames((*self._sources, *other._sources), which, np.concatenate([self._rows, other._rows]))

    def fact(self, name: str) -> NDArray[Any]:
        """(F, ...) one of `zoo.data.facts.facts_of`."""
        if len(self._sources) == 1:
            return self._sources[0].fact(name)[self._rows]
        parts = [source.fact(name)[self._rows[self._which == number]] for number, source in enumerate(self._sources)]
        joined = np.concatenate(parts)
        order = np.argsort(self._which, kind="stable")
        values = np.empty_like(joined)
        values[order] = joined
        return values

    def source_names(self) -> list[str]:
        """(F,) `Frame.source` of each."""
        names = [""] * len(self)
        for number, source in enumerate(self._sources):
            places = np.flatnonzero(self._which == number)
            for place, name in zip(places.tolist(), source.source_names(self._rows[places]), strict=True):
                names[place] = name
        return names


def take(frames: Sequence[Frame], indices: Sequence[int]) -> Sequence[Frame]:
    """The frames at ``indices``: on disk where they are on disk, else as a list."""
    return frames.take(indices) if isinstance(frames, StoredFrames) else [frames[index] for index in indices]


def join(parts: Sequence[Sequence[Frame]]) -> Sequence[Frame]:
    """All frames one after the other: as a list where all are lists, else as `StoredFrames`."""
    if not any(isinstance(part, StoredFrames) for part in parts):
        return [frame for part in parts for frame in part]
    stored = [part if isinstance(part, StoredFrames) else StoredFrames.all_of(HeldFrames(part)) for part in parts if part]
    first, *rest = stored
    for part in rest:
        first = first.joined_with(part)
    return first


def geometry_of(frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    """`zoo.data.facts.geometry_facts`, read where they are known."""
    if isinstance(frames, StoredFrames):
        return {name: frames.fact(name) for name in ("composition", "exact", "invariants")}
    return geometry_facts(frames)


def atom_counts(frames: Sequence[Frame]) -> NDArray[np.int64]:
    """(F,) atoms of each frame."""
    counts = frames.fact("atoms") if isinstance(frames, StoredFrames) else np.array([len(frame) for frame in frames])
    return counts.astype(np.int64)


def atomic_numbers_of(frames: Sequence[Frame]) -> Iterator[NDArray[np.int64]]:
    """(N,) of each frame."""
    return frames.atomic_numbers() if isinstance(frames, StoredFrames) else (frame.atomic_numbers for frame in frames)


def energies_of(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """(F,) eV, NaN where a frame has none."""
    return frames.fact("energy") if isinstance(frames, StoredFrames) else np.array([frame.energy for frame in frames], dtype=np.float64)


def content_digests(frames: Sequence[Frame]) -> NDArray[np.uint8]:
    """(F, 32) `zoo.data.content.frame_sha256` of each."""
    if isinstance(frames, StoredFrames):
        return frames.fact("sha256")
    return np.array([list(bytes.fromhex(frame_sha256(frame))) for frame in frames], dtype=np.uint8).reshape(-1, 32)
