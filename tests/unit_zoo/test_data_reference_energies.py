"""Shifts per element: recovered exactly where compositions allow, smallest where they do not."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from zoo.data.emt import emt_frames
from zoo.data.frame import Frame
from zoo.data.reference_energies import composition_counts, fit_element_shifts, read_isolated_atoms
from zoo.errors import ZooError


def frame(formula: str) -> Frame:
    atoms = Atoms(formula)
    atoms.positions[:, 0] = np.arange(len(atoms))
    return Frame.unlabelled(atoms)


def test_shifts_are_recovered_to_rounding_at_the_size_of_total_energies() -> None:
    frames = emt_frames(30, 3, "some")
    truth = {29: -45123.456789, 79: 987.654321}
    residuals = np.array([sum(truth[int(number)] for number in item.atomic_numbers) for item in frames])
    fit = fit_element_shifts(frames, residuals)
    assert fit.rank == 2
    assert fit.shifts == pytest.approx(truth, rel=1e-12)
    assert fit.rms_after_ev < 1e-8 < fit.rms_before_ev
    assert fit.vector()[29] == fit.shifts[29]
    assert fit.vector().shape == (119,)
    assert np.count_nonzero(fit.vector()) == 2


def test_one_molecule_gets_the_smallest_shifts_that_fit_and_says_so() -> None:
    frames = [frame("C5H8O2")] * 4
    fit = fit_element_shifts(frames, np.array([-1.2, -0.8, -1.1, -0.9]))
    # minimum norm: proportional to the composition, (8, 5, 2) / 93 of the mean residual
    assert fit.shifts == pytest.approx({1: -8 / 93, 6: -5 / 93, 8: -2 / 93})
    assert fit.rank == 1
    assert "determine 1 of 3 shifts" in fit.note
    assert fit.rms_after_ev == pytest.approx(np.std([1.2, 0.8, 1.1, 0.9]))


def test_the_fit_is_the_least_squares_solution_of_noisy_residuals() -> None:
    frames = emt_frames(25, 9, "some")
    residuals = np.random.default_rng(0).normal(size=25)
    counts = composition_counts(frames, (29, 79))
    normal_equations = np.linalg.solve(counts.T @ counts, counts.T @ residuals)
    fit = fit_element_shifts(frames, residuals)
    np.testing.assert_allclose([fit.shifts[29], fit.shifts[79]], normal_equations, rtol=1e-10)


def test_frames_without_an_energy_are_left_out() -> None:
    fit = fit_element_shifts([frame("H2"), frame("O2")], np.array([4.0, np.nan]))
    assert fit.shifts == pytest.approx({1: 2.0})
    assert fit.frames_used == 1
    with pytest.raises(ZooError, match="no frame has an energy"):
        fit_element_shifts([frame("H2")], np.array([np.nan]))
    with pytest.raises(ZooError, match="2 residual energies for 1 frames"):
        fit_element_shifts([frame("H2")], np.zeros(2))


def test_isolated_atoms_are_read_and_doubts_refused(tmp_path: Path) -> None:
    def write(name: str, energies: list[tuple[str, float]]) -> Path:
        frames = []
        for symbol, energy in energies:
            atoms = Atoms(symbol)
            atoms.info["energy"] = energy
            frames.append(atoms)
        ase.io.write(tmp_path / name, frames, format="extxyz")
        return tmp_path / name

    energies = read_isolated_atoms(write("atoms.xyz", [("H", -13.5), ("O", -2037.0)]))
    assert energies == {1: -13.5, 8: -2037.0}
    with pytest.raises(ZooError, match="has 2 atoms, wanted 1"):
        read_isolated_atoms(write("pair.xyz", [("H", -13.5), ("H2", -30.0)]))
    with pytest.raises(ZooError, match="keep one"):
        read_isolated_atoms(write("twice.xyz", [("H", -13.5), ("H", -13.6)]))
