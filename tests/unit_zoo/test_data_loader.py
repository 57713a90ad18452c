"""Batches in an order that depends on seed and epoch alone, continued in the middle by Lightning."""

from __future__ import annotations

from typing import Any

import pytest
from ase import Atoms

from zoo.data.emt import emt_frames
from zoo.data.frame import Frame
from zoo.data.loader import BatchStream, GraphDataset
from zoo.errors import ZooError
from zoo.graph import GraphRecipe


@pytest.fixture(scope="module")
def graphs() -> GraphDataset:
    return GraphDataset(emt_frames(11, 4, "some"), GraphRecipe(4.0))


def ids(batches: Any) -> list[tuple[int, ...]]:
    return [tuple(batch.frame_id.tolist()) for batch in batches]


def test_every_graph_comes_once_a_pass_and_the_last_batch_is_kept(graphs: GraphDataset) -> None:
    batches_per_pass = -(-len(graphs) // 4)
    stream = BatchStream(graphs, batch_size=4, steps=2 * batches_per_pass, seed=1)
    passes = [ids(stream)[:batches_per_pass], ids(stream)[batches_per_pass:]]
    for one in passes:
        assert sorted(frame for batch in one for frame in batch) == list(range(len(graphs)))
    assert passes[0] != passes[1]  # shuffled anew


def test_the_order_depends_on_the_seed_alone(graphs: GraphDataset) -> None:
    first = ids(BatchStream(graphs, batch_size=4, steps=7, seed=1))
    assert ids(BatchStream(graphs, batch_size=4, steps=7, seed=1)) == first
    assert ids(BatchStream(graphs, batch_size=4, steps=7, seed=2)) != first


@pytest.mark.parametrize("first_step", range(8))
def test_a_resumed_stream_gives_the_batches_that_are_left(graphs: GraphDataset, first_step: int) -> None:
    whole = ids(BatchStream(graphs, batch_size=4, steps=7, seed=1))
    assert ids(BatchStream(graphs, batch_size=4, steps=7, seed=1, first_step=first_step)) == whole[first_step:]


def test_a_longer_run_begins_with_the_batches_of_a_shorter_one(graphs: GraphDataset) -> None:
    assert ids(BatchStream(graphs, batch_size=4, steps=9, seed=1))[:5] == ids(BatchStream(graphs, batch_size=4, steps=5, seed=1))


def test_frames_of_several_atoms_without_a_pair_are_refused_and_single_atoms_are_not() -> None:
    apart = Frame.unlabelled(Atoms("H2", positions=[[0, 0, 0], [9, 0, 0]]), "far.xyz", 3)
    alone = Frame.unlabelled(Atoms("H"), "one.xyz")
    assert len(GraphDataset([alone], GraphRecipe(5.0))) == 1
    assert GraphDataset([apart], GraphRecipe(9.5))[0].edge_index.shape == (2, 2)
    with pytest.raises(ZooError, match=r"far.xyz: frame 3 has 2 atoms but no pair within the cutoff of 5 Å; check its length unit"):
        GraphDataset([alone, apart], GraphRecipe(5.0))
