"""Adapter files that must not be attached: each is refused in one line that names the file, and nothing is left changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.build import molecule
from ase.io import write
from safetensors.torch import load as parse
from safetensors.torch import save
from torch import Tensor

import zoo as package
from adapters.method import create_method
from adapters.state import _canonical, _content_sha256
from tests.refusals import cli_refusal, refusal_of
from zoo.backbones import load_family
from zoo.potential import Potential

Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


@pytest.fixture(scope="module")
def good(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of rank 2 on the toy, with reference energies."""
    potential = package.load(toy_checkpoint)
    potential.adapters.add("a", create_method({"name": "elora", "rank": 2}))
    potential.adapters.randomise("a", 1)
    potential.set_reference_shifts({1: 0.25})
    return potential.save_adapter("a", tmp_path_factory.mktemp("good") / "adapter.safetensors")


def written_with(good: Path, path: Path, change: Change) -> Path:
    """A file that is whole in itself, with what ``change`` does to the manifest's fields and the tensors: as a faulty writer makes it."""
    content = good.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    fields, tensors = json.loads(header["__metadata__"]["equizoo"]), parse(content)
    fields.pop("content_sha256")
    change(fields, tensors)
    text = _canonical({**fields, "content_sha256": _content_sha256(fields, tensors)})
    path.write_bytes(save(tensors, metadata={"equizoo": text}))
    return path


def first(tensors: dict[str, Tensor]) -> str:
    return min(key for key in tensors if key.endswith("/A"))


