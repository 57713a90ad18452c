"""The cards of published MACE models: addresses, licences that want to be accepted, and a file that a card brings converted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from ase import Atoms

import zoo
from zoo import registry
from zoo.backbones import load_family
from zoo.backbones.base import choose_head
from zoo.digests import file_sha256
from zoo.errors import ZooError

CARDS = [zoo.describe(name) for name in zoo.list_models("mace-*")]


def test_the_published_families_have_their_cards():
    names = {card.name for card in CARDS}
    assert {f"mace-mp-0-{size}" for size in ("small", "medium", "large")} <= names
    assert {"mace-mp-0b-medium", "mace-mp-0b2-medium", "mace-mp-0b3-medium", "mace-mpa-0-medium", "mace-omat-0-medium"} <= names
    assert {"mace-matpes-pbe-0", "mace-matpes-r2scan-0", "mace-off24-medium"} | {
        f"mace-off23-{s}" for s in ("small", "medium", "large")
    } <= names


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_each_card_names_a_model_of_its_authors_and_what_its_licence_asks(card):
    assert card.family == "mace"
    assert card.file.url.startswith(("https://github.com/ACEsuit/", "https://raw.githubusercontent.com/ACEsuit/"))
    assert card.file.url.endswith(".model")
    assert (card.accept_licence == "asl") == card.licence.startswith("ASL") != (card.licence == "MIT")
    assert (card.element_count == 10) == ("off2" in card.name)
    assert card.level_of_theory
    assert "doi" in card.citation


@pytest.mark.parametrize("card", [card for card in CARDS if card.accept_licence], ids=lambda card: card.name)
@pytest.mark.parametrize("accepted", ["", "mit", "aslx"])
def test_weights_under_the_academic_licence_are_not_fetched_before_it_is_accepted(card, accepted, monkeypatch):
    monkeypatch.setenv("ZOO_ACCEPT_LICENCES", accepted)
    monkeypatch.setattr("zoo.weights.fetch_remembering", lambda *_, **__: pytest.fail("was fetched"))
    with pytest.raises(ZooError, match=rf"{card.name}: its weights are under ASL .*ZOO_ACCEPT_LICENCES=asl"):
        zoo.load(card.name, head=(card.heads or (None,))[0])


def test_a_multi_head_card_names_each_heads_level_of_theory_and_is_never_loaded_without_a_choice():
    several = [card for card in CARDS if card.heads]
    assert [card.name for card in several] == ["mace-mh-0", "mace-mh-1"]
    for card in several:
        assert set(card.heads) == set(card.level_of_theory_of_head)
        with pytest.raises(ZooError, match=rf"{card.name} has several heads.*omat_pbe"):
            zoo.load(card.name)


def test_a_card_with_a_checksum_is_fetched_checked_converted_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    published = tmp_path / "published.model"
    torch.save(load_family("mace").toy(0).upstream_checkpoint({}), published)
    fields = zoo.describe("mace-off23-small").model_dump(mode="json")
    fields.update(name="mine", cutoff_angstrom=4.0, element_count=5, file={"url": published.as_uri(), "sha256": file_sha256(published)})
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.yaml").write_text(yaml.safe_dump(fields))
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_ACCEPT_LICENCES", "ASL")
    registry._cards.cache_clear()
    try:
        potential = zoo.load("mine")
        assert (tmp_path / "cache" / "converted" / f"{file_sha256(published)}.v2.mace.safetensors").is_file()
        assert potential.card is not None
        assert potential.backbone.cutoff == potential.card.cutoff_angstrom
        assert potential.predict([Atoms("HC", [[0, 0, 0], [1.1, 0, 0]])])[0].energy == pytest.approx(
            zoo.load(published).predict([Atoms("HC", [[0, 0, 0], [1.1, 0, 0]])])[0].energy
        )
    finally:
        registry._cards.cache_clear()


def test_heads_that_differ_in_case_alone_are_told_apart_or_refused():
    assert choose_head(("pbe", "PBE"), "PBE", "a file") == "PBE"
    assert choose_head(("pbe", "r2scan"), "PBE", "a file") == "pbe"
    with pytest.raises(ZooError, match=r"2 of its heads \(pbe, PBE\) are called 'Pbe'"):
        choose_head(("pbe", "PBE"), "Pbe", "a file")
    with pytest.raises(ZooError, match=r"2 of its heads \(mp, mp\) are called 'mp'"):
        choose_head(("mp", "mp"), "mp", "a file")


def test_a_card_whose_file_runs_code_asks_for_trust_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr("zoo.weights.fetch_remembering", lambda *_, **__: pytest.fail("was fetched"))
    packages = [zoo.describe(name) for name in zoo.list_models() if zoo.describe(name).runs_code]
    assert {"nequip-oam-l", "allegro-oam-l"} <= {card.name for card in packages}
    assert all(card.file.url.endswith(".nequip.zip") for card in packages)
    for card in packages:
        with pytest.raises(ZooError, match=rf"{card.name}: its file carries its own code.*trust_pickle=True"):
            zoo.load(card.name)


def test_another_models_file_in_the_place_of_an_unverified_one_is_refused_and_not_remembered(tmp_path: Path, monkeypatch):
    foreign = tmp_path / "foreign.model"
    torch.save(load_family("mace").toy(0).upstream_checkpoint({}), foreign)
    fields = zoo.describe("mace-mp-0-small").model_dump(mode="json")
    fields.update(name="unverified", file={"url": foreign.as_uri()})
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "unverified.yaml").write_text(yaml.safe_dump(fields))
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    registry._cards.cache_clear()
    try:
        with pytest.raises(
            ZooError, match=r"has 5 elements, where unverified has 89, 4 Å of cutoff, where unverified has 6; it is another model"
        ):
            zoo.load("unverified")
        assert not list((tmp_path / "cache").rglob("*.sha256"))
        fields.update(cutoff_angstrom=4.0, element_count=5)
        (tmp_path / "cards" / "unverified.yaml").write_text(yaml.safe_dump(fields))
        registry._cards.cache_clear()
        assert zoo.load("unverified").backbone.cutoff == 4.0
        assert len(list((tmp_path / "cache").rglob("*.sha256"))) == 1
    finally:
        registry._cards.cache_clear()
