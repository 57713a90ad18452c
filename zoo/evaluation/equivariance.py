"""Does a potential obey the symmetries it claims? Rotation, translation, permutation, inversion, extensivity, and derivatives.

Everything runs in float64 on slightly rattled copies of the frames: a perfect crystal has forces of zero by symmetry, and zero is rotated
correctly by any model. Residuals are relative to each frame's own largest force (stress), and for energies to
``atoms x force scale x 1 Å``: a total energy is mostly a constant reference of thousands of eV, which would hide any error.

A network that multiplies functions on a finite grid on the sphere turns with its structure up to that grid's aliasing only, and says how
much that is (``aliasing_floor``). Of such a base the statement is tested, and where it errs more, whether a finer grid takes that away; of
a base with adapters, that they do not make it worse: within `FLOOR_FACTOR` of what the base itself shows in the same rotations.
Forces that are an output of the network are no derivative of its
energy: the difference is measured and said, and not held against them.

The caller randomises adapter weights first when those are to be tested (`AdapterStack.randomise`): at zero delta there is nothing to see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from zoo.data.frame import FloatArray, Frame
from zoo.errors import ZooError
from zoo.evaluation.finite_differences import force_residual, stress_residual
from zoo.evaluation.predictions import Predictions, Predictor, predict_frames
from zoo.evaluation.transformations import double_frame, move_to_images, random_rotation, transform_frame, transform_predictions

SYMMETRY_TOLERANCE = 1e-10
"""Relative, float64: leaves three to four decades above what summing in another order costs."""

DERIVATIVE_TOLERANCE = 1e-6
"""Relative, float64, for the five-point stencil of `zoo.evaluation.finite_differences`."""

FLOOR_FACTOR = 3.0
"""By how much an adapter's rotation error may exceed its base's, where the base's is aliasing."""

_LESS_ON_A_FINER_GRID = 0.1
_SMALLEST_FORCE_SCALE = 1e-6  # eV/Å
_SMALLEST_SHARE = 0.01  # of the set's largest: the scale of a frame with almost no forces, such as a lone atom


class CheckablePotential(Predictor, Protocol):
    """What the checks need of `zoo.Potential` besides `predict`."""

    @property
    def backbone(self) -> Any:
        """With the claims of `zoo.backbones.base.Backbone` on symmetry, extensivity, charge, cutoff, neighbours, aliasing and stress."""

    @property
    def conservative(self) -> bool:
        """Whether the forces are the gradient of the energy."""
        ...

    @property
    def adapters(self) -> Any:
        """The `adapters.stack.AdapterStack`; asked only where the backbone has an aliasing floor."""
        ...

    def to_dtype(self, dtype: torch.dtype, /) -> CheckablePotential:
        """A copy that computes in ``dtype``."""
        ...

    def on_finer_grid(self) -> CheckablePotential:
        """The bare base with its weights on a finer grid; asked only where the backbone has an aliasing floor."""
        ...


@dataclass(frozen=True)
class EquivarianceRow:
    """One check of one quantity; ``required`` is False where the backbone does not claim the property."""

    test: str
    quantity: str
    residual: float
    tolerance: float
    required: bool = True

    @property
    def passed(self) -> bool:
        """True within the tolerance, or where nothing was claimed; a residual that is not a number fails."""
        return self.residual <= self.tolerance or not self.required

    @property
    def status(self) -> str:
        """``"passed"``, ``"FAILED"`` or ``"not claimed"``."""
        if not self.required:
            return "not claimed"
        return "passed" if self.passed else "FAILED"