def with_value(value: float, dtype: torch.dtype | None = None) -> Change:
    def change(_fields: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        key = first(tensors)
        tensors[key] = tensors[key].to(dtype or tensors[key].dtype).clone()
        tensors[key].view(-1)[0] = value

    return change


def of_rank_one(_fields: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        tensors[key] = (tensor[..., :1] if key.endswith("/A") else tensor[..., :1, :]).contiguous()


# what is wrong -> how it is made, what the line says
WELL_FORMED: dict[str, tuple[Change, str]] = {
    "a newer format": (lambda fields, _: fields.update(format_version=2), "adapter format 2, this equizoo reads up to 1"),
    "no format": (lambda fields, _: fields.update(format_version=0), "there is none before 1"),
    "a format that is no whole number": (lambda fields, _: fields.update(format_version=1.0), "adapter format 1.0"),
    "an unknown field": (lambda fields, _: fields.update(colour="red"), "manifest field colour"),
    "a field that is missing": (lambda fields, _: fields.pop("base_sha256"), "manifest field base_sha256"),
    "a tensor too few": (lambda _, tensors: tensors.pop(first(tensors)), "1 tensors missing"),
    "a tensor too many": (
        lambda _, tensors: tensors.update({"linear.weight/0e/C": torch.ones(2)}),
        "1 unexpected (first: linear.weight/0e/C)",
    ),
    "no tensors": (lambda _, tensors: tensors.clear(), "tensors missing"),
    "NaN": (with_value(float("nan")), "holds NaN or infinite"),
    "infinity": (with_value(float("-inf")), "holds NaN or infinite"),
    "a number too large for the base's precision": (with_value(1e300, torch.float64), "1e+300, more than torch.float32 holds"),
    "whole numbers": (with_value(1.0, torch.int64), "is torch.int64, wanted floating-point numbers"),
    "a rank in the settings that is not the tensors'": (lambda fields, _: fields["config"].update(rank=3), "its settings want"),
    "tensors of a rank that is not the settings'": (of_rank_one, "its settings want"),
    "a rank of zero": (lambda fields, _: fields["config"].update(rank=0), "adapter.rank"),
    "a method that is not known": (lambda fields, _: fields.update(method="eloar"), "did you mean 'elora'"),
    "a setting that is not known": (lambda fields, _: fields["config"].update(colour="red"), "elora has no such setting"),
    "another base": (lambda fields, _: fields.update(base_sha256="0" * 64), "0" * 64),
    "another convention": (lambda fields, _: fields.update(base_convention="other signs"), "the same weights mean another model"),
    "another family": (lambda fields, _: fields.update(base_family="mace"), "trained on a mace model"),
    "a reference energy of no element": (lambda fields, _: fields.update(reference_energies={"Xx": 1.0}), "'Xx' is no element"),
    "an element that is none": (lambda fields, _: fields.update(base_elements=["H", "Qq"]), "'Qq' is no element"),
}


@pytest.fixture(scope="module")
def base(good: Path, toy_checkpoint: Path) -> Potential:
    """In float32, with the good one active."""
    potential = package.load(toy_checkpoint, dtype="float32")
    potential.load_adapter(good, "good")
    potential.adapters.activate(["good"])
    return potential


@pytest.fixture(params=WELL_FORMED)
def faulty(request: pytest.FixtureRequest, good: Path, tmp_path: Path) -> tuple[Path, str]:
    change, message = WELL_FORMED[request.param]
    return written_with(good, tmp_path / "faulty.safetensors", change), message


def test_a_file_that_is_written_again_unchanged_is_taken(good, toy_checkpoint, tmp_path):
    same = written_with(good, tmp_path / "same.safetensors", lambda *_: None)
    assert same.read_bytes() == good.read_bytes()
    assert package.load(toy_checkpoint, adapter=same).get_reference_shifts() == {1: 0.25}


def test_a_faulty_file_is_refused_and_what_is_attached_stays(faulty, base):
    path, message = faulty
    before = base.predict([molecule("H2O")])[0].energy
    said = refusal_of(base.load_adapter, path, "faulty")
    assert message in said
    assert said.startswith(f"{path}: ")
    assert base.adapters.names == base.adapters.active == ("good",)
    assert base.predict([molecule("H2O")])[0].energy == before


@pytest.mark.parametrize("what", ["a tensor too many", "another base", "NaN", "a reference energy of no element"])
def test_a_faulty_file_is_refused_with_its_base_and_on_the_command_line(zoo, good, what, toy_checkpoint, tmp_path):
    change, message = WELL_FORMED[what]
    path = written_with(good, tmp_path / "faulty.safetensors", change)
    write(tmp_path / "water.xyz", molecule("H2O"))
    words = (f"backbone={toy_checkpoint}", f"adapter={path}", f"input={tmp_path / 'water.xyz'}", f"output={tmp_path / 'out.extxyz'}")
    for said in (refusal_of(package.load, toy_checkpoint, adapter=path), cli_refusal(zoo("predict", *words))):
        assert message in said
        assert said.startswith(f"{path}: ")
    assert not (tmp_path / "out.extxyz").exists()


def test_an_adapter_of_the_same_architecture_with_other_weights_is_refused(good, base, toy_checkpoint):
    other = Potential(load_family("sevennet").toy(1))
    said = refusal_of(other.load_adapter, good, "a")
    assert base.base_sha256 in said
    assert other.base_sha256 in said
    changed = package.load(toy_checkpoint)
    with torch.no_grad():  # one weight, by float32's smallest step
        weight = next(changed.backbone.parameters()).view(-1)
        weight[0] = torch.nextafter(weight[0].float(), torch.tensor(float("inf")))
    assert "found a base with values" in refusal_of(changed.load_adapter, good, "a")


@pytest.mark.parametrize("way", ["cut", "flipped", "longer", "empty"])
def test_a_damaged_file_is_refused_by_every_way_in(zoo, good, base, toy_checkpoint, tmp_path, way):
    content = bytearray(good.read_bytes())
    if way == "flipped":
        content[-1] ^= 1
    damaged = {"cut": content[:-1], "flipped": content, "longer": content + b"\0", "empty": b""}[way]
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(bytes(damaged))
    for said in (
        refusal_of(package.load, toy_checkpoint, adapter=path),
        refusal_of(base.load_adapter, path, "a"),
        cli_refusal(zoo("adapter", "inspect", str(path))),
        cli_refusal(zoo("adapter", "diff", str(good), str(path))),
    ):
        assert said.startswith(f"{path}: damaged adapter file (")
    assert base.adapters.names == ("good",)
