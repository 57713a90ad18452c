"""Checksum lists are read whole or refused with the number of the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.refusals import refusal_of
from zoo.data.checksums import read_checksums


def listed(folder: Path, text: str) -> Path:
    path = folder / "x.sha256"
    path.write_bytes(text.encode(errors="surrogateescape"))
    return path


def test_a_checksum_list_is_read_in_order(tmp_path: Path) -> None:
    text = f"# SHA-256, bytes, name\n{'A' * 64} 12 set.000/a b.npy\n\n- -  unknown.tar\n{'0' * 64} - sized.npz\n- 5 counted\n"
    found = read_checksums(listed(tmp_path, text))
    assert list(found.items()) == [
        ("set.000/a b.npy", ("a" * 64, 12)),
        ("unknown.tar", (None, None)),
        ("sized.npz", ("0" * 64, None)),
        ("counted", (None, 5)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc 12 name", "line 1: 'abc 12 name' is not"),
        (f"# fine\n{'0' * 64} twelve name", "line 2"),
        (f"{'0' * 64} 12", "is not '<SHA-256"),
        (f"{'0' * 64} 12 ../name", "relative name"),
        ("- - twice\n- 1 twice", "line 2: 'twice' is listed twice"),
        ("# nothing", "names no file"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_malformed_checksum_list_is_one_line_with_its_number(tmp_path: Path, text: str, message: str) -> None:
    path = listed(tmp_path, text)
    assert message in refusal_of(read_checksums, path)
    assert str(path) in refusal_of(read_checksums, path)
    assert "absent" in refusal_of(read_checksums, tmp_path / "absent")
