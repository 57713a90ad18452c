"""What energies say by themselves: their unit and zero by magnitude, their precision, and the isolated atoms beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from zoo.data.frame import Frame
from zoo.data.reference_energies import composition_counts, fit_element_shifts
from zoo.data.stored_frames import atomic_numbers_of, energies_of
from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.slopes import ENERGY_FACTORS
from zoo.doctor.subject import Subject, by_name
from zoo.units import ENERGY_IN_EV

# Exact non-relativistic energies of the free atoms H to Ar in Hartree (Chakravorty et al., Phys. Rev. A 1993, 47, 3649, table XI).
ALL_ELECTRON_HARTREE = (
    0.5, 2.90372, 7.47806, 14.66736, 24.65391, 37.8450, 54.5892, 75.0673, 99.7339, 128.9376,
    162.2546, 200.053, 242.346, 289.359, 341.259, 398.110, 460.148, 527.540,
)  # fmt: skip
_SAME_TOTAL = 0.03  # binding and functionals change totals of light elements by less than 1 %
MOST_BINDING_EV = 20.0
"""An atom binds with less: W, the strongest, with 8.9 eV, N2 with 4.9 eV an atom."""
LEAST_RESOLUTION_MEV = 1.0
_ROUNDED_SHARE = 0.98


@check("energies.total", "Are all-electron totals of light elements in eV?", cheap=True)
def total_energies(subject: Subject) -> Iterator[Finding]:
    """Molecules of H to Ar: totals of all-electron calculations lie within 1 % of the sum over free atoms, in whatever unit."""
    light = [
        frame
        for frame in subject.frames
        if frame.has_energy and 0 < frame.atomic_numbers.min() <= frame.atomic_numbers.max() <= len(ALL_ELECTRON_HARTREE)
    ]
    if not light:
        return
    totals = np.array([-ALL_ELECTRON_HARTREE_ARRAY[frame.atomic_numbers].sum() for frame in light]) * ENERGY_IN_EV["Hartree"]
    atoms = float(np.median([len(frame) for frame in light]))
    ratio = float(np.median(np.array([frame.energy for frame in light]) / totals))
    factors = {"eV": 1.0, **ENERGY_FACTORS}
    if not any(frame.pbc.any() for frame in light):  # of graphite, four atoms with a pseudopotential look like Hartree per atom by accident
        factors |= {"eV per atom": 1 / atoms, "Hartree per atom": ENERGY_FACTORS["Hartree"] / atoms}
    given_in_ev = subject.given_units[0]  # what labels were converted from, which may be the mistake
    unit, factor = min(factors.items(), key=lambda item: abs(np.log(abs(ratio / given_in_ev) / item[1])) if ratio else np.inf)
    if not abs(ratio / given_in_ev / factor - 1) < _SAME_TOTAL or atoms < 2:
        return
    if abs(factor * given_in_ev - 1) < _SAME_TOTAL:
        yield Finding("note", "energies.total", "energies are all-electron totals in eV")
        return
    energy_unit = unit.removesuffix(" per atom")
    remedy = f"pass data.energy_unit={energy_unit} (which forces follow, unless the file has other units of its own)"
    if unit.endswith("per atom"):
        remedy = "multiply by the number of atoms" + ("" if energy_unit == "eV" else f", and {remedy}")
    found = f"energies are {ratio:.4g} times the all-electron totals in eV: they look like {unit}"
    yield Finding("error", "energies.total", found, "totals of a frame in eV", remedy, by_name(light[:1]))


ALL_ELECTRON_HARTREE_ARRAY: NDArray[np.float64] = np.array((0.0, *ALL_ELECTRON_HARTREE))


@check("energies.isolated_atoms", "Do the isolated atoms' energies share the frames' zero and unit?", cheap=True)
def isolated_atoms(subject: Subject) -> Iterator[Finding]:
    """E - sum E0 is an energy of binding: negative, and a few eV an atom."""
    table = subject.splits.isolated_atom_energies
    frames = [frame for frame in subject.frames if frame.has_energy and len(frame) > 1]
    if table is None or not frames:
        return
    missing = sorted({int(number) for frame in frames for number in frame.atomic_numbers} - set(table))
    if missing:
        symbols = ", ".join(chemical_symbols[number] for number in missing)
        found = f"the table of isolated atoms lacks {symbols}"
        yield Finding("warning", "energies.isolated_atoms", found, "every element of the frames", "add them, or do not use the table")
        return
    binding = np.array([(frame.energy - sum(table[int(z)] for z in frame.atomic_numbers)) / len(frame) for frame in frames])
    middle = float(np.median(binding))
    found = f"E - sum E0 is {middle:.3f} eV/atom (median; {binding.min():.3f} to {binding.max():.3f})"
    if abs(middle) > MOST_BINDING_EV:
        expected = f"a binding of less than {MOST_BINDING_EV:g} eV/atom"
        remedy = "the table and the frames differ in unit, level of theory or kind (total, cohesive): see data.isolated_atoms"
        yield Finding("error", "energies.isolated_atoms", found, expected, remedy, by_name([frames[int(np.abs(binding).argmax())]]))
    elif middle > 0:
        remedy = "look at the spin states of the atoms' calculations, and at the level of theory of both"
        yield Finding("warning", "energies.isolated_atoms", found, "less than 0: frames bind", remedy)
    else:
        yield Finding("note", "energies.isolated_atoms", found)


@check("energies.precision", "Were total energies rounded, to float32 or to few decimals?", cheap=True)
def precision(subject: Subject) -> Iterator[Finding]:
    """Float32 keeps 7 digits: of -10,000 eV that is 1 meV, and differences between frames are a few."""
    labelled = [frame for frame in subject.frames if frame.has_energy and frame.energy != 0]
    if len(labelled) < 5:
        return
    energies = np.array([frame.energy for frame in labelled])
    atoms = np.array([len(frame) for frame in labelled])
    for unit, in_ev in ENERGY_IN_EV.items():
        given = energies / in_ev
        rounded = np.abs(given - given.astype(np.float32)) <= 4 * np.spacing(np.abs(given))
        step = np.spacing(np.abs(given).astype(np.float32)) * in_ev  # (F,) eV
        decimals = _decimals(given)
        coarse = float(np.median(step)) * 1e3
        if rounded.mean() > _ROUNDED_SHARE and (decimals is None or 10.0**-decimals < step.min()):
            yield _rounded("float32", unit, coarse, float(np.median(step / atoms)) * 1e3)
            return
        if decimals is not None and 10.0**-decimals * in_ev * 1e3 / float(np.median(atoms)) > 0.1:
            step_mev = 10.0**-decimals * in_ev * 1e3
            yield _rounded(f"{decimals} decimals", unit, step_mev, step_mev / float(np.median(atoms)))
            return


def _rounded(to_what: str, unit: str, step_mev: float, step_per_atom_mev: float) -> Finding:
    found = f"energies are rounded to {to_what} of {unit}: steps of {step_mev:.3g} meV a frame, {step_per_atom_mev:.2g} meV/atom"
    if step_per_atom_mev < LEAST_RESOLUTION_MEV and step_mev < 20 * LEAST_RESOLUTION_MEV:
        return Finding("note", "energies.precision", found)
    remedy = "take energies from the calculation's output in full, or subtract the atoms' before rounding"
    return Finding("warning", "energies.precision", found, f"steps below {LEAST_RESOLUTION_MEV:g} meV/atom", remedy)


def _decimals(values: NDArray[np.float64]) -> int | None:
    """The fewest decimals, up to four, with which all values are written; None where they need more."""
    for decimals in range(5):
        scaled = values * 10.0**decimals
        if np.all(np.abs(scaled - np.round(scaled)) <= 1e-6 + 1e-12 * np.abs(scaled)):
            return decimals
    return None


def residual_energies(frames: Sequence[Frame], without: Sequence[int] = ()) -> NDArray[np.float64]:
    """(F,) eV: energies less the sum over elements that fits them best; NaN where a frame has none, or is among ``without``."""
    energies = np.array(energies_of(frames))
    energies[list(without)] = np.nan
    if not np.isfinite(energies).any():
        return energies
    shifts = fit_element_shifts(frames, energies).shifts
    of_element = np.zeros(max(shifts) + 1)
    of_element[list(shifts)] = list(shifts.values())
    sums = [of_element[np.minimum(numbers, len(of_element) - 1)].sum() for numbers in atomic_numbers_of(frames)]
    return energies - np.array(sums, dtype=np.float64)  # elements beyond the table are in frames without energy alone


def without_composition(frames: Sequence[Frame], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,) ``values`` less what any energies of the elements could explain of them."""
    if not len(frames):
        return values
    elements = sorted({int(number) for frame in frames for number in frame.atomic_numbers})
    left, sizes, _ = np.linalg.svd(composition_counts(frames, elements), full_matrices=False)
    left = left[:, sizes > 1e-8 * sizes[0]]  # (F, rank)
    return np.asarray(values - left @ (left.T @ values), dtype=np.float64)
