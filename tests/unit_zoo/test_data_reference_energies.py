"""Shifts per element: recovered exactly where compositions allow, one energy per atom where they do not."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from zoo.data.emt import emt_frames
from zoo.data.frame import Frame
from zoo.data.reference_energies import RIDGE, composition_counts, fit_element_shifts, read_isolated_atoms
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


def additive(frames: list[Frame], energies: dict[int, float]) -> np.ndarray:
    return np.array([sum(energies[int(number)] for number in item.atomic_numbers) for item in frames])


def some_of(elements: list[int], count: int, seed: int = 0) -> list[Frame]:
    """``count`` frames of 1 to 4 of the elements, 1 to 6 atoms of each."""
    random = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        numbers = random.choice(elements, size=random.integers(1, 1 + min(4, len(elements))), replace=False)
        numbers = np.repeat(numbers, random.integers(1, 7, size=len(numbers)))
        frames.append(Frame.unlabelled(Atoms(numbers=numbers, positions=np.arange(3 * len(numbers)).reshape(-1, 3))))
    return frames


def test_one_molecule_gets_one_energy_per_atom_fits_exactly_and_says_so() -> None:
    # not the minimum norm, (8, 5, 2) / 93 of the residual: energies in proportion to an element's count are wrong for every other molecule
    frames = [frame("C5H8O2")] * 4
    fit = fit_element_shifts(frames, np.array([-1.2, -0.8, -1.1, -0.9]))
    assert fit.shifts == pytest.approx({1: -1 / 15, 6: -1 / 15, 8: -1 / 15}, rel=1e-9)
    assert fit.rank == 1
    assert fit.undetermined == (1, 6, 8)
    assert "determine 1 of 3 energies and leave H, C, O open" in fit.note
    assert fit.rms_after_ev == pytest.approx(np.std([1.2, 0.8, 1.1, 0.9]))


@pytest.mark.parametrize("total", [-9391.0, -4.2e6])
def test_one_composition_at_the_size_of_total_energies_is_exact(total: float) -> None:
    frames = [frame("C9H8O4")] * 50
    labels = total + np.random.default_rng(0).normal(0, 0.2, size=50)
    fit = fit_element_shifts(frames, labels)
    assert fit.shifts == pytest.approx(dict.fromkeys((1, 6, 8), labels.mean() / 21), rel=1e-12)
    assert fit.rms_after_ev == pytest.approx(labels.std(), rel=1e-9)


@pytest.mark.parametrize("per_atom", [-2000.0, -97000.0])
@pytest.mark.parametrize("count", [20, 60, 400])
def test_additive_energies_are_fitted_to_1e_9_of_their_size_also_with_more_elements_than_frames(per_atom: float, count: int) -> None:
    elements = list(range(1, 90))
    random = np.random.default_rng(count)
    truth = dict(zip(elements, per_atom * random.uniform(0.01, 2, size=len(elements)), strict=True))
    frames = some_of(elements, count, seed=count)
    labels = additive(frames, truth)
    fit = fit_element_shifts(frames, labels)
    assert bool(fit.undetermined) == (count < 89)
    fitted = additive(frames, fit.shifts)
    np.testing.assert_allclose(fitted, labels, rtol=1e-9)
    determined = [number for number in fit.shifts if number not in fit.undetermined]
    assert count < 89 or len(determined) == 89
    np.testing.assert_allclose([fit.shifts[n] for n in determined], [truth[n] for n in determined], rtol=1e-7)


def test_a_ridge_moves_what_compositions_determine_by_less_than_a_thousandth() -> None:
    # H, C and O are determined; Cu and Au occur only together, one to one
    frames = [*some_of([1, 6, 8], 30), frame("CuAu"), frame("Cu2Au2"), frame("CuAuH3")]
    labels = additive(frames, {1: -13.6, 6: -1030.0, 8: -2043.0, 29: -1950.0, 79: -3200.0})
    labels += np.random.default_rng(1).normal(0, 0.3, size=len(frames))
    fit = fit_element_shifts(frames, labels)
    assert fit.undetermined == (29, 79)
    counts = composition_counts(frames, (1, 6, 8, 29, 79))
    pairs = np.column_stack((counts[:, :3], counts[:, 3]))  # Cu and Au as one, of which the compositions do determine the energy
    plain = np.linalg.lstsq(pairs, labels, rcond=None)[0]
    fitted = [fit.shifts[1], fit.shifts[6], fit.shifts[8], fit.shifts[29] + fit.shifts[79]]
    np.testing.assert_allclose(fitted, plain, rtol=1e-6)
    # the open direction: equal, as nothing tells them apart
    assert fit.shifts[29] == pytest.approx(fit.shifts[79], rel=1e-6)


def test_the_ridge_solution_is_that_of_its_normal_equations() -> None:
    frames = [*some_of([1, 6, 8], 6), frame("CuAu"), frame("Cu2Au2")]
    residuals = np.random.default_rng(3).normal(size=len(frames))
    fit = fit_element_shifts(frames, residuals)
    counts = composition_counts(frames, tuple(fit.shifts))
    energies = np.array(list(fit.shifts.values()))
    # stationary in d_z for every z and in m: C^T(r - C e) = RIDGE d, and its sum over elements vanishes
    gradient = counts.T @ (residuals - counts @ energies)
    common = energies.mean()  # the stationary m makes sum(d) = 0
    assert np.ptp(energies) > 0.1
    np.testing.assert_allclose(gradient, RIDGE * (energies - common), atol=1e-2 * RIDGE)


def test_elements_in_few_frames_are_named_and_plain_least_squares_is_kept_without_them() -> None:
    frames = some_of([1, 6, 8], 40)
    residuals = np.random.default_rng(4).normal(size=42)
    plain = fit_element_shifts(frames, residuals[:40])
    assert plain.rare == plain.undetermined == ()
    assert "uncertain" not in plain.note
    fit = fit_element_shifts([*frames, frame("XeO3"), frame("Xe2C")], residuals)
    assert fit.rare == (54,)
    assert fit.undetermined == ()
    assert fit.note.endswith("; in fewer than 5 frames, so uncertain: Xe")


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
