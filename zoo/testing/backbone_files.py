"""What every family promises of its own files, of copies in another precision, and of random weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from adapters.state import base_fingerprint
from zoo.backbones.base import Backbone, Family
from zoo.data.frame import Frame
from zoo.evaluation.probes import probe_frames
from zoo.potential import Potential
from zoo.testing.backbone_claims import backbone_frames
from zoo.testing.claims import Figure, hold
from zoo.testing.measures import relative_difference, symmetries, unfrozen

IN_FLOAT32 = 1e-5
"""Largest difference in eV and eV/Å of what went through a file of float32."""


def check_family(family: Family, build: Callable[[int], Backbone]) -> Figure:
    """The family and its toys bear one name, and it writes a native format."""
    found = build(0).family
    hold(found == family.name, "a toy is of its family", repr(found), repr(family.name))
    hold("native" in family.formats, "zoo export has a native format", sorted(family.formats), "'native' among them")
    return Figure(None, ", ".join(family.formats))


def check_checkpoint(family: Family, potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """The family's own file of a toy is recognised and read back, with the same weights, blocks and predictions; the largest difference."""
    frames = frames or backbone_frames(potential)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"toy{family.formats['native'].suffix}"
        potential.backbone.write_upstream_checkpoint(path, {})
        _hold_recognised(family, path)
        found = Potential(family.load(path, potential.backbone.head, False))
        hold(found.base_sha256 == potential.base_sha256, "a file holds the weights", found.base_sha256[:12], potential.base_sha256[:12])
        hold(found.coverage.table() == potential.coverage.table(), "a file holds the blocks", "others", "the same coverage")
        return _close(found, potential, frames, "a file holds the model")


def check_merged_checkpoint(family: Family, potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """A merged adapter and reference energies go into the family's own file, and are unmerged again; the largest difference."""
    frames = frames or backbone_frames(potential)
    stack = potential.adapters
    expected_names = stack.names
    hold(not expected_names, "claims are asked of a bare potential", expected_names, "no adapter")
    try:
        stack.add("elora", "elora")
        stack.randomise("elora", seed=1)
        potential.set_reference_shifts({number: 0.1 * k - 0.2 for k, number in enumerate(potential.backbone.elements)})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"merged{family.formats['native'].suffix}"
            potential.save_upstream_checkpoint(path)
            hold(not stack.is_merged, "saving unmerges", "merged", "unmerged")
            left = [entry.name for entry in Path(folder).iterdir()]
            hold(left == [path.name], "saving leaves one file", left, path.name)
            found = Potential(family.load(path, potential.backbone.head, False).rebuilt(torch.float64))
        return _close(found, potential, frames, "a file holds the merged model")
    finally:
        stack.unmerge()
        if "elora" in stack.names:
            stack.delete("elora")
        potential.set_reference_shifts({})


def _hold_recognised(family: Family, path: Path) -> None:
    hold(family.recognises(path), "a family recognises its file", "not recognised", "recognised")
    other = path.with_name("something else")
    other.write_bytes(b"no checkpoint of anything\n" * 40)
    hold(not family.recognises(other), "a family recognises its files alone", "a text file recognised", "False")


def _close(found: Potential, potential: Potential, frames: Sequence[Frame], claim: str) -> Figure:
    largest = 0.0
    for one, other in zip(found.predict(frames), potential.predict(frames), strict=True):
        largest = max(largest, abs(one.energy - other.energy), float(np.abs(one.forces - other.forces).max()))
    hold(largest < IN_FLOAT32, claim, f"energies or forces {largest:.1e} apart", f"below {IN_FLOAT32:.0e} eV, eV/Å")
    return Figure(largest)


def check_rebuilt(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """Rebuilt in float32 it agrees; rebuilt in float64 from that, its constants are those of float64; the rotation residual.

    A cast would keep float32's rounding of constants such as Clebsch-Gordan coefficients, and errors of 1e-8 under rotation.
    """
    frames = frames or backbone_frames(potential)
    single = potential.backbone.rebuilt(torch.float32)
    kinds = {tensor.dtype for tensor in single.parameters()}
    hold(kinds == {torch.float32}, "rebuilt in float32, its weights are", kinds, torch.float32)
    difference = relative_difference(Potential(single, forces=potential.forces).predict(frames), potential.predict(frames))
    hold(difference < 1e-3, "rebuilt in float32, it agrees", f"a difference of {difference:.1e}", "below 1e-3")
    twin = single.rebuilt(torch.float64)
    kinds = {tensor.dtype for tensor in [*twin.parameters(), *twin.buffers()] if tensor.is_floating_point()}
    hold(kinds == {torch.float64}, "rebuilt in float64, all of it is", kinds, torch.float64)
    report = symmetries(Potential(twin, forces=potential.forces), probe_frames(twin.elements, seed=2))
    worst = [f"{row.test} of {row.quantity} {row.residual:.1e}" for row in report.rows if not row.passed]
    hold(report.passed, "constants are computed in the precision of the weights", ", ".join(worst[:3]), "each symmetry to rounding")
    return Figure(max(row.residual for row in report.rows if row.test == "rotation" and row.required))


def check_random_weights(family: Family, potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """``weights=None`` draws every trainable weight from torch's generator and keeps what is not adaptable; counts the tensors drawn."""
    base = potential.backbone

    def drawn(seed: int) -> Backbone:
        with unfrozen(potential), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return family.randomise(base)

    one, same = drawn(11), drawn(11)
    adaptable = {block.parameter for block in potential.coverage.blocks if block.structure == "matrix"}
    before, again = dict(base.named_parameters()), dict(same.named_parameters())
    count = 0
    for name, parameter in one.named_parameters():
        hold(torch.equal(parameter, again[name]), "a seed decides random weights", f"two of {name}", "one")
        kept = torch.equal(parameter.to(before[name].dtype), before[name])
        if name in potential.coverage.not_adaptable:
            hold(kept, "statistics are kept", f"another {name}", "the base's")
        elif name in adaptable:
            hold(not kept, "every matrix is drawn anew", f"{name} as it was", "other numbers")
        count += not kept
    hold(base_fingerprint(one) != potential.base_sha256, "random weights are another base", "its fingerprint", "another")
    return Figure(None, f"{count} of {len(before)}")
