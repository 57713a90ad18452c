"""What leaves equizoo as a SevenNet checkpoint is read by sevenn itself, with the same numbers."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from zoo.backbones import load_family
from zoo.potential import Potential


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sevenns_own_calculator_reads_a_merged_checkpoint_and_agrees(tmp_path: Path):
    from sevenn.calculator import SevenNetCalculator

    potential = Potential(load_family("sevennet").toy(0))
    potential.adapters.add("elora", "elora")
    potential.adapters.randomise("elora", seed=4)
    potential.set_reference_shifts({29: -1.25, 79: 0.5})
    path = tmp_path / "merged.pth"
    potential.save_upstream_checkpoint(path)
    with contextlib.redirect_stdout(io.StringIO()):
        calculator = SevenNetCalculator(str(path), device="cpu")
    sheared = Atoms("CuAu", [[0.1, 0, 0], [1.8, 1.9, 1.7]], cell=[[3.6, 0.2, 0], [0, 3.5, 0.3], [0.1, 0, 3.7]], pbc=True)
    for atoms in (sheared, Atoms("HCO", [[0, 0, 0], [1.0, 0.3, 0], [1.9, -0.2, 0.6]])):
        prediction = potential.predict([atoms])[0]
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(prediction.energy, abs=2e-6)
        np.testing.assert_allclose(atoms.get_forces(), prediction.forces, atol=2e-6)
        assert np.abs(prediction.forces).max() > 0.01
        if prediction.stress is not None:
            np.testing.assert_allclose(atoms.get_stress()[:3], np.diag(prediction.stress), atol=1e-7)


def test_every_tensor_survives_the_way_through_the_file(tmp_path: Path):
    """Every tensor sevenn's own network holds comes out as it went in."""
    toy = load_family("sevennet").toy(0)
    state = toy.upstream_checkpoint({})["model_state_dict"]
    again = load_family("sevennet")
    Potential(toy).save_upstream_checkpoint(tmp_path / "toy.pth")
    loaded = again.load(tmp_path / "toy.pth", None, False).upstream_checkpoint({})["model_state_dict"]
    assert loaded.keys() == state.keys()
    assert [name for name in state if not np.array_equal(state[name].numpy(), loaded[name].numpy())] == []
