"""What every adapter method promises of symmetry, with random weights large enough that a small fault cannot hide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adapters.activation import ActivationMethod
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import FLOOR_FACTOR, SYMMETRY_TOLERANCE
from zoo.graph import AtomGraph
from zoo.potential import Potential
from zoo.testing.claims import Figure, hold
from zoo.testing.measures import forces_of, relative_sizes, rotation_residual, symmetries
from zoo.testing.trial import NAME, SEED, Spec, attached, frames_or_probes, method_of

ALL_TESTS = {"rotation", "translation", "permutation", "finite differences"}
_BROKEN_BY = 1e6
_BROKEN_BY_IN_ALIASING = 10.0


def check_symmetry(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """With random weights, at least 0.1 of each block's, it keeps every symmetry of the base and the derivatives; a control fails by far.

    The figure is the rotation residual. A method that is declared not equivariant must fail under rotations (and inversion) by orders of
    magnitude, and in nothing else.
    """
    frames = frames_or_probes(potential, frames)
    aliasing, method = potential.backbone.aliasing_floor, method_of(spec)
    base = forces_of(potential.predict(frames))
    floor = SYMMETRY_TOLERANCE
    if aliasing:
        floor = max(floor, FLOOR_FACTOR * rotation_residual(potential, frames))
    # readouts of 0.1 and gates of 0.15 move the forces too little; in a direct network with an embedding at every layer even larger ones
    relative = 0.15 if method.mergeable else 0.5 if aliasing else 0.25
    with attached(potential, spec, relative) as adapter:
        small = {key: size for key, size in relative_sizes(potential, NAME).items() if not size >= 0.1 - 1e-12}
        hold(not small, "random weights are a tenth of each block's", f"less in {sorted(small)[:3]}", "0.1 or more")
        least, moved = 0.1 if method.mergeable else 0.04, _movement(potential, frames, base)
        if moved < least:  # what is adapted moves forces little: more of it only makes the claim harder
            potential.adapters.randomise(NAME, SEED, 2 * relative)
            moved = _movement(potential, frames, base)
        hold(moved >= least, "random weights move the forces", f"{moved:.1e}", f"{least} of them or more")
        residual, report = rotation_residual(potential, frames), symmetries(potential, frames)
        if aliasing and method.equivariant and not (report.passed and residual < floor):
            turned = max(row.residual for row in report.rows if row.test == "rotation" and row.required)
            limit = FLOOR_FACTOR * max(SYMMETRY_TOLERANCE, aliasing)  # larger features alias more, within what the family states
            hold(turned < limit, "large random weights keep to the family's aliasing", f"{turned:.1e}", f"below {limit:.0e}")
            potential.adapters.randomise(NAME, SEED, relative=0.05)
            residual, report = rotation_residual(potential, frames), symmetries(potential, frames)
        hold({row.test for row in report.rows} >= ALL_TESTS, "each symmetry is tested", {row.test for row in report.rows}, ALL_TESTS)
        failed = [row for row in report.rows if not row.passed]
        names = sorted({row.test for row in failed})
        if adapter.method.equivariant:
            hold(residual < floor, "predictions turn with the structure", f"a residual of {residual:.1e}", f"below {floor:.0e}")
            worst = ", ".join(f"{row.test} of {row.quantity} {row.residual:.1e}" for row in failed[:3])
            hold(not failed, "each symmetry and derivative holds", worst, "none that fails")
            return Figure(residual)
        hold(set(names) <= {"rotation", "inversion"}, "a control breaks rotations alone", names, "rotation, inversion")
        margin = _BROKEN_BY_IN_ALIASING if aliasing > 1e-6 else _BROKEN_BY
        excess = max((row.residual / row.tolerance for row in failed if row.test == "rotation"), default=0.0)
        found = f"{excess:.1e} of the tolerance"
        hold(excess > margin, "what is declared not equivariant is not, by orders of magnitude", found, f"more than {margin:.0e}")
        return Figure(residual, "**not equivariant**")


def _movement(potential: Potential, frames: Sequence[Frame], base: NDArray[Any]) -> float:
    """How much of the base's forces (N, 3) the adapter changes, in the norm of all."""
    return float(np.linalg.norm(forces_of(potential.predict(frames)) - base) / np.linalg.norm(base))


def check_planted_fault(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """A delta that breaks the symmetry by a millionth, or a hundred times what aliasing hides, is found: `check_symmetry`'s control."""
    frames = frames_or_probes(potential, frames)
    size = max(1e-6, 100 * potential.backbone.aliasing_floor)
    with attached(potential, spec), _reading_an_axis(potential, size):
        residual = rotation_residual(potential, frames)
        hold(residual > 1e-9, "a planted fault shows under rotation", f"{residual:.1e}", "more than 1e-9")
        failed = sorted({row.test for row in symmetries(potential, frames).rows if not row.passed})
        hold("rotation" in failed, "check_equivariance finds a planted fault", failed or "nothing", "rotation")
        return Figure(residual)


@contextmanager
def _reading_an_axis(potential: Potential, fault: float) -> Iterator[None]:
    """Deltas that depend on the structure through a number that is no scalar: the x components of the edges."""
    stack = potential.adapters
    honest: Callable[..., Any] = stack.call
    own = dict(potential.backbone.named_parameters())

    def call(graph: AtomGraph, **settings: Any) -> Any:
        if not stack.active:  # the bare base, beside which adapters of an aliasing backbone are held
            return honest(graph, **settings)
        gate = 1 + fault * graph.edge_vectors()[:, 0].abs().mean()
        method = stack.active_adapters[0].method
        if isinstance(method, ActivationMethod):  # of which there is no delta: what it makes of a layer's output depends on the axis

            def changed(*given: Any) -> Tensor:
                outputs: Tensor = given[-1]
                return outputs + gate * (type(method).changed(method, *given) - outputs)

            with patch.object(method, "changed", changed):
                return honest(graph, **settings)
        weights = stack.weights_with(stack.active)
        gated = {name: own[name] + gate * (weight - own[name]) for name, weight in weights.items()}
        with patch.object(stack, "weights", lambda: gated):
            return honest(graph, **settings)

    with patch.object(stack, "call", call):
        yield
