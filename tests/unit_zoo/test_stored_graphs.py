"""Edges from the cache are the edges that are found anew, whoever looked for them and whatever was limited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from tests.refusals import refusal_of
from zoo.data import edge_store
from zoo.data.cache_choice import LARGE_PART_ATOMS, CacheChoice
from zoo.data.emt import emt_frames
from zoo.data.frame import Frame
from zoo.data.loader import GraphDataset, StoredGraphs, check_edges, make_graphs
from zoo.data.readers import read_file
from zoo.edges import GraphRecipe

RECIPES = [GraphRecipe(4.0), GraphRecipe(6.0, 7), GraphRecipe(6.0, 7, strict=False)]
ON_DISK = CacheChoice("disk", 2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(edge_store, "_FRAMES_OF_A_PIECE", 5)
    return tmp_path / "cache"


def stores(cache: Path) -> list[Path]:
    return [path for path in (cache / "edges").iterdir() if path.is_dir()]


def assert_same(found: StoredGraphs, expected: GraphDataset) -> None:
    assert len(found) == len(expected)
    assert found.atom_counts.tolist() == expected.atom_counts.tolist()
    assert found.edge_counts.tolist() == expected.edge_counts.tolist()
    for index in np.random.default_rng(0).permutation(len(expected)).tolist():
        mine, theirs = found[index], expected[index]
        assert mine.keys() == theirs.keys()
        assert mine.num_nodes == theirs.num_nodes
        for name in theirs.keys():  # noqa: SIM118 - of PyG's Data
            if isinstance(theirs[name], torch.Tensor):
                assert mine[name].dtype == theirs[name].dtype, name
                assert torch.equal(torch.nan_to_num(mine[name]), torch.nan_to_num(theirs[name])), name
            else:
                assert mine[name] == theirs[name], name


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_graphs_from_the_cache_are_the_graphs_in_memory(recipe):
    frames = [*emt_frames(23, 4, "x"), Frame.unlabelled(Atoms("H"), "one.xyz")]
    assert_same(StoredGraphs(frames, recipe, 2), GraphDataset(frames, recipe))


@pytest.mark.parametrize("file", ["acac/train_300K.xyz", "periodic_1k/alexandria-random-1k.xyz"])
def test_graphs_of_real_sets_are_the_graphs_in_memory(data_folder, file):
    folder, name = file.split("/")
    frames = read_file(data_folder(folder) / name).frames[:120]
    assert_same(StoredGraphs(frames, GraphRecipe(5.0), 2), GraphDataset(frames, GraphRecipe(5.0)))


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_write_the_same_bytes_as_one(tmp_path, monkeypatch, processes):
    frames, contents = emt_frames(23, 4, "x"), []
    for number in (1, processes):
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / str(number)))
        StoredGraphs(frames, RECIPES[0], number)
        (folder,) = stores(tmp_path / str(number))
        contents.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert contents[0] == contents[1]


def test_edges_are_looked_for_once_for_the_same_frames_and_recipe(cache, monkeypatch):
    frames = emt_frames(11, 4, "x")
    StoredGraphs(frames, RECIPES[0], 1)
    with monkeypatch.context() as patch:
        patch.setattr(edge_store, "edges_of", lambda *_: pytest.fail("they were looked for again"))
        StoredGraphs(emt_frames(11, 4, "of another name"), RECIPES[0], 1)
    for number, (others, recipe) in enumerate(
        [(frames[::-1], RECIPES[0]), (frames[1:], RECIPES[0]), *((frames, one) for one in RECIPES[1:])]
    ):
        StoredGraphs(others, recipe, 1)
        assert len(stores(cache)) == number + 2
    with monkeypatch.context() as patch:
        patch.setattr(edge_store, "_source_sha256", lambda _: "newer code")
        StoredGraphs(frames, RECIPES[0], 1)
    assert len(stores(cache)) == 6


@pytest.mark.parametrize("processes", [1, 2])
def test_frames_without_a_pair_or_with_two_atoms_at_one_place_are_refused_alike(cache, processes):
    apart = Frame.unlabelled(Atoms("H2", positions=[[0, 0, 0], [9, 0, 0]]), "far.xyz", 3)
    same = Frame.unlabelled(Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]]), "same.xyz", 4)
    for bad in (apart, same):
        frames = [*emt_frames(12, 4, "x"), bad, *emt_frames(12, 5, "x")]
        expected = refusal_of(GraphDataset, frames, RECIPES[0])
        assert refusal_of(StoredGraphs, frames, RECIPES[0], processes) == expected
        assert refusal_of(check_edges, frames, RECIPES[0], ON_DISK) == refusal_of(check_edges, frames, RECIPES[0]) == expected
    assert not stores(cache)


def test_offsets_too_large_for_the_cache_are_refused():
    cell = np.diag([4.0, 4.0, 4.0])
    frame = Frame.unlabelled(Atoms("H2", positions=[[0, 0, 0], [1.0 + 4.0 * 40_000, 0, 0]], cell=cell, pbc=True), "far.xyz")
    assert "wrap its positions" in refusal_of(StoredGraphs, [frame], RECIPES[0], 1)
    assert GraphDataset([frame], RECIPES[0])[0].edge_shift.abs().max() >= 40_000


def test_a_process_that_dies_is_one_line(monkeypatch, cache):
    import os
    import signal

    def dies(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(edge_store, "edges_of", dies)
    assert "was killed" in refusal_of(StoredGraphs, emt_frames(23, 4, "x"), RECIPES[0], 2)
    assert not stores(cache)


def test_auto_keeps_small_parts_in_memory():
    assert isinstance(make_graphs(emt_frames(5, 4, "x"), RECIPES[0], CacheChoice("auto")), GraphDataset)
    assert isinstance(make_graphs(emt_frames(5, 4, "x"), RECIPES[0], ON_DISK), StoredGraphs)
    assert CacheChoice("auto").graphs_on_disk(LARGE_PART_ATOMS + 1)
    assert not CacheChoice("memory").graphs_on_disk(10**12)
