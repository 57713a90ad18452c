"""Structures: the same ones in several parts or twice in one, elements and charges that the model does not know, atoms too close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from zoo.data.checks import elements_of
from zoo.data.frame import Frame
from zoo.data.overlap import REPEAT_ANGSTROM, shared
from zoo.data.overlap import repeats as repeated_in
from zoo.data.reference_energies import FEW_FRAMES
from zoo.data.stored_frames import atom_counts, atomic_numbers_of
from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.subject import Subject, by_name, spread
from zoo.neighbours import neighbour_list

TOO_CLOSE = 0.5
"""Of the sum of covalent radii: H-H at 0.31 Å, C-C at 0.76 Å; thermal motion and high pressure stay above."""
AT_ONE_PLACE_ANGSTROM = 1e-2
_LOOKED_AT = 5000
MOST_OF = 0.5


@check("structures.leakage", "Does a structure stand in several parts?")
def leakage(subject: Subject) -> Iterator[Finding]:
    """Of the test and validation frames, those whose geometry a frame of an earlier part has (`zoo.data.overlap`)."""
    splits = subject.splits
    same = {(frame.source, frame.frame_id) for frame in splits.train} == {(frame.source, frame.frame_id) for frame in splits.valid}
    if splits.train and same:
        yield Finding("note", "structures.leakage", "validation is on the training frames, as configured", remedy="trust the tests alone")
    earlier = {"train": splits.train, "valid": splits.valid}
    for first, frames in earlier.items():
        later = {**({"valid": splits.valid} if first == "train" and not same else {}), **splits.tests}
        if same and first == "valid":
            continue
        for second, others in later.items():
            matches = [others[position] for position in shared(frames, others)]
            copies = [others[position] for position in shared(frames, others, REPEAT_ANGSTROM)]
            if len(matches) > MOST_OF * len(others):
                copies = matches  # however rounded: not steps of a trajectory, but one set in two containers
            copied = {(frame.source, frame.frame_id) for frame in copies}
            yield from _shared(first, second, copies, [frame for frame in matches if (frame.source, frame.frame_id) not in copied])


def _shared(first: str, second: str, copies: Sequence[Frame], near: Sequence[Frame]) -> Iterator[Finding]:
    expected, remedy = "none", f"leave them out of one of the two: errors on {second} are too optimistic"
    if copies:
        found = f"{_count(len(copies), 'frame')} of {second} are in {first} too"
        yield Finding("error", "structures.leakage", found, expected, remedy, by_name(copies))
    if near:
        found = f"{_count(len(near), 'frame')} of {second} are within 1e-4 Å of one in {first}, as steps of one trajectory are"
        yield Finding("warning", "structures.leakage", found, expected, remedy, by_name(near))


@check("structures.repeats", "Does one part hold a structure twice?")
def repeats(subject: Subject) -> Iterator[Finding]:
    """To 1e-6 Å. Repeats weigh double in training; of drawn sets they have been left out already."""
    for part, frames in subject.parts.items():
        found = [frames[position] for position in sorted(repeated_in(frames))]
        if found:
            text = f"{_count(len(found), 'frame')} of {len(frames):,} in {part} repeat an earlier one"
            yield Finding("note", "structures.repeats", text, remedy="remove them, unless they are to weigh double", frames=by_name(found))


@check("structures.elements", "Does the model know every element, and the training frames those of the tests?", needs=("model",))
def elements(subject: Subject) -> Iterator[Finding]:
    """Unknown elements have no embedding; known ones in no training frame keep the base's reference energy."""
    known = frozenset(subject.model.backbone.elements)
    unknown = [frame for frame in subject.scanned if not known.issuperset(frame.atomic_numbers.tolist())]
    if unknown:
        found = f"{_symbols(sorted(set(elements_of(unknown)) - known))} in {_count(len(unknown), 'frame')}"
        knows = _symbols(sorted(known)) if len(known) <= 12 else f"its {len(known)} elements"
        remedy = "remove the frames or choose another model"
        yield Finding(
            "error", "structures.elements", found, f"elements that {subject.model.source} knows: {knows}", remedy, by_name(unknown)
        )
    charged = [frame for frame in subject.frames if frame.charge]
    if charged and not subject.model.backbone.reads_charge:
        found = f"{_count(len(charged), 'frame')} carry a charge, which {subject.model.source} has no input for"
        yield Finding("error", "structures.elements", found, "neutral frames", "choose a model that reads charges (uma)", by_name(charged))
    trained = Counter(number for numbers in atomic_numbers_of(subject.splits.train) for number in set(numbers.tolist()))
    if trained:
        new = sorted(set(subject.splits.elements()) - set(trained))
        if new:
            found = f"{_symbols(new)} in validation or test frames, and in no training frame"
            remedy = "their reference energies stay the base's own: move such frames into training, or test without them"
            yield Finding("warning", "structures.elements", found, "every element in training", remedy)
        rare = sorted(number for number, count in trained.items() if count < FEW_FRAMES)
        if rare and len(subject.splits.train) >= 4 * FEW_FRAMES:
            found = f"{_symbols(rare)} in fewer than {FEW_FRAMES} training frames: their reference energies are uncertain"
            yield Finding("note", "structures.elements", found)


