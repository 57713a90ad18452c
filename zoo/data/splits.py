"""Which frame is for training and which for validation, by seed; and hashes that name a set of frames."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.data.content import frame_sha256 as frame_sha256
from zoo.data.frame import Frame
from zoo.data.stored_frames import content_digests
from zoo.errors import ZooError


def seeded_permutation(count: int, *seed: int) -> NDArray[np.int64]:
    """(count,) a permutation that is the same with every NumPy version and on every platform.

    NumPy promises that for the raw stream of a bit generator but not for ``Generator.permutation``, so the stream is sorted instead.

    Args:
        count: how many indices.
        seed: non-negative integers, such as a seed and an epoch.
    """
    bits = np.random.PCG64(np.random.SeedSequence(list(seed))).random_raw(count)
    return np.argsort(bits, kind="stable").astype(np.int64)


DEFAULT_VALID_FRACTION = 0.1


@dataclass(frozen=True)
class SplitSizes:
    """How many frames to draw for each part; None leaves it to a share or to the rest.

    Attributes:
        n_train: training frames; all that validation and test leave where None.
        n_valid: validation frames; ``valid_fraction`` of all frames (at least one) where None.
        n_test: test frames; ``test_fraction`` of all frames where None.
        valid_fraction: `DEFAULT_VALID_FRACTION` where None.
        test_fraction: nothing where None.
    """

    n_train: int | None = None
    n_valid: int | None = None
    n_test: int | None = None
    valid_fraction: float | None = None
    test_fraction: float | None = None

    def resolve(self, count: int, source: str) -> tuple[int, int, int]:
        """(n_train, n_valid, n_test) for ``count`` frames of ``source``; raises `ZooError` where they do not fit."""
        valid_fraction = DEFAULT_VALID_FRACTION if self.valid_fraction is None else self.valid_fraction
        n_test = self.n_test if self.n_test is not None else round((self.test_fraction or 0.0) * count)
        n_valid = self.n_valid if self.n_valid is not None else max(1, round(valid_fraction * count))
        n_train = self.n_train if self.n_train is not None else count - n_valid - n_test
        if count < 2:
            raise ZooError(
                f"{source}: holds one frame, and training and validation want one each; give more frames (several files as data.train, "
                "data.valid and data.test, or in a zip), or evaluate it"
            )
        if min(n_train, n_valid, n_test) < 0 or n_train < 1 or n_train + n_valid + n_test > count:
            raise ZooError(
                f"{source}: {count} frames cannot give n_train={n_train}, n_valid={n_valid} and n_test={n_test}; "
                "lower data.n_train, data.n_valid or data.n_test"
            )
        return n_train, n_valid, n_test


@dataclass(frozen=True)
class SplitIndices:
    """Disjoint indices into a pool of frames, in drawn order."""

    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]


def random_split(count: int, sizes: tuple[int, int, int], seed: int) -> SplitIndices:
    """Draw disjoint training, validation and test indices from ``range(count)``.

    The test part is drawn first, then validation, then training: a larger ``n_train`` adds frames and moves none, so learning curves
    over ``n_train`` share their test and validation frames.

    Args:
        count: frames in the pool.
        sizes: (n_train, n_valid, n_test) with a sum of at most ``count``.
        seed: of the permutation.
    """
    n_train, n_valid, n_test = sizes
    drawn = [int(index) for index in seeded_permutation(count, seed)]
    test, rest = drawn[:n_test], drawn[n_test:]
    return SplitIndices(train=tuple(rest[n_valid : n_valid + n_train]), valid=tuple(rest[:n_valid]), test=tuple(test))


def frames_sha256(frames: Sequence[Frame]) -> str:
    """Hash of a set of frames: the order they come in does not enter, how often each occurs does."""
    digests = np.ascontiguousarray(content_digests(frames))  # (F, 32)
    digest = hashlib.sha256()
    for number, index in enumerate(np.lexsort(digests.view(">u8").T[::-1])):  # as text would be sorted, without a million texts
        digest.update((b"\n" if number else b"") + digests[index].tobytes().hex().encode())
    return digest.hexdigest()


def sequence_sha256(frames: Sequence[Frame]) -> str:
    """Hash of frames in their order."""
    return hashlib.sha256(content_digests(frames).tobytes()).hexdigest()
