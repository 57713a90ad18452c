"""Reference energies of a model on a data set: estimated on its training split alone, or taken from what the set publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ase import Atoms
from ase.data import chemical_symbols

from zoo.data.cache_choice import CacheChoice
from zoo.data.checks import check_charges, check_elements
from zoo.data.frame import Frame
from zoo.data.loader import stored_graphs
from zoo.data.parts import DataSplits
from zoo.data.reference_choice import ReferenceChoice, needs_training_split
from zoo.data.reference_energies import ElementShifts, fit_element_shifts
from zoo.data.stored_frames import energies_of
from zoo.errors import ZooError
from zoo.evaluation.predictions import predict_energies
from zoo.potential import Potential


@dataclass(frozen=True)
class Estimate:
    """What became of a potential's reference energies.

    Attributes:
        note: one line for people; empty where nothing was done.
        own_error: the fit to the model's own error, where one was made.
    """

    note: str
    own_error: ElementShifts | None = None


def set_reference_energies(choice: ReferenceChoice, potential: Potential, splits: DataSplits, batch_size: int) -> Estimate:
    """Set the potential's per-element energies as ``choice`` says.

    Args:
        choice: see `ReferenceChoice`.
        potential: its reference shifts are changed; with ``model`` added to, with ``base`` left, otherwise replaced.
        splits: the data; of its labels only those of the training split are looked at.
        batch_size: for the predictions.

    Raises:
        ZooError: where the data has no training split, or not the energies that ``choice`` needs for every element of its frames.
    """
    if needs_training_split(choice) and not splits.train:
        raise ZooError(
            f"{splits.protocol}: reference_energies={choice} wants a training split; pass data.n_train=... (and data.n_test=...) to draw "
            "one"
        )
    match choice:
        case "base":
            return Estimate("")
        case "model":
            fitted = fit_to_own_error(potential, splits.train, batch_size, splits.cache)
            return Estimate(fitted.note + _unseen(fitted, splits), fitted)
        case "least_squares":
            fitted = fit_element_shifts(splits.train, energies_of(splits.train))
            place_isolated_atoms(potential, fitted.shifts)
            return Estimate(f"from the labels alone, {fitted.note}{_unseen(fitted, splits)}")
        case "isolated_atoms":
            energies = _of_every_element(splits.isolated_atom_energies, splits, "isolated atoms", "data.isolated_atoms=FILE")
            place_isolated_atoms(potential, energies)
            return Estimate("reference energies: the data set's isolated atoms")
        case "linear":
            energies = _of_every_element(splits.origin.linear_references, splits, "linear references", "data.linear_references=FILE")
            potential.set_reference_shifts(_known(potential, energies))
            return Estimate("reference energies: the data set's linear references, added to what the model predicts")


def fit_to_own_error(potential: Potential, frames: Sequence[Frame], batch_size: int, cache: CacheChoice | None = None) -> ElementShifts:
    """Add to the potential's per-element energies what the training labels say they lack.

    Args:
        potential: its reference shifts are changed.
        frames: the training split; validation and test energies must not shift the baseline.
        batch_size: for the predictions.
        cache: where the frames' graphs are kept; made anew without one.

    Raises:
        ZooError: for an element that the model does not know, or a charge that it does not see.
    """
    # graphs from the cache are predicted as they are, and an evaluation of a test set has not looked at the training split
    check_elements(frames, potential.backbone.elements, potential.source)
    check_charges(frames, potential.backbone.reads_charge, potential.source)
    graphs = stored_graphs(frames, potential.backbone.graph_recipe, cache or CacheChoice())
    labels = energies_of(frames)
    fitted = fit_element_shifts(frames, labels - predict_energies(potential, frames, batch_size, graphs))
    total = potential.get_reference_shifts()
    for number, value in fitted.shifts.items():
        total[number] = total.get(number, 0.0) + value
    potential.set_reference_shifts(total)
    return fitted


def place_isolated_atoms(potential: Potential, energies_ev: Mapping[int, float]) -> None:
    """Shift each element so that the potential gives this energy for the isolated atom.

    Args:
        potential: its reference shifts are replaced.
        energies_ev: atomic number to eV; elements that the model does not know are left out.
    """
    wanted = _known(potential, energies_ev)
    potential.set_reference_shifts({})
    own = [prediction.energy for prediction in potential.predict([Atoms(chemical_symbols[number]) for number in wanted])]
    potential.set_reference_shifts({number: label - mine for (number, label), mine in zip(wanted.items(), own, strict=True)})


def _known(potential: Potential, energies_ev: Mapping[int, float]) -> dict[int, float]:
    return {number: energy for number, energy in energies_ev.items() if number in potential.backbone.elements}


def _of_every_element(energies_ev: Mapping[int, float] | None, splits: DataSplits, what: str, remedy: str) -> Mapping[int, float]:
    """The table, which must be there and hold every element of the frames."""
    if energies_ev is None:
        raise ZooError(f"reference energies: {splits.name} has no {what}; pass {remedy} with data=FILE, or the choice 'model'")
    missing = [chemical_symbols[number] for number in splits.elements() if number not in energies_ev]
    if missing:
        raise ZooError(
            f"reference energies: the {what} lack {', '.join(missing)}, which the data holds; pass {remedy} with these elements, or the "
            "choice 'model'"
        )
    return energies_ev


def _unseen(fitted: ElementShifts, splits: DataSplits) -> str:
    unseen = [chemical_symbols[number] for number in splits.elements() if number not in fitted.shifts]
    return f"; in no training frame, so left at the model's own energy: {', '.join(unseen)}" if unseen else ""
