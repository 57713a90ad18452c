"""The converted form of a MACE model: nothing of it changes unseen, the cache mends itself, and ``zoo convert`` overwrites no original."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from safetensors.torch import save_file

import zoo
from tests.refusals import cli_refusal, refusal_of
from zoo.backbones import load_family, mace_converted
from zoo.backbones.mace_conversion import convert, read_through_cache
from zoo.backbones.mace_converted import read_converted, write_converted
from zoo.backbones.mace_network import MaceConfig
from zoo.backbones.mace_toys import MORE_TOYS, TOY
from zoo.digests import file_sha256

WATER = Atoms("OH2", [[0, 0, 0], [0.9, 0.3, 0], [-0.3, 0.9, 0.1]])


def toy_state(name: str = "residual") -> tuple[MaceConfig, dict[str, torch.Tensor]]:
    backbone: Any = load_family("mace").more_toys[name](0)
    return backbone.config, dict(backbone.network.state_dict())


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "toy.mace.safetensors"
    write_converted(path, *toy_state())
    return path


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "toy.model"
    torch.save(load_family("mace").toy(0).upstream_checkpoint({}), path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


def test_one_flipped_bit_anywhere_in_the_settings_is_found(converted: Path, tmp_path: Path):
    content = converted.read_bytes()
    begin, end = content.index(b"equizoo_mace"), content.index(b"content_sha256") + 80
    damaged = tmp_path / "damaged.mace.safetensors"
    for place in range(begin + len(b"equizoo_mace"), end + 1000, 7):
        for bit in (0x01, 0x02):
            damaged.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            assert "damaged.mace.safetensors: " in refusal_of(read_converted, damaged), content[place - 10 : place + 10]
    place = content.index(b"3.0", content.index(b"avg_num_neighbors"))  # one bit makes another model: 3.0 to 2.0
    damaged.write_bytes(content[:place] + b"2" + content[place + 1 :])
    assert "SHA-256 is not the one written" in refusal_of(zoo.load, damaged)


BROKEN: dict[str, dict[str, Any]] = {
    "cutoff 0": {"r_max": 0.0},
    "cutoff nan": {"r_max": float("nan")},
    "irreps": {"hidden_irreps": "foo"},
    "no element": {"atomic_numbers": (1, 6, 8, 29, 300)},
    "an element twice": {"atomic_numbers": (1, 1, 8, 29, 79)},
    "no correlation": {"correlation": ()},
    "no heads": {"heads": ()},
    "heads without energies": {"heads": ("a", "b")},
    "degree": {"max_ell": -1},
    "a buffer": {"trained_buffers": ("x",)},
    "vectors in the readout": {"mlp_irreps": "4x1o"},
    "no layer": {"num_interactions": 0},
    "a block": {"interaction_cls": "foo"},
    "edges": {"edge_irreps": "2x0e"},
    "neighbours": {"avg_num_neighbors": 0.0},
}


@pytest.mark.parametrize("broken", BROKEN)
def test_settings_that_no_network_can_be_built_from_are_one_line(broken: str, tmp_path: Path):
    config, state = toy_state()
    path = tmp_path / "broken.mace.safetensors"
    write_converted(path, MaceConfig.model_construct(**{**dict(config), **BROKEN[broken]}), state)  # its checksum is right
    assert "broken.mace.safetensors: " in refusal_of(zoo.load, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r_max": 3.0}, "r_max 3 in its settings, r_max 4 in its state"),
        ({"atomic_numbers": (1, 8, 6, 29, 79)}, r"atomic_numbers [1, 8, 6, 29, 79] in its settings, [1, 6, 8, 29, 79] in its state"),
    ],
)
def test_settings_that_contradict_the_numbers_are_refused(changes: dict[str, Any], message: str, tmp_path: Path):
    config, state = toy_state()
    write_converted(tmp_path / "other.mace.safetensors", config.model_copy(update=changes), state)
    assert message in refusal_of(zoo.load, tmp_path / "other.mace.safetensors")


def test_a_cache_entry_that_is_damaged_or_empty_or_old_is_made_again(original: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    expected = zoo.load(original).predict([WATER])[0].energy
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    assert entry.name == f"{file_sha256(original)}.v2.mace.safetensors"
    for damaged in (b"", whole[:1000], whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:]):
        entry.write_bytes(damaged)
        assert zoo.load(original).predict([WATER])[0].energy == expected
        assert entry.read_bytes() == whole
    monkeypatch.setattr(mace_converted, "FORMAT_VERSION", 1)
    write_converted(entry, *read_through_cache(original))
    monkeypatch.undo()
    monkeypatch.setenv("ZOO_CACHE", str(cache.parent))
    assert "of format 1, this equizoo reads 2; convert the original again" in refusal_of(zoo.load, entry)
    assert zoo.load(original).predict([WATER])[0].energy == expected
    assert entry.read_bytes() == whole


def test_what_an_older_equizoo_left_in_the_cache_is_not_read(original: Path, cache: Path):
    """Format 1 had no version in its name, and read pickles in ways mended since: here it holds another model."""
    cache.mkdir(parents=True)
    fields = {"format_version": 1, "config": MORE_TOYS["residual"].model_dump(mode="json"), "content_sha256": "0"}
    old = cache / f"{file_sha256(original)}.mace.safetensors"
    save_file({"r_max": torch.tensor(4.0)}, old, metadata={"equizoo_mace": json.dumps(fields)})
    assert zoo.load(original).backbone.config == TOY
    assert len(list(cache.iterdir())) == 2


def test_a_converted_file_of_a_later_format_says_to_update(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mace_converted, "FORMAT_VERSION", 3)
    write_converted(tmp_path / "later.mace.safetensors", *toy_state())
    monkeypatch.undo()
    assert "update equizoo" in refusal_of(zoo.load, tmp_path / "later.mace.safetensors")


def test_zoo_convert_never_writes_over_the_original_or_a_file_of_another_kind(original: Path, tmp_path: Path, zoo: Any):
    content = original.read_bytes()
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    alias = tmp_path / "alias.mace.safetensors"
    os.link(original, alias)
    for output, said in (
        (original, "converted models have the suffix .mace.safetensors; pass output="),
        (notes, f"pass output={tmp_path / 'notes.mace.safetensors'}"),
        (alias, "is the original itself"),
        (tmp_path, "is a folder"),
    ):
        assert said in cli_refusal(zoo("convert", str(original), f"output={output}"))
    assert original.read_bytes() == alias.read_bytes() == content
    assert notes.read_text() == "mine"
    assert zoo("convert", str(original)).code == 0
    assert (tmp_path / "toy.mace.safetensors").is_file()
    assert original.read_bytes() == content


def test_convert_takes_its_own_suffix_for_granted(original: Path):
    assert convert(original).name == "toy.mace.safetensors"
