"""Weights that the user fetched by hand are found below ``ZOO_DATA``, by what they hold and never by their name alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import zoo
from zoo import registry
from zoo.digests import file_sha256
from zoo.errors import ZooError
from zoo.weights import local_weights


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """``card(sha256=...)`` writes the card ``mine``, whose address leads nowhere; ZOO_DATA, ZOO_CARDS and ZOO_CACHE are the test's own."""
    for name in ("data", "cards", "cache"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"ZOO_{name.upper()}", str(tmp_path / name))

    def write(**file: object) -> None:
        fields = zoo.describe("sevennet-0").model_dump(mode="json")
        fields.update(name="mine", file={"url": (tmp_path / "nowhere.pth").as_uri(), **file})
        (tmp_path / "cards" / "mine.yaml").write_text(yaml.safe_dump(fields))
        registry._cards.cache_clear()

    registry._cards.cache_clear()
    yield write
    registry._cards.cache_clear()


def test_a_file_of_the_cards_checksum_is_found_under_any_name_and_not_copied(card, toy_checkpoint, tmp_path):
    card(sha256=file_sha256(toy_checkpoint), size=toy_checkpoint.stat().st_size)
    with pytest.raises(ZooError, match=r"nowhere\.pth.*ZOO_DATA"):
        zoo.load("mine")
    folder = tmp_path / "data" / "deep" / "down"
    folder.mkdir(parents=True)
    (folder / "nowhere.pth").write_bytes(b"another file of that name")
    with pytest.raises(ZooError, match=r"nowhere\.pth"):
        zoo.load("mine")
    (folder / "renamed").write_bytes(toy_checkpoint.read_bytes())
    assert zoo.load("mine").base_sha256 == zoo.load(toy_checkpoint).base_sha256
    assert local_weights(zoo.describe("mine")) == folder / "renamed"
    assert not list((tmp_path / "cache").rglob("*.pth"))


def test_a_file_of_the_cards_name_is_not_taken_where_the_card_has_no_checksum(card, toy_checkpoint, tmp_path):
    card()
    (tmp_path / "data" / "nowhere.pth").write_bytes(toy_checkpoint.read_bytes())
    with pytest.raises(ZooError, match=r"nowhere\.pth"):
        zoo.load("mine")
