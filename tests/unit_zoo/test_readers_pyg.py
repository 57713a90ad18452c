"""PyG's data sets to our frames and back, behind PyG's own loader, splits and transforms."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from torch_geometric.data import Data, HeteroData, InMemoryDataset
from torch_geometric.datasets import MD17
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform

from tests.refusals import refusal_of
from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.pyg import FrameDataset, frames_of, in_memory_dataset
from zoo.data.readers import read_file, read_frames
from zoo.errors import ZooError
from zoo.graph import AtomGraph, collate
from zoo.units import ENERGY_IN_EV

KCAL = ENERGY_IN_EV["kcal/mol"]


def graphs(count: int = 3, **names: str) -> list[Data]:
    """Molecules of different sizes with MD17's field names, or those of ``names``."""
    made = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        atoms = molecule(("H2O", "CH4", "CO")[number % 3])
        plain = {
            "z": torch.tensor(atoms.numbers),
            "pos": torch.tensor(atoms.positions, dtype=torch.float32),
            "energy": torch.randn((), generator=generator),
            "force": torch.randn(len(atoms), 3, generator=generator),
        }
        made.append(Data(**{names.get(name, name): value for name, value in plain.items()}))
    return made


def assert_equal_to(frames: list[Frame], originals: list[Data], factor: float = 1.0) -> None:
    for frame, data in zip(frames, originals, strict=True):
        np.testing.assert_array_equal(frame.atomic_numbers, data.z.numpy())
        np.testing.assert_array_equal(frame.positions, data.pos.numpy().astype(np.float64))
        assert frame.energy == float(data.energy) * factor
        np.testing.assert_array_equal(frame.forces, data.force.numpy().astype(np.float64) * factor)
        assert not frame.pbc.any()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("pair", [True, False], ids=["(Data, slices)", "(dict, slices, class)"])
def test_a_processed_file_reads_back_bit_for_bit_in_the_unit_that_is_given(pair, count, tmp_path):
    path = tmp_path / "processed" / "data.pt"
    path.parent.mkdir()
    torch.save("no filter", path.with_name("pre_filter.pt"))
    if pair:
        torch.save(InMemoryDataset.collate(graphs(count)), path)
    else:
        InMemoryDataset.save(graphs(count), path)
    for given in (tmp_path, path.parent, path):
        assert_equal_to(read_frames(given, LabelKeys(energy_unit="kcal/mol"), needs=("energy", "forces")), graphs(count), KCAL)
    content = read_file(path)
    assert_equal_to(content.frames, graphs(count))
    assert any("states no units" in note and "kcal/mol" in note for note in content.notes)


def test_what_pygs_own_md17_processed_is_read_with_its_documented_unit(tmp_path):
    raw = tmp_path / "raw" / "rmd17" / "npz_data" / "rmd17_ethanol.npz"
    raw.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    atoms = molecule("CH3CH2OH")
    coords = atoms.positions + rng.normal(scale=0.1, size=(5, len(atoms), 3))
    energies, forces = -97000 + rng.normal(size=5), rng.normal(size=coords.shape)
    np.savez(raw, nuclear_charges=atoms.numbers, coords=coords, energies=energies, forces=forces)
    dataset = MD17(str(tmp_path), "revised ethanol")
    frames = read_frames(tmp_path / "revised ethanol", LabelKeys(energy_unit="kcal/mol"), needs=("energy", "forces"))
    for index, frame in enumerate(frames):
        assert frame.energy == float(np.float32(energies[index])) * KCAL
        np.testing.assert_array_equal(frame.forces, forces[index].astype(np.float32).astype(np.float64) * KCAL)
        np.testing.assert_array_equal(frame.positions, coords[index].astype(np.float32).astype(np.float64))
    for frame, other in zip(frames, frames_of(dataset, LabelKeys(energy_unit="kcal/mol")), strict=True):
        np.testing.assert_array_equal(frame.forces, other.forces)
        assert frame.energy == other.energy


