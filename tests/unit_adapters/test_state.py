from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from adapters.blocks import find_blocks
from adapters.errors import AdapterError
from adapters.manifest import AdapterManifest, base_fingerprint
from adapters.method import create_method
from adapters.stack import AdapterStack
from adapters.state import _canonical, _content_sha256, load_into, read_adapter, write_adapter
from tests.refusals import refusal_of


def _manifest(stack: AdapterStack, name: str = "a") -> AdapterManifest:
    method = stack.get(name).method
    return AdapterManifest(
        method=method.name,
        config=method.config_dict,
        base_card="toy",
        base_family="toy",
        base_sha256=base_fingerprint(stack.model),
        reference_energies={"Cu": -3.5},
        data={"name": "acac", "train_sha256": "00"},
    )


@pytest.fixture
def written(stack, tmp_path):
    stack.add("a", create_method({"name": "elora", "rank": 2, "roles": ["linear", "radial"]}))
    stack.randomise("a", 1)
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, stack.get("a"), _manifest(stack))
    return path


@pytest.mark.parametrize(
    "spec",
    [{"name": "elora", "rank": 2}, {"name": "full"}, {"name": "readout"}, {"name": "sparse", "setting": "every"}],
    ids=lambda spec: spec["name"],
)
def test_save_load_and_attach_give_identical_predictions(stack, inputs, tmp_path, spec):
    stack.add("a", create_method(spec))
    stack.randomise("a", 1)
    before = stack.call(*inputs)
    path = tmp_path / "new" / "adapter.safetensors"
    write_adapter(path, stack.get("a"), _manifest(stack))
    manifest, tensors = read_adapter(path)
    count = stack.trainable_count
    stack.delete("a")
    assert not torch.equal(stack.call(*inputs), before)
    adapter = load_into(stack, "again", manifest, tensors)
    assert torch.equal(stack.call(*inputs), before)
    assert adapter.trainable_count == count == manifest.trainable_count == sum(tensor.numel() for tensor in tensors.values())
    assert [entry.key for entry in manifest.blocks] == [block.key for block in adapter.blocks]
    assert manifest.reference_energies == {"Cu": -3.5}


def test_the_file_is_plain_safetensors_with_one_metadata_entry(written):
    with safe_open(written, framework="pt") as file:
        metadata = file.metadata()
        assert "linear.weight/0e/A" in set(file.keys())
        assert file.get_tensor("linear.weight/0e/A").shape == (8, 2)  # two 4x0e joined, rank 2, no stack dimension
    assert list(metadata) == ["equizoo"]
    assert json.loads(metadata["equizoo"])["format_version"] == 1
    assert os.listdir(written.parent) == [written.name]


def test_equal_adapters_give_equal_bytes(stack, written, tmp_path):
    write_adapter(tmp_path / "b.safetensors", stack.get("a"), _manifest(stack))
    assert (tmp_path / "b.safetensors").read_bytes() == written.read_bytes()


def _refusal(path, content: bytes) -> str:
    """What is said of a file of that content, after its name."""
    path.write_bytes(content)
    message = refusal_of(read_adapter, path)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_every_flipped_bit_is_refused(written, tmp_path):
    """One random bit of every header byte and of 300 of the tensors' bytes."""
    content = written.read_bytes()
    read_adapter(written)  # the control
    header = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(0)
    positions = [*range(header), *draw.sample(range(header, len(content)), 300)]
    damaged = tmp_path / "damaged.safetensors"
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 1 << draw.randrange(8)
        assert _refusal(damaged, bytes(flipped))


