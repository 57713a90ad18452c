"""Histograms of what was examined, for the page and the JSON."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zoo.doctor.energies import residual_energies
from zoo.doctor.neighbours import neighbour_counts
from zoo.doctor.outliers import largest_forces
from zoo.doctor.report import Distribution
from zoo.doctor.subject import Subject, spread

_LOOKED_AT = 300  # frames, whose neighbours are counted


def distributions(subject: Subject) -> tuple[Distribution, ...]:
    """Of energies, forces, stresses, sizes and neighbours; those without values are left out."""
    return tuple(one for one in _all(subject) if one is not None)


def _all(subject: Subject) -> Iterator[Distribution | None]:
    energetic = [frame for frame in subject.frames if frame.has_energy]
    if energetic:
        per_atom = residual_energies(energetic) / np.array([len(frame) for frame in energetic])
        yield Distribution.of("energy less a sum over elements", "meV/atom", (per_atom * 1e3).tolist())
        yield Distribution.of("energy", "eV/atom", [frame.energy / len(frame) for frame in energetic])
    yield Distribution.of("largest force of a frame", "eV/Å", largest_forces(subject.frames).tolist(), logarithmic=True)
    forced = [frame for frame in subject.frames if frame.has_forces]
    if forced:
        components = np.concatenate([frame.forces[frame.free].ravel() for frame in spread(forced, _LOOKED_AT)])
        yield Distribution.of("force components", "eV/Å", components.tolist())
    pressures = [-float(np.trace(frame.stress)) / 3 * 160.21766 for frame in subject.frames if frame.has_stress]
    yield Distribution.of("pressure (minus a third of the trace of the stress)", "GPa", pressures)
    yield Distribution.of("atoms of a frame", "", [float(len(frame)) for frame in subject.frames])
    if subject.potential is not None:
        cutoff = subject.potential.backbone.cutoff
        counts = [neighbour_counts(frame, cutoff) for frame in spread(subject.frames, _LOOKED_AT)]
        if counts:
            yield Distribution.of(f"neighbours of an atom within {cutoff:g} Å", "", np.concatenate(counts).astype(float).tolist())