@pytest.mark.parametrize("leading", [True, False])
def test_cells_are_read_with_and_without_a_leading_dimension(leading, tmp_path):
    made = graphs(3)
    cells = torch.rand(3, 3, 3) + 4 * torch.eye(3)
    for data, cell in zip(made, cells, strict=True):
        data.cell = cell[None] if leading else cell
    for data, pbc in zip(made[:2], ([True, True, False], [False] * 3), strict=True):
        data.pbc = torch.tensor([pbc]) if leading else torch.tensor(pbc)
    made[2].pbc = torch.tensor([[True] * 3]) if leading else torch.tensor([True] * 3)
    InMemoryDataset.save(made, tmp_path / "data.pt")
    frames = read_frames(tmp_path / "data.pt")
    for frame, cell in zip(frames, cells, strict=True):
        np.testing.assert_array_equal(frame.cell, cell.numpy().astype(np.float64))
    assert [frame.pbc.tolist() for frame in frames] == [[True, True, False], [False] * 3, [True] * 3]


def test_a_cell_without_pbc_is_periodic_and_other_names_are_known():
    made = graphs(2, z="atomic_numbers", pos="positions", energy="y", force="forces")
    made[0].cell = torch.eye(3) * 6
    frames = frames_of(made)
    assert frames[0].pbc.all()
    assert not frames[1].pbc.any()
    assert [frame.energy for frame in frames] == [float(data.y) for data in made]
    assert all(frame.has_forces for frame in frames)


def test_several_targets_in_y_are_no_energy(tmp_path):
    torch.save([Data(z=torch.tensor([1]), pos=torch.zeros(1, 3), y=torch.rand(1, 19))], tmp_path / "qm9.pt")
    assert not read_file(tmp_path / "qm9.pt").frames[0].has_energy
    with pytest.raises(ZooError, match=r"has no 'energy'"):
        read_frames(tmp_path / "qm9.pt")


class Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


