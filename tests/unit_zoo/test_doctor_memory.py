"""The doctor's sample of a set on disk is read frame by frame: a million of them are never in memory at once."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.structures import slab
from tests.unit_zoo.test_readers_ase_database import write_aselmdb
from zoo.data.config import DataConfig
from zoo.data.frame import Frame
from zoo.data.frame_store import FrameStore
from zoo.data.source import load_splits
from zoo.doctor.subject import Subject


def test_few_frames_are_in_memory_while_the_sample_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    path = write_aselmdb(tmp_path / "rows.aselmdb", [slab(number) for number in range(40)])
    splits = {mode: load_splits(DataConfig(name="file", path=str(path), n_valid=4, cache=mode)) for mode in ("memory", "disk")}  # type: ignore[arg-type]
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    read = FrameStore.frame

    def counted(self: FrameStore, row: int) -> Frame:
        nonlocal alive, most
        frame = read(self, row)
        weakref.finalize(frame, gone)
        alive, most = alive + 1, max(most, alive + 1)
        return frame

    monkeypatch.setattr(FrameStore, "frame", counted)
    model: Any = SimpleNamespace(backbone=SimpleNamespace(elements=range(1, 100), reads_charge=True))
    samples = {mode: Subject(one, model, sample_size=3).sample for mode, one in splits.items()}
    assert [frame.name for frame in samples["disk"]] == [frame.name for frame in samples["memory"]]
    assert len(samples["disk"]) == 3
    assert 0 < most <= 5