def test_every_truncated_or_extended_file_is_refused(written, tmp_path):
    content = written.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    for length in [*range(64), *range(64, len(content), 97), len(content) - 1]:
        assert _refusal(damaged, content[:length])
    assert _refusal(damaged, content + b"\0")


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    assert "no 'equizoo' metadata" in _refusal(path, save({"a": torch.ones(2)}))
    assert "no 'equizoo' metadata" in _refusal(path, save({"a": torch.ones(2)}, metadata={"format": "pt"}))
    assert "header of" in _refusal(path, (2**25).to_bytes(8, "little") + b" " * 2**25)
    assert "not JSON" in _refusal(path, (10**5).to_bytes(8, "little") + b"[" * 10**5)
    assert "damaged" in _refusal(path, b"\x80\x04\x95pickle")
    with pytest.raises(AdapterError, match="No such file"):
        read_adapter(tmp_path / "absent.safetensors")


def _with_manifest(content: bytes, **changes) -> bytes:
    """A well-formed file with other manifest fields: what a newer or buggy writer would produce."""
    from safetensors.torch import load

    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    tensors = load(content)
    fields = {**json.loads(header["__metadata__"]["equizoo"]), **changes}
    fields.pop("content_sha256")
    return save(tensors, metadata={"equizoo": _canonical({**fields, "content_sha256": _content_sha256(fields, tensors)})})


def test_a_manifest_in_another_spelling_is_refused(written, tmp_path):
    from safetensors.torch import load

    text = _header_text(written)
    spaced = json.dumps(json.loads(text), sort_keys=True)
    assert spaced != text
    assert "not the JSON that was written" in _refusal(
        tmp_path / "x.safetensors", save(load(written.read_bytes()), metadata={"equizoo": spaced})
    )


def test_newer_formats_and_unknown_fields_are_refused(written, tmp_path):
    content = written.read_bytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(_with_manifest(content))
    read_adapter(path)  # the control
    assert "adapter format 2, this equizoo reads up to 1; update equizoo" in _refusal(path, _with_manifest(content, format_version=2))
    for version in (0, -1, "1", None, True, 1.5):
        assert f"adapter format {version!r}, and there is none before 1" in _refusal(path, _with_manifest(content, format_version=version))
    assert "manifest field colour" in _refusal(path, _with_manifest(content, colour="red"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_neither_written_nor_read(stack, written, tmp_path, value):
    header_end = 8 + int.from_bytes(written.read_bytes()[:8], "little")
    assert len(written.read_bytes()) > header_end
    with torch.no_grad():
        stack.get("a").tensors["linear.weight/0e/A"][0, 0] = value
    with pytest.raises(AdapterError, match=r"linear\.weight/0e/A holds NaN or infinite"):
        write_adapter(tmp_path / "b.safetensors", stack.get("a"), _manifest(stack))
    assert not (tmp_path / "b.safetensors").exists()
    _, tensors = read_adapter(written)
    tensors["linear.weight/0e/A"][0, 0] = value
    fields = json.loads(_header_text(written))
    fields.pop("content_sha256")
    content = save(tensors, metadata={"equizoo": _canonical({**fields, "content_sha256": _content_sha256(fields, tensors)})})
    assert "holds NaN or infinite" in _refusal(tmp_path / "c.safetensors", content)


def _header_text(path) -> str:
    with safe_open(path, framework="pt") as file:
        return file.metadata()["equizoo"]


def test_a_manifest_with_nan_or_of_another_method_is_not_written(stack, written, tmp_path):
    good = _manifest(stack)
    for changes, message in (({"reference_energies": {"H": float("nan")}}, "not finite"), ({"method": "full"}, "states the method full")):
        with pytest.raises(AdapterError, match=message):
            write_adapter(tmp_path / "b.safetensors", stack.get("a"), good.model_copy(update=changes))
    assert os.listdir(tmp_path) == [written.name]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(stack, written, monkeypatch, moment):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = written.read_bytes()
    stack.randomise("a", 2)
    monkeypatch.setattr(os, moment, full)
    with pytest.raises(AdapterError, match="No space left on device"):
        write_adapter(written, stack.get("a"), _manifest(stack))
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


def test_a_folder_that_cannot_be_made_is_one_line(stack, written, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AdapterError, match="cannot be written"):
        write_adapter(tmp_path / "file" / "adapter.safetensors", stack.get("a"), _manifest(stack))


def test_another_base_is_refused_with_both_hashes(stack, toy, written):
    manifest, tensors = read_adapter(written)
    stack.delete("a")
    with torch.no_grad():
        toy.linear.weight[0] += 1e-3
    with pytest.raises(AdapterError) as caught:
        load_into(stack, "a", manifest, tensors)
    assert manifest.base_sha256 in str(caught.value)
    assert base_fingerprint(toy) in str(caught.value)
    assert stack.names == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("linear.weight/0e/A"), r"1 tensors missing \(first: linear.weight/0e/A\)"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), r"1 unexpected \(first: extra\)"),
        (lambda tensors: tensors.update({"linear.weight/0e/A": torch.ones(3, 2)}), r"shape \(3, 2\), its settings want \(8, 2\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_the_stack_stays(stack, written, change, message):
    manifest, tensors = read_adapter(written)
    change(tensors)
    with pytest.raises(AdapterError, match=message):
        load_into(stack, "b", manifest, tensors)
    assert stack.names == stack.active == ("a",)


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (3, r"has shape \(8, 2\), its settings want \(8, 3\)"),
        (1, r"has shape \(8, 2\), its settings want \(8, 1\)"),
        (0, r"adapter\.rank: .*greater than or equal to 1"),
        (-4, r"adapter\.rank: .*greater than or equal to 1"),
        (10**12, r"its settings want \(8, 1000000000000\)"),  # and takes no memory for it
    ],
)
def test_a_rank_that_does_not_fit_the_tensors_is_refused_and_the_stack_stays(stack, written, rank, message):
    manifest, tensors = read_adapter(written)
    changed = manifest.model_copy(update={"config": {**manifest.config, "rank": rank}})
    assert re.search(message, refusal_of(load_into, stack, "b", changed, tensors))
    assert stack.names == stack.active == ("a",)


