"""Reference energies of a run: estimated before training, refitted after it, always on the training split alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from zoo.data.frame import Frame
from zoo.data.reference_energies import ElementShifts, fit_element_shifts
from zoo.errors import ZooError
from zoo.evaluation.predictions import predict_frames
from zoo.potential import Potential


def fit_to_own_error(potential: Potential, frames: Sequence[Frame], batch_size: int) -> ElementShifts:
    """Add to the potential's per-element energies what the training labels say they lack.

    Args:
        potential: its reference shifts are changed.
        frames: the training split; validation and test energies must not shift the baseline.
        batch_size: for the predictions.
    """
    predictions = predict_frames(potential, frames, batch_size=batch_size)
    labels = np.array([frame.energy for frame in frames])
    fitted = fit_element_shifts(frames, labels - predictions.energies)
    total = potential.get_reference_shifts()
    for number, value in fitted.shifts.items():
        total[number] = total.get(number, 0.0) + value
    potential.set_reference_shifts(total)
    return fitted


def take_isolated_atoms(potential: Potential, energies_ev: dict[int, float] | None, elements: Sequence[int]) -> None:
    """Shift each element so that the potential gives the data set's energy for the isolated atom.

    Args:
        potential: its reference shifts are replaced.
        energies_ev: atomic number to eV, None where the data set brings no isolated atoms.
        elements: atomic numbers that occur in the data.

    Raises:
        ZooError: where the data set brings no isolated atoms, or not those of every element.
    """
    if energies_ev is None:
        raise ZooError(
            "strategy.reference_energies_before=isolated_atoms: the data has no isolated atoms; pass data.isolated_atoms=FILE or 'model'"
        )
    missing = [chemical_symbols[number] for number in elements if number not in energies_ev]
    if missing:
        raise ZooError(
            f"strategy.reference_energies_before=isolated_atoms: no isolated atom of {', '.join(missing)}, which the data holds; add it to "
            "the file of data.isolated_atoms or pass 'model'"
        )
    potential.set_reference_shifts({})
    atoms = [Atoms(chemical_symbols[number]) for number in energies_ev]
    own = [prediction.energy for prediction in potential.predict(atoms)]
    potential.set_reference_shifts({number: label - mine for (number, label), mine in zip(energies_ev.items(), own, strict=True)})


def unit_hint(potential: Potential, frames: Sequence[Frame], batch_size: int) -> str | None:
    """A line where the labels' forces are a known unit's factor away from the base's, or None.

    The slope of label forces on predicted ones does not depend on the zero of energy; foundation models come within 30 % of it on anything
    they know.
    """
    labelled = [frame for frame in frames if frame.has_forces]
    if not labelled:
        return None
    predictions = predict_frames(potential, labelled, batch_size=batch_size)
    mine = np.concatenate([forces.ravel() for forces in predictions.forces])
    theirs = np.concatenate([frame.forces.ravel() for frame in labelled])
    if not np.any(mine) or np.corrcoef(mine, theirs)[0, 1] < -0.5:
        return "forces point against the base's: is this file's sign that of the gradient instead of the force?" if np.any(mine) else None
    slope = float(mine @ theirs / (mine @ mine))
    factors = {"kcal/mol/Å": 23.0605, "Hartree/Bohr": 1 / 51.4221, "Hartree/Å": 1 / 27.2114, "meV/Å": 1000.0, "kJ/mol/Å": 96.4853}
    for unit, factor in factors.items():
        if 0.6 < slope / factor < 1.6:
            return f"forces are {slope:.3g} times the base's: they look like {unit}; pass data.energy_unit=... (and data.length_unit=...)"
    return None
