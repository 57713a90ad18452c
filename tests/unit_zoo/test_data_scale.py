"""The benchmark of data at scale on a tenth of its frames: from disk, twice, and trained, within the memory that is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import data_scale
from zoo.data.readers import read_file


def test_the_synthetic_file_is_one_that_is_read_here(tmp_path: Path) -> None:
    data_scale.write_crystals(tmp_path / "some.aselmdb", 12)
    frames = read_file(tmp_path / "some.aselmdb", needs=("energy", "forces", "stress")).frames
    assert len(frames) == 12
    assert {len(frame) for frame in frames} <= set(range(4, 9))


@pytest.mark.slow
def test_a_large_file_trains_from_disk_in_little_memory_and_starts_at_once_the_second_time(tmp_path: Path) -> None:
    path, cache = tmp_path / "crystals.aselmdb", tmp_path / "cache"
    data_scale.write_crystals(path, 20_000)
    first, second = (data_scale.in_fresh_process(cache, "--start", str(path), "--workers", "2") for _ in range(2))
    trained = data_scale.in_fresh_process(cache, "--train", str(path), "--steps", "4")
    assert max(one["memory"] for one in (first, second, trained)) < 1536
    assert first["memory_of_children"] > 0, "nothing was done by other processes"
    assert (first["frames"] + first["edges"]) / (second["frames"] + second["edges"]) > 20