class OwnData(Data):
    """A class that only its author's code knows."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {}}, "holds a dict, not graphs"),
        (torch.zeros(3), "holds a Tensor, not graphs"),
        ([1, 2], "holds a int where a PyG Data was expected"),
        ([Data(edge_index=torch.zeros(2, 0, dtype=torch.long))], r"graph 0 has no 'atomic_numbers' or 'z' \(found: edge_index"),
        ([Data(z=torch.tensor([1]), pos=torch.zeros(1, 3), cell=torch.zeros(6))], r"'cell' has shape \(6,\)"),
        ([HeteroData()], "HeteroData"),
        (InMemoryDataset.collate([OwnData(z=torch.tensor([1]), pos=torch.zeros(1, 3))] * 2), "OwnData"),
    ],
)
def test_a_file_of_something_else_is_one_line(content, words, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    refusal = refusal_of(read_frames, tmp_path / "other.pt")
    assert re.search(words, refusal)
    assert "other.pt" in refusal


def test_a_hostile_file_runs_nothing_and_a_cut_one_is_one_line(tmp_path):
    sentinel, path = tmp_path / "sentinel", tmp_path / "data.pt"
    torch.save((Data(z=torch.tensor([1]), pos=Touches(sentinel)), None), path)
    torch.storage._load_from_bytes(path.read_bytes())  # the control: a plain load
    assert sentinel.exists()
    sentinel.unlink()
    refusal = refusal_of(read_frames, path)
    assert re.search(r"\w+\.system", refusal)
    assert "data.pt" in refusal
    assert not sentinel.exists()
    InMemoryDataset.save(graphs(), path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "data.pt: cannot be read as tensors" in refusal_of(read_frames, path)


def test_a_folder_with_two_data_files_asks_for_one(tmp_path):
    (tmp_path / "processed").mkdir()
    for name in ("train.pt", "test.pt"):
        InMemoryDataset.save(graphs(), tmp_path / "processed" / name)
    assert "holds 2 PyG data files (processed/test.pt, processed/train.pt)" in refusal_of(read_frames, tmp_path)
    assert len(read_frames(tmp_path / "processed" / "test.pt")) == 3


# our graphs in PyG's hands


def frames() -> list[Frame]:
    """A molecule without labels, crystals with all, and a slab whose fixed atom has no force."""
    rng = np.random.default_rng(0)
    made = [Frame.unlabelled(molecule("H2O"), "a.xyz", 4)]
    for number in range(5):
        atoms = bulk("Cu", cubic=number % 2 == 0)
        plain = Frame.unlabelled(atoms, "b.xyz", number)
        labels = {"energy": rng.normal(), "forces": rng.normal(size=(len(atoms), 3)), "stress": rng.normal(size=(3, 3))}
        made.append(Frame(**{**plain.__dict__, **labels}))
    held = np.array([True, False, False, False])
    slab = {"fixed": held, "tags": np.array([0, 1, 1, 2]), "forces": np.where(held[:, None], np.nan, made[1].forces)}
    return [*made, Frame(**{**made[1].__dict__, **slab})]


def assert_same(ours: list[Frame], again: list[Frame]) -> None:
    for frame, other in zip(ours, again, strict=True):
        for name in ("atomic_numbers", "positions", "cell", "pbc", "energy", "forces", "stress", "frame_id", "source"):
            np.testing.assert_array_equal(getattr(frame, name), getattr(other, name), err_msg=name)
        for name in ("fixed", "tags", "magnetic_moments", "magnetic_forces"):
            expected, found = getattr(frame, name), getattr(other, name)
            assert (expected is None) == (found is None), name
            np.testing.assert_array_equal(expected, found, err_msg=name)


@pytest.mark.parametrize("fixed_atoms", ["auto", "left_out", "kept"])
def test_frames_survive_the_way_through_a_pyg_data_set_and_back(fixed_atoms):
    assert_same(frames(), frames_of(in_memory_dataset(frames(), 4.0), LabelKeys(fixed_atoms=fixed_atoms)))
    assert_same(frames()[:1], frames_of(in_memory_dataset(frames()[:1], 4.0)))


def test_pygs_loader_makes_the_batches_that_our_own_collate_makes():
    direct = collate([AtomGraph.from_frame(frame, 4.0) for frame in frames()[:4]])
    batch = next(iter(DataLoader(in_memory_dataset(frames(), 4.0), batch_size=4)))
    assert batch.num_nodes == direct.num_nodes == sum(len(frame) for frame in frames()[:4])
    for name in ("positions", "cell", "edge_index", "edge_shift", "energy", "forces", "stress", "pbc", "batch", "fixed", "frame_id"):
        torch.testing.assert_close(batch[name], direct[name], rtol=0, atol=0, equal_nan=True)
    assert batch.source == direct.source


class Doubled(BaseTransform):
    def forward(self, data: Data) -> Data:
        data.energy = 2 * data.energy
        return data


def test_pygs_splits_shuffles_and_transforms_work():
    dataset = in_memory_dataset(frames(), 4.0)
    part = dataset[1:4]
    assert_same(frames()[1:4], frames_of(part))
    assert_same(frames()[1:4], frames_of(part.copy()))
    shuffled, order = dataset.shuffle(return_perm=True)
    assert_same([frames()[int(index)] for index in order], frames_of(shuffled))
    doubled = FrameDataset(list(dataset), transform=Doubled())
    assert [float(data.energy) for data in doubled[1:]] == [2 * frame.energy for frame in frames()[1:]]
    assert float(dataset[1].energy) == frames()[1].energy


def test_a_saved_data_set_of_ours_is_read_as_a_file(tmp_path):
    whole = frames()[:6]
    FrameDataset.save(list(in_memory_dataset(whole, 4.0)), tmp_path / "data.pt")
    again = read_file(tmp_path / "data.pt").frames
    for frame, other in zip(whole, again, strict=True):
        for name in ("atomic_numbers", "positions", "cell", "pbc", "energy", "forces", "stress"):
            np.testing.assert_array_equal(getattr(frame, name), getattr(other, name), err_msg=name)


def test_no_frames_and_frames_without_neighbours_are_refused():
    assert "at least one graph" in refusal_of(in_memory_dataset, [], 4.0)
    assert "no pair within the cutoff" in refusal_of(in_memory_dataset, frames(), 0.5)


def test_what_is_missing_in_a_graph_is_one_line():
    assert "dataset: graph 1 has no 'atomic_numbers' or 'z'" in refusal_of(frames_of, [graphs()[0], Data(pos=torch.zeros(1, 3))])
