"""Files made to fill the memory or the day: each costs no more than its size, and is one line."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.refusals import refusal_of
from zoo.backbones import load_family
from zoo.backbones.inert_pickle import read_module, state_of
from zoo.backbones.mace_checkpoint import read_checkpoint
from zoo.backbones.torch_archive import check_archive, load_archive, searchable_pickle
from zoo.errors import ZooError

MEGABYTE = 2**20
HEAD = b"\x80\x02"
NAMED = b"X\x0c\x00\x00\x00mace.modules0"  # a text that is thrown away: the file is taken for MACE's


def archive(path: Path, content: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as writer:
        writer.writestr("m/data.pkl", content)
        for key, numbers in storages.items():
            writer.writestr(f"m/data/{key.removeprefix('_')}", numbers)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes that Python took meanwhile; torch's own are not among them."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pickle of 256 MB that is compressed to 0.3 MB."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.model"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as writer, writer.open("m/data.pkl", "w") as stream:
        stream.write(b"mace.modules model_state_dict")
        for _ in range(16):
            stream.write(bytes(16 * MEGABYTE))
    assert path.stat().st_size < MEGABYTE
    return path


@pytest.mark.parametrize("family", ["mace", "sevennet"])
def test_a_compressed_pickle_is_refused_before_it_fills_the_memory(bomb: Path, family: str):
    said: list[str] = []

    def meet() -> None:
        assert load_family(family).recognises(bomb)
        said.append(refusal_of(load_family(family).load, bomb, None, True))

    load_family(family)
    assert peak_of(meet) < 8 * MEGABYTE
    assert "compressed entry 'm/data.pkl'" in said[0]
    assert peak_of(lambda: zipfile.ZipFile(bomb).read("m/data.pkl")) > 256 * MEGABYTE  # the positive control


def test_entries_that_lie_over_one_another_are_refused(tmp_path: Path):
    path = archive(tmp_path / "over.model", HEAD + b"N.", _0=bytes(1000), _1=bytes(1000))
    check_archive(path, "a model")
    content = path.read_bytes()
    first, second = (content.index(entry, content.index(b"PK\x01\x02")) - 46 for entry in (b"m/data/0", b"m/data/1"))
    moved = bytearray(content)
    moved[second + 20 : second + 28] = moved[first + 20 : first + 28] = struct.pack("<II", 2000, 2000)  # each as large as both
    path.write_bytes(moved)
    assert "entries larger than the archive" in refusal_of(check_archive, path, "a model")
    assert searchable_pickle(path) == HEAD + b"N."


def doubling_modules(depth: int) -> bytes:
    """Each module holds the one before it twice: 2^depth ways to the first."""
    content = HEAD + NAMED + name("mace.modules.blocks", "Leaf") + b")\x81}(" + text("_parameters") + b"}" + text("_modules") + b"}ubq\x000"
    for index in range(1, depth + 1):
        before = b"h" + bytes([index - 1])
        children = b"}(" + text("a") + before + text("b") + before + b"u"
        content += name("mace.modules.blocks", "Node") + b")\x81}(" + text("_parameters") + b"}" + text("_modules") + children + b"ub"
        content += b"q" + bytes([index]) + b"0"
    return content + b"h" + bytes([depth]) + b"."


def doubling_list(depth: int) -> bytes:
    """Leaves a list on the stack, each holding the one before it twice: its text has 2^depth parts."""
    content = b"]q\x000"
    for index in range(1, depth + 1):
        before = b"h" + bytes([index - 1])
        content += b"](" + before + before + b"eq" + bytes([index]) + b"0"
    return content + b"h" + bytes([depth])


def test_modules_that_hold_one_another_many_times_are_refused(tmp_path: Path):
    path = archive(tmp_path / "dag.model", doubling_modules(40))
    assert "more than 100,000 modules" in refusal_of(read_checkpoint, path)
    few = archive(tmp_path / "few.model", doubling_modules(10))
    assert state_of(read_module(few), few.stat().st_size) == {}


LIST = doubling_list(60)
PLACES = {
    "a storage's type": b"(" + text("storage") + LIST + text("0") + text("cpu") + b"K\x01tQ.",
    "a storage's key": b"(" + text("storage") + name("torch", "FloatStorage") + LIST + text("cpu") + b"K\x01tQ.",
    "an encoding": name("_codecs", "encode") + text("a") + LIST + b"\x86R.",
    "a NumPy type": name("numpy", "dtype") + LIST + b"\x85R.",
    "a size": name("torch._utils", "_rebuild_tensor_v2")
    + b"("
    + (b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x01tQ")
    + b"K\x00"
    + LIST
    + b")\x89NtR.",
}


@pytest.mark.parametrize("place", PLACES)
def test_no_message_spells_out_what_a_file_holds(tmp_path: Path, place: str):
    path = archive(tmp_path / "repr.model", HEAD + NAMED + PLACES[place], _0=bytes(4))
    assert len(refusal_of(read_checkpoint, path)) < 400


def test_many_tensors_on_one_storage_are_views_of_it(tmp_path: Path):
    count, times = 2**18, 1000
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"J" + struct.pack("<i", count) + b"tQ"
    whole = b"(h\x00K\x00J" + struct.pack("<i", count) + b"\x85K\x01\x85\x89NtR"
    parameters = b"".join(text(f"p{index}") + b"h\x01" + whole for index in range(times))
    content = HEAD + NAMED + storage + b"q\x000" + name("torch._utils", "_rebuild_tensor_v2") + b"q\x010"
    content += name("mace.modules", "MACE") + b")\x81}(" + text("_modules") + b"}" + text("_parameters") + b"}(" + parameters + b"uub."
    path = archive(tmp_path / "clones.model", content, _0=bytes(4 * count))
    held = read_module(path).fields["_parameters"]
    assert len(held) == times
    assert len({tensor.untyped_storage().data_ptr() for tensor in held.values()}) == 1
    assert "tensors of 1,048,576,000 bytes in a file of" in refusal_of(read_checkpoint, path)


def test_lists_copied_over_and_over_are_refused(tmp_path: Path):
    items = b"](" + 10_000 * b"K\x01" + b"eq\x000"
    copies = 1000 * (b"h\x01h\x00\x85R0")
    path = archive(tmp_path / "copies.model", HEAD + NAMED + items + name("torch", "Size") + b"q\x010" + copies + b"N.")
    assert "more copies of one list than the file is long" in refusal_of(read_checkpoint, path)


def _bomb(kind: str) -> bytes:
    """A pickle that asks for far more memory than it has bytes."""
    memo = b"\x80\x02K\x01r" + (2**31 - 1).to_bytes(4, "little") + b"."
    if kind == "memo":
        return memo
    if kind == "memo of a legacy storage":
        return HEAD + name("torch.storage", "_load_from_bytes") + b"C" + bytes([len(memo)]) + memo + b"\x85R."
    storage = b"(" + text("storage") + name("torch", "DoubleStorage") + text("0") + text("cpu") + b"K\x01tQ"
    size = b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85"
    return HEAD + name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + b"K\x00" + size + b"K\x00\x85\x89NtR."


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("memo", "a memo of 2,147,483,647 entries"),
        ("memo of a legacy storage", "a memo of 2,147,483,647 entries"),
        ("stride", "a tensor of"),
    ],
)
def test_a_model_that_would_fill_the_memory_is_one_line(tmp_path: Path, kind: str, message: str):
    path = archive(tmp_path / "bomb.model", _bomb(kind) + NAMED, _0=bytes(8))
    with pytest.raises(ZooError, match=rf"bomb\.model: .*{message}"):
        load_family("mace").load(path, None, True)


def test_a_trusted_file_that_names_a_package_not_installed_is_one_line(tmp_path: Path):
    torch.save({}, tmp_path / "plain.pt")
    assert load_archive(tmp_path / "plain.pt", "a checkpoint", trust_pickle=True) == {}
    path = archive(tmp_path / "absent.pt", HEAD + name("no_such_package", "Thing") + b")R.", _0=bytes(8))
    with zipfile.ZipFile(path, "a") as writer:
        writer.writestr("m/version", "3")
    assert "no_such_package" in refusal_of(load_archive, path, "a checkpoint", True)