@check("structures.free_atoms", "Are single atoms among the frames that are trained on?", cheap=True)
def free_atoms(subject: Subject) -> Iterator[Finding]:
    """Left in the file for E0s, as ``config_type=IsolatedAtom`` of MACE's files: as frames they weigh as much as any other."""
    for part, frames in (("train", subject.splits.train), ("valid", subject.splits.valid)):
        counts = atom_counts(frames)
        free = [frame for place in np.flatnonzero(counts == 1) if not (frame := frames[int(place)]).pbc.any()]
        if free and len(free) < len(frames):
            found = f"{_count(len(free), 'frame')} of {part} are free atoms"
            remedy = "move them to a file of their own and pass data.isolated_atoms=FILE: they then set the energies of the elements"
            yield Finding("warning", "structures.free_atoms", found, "structures in which atoms are bound", remedy, by_name(free))


@check("structures.distances", "Are atoms closer than any bond?", cheap=True)
def distances(subject: Subject) -> Iterator[Finding]:
    """Overlapping atoms come from a wrong length unit, a lost cell, or a broken conversion."""
    close, touching = [], []
    for frame in spread(subject.frames, _LOOKED_AT):
        least = least_distance(frame)
        if least[0] < AT_ONE_PLACE_ANGSTROM:
            touching.append(frame)
        elif least[1] < TOO_CLOSE:
            close.append(frame)
    if touching:
        found = f"{_count(len(touching), 'frame')} have two atoms at one place"
        yield Finding("error", "structures.distances", found, "atoms apart", "remove one, or check the cell", by_name(touching))
    if close:
        found = f"{_count(len(close), 'frame')} have atoms closer than {TOO_CLOSE:g} times the sum of their covalent radii"
        remedy = "check the length unit (data.length_unit=...) and the cell; leave broken frames out"
        yield Finding("warning", "structures.distances", found, "a bond's length", remedy, by_name(close))


def least_distance(frame: Frame) -> tuple[float, float]:
    """(Å, share of the sum of covalent radii) of the closest two atoms in that share's measure; infinite where none are near."""
    radii = covalent_radii[
        np.clip(frame.atomic_numbers, 0, len(covalent_radii) - 1)
    ]  # (N,); numbers that are no element are found elsewhere
    reach = 2 * TOO_CLOSE * float(radii.max())
    edges, shifts = neighbour_list(frame.positions, frame.cell, frame.pbc, reach)
    if not edges.shape[1]:
        return float("inf"), float("inf")
    lengths = np.linalg.norm(frame.positions[edges[0]] + shifts @ frame.cell - frame.positions[edges[1]], axis=1)
    shares = lengths / radii[edges].sum(axis=0)
    return float(lengths.min()), float(shares.min())


def _symbols(numbers: Sequence[int]) -> str:
    return ", ".join(chemical_symbols[number] if 0 < number < len(chemical_symbols) else f"Z={number}" for number in numbers)


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