@dataclass(frozen=True)
class EquivarianceReport:
    """All rows, the largest force and stress of the frames, and what they do not say: conservation, floor, and what could not be tested."""

    rows: tuple[EquivarianceRow, ...]
    symmetry: str
    conservative: bool
    frame_count: int
    force_scale_ev_per_angstrom: float
    stress_scale_ev_per_angstrom3: float | None
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every claimed property holds."""
        return all(row.passed for row in self.rows)

    def residuals(self) -> dict[str, float]:
        """``{"rotation/forces": 2e-14, ...}`` of the required rows, for the record."""
        return {f"{row.test}/{row.quantity}": row.residual for row in self.rows if row.required}

    def text(self) -> str:
        """The report as an aligned plain-text table."""
        lines = [f"{'test':<22}{'quantity':<10}{'residual':>10}{'tolerance':>11}  result"]
        lines += [f"{r.test:<22}{r.quantity:<10}{r.residual:>10.1e}{r.tolerance:>11.0e}  {r.status}" for r in self.rows]
        lines.append(
            f"{self.frame_count} frames, float64, {self.symmetry}; forces up to {self.force_scale_ev_per_angstrom:.3g} eV/Å"
            + (f", stress up to {self.stress_scale_ev_per_angstrom3:.3g} eV/Å^3" if self.stress_scale_ev_per_angstrom3 else "")
        )
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class _Scales:
    """What residuals are divided by: (F,) eV/Å and, where any frame has a stress, (F,) eV/Å^3."""

    forces: FloatArray
    stress: FloatArray | None


def check_equivariance(
    potential: CheckablePotential,
    frames: Sequence[Frame],
    *,
    rotations: Sequence[FloatArray] | None = None,
    seed: int = 0,
    rattle_angstrom: float = 0.05,
) -> EquivarianceReport:
    """Test every symmetry and derivative of ``potential`` on ``frames`` in float64; the potential itself is not changed.

    Args:
        potential: converted to a float64 copy here.
        frames: a few small structures, best a molecule, a slab and a 3D-periodic crystal; labels are not used.
        rotations: (3, 3) matrices R acting as x' = R x; None takes three random ones.
        seed: of the rotations, translations, permutations, rattling and the choice of force components.
        rattle_angstrom: standard deviation of the displacements that break the frames' own symmetry.

    Raises:
        ZooError: without frames, or when no frame has forces to compare with (each check would pass on zeros).
    """
    if not frames:
        raise ZooError("check-equivariance: no frames given; give at least one structure of two interacting atoms")
    exact = potential.to_dtype(torch.float64)
    generator = np.random.default_rng(seed)
    rattled = [replace(f, positions=f.positions + rattle_angstrom * generator.standard_normal(f.positions.shape)) for f in frames]
    if exact.backbone.max_neighbours is not None:
        rattled = [_without_ties(frame, generator) for frame in rattled]
    base = predict_frames(exact, rattled)
    scales = _scales(base)
    chosen = list(rotations) if rotations is not None else [random_rotation(generator) for _ in range(3)]
    floor_rows, turning, remark = _aliasing(exact, rattled, chosen)
    rows = [*floor_rows, *_symmetry_rows(exact, rattled, base, scales, chosen, generator, turning)]
    derivative_rows, largest_difference = _derivative_rows(exact, rattled, base, scales, generator)
    rows += derivative_rows
    notes = [_conservation(exact, largest_difference)]
    if exact.backbone.aliasing_floor:
        measured = next(row.residual for row in rows if (row.test, row.quantity) == (rows[0].test, "forces"))
        notes.append(
            f"aliasing floor: {exact.backbone.aliasing_floor:.0e} of the forces under rotation by construction, {measured:.1e} here{remark}"
        )
    if scales.stress is None:
        notes.append("stress: not tested, no frame is periodic in 3D or the potential gives none")
    return EquivarianceReport(
        tuple(rows),
        str(exact.backbone.symmetry),
        exact.conservative,
        len(frames),
        float(scales.forces.max()),
        None if scales.stress is None else float(scales.stress.max()),
        tuple(notes),
    )


def _without_ties(frame: Frame, generator: np.random.Generator) -> Frame:
    """With a cell that is strained a little at random.

    An atom's images along two equal lattice vectors are equally far. Where only some of them can be neighbours, the order of the atoms
    decides which, and permutations and supercells change it: true of the model, but hiding everything else.
    """
    strain = 0.02 * generator.standard_normal((3, 3))
    return replace(frame, cell=frame.cell @ (np.eye(3) + strain))


def _conservation(potential: CheckablePotential, largest_difference: float) -> str:
    if not potential.conservative:
        return f"energy: not conserved, the forces are an output of their own: |F + dE/dx| = {largest_difference:.2g} eV/Å"
    if not potential.backbone.smooth_cutoff:
        return "energy: conserved, the forces are its gradient; but it jumps where neighbours enter or leave"
    return "energy: conserved, the forces are its gradient"


def _scales(base: Predictions) -> _Scales:
    forces = np.array([np.abs(f).max() for f in base.forces])
    if forces.max() < _SMALLEST_FORCE_SCALE:
        raise ZooError(
            f"check-equivariance: the largest force is {forces.max():.1e} eV/Å, and zero forces pass every test; "
            "give at least one structure of two atoms within the cutoff"
        )
    stresses = np.array([0.0 if stress is None else np.abs(stress).max() for stress in base.stresses])
    has_stress = any(stress is not None for stress in base.stresses)
    return _Scales(_floored(forces), _floored(stresses) if has_stress else None)


def _floored(scales: FloatArray) -> FloatArray:
    floored: FloatArray = np.maximum(scales, _SMALLEST_SHARE * scales.max())
    return floored


def _aliasing(
    potential: CheckablePotential, frames: list[Frame], rotations: Sequence[FloatArray]
) -> tuple[list[EquivarianceRow], dict[str, float], str]:
    """Rows of the bare base, where it has a floor and adapters are on it; what energy, forces and stress are held to; and a remark."""
    quantities, floor, remark = ("energy", "forces", "stress"), float(potential.backbone.aliasing_floor), ""
    if not floor:
        return [], dict.fromkeys(quantities, SYMMETRY_TOLERANCE), remark
    names = potential.adapters.active
    potential.adapters.activate([])
    try:
        rows = _base_rows(potential, frames, rotations, floor)
        if not all(row.passed for row in rows):
            finer = _base_rows(potential.on_finer_grid(), frames, rotations, floor)
            before, after = (max(row.residual for row in some if row.required) for some in (rows, finer))
            if after < _LESS_ON_A_FINER_GRID * before:  # aliasing, and more of it than the bound foresees: the weights are large
                floor, remark = before, f"; it is aliasing: {after:.1e} with the same weights on a finer grid"
                rows = [replace(row, tolerance=floor) for row in rows]
    finally:
        potential.adapters.activate(names)
    if not names:
        return [], dict.fromkeys(quantities, floor), remark
    # aliasing reaches energies of a few atoms by chance more or less: the forces show how much there is
    measured = max(row.residual for row in rows if row.quantity == "forces")
    held = {row.quantity: max(FLOOR_FACTOR * max(row.residual, measured), SYMMETRY_TOLERANCE) for row in rows}
    return rows, {**held, "energy": held["forces"]}, remark


def _base_rows(potential: CheckablePotential, frames: list[Frame], rotations: Sequence[FloatArray], floor: float) -> list[EquivarianceRow]:
    base = predict_frames(potential, frames)
    held = dict.fromkeys(("energy", "forces", "stress"), floor)
    return _rotation_rows("rotation, base", potential, frames, base, _scales(base), rotations, held)


def _rotation_rows(
    test: str,
    potential: CheckablePotential,
    frames: list[Frame],
    base: Predictions,
    scales: _Scales,
    matrices: Sequence[FloatArray],
    turning: Mapping[str, float],
) -> list[EquivarianceRow]:
    """The worst over ``matrices``, held to the tolerances of ``turning``; a stress that does not turn by construction claims nothing."""
    repetitions = []
    for matrix in matrices:
        found = predict_frames(potential, [transform_frame(f, matrix) for f in frames])
        repetitions.append(_compare(test, found, transform_predictions(base, matrix), scales))
    claims_stress = potential.backbone.equivariant_stress
    return [
        replace(row, tolerance=turning[row.quantity], required=row.quantity != "stress" or claims_stress) for row in _worst(repetitions)
    ]


def _symmetry_rows(
    potential: CheckablePotential,
    frames: list[Frame],
    base: Predictions,
    scales: _Scales,
    rotations: Sequence[FloatArray],
    generator: np.random.Generator,
    turning: Mapping[str, float],
) -> list[EquivarianceRow]:
    def rows(test: str, changed: list[Frame], expected: Predictions) -> list[EquivarianceRow]:
        return _compare(test, predict_frames(potential, changed), expected, scales)

    result = _rotation_rows("rotation", potential, frames, base, scales, rotations, turning)
    # larger than a cell and along no lattice vector, so that atoms also leave the cell they were given in
    shifted = [replace(f, positions=f.positions + generator.uniform(-20, 20, size=3)) for f in frames]
    result += rows("translation", shifted, base)
    result += rows("periodic image", [move_to_images(f, generator) for f in frames], base)
    orders = [generator.permutation(len(f)) for f in frames]
    permuted = [replace(f, positions=f.positions[o], atomic_numbers=f.atomic_numbers[o]) for f, o in zip(frames, orders, strict=True)]
    result += rows("permutation", permuted, replace(base, forces=tuple(f[o] for f, o in zip(base.forces, orders, strict=True))))
    doubled = replace(base, energies=2 * base.energies, forces=tuple(np.concatenate([f, f]) for f in base.forces))
    # what reads a structure's charge reads that of both halves together
    extensive = potential.backbone.extensive and not (potential.backbone.reads_charge and any(f.charge for f in frames))
    for row in rows("extensivity", [double_frame(f) for f in frames], doubled):
        result.append(replace(row, required=row.required and (extensive or row.quantity != "energy")))
    result += _compare("batching", predict_frames(potential, frames, batch_size=1), base, scales)
    inverted = _rotation_rows("inversion", potential, frames, base, scales, [-np.eye(3)], turning)
    claimed = potential.backbone.symmetry == "O(3)"
    return result + [replace(row, required=row.required and claimed) for row in inverted]


def _derivative_rows(
    potential: CheckablePotential, frames: list[Frame], base: Predictions, scales: _Scales, generator: np.random.Generator
) -> tuple[list[EquivarianceRow], float]:
    """The rows, and the largest ``|F + dE/dx|`` in eV/Å."""
    conservative = bool(potential.conservative)
    # what is not claimed is measured once: smaller steps would cost energies and change no verdict
    tolerance = DERIVATIVE_TOLERANCE if conservative else np.inf
    accepted = tolerance * scales.forces  # (F,) eV/Å
    forces = [
        force_residual(potential, frame, own, generator, accepted=bound)
        for frame, own, bound in zip(frames, base.forces, accepted, strict=True)
    ]
    residuals = {"forces": _relative(forces, scales.forces)}
    if scales.stress is not None:
        accepted = tolerance * scales.stress  # (F,) eV/Å^3
        stresses = [
            0.0 if own is None else stress_residual(potential, frame, own, accepted=bound)
            for frame, own, bound in zip(frames, base.stresses, accepted, strict=True)
        ]
        residuals["stress"] = _relative(stresses, scales.stress)
    rows = [EquivarianceRow("finite differences", name, value, DERIVATIVE_TOLERANCE, conservative) for name, value in residuals.items()]
    return rows, float(np.max(forces))


def _compare(test: str, found: Predictions, expected: Predictions, scales: _Scales) -> list[EquivarianceRow]:
    atom_counts = np.array([len(f) for f in expected.forces])
    energies = np.abs(found.energies - expected.energies) / atom_counts
    forces = [np.abs(a - b).max() for a, b in zip(found.forces, expected.forces, strict=True)]
    residuals = {"energy": _relative(energies, scales.forces), "forces": _relative(forces, scales.forces)}
    if scales.stress is not None:
        stresses = [_stress_difference(a, b) for a, b in zip(found.stresses, expected.stresses, strict=True)]
        residuals["stress"] = _relative(stresses, scales.stress)
    return [EquivarianceRow(test, quantity, value, SYMMETRY_TOLERANCE) for quantity, value in residuals.items()]


def _stress_difference(found: FloatArray | None, expected: FloatArray | None) -> float:
    if found is None or expected is None:
        # a stress that appears or disappears under a symmetry is as wrong as one that changes
        return 0.0 if found is expected else float("nan")
    return float(np.abs(found - expected).max())


def _relative(residuals: Sequence[float] | FloatArray, scales: FloatArray) -> float:
    """The largest over the frames; np.max, unlike max, hands a NaN on."""
    return float(np.max(np.asarray(residuals) / scales))


def _worst(repetitions: Sequence[list[EquivarianceRow]]) -> list[EquivarianceRow]:
    """Row by row the largest residual of several repetitions of one test."""
    return [replace(rows[0], residual=float(np.max([row.residual for row in rows]))) for rows in zip(*repetitions, strict=True)]
