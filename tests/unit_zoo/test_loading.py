"""zoo.load: cards, checkpoints, adapters, heads, and one line for everything that cannot be loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml
from ase import Atoms
from ase.build import molecule

import zoo
from adapters.errors import AdapterError
from adapters.state import AdapterManifest, write_adapter
from tests.refusals import lacks, refusal_of
from zoo import registry
from zoo.backbones import family_names, load_family
from zoo.backbones.sevennet_checkpoint import read_payload
from zoo.data.frame import Frame
from zoo.errors import USER_ERRORS, ZooError
from zoo.potential import Potential
from zoo.weights import file_sha256, local_weights


def shipped(card: str) -> Path:
    return local_weights(zoo.describe(card))


def toy() -> Potential:
    return Potential(load_family("sevennet").toy(0))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.pth"
    toy().save_upstream_checkpoint(path)
    return path


def save_adapter(potential: Potential, path: Path, head: str | None = None) -> Path:
    potential.adapters.add("elora", "elora")
    potential.adapters.randomise("elora", seed=1)
    method = potential.adapters.get("elora").method
    write_adapter(
        path,
        potential.adapters.get("elora"),
        AdapterManifest(
            method=method.name,
            config=method.config_dict,
            base_card=potential.source,
            base_family=potential.backbone.family,
            base_sha256=potential.base_sha256,
            head=head,
        ),
    )
    return path


SHIPPED = [name for name in zoo.list_models() if zoo.describe(name).ships_with_a_package]


def test_the_cards_are_listed_by_pattern():
    assert zoo.list_models("sevennet*") == ["sevennet-0", "sevennet-0-22may2024", "sevennet-l3i5", "sevennet-mf-0"] == SHIPPED
    assert zoo.list_models("*mf*") == ["sevennet-mf-0"]
    assert zoo.list_models("no-such*") == []


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_tells_the_truth_about_its_model(name):
    card = zoo.describe(name)
    potential = zoo.load(name, head=card.heads[0] if card.heads else None)
    backbone = potential.backbone
    assert potential.card is card
    assert (card.family, card.cutoff_angstrom, card.symmetry) == (backbone.family, backbone.cutoff, backbone.symmetry)
    assert card.family in family_names()
    assert card.element_count == len(backbone.elements)
    assert card.parameter_count == potential.coverage.trainable_count
    assert card.heads == backbone.heads
    assert set(card.level_of_theory_of_head) == set(card.heads)
    assert card.conservative == backbone.conservative
    assert card.aliasing_floor == backbone.aliasing_floor
    assert file_sha256(shipped(name)) == card.file.sha256
    assert shipped(name).stat().st_size == card.file.size
    assert card.licence
    assert "doi" in card.citation
    assert card.name in card.text()
    assert not potential.training


def test_a_local_checkpoint_of_the_package_is_the_card():
    by_card, by_path = zoo.load("sevennet-0"), zoo.load(shipped("sevennet-0"))
    assert by_path.base_sha256 == by_card.base_sha256
    assert by_path.card is None
    water = molecule("H2O")
    assert by_path.predict([water])[0].energy == by_card.predict([water])[0].energy


def test_the_two_versions_of_sevennet_0_are_different_models():
    assert zoo.load("sevennet-0").base_sha256 != zoo.load("sevennet-0-22may2024").base_sha256


def test_a_head_is_never_chosen_silently():
    for source in ("sevennet-mf-0", shipped("sevennet-mf-0")):
        assert not lacks(refusal_of(zoo.load, source), "several heads", "PBE, R2SCAN", "head=")
        assert not lacks(refusal_of(zoo.load, source, head="HSE"), "unknown head 'HSE'", "PBE, R2SCAN")
    assert not lacks(refusal_of(zoo.load, "sevennet-0", head="PBE"), "no heads", "leave head out")


@pytest.mark.parametrize("head", ["R2SCAN", "r2scan"])
def test_a_head_brings_its_level_of_theory_however_it_is_spelt(head):
    potential = zoo.load("sevennet-mf-0", head=head)
    assert potential.backbone.head == "R2SCAN"
    assert potential.level_of_theory == "r2SCAN (Materials Project)"


def test_an_adapter_brings_its_head_and_refuses_another(tmp_path):
    trained = zoo.load("sevennet-mf-0", head="R2SCAN")
    path = save_adapter(trained, tmp_path / "adapter.safetensors", head="R2SCAN")
    loaded = zoo.load("sevennet-mf-0", adapter=path)
    assert loaded.backbone.head == "R2SCAN"
    water = molecule("H2O")
    assert loaded.predict([water])[0].energy == trained.predict([water])[0].energy
    assert not lacks(refusal_of(zoo.load, "sevennet-mf-0", adapter=path, head="PBE"), "adapter.safetensors", "R2SCAN", "PBE")


def test_a_merged_multi_head_model_keeps_its_head_through_its_own_checkpoint(tmp_path):
    trained = zoo.load("sevennet-mf-0", head="R2SCAN")
    save_adapter(trained, tmp_path / "adapter.safetensors", head="R2SCAN")
    trained.set_reference_shifts({1: 0.5, 8: -0.25})
    trained.save_upstream_checkpoint(tmp_path / "merged.pth")
    water = molecule("H2O")
    expected = trained.predict([water])[0].energy
    assert zoo.load(tmp_path / "merged.pth", head="R2SCAN").predict([water])[0].energy == pytest.approx(expected, abs=1e-5)
    bare, other = (zoo.load(source, head="PBE") for source in ("sevennet-mf-0", tmp_path / "merged.pth"))
    trained.set_reference_shifts({})
    shift = bare.backbone.upstream_checkpoint({})["model_state_dict"]["rescale_atomic_energy.shift"]
    kept = other.backbone.upstream_checkpoint({})["model_state_dict"]["rescale_atomic_energy.shift"]
    changed = (shift - kept).abs().sum(dim=1) > 0
    assert changed.tolist().count(True) == 1  # the reference energies of the other head are not touched


@pytest.mark.parametrize("dtype", ["float32", torch.float32])
def test_dtype_as_word_or_type_and_else_the_files_own(checkpoint, dtype):
    assert zoo.load(checkpoint, dtype=dtype).dtype == torch.float32
    assert zoo.load(checkpoint).dtype == torch.float64
    assert zoo.load("sevennet-0").dtype == torch.float32


def test_a_fresh_adapter_by_name_or_settings(checkpoint):
    assert zoo.load(checkpoint, adapter="elora").adapters.active == ("elora",)
    settings = {"name": "elora", "rank": 2}
    potential = zoo.load(checkpoint, adapter=settings)
    assert potential.adapters.get("elora").method.config_dict["rank"] == 2
    assert settings == {"name": "elora", "rank": 2}
    assert zoo.load(checkpoint).adapters.names == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"dtype": "float16"}, ("float16", "float32")),
        ({"dtype": torch.bfloat16}, ("bfloat16", "float64")),
        ({"weights": "random"}, ("weights='random'", "None")),
        ({"forces": "direct"}, ("no direct force output", "gradient")),
        ({"forces": "stress"}, ("forces='stress'", "'direct'")),
        ({"device": "gpu"}, ("device='gpu'", "cpu")),
        ({"adapter": "elorra"}, ("elorra", "elora")),
        ({"adapter": {"name": "elora", "rnk": 4}}, ("adapter.rnk", "rank")),
        ({"adapter": "missing/adapter.safetensors"}, ("missing/adapter.safetensors", "cannot be read")),
        ({"head": "PBE"}, ("no heads", "PBE")),
    ],
)
def test_a_wrong_argument_is_one_line_with_the_choices(checkpoint, arguments, words):
    assert not lacks(refusal_of(zoo.load, checkpoint, **arguments), *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sevennet0", ("unknown model 'sevennet0'", "sevennet-0")),
        ("sevennet-0.pth", ("sevennet-0.pth: no such file", "sevennet-0")),
        ("models/best.ckpt", ("models/best.ckpt: no such file",)),
        ("", ("unknown model ''",)),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(name, words):
    assert not lacks(refusal_of(zoo.load, name), *words)


def test_forces_gradient_is_what_a_conservative_model_does(checkpoint):
    assert zoo.load(checkpoint, forces="gradient").backbone.conservative


def test_an_adapter_of_another_base_is_refused_with_both_hashes(checkpoint, tmp_path):
    other = Potential(load_family("sevennet").toy(1))
    path = save_adapter(other, tmp_path / "adapter.safetensors")
    base = zoo.load(checkpoint)
    assert not lacks(refusal_of(zoo.load, checkpoint, adapter=path), other.base_sha256, base.base_sha256)
    with pytest.raises(AdapterError):
        zoo.load(checkpoint, weights=None, adapter=path)


# cards of one's own


def card_yaml(folder: Path, name: str, file: dict[str, object], **changes: object) -> None:
    fields = zoo.describe("sevennet-0").model_dump(mode="json")
    fields.update(name=name, parameter_count=1280, cutoff_angstrom=4.0, element_count=5, file=file)
    fields.update(changes)
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(fields))
    registry._cards.cache_clear()  # cards are read once a process


@pytest.fixture
def own_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setenv("ZOO_CARDS", str(folder))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    registry._cards.cache_clear()
    yield folder
    registry._cards.cache_clear()


def test_a_card_of_ones_own_is_downloaded_checked_and_loaded(own_cards, checkpoint, tmp_path):
    card_yaml(own_cards, "mine", {"url": checkpoint.as_uri(), "sha256": file_sha256(checkpoint), "size": checkpoint.stat().st_size})
    assert "mine" in zoo.list_models()
    potential = zoo.load("mine")
    assert potential.source == "mine"
    assert potential.base_sha256 == zoo.load(checkpoint).base_sha256
    assert (tmp_path / "cache" / "weights" / "mine" / "toy.pth").is_file()


def test_weights_other_than_the_cards_are_refused_and_not_kept(own_cards, checkpoint, tmp_path):
    card_yaml(own_cards, "mine", {"url": checkpoint.as_uri(), "sha256": "0" * 64})
    assert not lacks(refusal_of(zoo.load, "mine"), "0" * 64, file_sha256(checkpoint))
    assert not list((tmp_path / "cache").rglob("toy.pth"))


def test_the_first_download_of_an_unverified_card_is_remembered(own_cards, checkpoint, tmp_path):
    published = tmp_path / "published.pth"
    published.write_bytes(checkpoint.read_bytes())
    card_yaml(own_cards, "mine", {"url": published.as_uri()})
    zoo.load("mine")
    cached = tmp_path / "cache" / "weights" / "mine" / "published.pth"
    assert cached.with_name("published.pth.sha256").read_text() == file_sha256(checkpoint)
    Potential(load_family("sevennet").toy(1)).save_upstream_checkpoint(published)
    zoo.load("mine")  # the cache holds it
    cached.unlink()
    assert file_sha256(checkpoint) in refusal_of(zoo.load, "mine")  # the address serves another file now


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "blue"}, ("bad.yaml: colour", "repair the card")),
        ({"file": {"package": "sevenn"}}, ("bad.yaml: file", "either url, or package and path")),
        ({"parameter_count": "many"}, ("bad.yaml: parameter_count",)),
    ],
)
def test_a_broken_card_is_one_line_naming_file_and_field(own_cards, checkpoint, change, words):
    card_yaml(own_cards, "bad", change.pop("file", {"url": checkpoint.as_uri()}), **change)
    assert not lacks(refusal_of(zoo.list_models), *words)


def test_a_card_that_is_no_yaml_or_takes_a_name_in_use_is_refused(own_cards, checkpoint):
    card_yaml(own_cards, "sevennet-0", {"url": checkpoint.as_uri()})
    assert not lacks(refusal_of(zoo.list_models), "sevennet-0.yaml", "exists already")
    registry._cards.cache_clear()
    (own_cards / "sevennet-0.yaml").write_text("name: [")
    assert "not valid YAML" in refusal_of(zoo.list_models)


def test_weights_of_a_package_that_is_not_there_name_the_command(own_cards):
    card_yaml(own_cards, "gone", {"package": "no_such_package_here", "path": "weights.pth"})
    assert not lacks(refusal_of(zoo.load, "gone"), "no_such_package_here", "pip install")
    card_yaml(own_cards, "moved", {"package": "sevenn", "path": "no/such/file.pth"})
    registry._cards.cache_clear()
    assert not lacks(refusal_of(zoo.load, "moved"), "no/such/file.pth", "reinstall")


# files that are not what they should be


class _Payload:
    """Unpickling it would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("place", ["inside the weights", "instead of the checkpoint"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(checkpoint, tmp_path, place):
    harmless = read_payload(checkpoint, trust_pickle=False)
    target = tmp_path / "executed"
    hostile = {**harmless, "epoch": _Payload(target)} if place == "inside the weights" else {"model_state_dict": _Payload(target)}
    path = tmp_path / "hostile.pth"
    torch.save(hostile, path)
    assert load_family("sevennet").recognises(path)
    assert not lacks(refusal_of(zoo.load, path), "hostile.pth", "would run code", "mkdir", "trust_pickle")
    assert not target.exists()


def test_trust_pickle_is_what_lets_such_a_file_be_read(checkpoint, tmp_path):
    """The positive control: the payload of the test above does run where the user says so."""
    target = tmp_path / "executed"
    path = tmp_path / "trusted.pth"
    torch.save({**read_payload(checkpoint, trust_pickle=False), "epoch": _Payload(target)}, path)
    potential = zoo.load(path, trust_pickle=True)
    assert target.exists()
    assert potential.base_sha256 == zoo.load(checkpoint).base_sha256


def test_a_hostile_file_does_not_run_after_mace_has_switched_torchs_protection_off(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # what `import mace` does to the process
    target = tmp_path / "executed"
    path = tmp_path / "hostile.pth"
    torch.save({**read_payload(checkpoint, trust_pickle=False), "epoch": _Payload(target)}, path)
    with pytest.raises(ZooError):
        zoo.load(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("not a checkpoint of any known family",)),
        (b"not a checkpoint", ("not a checkpoint of any known family",)),
        (b"PK\x03\x04 but no archive", ("an archive whose end is missing", "fetch the file again")),
    ],
)
def test_a_foreign_file_is_one_line(tmp_path, content, words):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    assert not lacks(refusal_of(zoo.load, path), "file.pth", *words)


def test_a_torch_file_without_the_parts_of_a_checkpoint_names_what_is_there(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model_state_dict": {"a": torch.zeros(1)}, "step": 3}, path)
    assert not lacks(refusal_of(zoo.load, path), "weights.pth", "'config'", "found: model_state_dict, step")


def test_a_truncated_or_damaged_checkpoint_is_one_line_or_the_model(checkpoint, tmp_path):
    content = checkpoint.read_bytes()
    expected = zoo.load(checkpoint).base_sha256
    path = tmp_path / "damaged.pth"
    for length in (10, len(content) // 3, len(content) - 10):
        path.write_bytes(content[:length])
        assert "damaged.pth" in refusal_of(zoo.load, path)
    refused = []
    for position in range(0, len(content), len(content) // 60):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        try:
            found = zoo.load(path).base_sha256
        except USER_ERRORS as error:
            refused.append(str(error))
        else:
            assert found == expected  # some flips fall into padding and change nothing
    assert len(refused) > 20
    assert [message for message in refused if "damaged.pth" not in message or "\n" in message] == []


def test_a_folder_is_no_checkpoint(tmp_path):
    assert str(tmp_path) in refusal_of(zoo.load, tmp_path)


def test_a_single_atom_of_every_element_of_sevennet_0_is_predicted():
    potential = zoo.load("sevennet-0")
    numbers = potential.backbone.elements
    predictions = potential.predict([Atoms([number]) for number in numbers], batch_size=len(numbers))
    assert len({round(p.energy, 6) for p in predictions}) > 80


def test_a_potential_that_is_loaded_in_inference_mode_can_be_trained_and_watched(checkpoint):
    with torch.inference_mode():
        potential = zoo.load(checkpoint, adapter="elora")
        potential.adapters.add("more", "full")
        assert potential.base_sha256 == zoo.load(checkpoint).base_sha256
    potential.train()
    potential(potential.graph(Frame.unlabelled(molecule("H2O"))))["forces"].square().sum().backward()
    assert all(tensor.grad is not None for tensor in potential.adapters.get("more").tensors.values())
