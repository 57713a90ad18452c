"""The hash that names a frame by what is in it."""

from __future__ import annotations

import hashlib

import numpy as np

from zoo.data.frame import Frame


def frame_sha256(frame: Frame) -> str:
    """Hash of a frame's structure and labels (little-endian float64 bytes); its source, name and level of theory do not enter.

    Fixed atoms, magnetic labels, the relaxed structure, a charge and a spin enter where the frame has them.
    """
    digest = hashlib.sha256()
    digest.update(frame.atomic_numbers.astype("<i8").tobytes())
    digest.update(frame.pbc.astype("u1").tobytes())
    for values in (frame.positions, frame.cell, np.array([frame.energy]), frame.forces, frame.stress):
        # + 0.0 makes -0.0 and 0.0, which compare equal, hash equally; one NaN stands for all
        canonical = np.where(np.isnan(values), np.nan, values + 0.0)
        digest.update(np.ascontiguousarray(canonical, dtype="<f8").tobytes())
    for name in ("fixed", "magnetic_moments", "magnetic_forces", "relaxed_positions"):
        rare = getattr(frame, name)
        if rare is not None:
            digest.update(name.encode() + np.ascontiguousarray(rare + 0.0, dtype="<f8").tobytes())
    for name in ("charge", "spin"):
        if getattr(frame, name):
            digest.update(name.encode() + np.array([getattr(frame, name)], dtype="<i8").tobytes())
    if np.isfinite(frame.relaxed_energy):
        digest.update(b"relaxed_energy" + np.array([frame.relaxed_energy], dtype="<f8").tobytes())
    return digest.hexdigest()