def test_a_file_for_other_blocks_is_refused_before_anything_is_attached(stack, written):
    manifest, tensors = read_adapter(written)
    for roles in (["linear", "radial", "readout"], ["linear"]):
        other = manifest.model_copy(update={"config": {**manifest.config, "roles": roles}})
        assert re.search(r"[1-9]\d* (tensors missing|unexpected)", refusal_of(load_into, stack, "b", other, tensors))
    elsewhere = manifest.model_copy(update={"config": {**manifest.config, "roles": ["so2"]}})
    assert "no role 'so2'" in refusal_of(load_into, stack, "b", elsewhere, tensors)
    assert stack.names == stack.active == ("a",)


def test_the_fingerprint_is_of_values_and_survives_a_float64_copy():
    model = nn.Linear(3, 5)
    reference = base_fingerprint(model)
    values = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    by_hand = b"bias(5,)" + values["bias"].astype("<f4").tobytes() + b"weight(5, 3)" + values["weight"].astype("<f4").tobytes()
    assert reference == hashlib.sha256(by_hand).hexdigest()
    assert base_fingerprint(model.double()) == reference
    with torch.no_grad():
        model.weight[1, 2] += 1e-6
    changed = base_fingerprint(model)
    assert changed != reference
    model.requires_grad_(False)
    assert base_fingerprint(model) == changed


def test_a_float32_adapter_attaches_to_a_float64_copy_of_its_base(toy, inputs, tmp_path):
    for parameter in toy.parameters():  # values that float32 can hold, as a float32 checkpoint's are
        parameter.data = parameter.data.float().double()
    coverage = find_blocks(toy)
    toy.float()
    stack = AdapterStack(toy, coverage)
    stack.add("a", "full")
    stack.randomise("a", 1)
    single = stack.call(*(tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs)).detach()
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, stack.get("a"), _manifest(stack))
    toy.double()
    fresh = AdapterStack(toy, coverage)
    load_into(fresh, "a", *read_adapter(path))
    assert fresh.get("a").tensors["linear.weight/0e/D"].dtype == torch.float64
    assert np.allclose(fresh.call(*inputs).detach().numpy(), single.numpy(), atol=1e-4)
