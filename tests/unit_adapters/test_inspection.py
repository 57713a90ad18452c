"""What is said of adapter files without a model, against the model's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapters.inspection import AdapterFile, compare, differing_fields, stable_rank
from adapters.manifest import AdapterManifest
from adapters.method import create_method
from adapters.state import write_adapter
from tests.refusals import refusal_of

SPECS = {
    "low": {"name": "elora", "rank": 2, "extra_trainable": ["*bias"]},
    "dense": {"name": "full", "roles": ["linear", "bias"]},
    "sparse": {"name": "sparse"},
}


@pytest.fixture
def files(stack, tmp_path):
    """A file of each method, of random weights."""
    found = {}
    for seed, (name, spec) in enumerate(SPECS.items()):
        stack.add(name, create_method(spec))
        stack.randomise(name, seed)
        found[name] = written(stack, name, tmp_path / f"{name}.safetensors")
    return found


def written(stack, name, path, **fields) -> AdapterFile:
    method = stack.get(name).method
    manifest = AdapterManifest(
        method=method.name, config=method.config_dict, base_card="toy", base_family="toy", base_sha256=stack.fingerprint(), **fields
    )
    write_adapter(path, stack.get(name), manifest)
    return AdapterFile.read(path)


@pytest.mark.parametrize("name", SPECS)
def test_a_files_deltas_and_sizes_are_those_of_the_adapter_on_the_model(stack, files, name):
    adapter, file = stack.get(name), files[name]
    deltas = file.deltas()
    for block, expected in zip(adapter.blocks, adapter.block_deltas(), strict=True):
        np.testing.assert_allclose(deltas[block.key].numpy(), expected.detach().reshape(block.shape).numpy(), rtol=1e-14, atol=1e-16)
    for size, block in zip(file.sizes(), adapter.blocks, strict=True):
        delta = deltas[block.key].numpy()
        assert (size.entry.key, size.entry.role, size.entry.path) == (block.key, block.role, block.path)
        assert size.norm == pytest.approx(np.sqrt((delta**2).sum()))
        values = [np.linalg.svd(matrix, compute_uv=False) for matrix in delta]
        assert size.stable_rank == pytest.approx(np.mean([(v**2).sum() / v.max() ** 2 for v in values]))
        assert size.nonzero == (delta != 0).mean()
    own = sum(size.count for size in file.sizes())
    layers = {key for key in file.tensors if "/*/" in key}
    assert own + len(layers) == adapter.trainable_count
    assert bool(layers) == (name == "sparse")


def test_the_stable_rank_of_known_matrices():
    assert stable_rank(torch.eye(5, dtype=torch.float64)[None]) == pytest.approx(5)
    assert stable_rank(torch.ones(1, 4, 7, dtype=torch.float64)) == pytest.approx(1)
    assert stable_rank(torch.zeros(2, 3, 3, dtype=torch.float64)) == 0
    mixed = torch.stack([torch.eye(3), torch.zeros(3, 3), torch.ones(3, 3)]).double()
    assert stable_rank(mixed) == pytest.approx(2)  # the mean over the two that are not zero


def test_files_are_compared_block_by_block_whatever_their_methods(files):
    rows = {row.entry.key: row for row in compare(files["low"], files["dense"])}
    one, other = files["low"].deltas(), files["dense"].deltas()
    assert rows.keys() == one.keys() | other.keys()
    only_in_one = 0
    for key, row in rows.items():
        a, b = (known.get(key, torch.zeros(row.entry.shape, dtype=torch.float64)).flatten().numpy() for known in (one, other))
        assert row.distance == pytest.approx(np.linalg.norm(a - b))
        assert [norm is None for norm in row.norms] == [key not in one, key not in other]
        only_in_one += None in row.norms
        if row.cosine is not None:
            assert row.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert 0 < only_in_one < len(rows)
    assert all(row.distance == 0 and row.cosine == pytest.approx(1) for row in compare(files["low"], files["low"]))


def test_the_fields_that_differ_are_named_with_both_values(stack, files, tmp_path):
    other = written(stack, "low", tmp_path / "other.safetensors", head="PBE", data={"name": "acac"})
    fields = differing_fields(files["low"].manifest, other.manifest)
    assert fields == {"head": (None, "PBE"), "data.name": (None, "acac")}
    assert differing_fields(files["low"].manifest, files["dense"].manifest)["method"] == ("elora", "full")


def test_tensors_of_no_listed_block_or_of_the_wrong_shape_are_one_line(stack, files, tmp_path, monkeypatch):
    file = files["low"]
    key = min(key for key in file.tensors if key.endswith("/A"))  # a file names its tensors in any order
    larger = torch.ones([size + 1 for size in file.tensors[key].shape])
    broken = AdapterFile(file.path, file.manifest, {**file.tensors, key: larger}, file.size_bytes)
    assert "make no delta of shape" in refusal_of(broken.deltas)
    without = AdapterFile(file.path, file.manifest, {k: v for k, v in file.tensors.items() if k != key}, file.size_bytes)
    assert "make no delta of shape" in refusal_of(without.deltas)
    stray = {**file.tensors, "nowhere/0e/A": torch.ones(1)}
    monkeypatch.setattr("adapters.inspection.read_adapter", lambda path: (file.manifest, stray))
    assert "tensors of no block that it lists (nowhere/0e/)" in refusal_of(AdapterFile.read, file.path)


def test_two_architectures_are_not_compared(stack, files, tmp_path):
    file = files["dense"]
    entry = file.manifest.blocks[0]
    other = entry.model_copy(update={"shape": (1, 1, 4)})
    tensors = {**file.tensors, f"{entry.key}/D": torch.ones(4)}
    changed = AdapterFile(file.path, file.manifest.model_copy(update={"blocks": (other, *file.manifest.blocks[1:])}), tensors, 1)
    assert "different architectures" in refusal_of(compare, file, changed)


def test_deltas_that_depend_on_the_base_are_said_to_need_it(stack, tmp_path, capsys):
    from zoo.adapter_commands import inspect

    stack.add("magnitude", create_method({"name": "elora", "rank": 2, "magnitude": True}))
    file = written(stack, "magnitude", tmp_path / "magnitude.safetensors")
    assert "makes a delta of the base's weights, which a file does not hold" in refusal_of(file.deltas)
    inspect(str(file.path))
    assert "makes its change of weights of the base's" in capsys.readouterr().out
