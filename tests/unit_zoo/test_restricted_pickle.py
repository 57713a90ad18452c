"""A pickle of PyG data reads back exactly; one that does anything else runs nothing and is refused by the name of what it wanted."""

from __future__ import annotations

import collections
import io
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from tests.refusals import refusal_of
from zoo.data.restricted_pickle import fields_of, load_pickle, load_torch_file
from zoo.errors import ZooError


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class WritesWhenRestored:
    """Does its harm in ``__setstate__``, without naming a function."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["path"]).touch()


def harm(path: Path) -> Calls:
    return Calls(os.system, f"touch {path}")


def saved(content: Any, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def chained_attributes(path: Path) -> bytes:
    """``getattr(getattr(Path, "touch"), "__call__")(Path(path))`` from opcodes."""
    touch = b"cbuiltins\ngetattr\n(cbuiltins\ngetattr\n(cpathlib\nPath\nVtouch\ntRV__call__\ntR"
    return b"\x80\x02" + touch + b"(cpathlib\nPath\n(V" + str(path).encode() + b"\ntRtR."


def dotted_name(path: Path) -> bytes:
    """``os.path.os.system`` found through an attribute of an innocent module."""
    name = pickle.dumps("genericpath", protocol=4)[2:-1] + pickle.dumps("os.system", protocol=4)[2:-1]
    return b"\x80\x04" + name + b"\x93(V" + f"touch {path}".encode() + b"\ntR."


def object_array(path: Path) -> np.ndarray[Any, Any]:
    values = np.empty(1, dtype=object)
    values[0] = harm(path)
    return values


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "os.system": (lambda path: pickle.dumps(harm(path)), r"posix\.system|nt\.system"),
    "eval": (lambda path: pickle.dumps(Calls(eval, f"open({str(path)!r}, 'w').close()")), r"builtins\.eval"),
    "within Data": (lambda path: pickle.dumps(Data(y=harm(path), pos=torch.zeros(1, 3))), r"\w+\.system"),
    "within a field of old Data": (lambda path: pickle.dumps(old_data(pos=[{"a": harm(path)}])), r"\w+\.system"),
    "a dict's key": (lambda path: pickle.dumps({(1, 2): (harm(path),)}), r"\w+\.system"),
    "__setstate__": (lambda path: pickle.dumps(WritesWhenRestored(str(path))), "WritesWhenRestored"),
    "getattr chain": (chained_attributes, r"builtins\.getattr"),
    "dotted name": (dotted_name, r"genericpath\.os\.system"),
    "object array": (lambda path: pickle.dumps(object_array(path)), r"system|'O8'"),
    "torch.load": (
        lambda path: pickle.dumps(Calls(torch.load, io.BytesIO(saved(harm(path), True)), None, None)),
        r"torch\.serialization|io\.",
    ),
    **{
        f"storage bytes, zipped={zipped}": (
            lambda path, zipped=zipped: pickle.dumps(Data(pos=Calls(torch.storage._load_from_bytes, saved(harm(path), zipped)))),
            r"\w+\.system",
        )
        for zipped in (False, True)
    },
}


def old_data(**fields: Any) -> Data:
    """`Data` as PyG 1.x pickles it: its ``__dict__`` holds the fields."""
    data = Data.__new__(Data)
    data.__dict__.update(x=None, edge_index=None, __num_nodes__=3, **fields)
    return data


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_runs_nothing_and_is_refused_by_the_name_of_what_it_wanted(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as after `import mace`
    sentinel = tmp_path / "sentinel"
    make, named = HOSTILE[name]
    payload = make(sentinel)
    pickle.loads(payload)  # noqa: S301
    assert sentinel.exists(), "the control: a plain load does run it"
    sentinel.unlink()
    refusal = refusal_of(load_pickle, payload, "a.lmdb: record 3")
    assert re.search(named, refusal)
    assert refusal.startswith("a.lmdb: record 3")
    assert not sentinel.exists()


def test_what_another_package_declared_safe_for_torch_is_not_safe_here(tmp_path):
    sentinel = tmp_path / "sentinel"
    hostile = saved(Calls(shutil.copyfile, __file__, str(sentinel)), True)
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([shutil.copyfile])
    try:
        torch.load(io.BytesIO(hostile), weights_only=True)
        assert sentinel.exists(), "the control: torch's own check lets it through"
        sentinel.unlink()
        with pytest.raises(ZooError, match=r"shutil\.copyfile"):
            load_pickle(pickle.dumps(Calls(torch.storage._load_from_bytes, hostile)), "record")
        (tmp_path / "set.pt").write_bytes(hostile)
        refusal = refusal_of(load_torch_file, tmp_path / "set.pt")
        assert "shutil.copyfile" in refusal
        assert "set.pt" in refusal
        assert shutil.copyfile in torch.serialization.get_safe_globals(), "the list is as it was"
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    assert not sentinel.exists()


def test_a_pickle_cannot_change_the_functions_it_may_call():
    poison = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}Vpoisoned\nI1\nstb."
    pickle.loads(poison)  # noqa: S301
    assert torch._utils._rebuild_tensor_v2.poisoned == 1
    del torch._utils._rebuild_tensor_v2.poisoned
    with pytest.raises(ZooError, match="given a state"):
        load_pickle(poison, "record")
    for name in (b"ctorch_geometric.data.data\nData\n", b"ccollections\nOrderedDict\n", b"cnumpy\nndarray\n"):
        assert refusal_of(load_pickle, b"\x80\x02" + name + b"(N}V__setstate__\ncnumpy\ndtype\nstb.", "record")
    assert fields_of(load_pickle(pickle.dumps(Data(y=1.0)), "record")) == {"y": 1.0}


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    return {
        "whole": base,
        "transposed": base.T,
        "strided": base[1:, ::2],
        "again": base,
        "scalar": torch.tensor(-0.1),
        "doubles": torch.rand(3, 3, dtype=torch.float64),
        "integers": torch.tensor([[2**40, -1]]),
        "flags": torch.tensor([True, False]),
        "halves": torch.rand(3).half(),
        "empty": torch.zeros(0, 3),
        "odd": torch.tensor([float("nan"), float("-inf"), -0.0]),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("form", [Data, old_data, dict])
def test_every_tensor_comes_back_bit_for_bit(form, protocol):
    fields = fields_of(load_pickle(pickle.dumps(form(**tensors(), y=-1.25, sid=7, name="a"), protocol=protocol), "record"))
    assert fields.keys() == {*tensors(), "y", "sid", "name"}
    assert (fields["y"], fields["sid"], fields["name"]) == (-1.25, 7, "a")
    expected = pickle.loads(pickle.dumps(tensors()["strided"])).numpy()  # noqa: S301
    np.testing.assert_array_equal(fields["strided"], expected)
    torch.manual_seed(0)
    original = form(**tensors())
    fields = fields_of(load_pickle(pickle.dumps(original, protocol=protocol), "record"))
    torch.manual_seed(0)
    for name, tensor in tensors().items():
        assert fields[name].dtype == tensor.numpy().dtype, name
        assert fields[name].shape == tuple(tensor.shape), name
        assert fields[name].tobytes() == tensor.contiguous().numpy().tobytes(), name


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "values",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.arange(6, dtype=">i4")[::2],
        np.float32([[0.1]]),
        np.array([True]),
        np.array(2.5),
        np.zeros((0, 3)),
    ],
)
def test_every_array_comes_back_bit_for_bit(values, protocol):
    fields = fields_of(load_pickle(pickle.dumps({"a": values, "b": np.float32(0.1)}, protocol=protocol), "record"))
    np.testing.assert_array_equal(fields["a"], values, strict=True)
    assert fields["b"] == float(np.float32(0.1))


def test_nothing_of_pyg_is_built():
    record = load_pickle(pickle.dumps(Data(pos=torch.zeros(1, 3))), "record")
    assert type(record).__module__ == "zoo.data.restricted_pickle"


def rebuilt(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    storage = torch.arange(4.0).storage()
    return pickle.dumps({"a": Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, collections.OrderedDict())})


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_tensor_stays_within_its_stored_numbers():
    assert fields_of(load_pickle(rebuilt((2,), (2,), 1), "record"))["a"].tolist() == [1.0, 3.0]
    for wrong in (((5,), (1,), 0), ((2,), (1,), 3), ((2,), (-1,), 1), ((1,), (1,), -1), ((10**12,), (0,), 0)):
        assert "beyond its 4 stored numbers" in refusal_of(load_pickle, rebuilt(*wrong), "record")


@pytest.mark.parametrize("payload", [b"", b"\x80\x04", b"not a pickle", pickle.dumps([1, 2])[:-3], b"\x80\x02Pid\n.", b"\x80\x02\x82\x01."])
def test_bytes_that_are_no_whole_pickle_are_one_line(payload):
    assert re.search(r"^x: is no pickle of PyG data", refusal_of(load_pickle, payload, "x"))


@pytest.mark.parametrize(
    "values", [np.array(["text"]), np.zeros(2, dtype="f8,f8"), np.zeros(1, dtype="datetime64[s]"), np.array([None])], ids=str
)
def test_arrays_of_anything_but_numbers_are_refused(values):
    assert "record" in refusal_of(load_pickle, pickle.dumps({"a": values}), "record")
