"""Files that tables of the documentation are made from: made where they are not there, and once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.runs import made_once


def test_a_file_is_made_by_the_command_that_is_said_and_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, calls = tmp_path / "new" / "acac.json", []

    def make(words: Sequence[str]) -> None:
        calls.append(words)
        path.write_text("{}", encoding="utf-8")

    for _ in range(2):
        assert made_once("zoo evaluate", path, ["data=acac", f"record={path}"], make) == path
    assert calls == [["data=acac", f"record={path}"]]
    assert capsys.readouterr().out == f"zoo evaluate data=acac record={path}\n"
