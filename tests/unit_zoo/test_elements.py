"""A model cut down to some of its elements: in Python, in a run, and with the adapter of such a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk

from adapters.state import read_adapter
from zoo import load
from zoo.backbones import load_family
from zoo.errors import ZooError


@pytest.fixture(scope="module")
def mace_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MACE toy that knows H, C, O, Cu and Au."""
    path = tmp_path_factory.mktemp("mace") / "toy.model"
    torch.save(load_family("mace").toy(0).upstream_checkpoint({}), path)
    return path


@pytest.mark.parametrize("elements", [["Cu", "Au"], [79, 29], {"Au", 29, "Cu"}, np.array([29, 79, 29])], ids=str)
def test_a_model_cut_to_elements_has_fewer_weights_and_the_same_energies_on_them(mace_checkpoint, elements):
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.numbers[0] = 79
    atoms.rattle(0.05, seed=1)
    whole, cut = load(mace_checkpoint), load(mace_checkpoint, elements=elements)
    assert cut.backbone.elements == (29, 79)
    assert cut.coverage.trainable_count < whole.coverage.trainable_count
    (found,), (wanted,) = cut.predict([atoms]), whole.predict([atoms])
    assert found.energy == pytest.approx(wanted.energy, rel=1e-13)
    np.testing.assert_allclose(found.forces, wanted.forces, atol=1e-12)
    with pytest.raises(ZooError, match=r"toy\.model.* C"):
        cut.predict([bulk("C", "diamond", a=3.6)])


def test_all_its_elements_leave_a_model_of_any_family_as_it_is(toy_checkpoint):
    assert load(toy_checkpoint, elements=["H", "C", "O", "Cu", "Au"]).base_sha256 == load(toy_checkpoint).base_sha256


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (["Cu", "Xx"], "'Xx' is no element"),
        ([29.0], "29.0 is no element"),
        ([True], "True is no element"),
        ("CuAu", r"pass elements=\['Cu', 'Au'\]"),
        ("Cu Au", r"pass elements=\['Cu', 'Au'\]"),
        (["Cu", "Fe"], r"cannot cut the model down to Fe: it knows H, C"),
        ([], "cannot"),
    ],
)
def test_elements_that_cannot_be_kept_are_one_line(mace_checkpoint, elements, message):
    with pytest.raises(ZooError, match=message):
        load(mace_checkpoint, elements=elements)


def test_a_family_that_keeps_all_its_elements_says_so(toy_checkpoint):
    with pytest.raises(ZooError, match="sevennet models have hardly any weights of single elements"):
        load(toy_checkpoint, elements=["Cu"])


def test_a_run_cut_to_the_elements_of_its_data_is_resumed_evaluated_and_loaded_so(mace_checkpoint, small_run, zoo, tmp_path):
    words = [f"backbone={mace_checkpoint}", *small_run[1:], "run.name=cut"]
    done = zoo("train", *words, "backbone.elements=data", "adapter.rank=2")
    assert done.code == 0, done.err
    file = tmp_path / "runs" / "cut" / "adapter.safetensors"
    assert read_adapter(file)[0].base_elements == ("Cu", "Au")
    again = zoo("train", *words, "backbone.elements=data", "adapter.rank=2", "run.resume=true")
    assert again.code == 0, again.err
    assert zoo("evaluate", "run=runs/cut").code == 0
    assert load(mace_checkpoint, adapter=file).backbone.elements == (29, 79)
    with pytest.raises(ZooError, match="trained on a base with 2 elements"):
        load(mace_checkpoint, adapter=file, elements=["Cu"])
    with pytest.raises(ZooError, match=r"trained on a mace model \(toy.model\), and sevennet-0 is a sevennet model"):
        load("sevennet-0", adapter=file)
    refused = zoo("evaluate", f"backbone={mace_checkpoint}", "backbone.elements=data")
    assert refused.code == 1
    assert "backbone.elements=data is for zoo train" in refused.err
