"""Predictions computed again from base + adapter, on some frames or all, and compared with what was submitted.

The frames are drawn from the archive's own hash, so that anyone can repeat the choice. Whoever may try archives until the choice suits him
can steer it; the board adds a salt that nobody knows beforehand, and its verdict names it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from adapters.adapter import Adapter
from adapters.manifest import AdapterManifest
from adapters.state import read_adapter
from zoo.data.frame import FloatArray, Frame
from zoo.data.splits import seeded_permutation
from zoo.errors import USER_ERRORS, ZooError
from zoo.evaluation.equivariance import check_equivariance
from zoo.evaluation.forgetting import forgetting_differences, forgetting_frames, measure_forgetting
from zoo.evaluation.forgetting_settings import ForgettingSettings
from zoo.evaluation.predictions import Predictions, predict_frames
from zoo.evaluation.probes import probe_frames
from zoo.evaluation.provenance import base_record
from zoo.evaluation.record import Record
from zoo.loading import load
from zoo.potential import Potential
from zoo.submission.consistency import Parts
from zoo.submission.entry import BaseNotHere
from zoo.submission.verdict import Difference

TOLERATED = {
    torch.float32: Difference(energy_ev_per_atom=2e-5, forces_ev_per_angstrom=5e-4, stress_ev_per_angstrom3=5e-5),
    torch.float64: Difference(energy_ev_per_atom=1e-7, forces_ev_per_angstrom=1e-6, stress_ev_per_angstrom3=1e-7),
}
"""What another processor, batch size or version of torch may change, by the precision of the run."""
RESIDUAL_FACTOR, RESIDUAL_FLOOR = 10.0, 1e-9
"""Residuals are rounding errors of float64: another processor has others of their size."""


@dataclass(frozen=True)
class Choice:
    """Which frames are computed again.

    Attributes:
        most: frames of each test set, all where None; 0 leaves the base alone.
        salt: joined to the archive's hash in the draw.
        device: to compute on.
        batch_size: structures a forward pass.
    """

    most: int | None = 16
    salt: str = ""
    device: str = "cpu"
    batch_size: int = 8

    def frames_of(self, test_set: str, count: int, archive_sha256: str) -> list[int]:
        """Indices of the frames of a test set of ``count``, ascending."""
        if self.most is None or self.most >= count:
            return list(range(count))
        digest = hashlib.sha256(f"{archive_sha256}/{self.salt}/{test_set}".encode()).digest()
        return sorted(int(index) for index in seeded_permutation(count, int.from_bytes(digest[:8], "little"))[: self.most])


def device_named(name: str) -> str:
    """``name``, with ``auto`` for a GPU where there is one; raises `ZooError` where there is no such device."""
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError):
        raise ZooError(f"device={name}: no device of this machine; wanted cpu, cuda or auto") from None
    return wanted


@dataclass(frozen=True)
class Recomputed:
    """What came of it: ``reasons`` to refuse, differences found, and how many frames were looked at."""

    reasons: tuple[str, ...]
    largest: Difference
    tolerated: Difference
    frames: int


def load_base(parts: Parts) -> Potential:
    """The base that the record names, in the run's precision, without the adapter.

    Random weights are drawn again from the run's seed, which gives the same base where torch draws the same numbers.

    Raises:
        BaseNotHere: where it cannot be had here.
        ZooError: where the submission asks for what the base is not.
    """
    settings, manifest = parts.settings, parts.manifest
    random = settings.strategy.weights == "random"
    try:
        torch.manual_seed(settings.training.seed)
    except (RuntimeError, OverflowError):
        raise ZooError(f"training.seed={str(settings.training.seed)[:40]} is no seed that torch takes; use one below 2**63") from None
    options = {"dtype": settings.backbone.dtype, "elements": manifest.base_elements or None, "forces": manifest.forces}
    potential = load_card(settings.backbone.name, weights=None if random else "card", head=manifest.head, **options)
    if random and potential.base_sha256 != parts.record.base.values_sha256:
        raise BaseNotHere("the base had random weights, and seed and versions here draw others")
    return potential


def load_card(name: str, weights: Literal["card"] | None = "card", **options: Any) -> Potential:
    """The base of a card, with the options of `zoo.load`.

    Raises:
        BaseNotHere: where it cannot be loaded here, whatever the options.
        ZooError: where it can, but not with ``options``: who names a head that the base does not have wants no base to be loaded.
    """
    try:
        return load(name, weights=weights, **options)
    except (*USER_ERRORS, ImportError, OSError, RuntimeError, TypeError, KeyError) as error:
        said = " ".join(str(error).split())[:300]
    try:
        load(name)
    except (*USER_ERRORS, ImportError, OSError, RuntimeError):
        raise BaseNotHere(f"the base {name} cannot be loaded here ({said})") from None
    raise ZooError(f"the base {name} can be loaded, but not as the submission asks for ({said}); submit the run again")


def read_adapter_bytes(content: bytes) -> tuple[AdapterManifest, dict[str, torch.Tensor]]:
    """`adapters.state.read_adapter` of a file's content; raises AdapterError as that."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        path.write_bytes(content)
        return read_adapter(path)


def base_differences(record: Record, potential: Potential) -> Iterator[str]:
    """One line for everything that the record says of the base and the loaded one does not."""
    base = base_record(potential, record.base.initial_weights)
    for name in type(base).model_fields:
        if getattr(record.base, name) != getattr(base, name):
            yield f"base.{name} is {getattr(record.base, name)!r} in the record, {getattr(base, name)!r} of the loaded base"


def adapter_differences(record: Record, potential: Potential, adapter: Adapter) -> Iterator[str]:
    """One line for everything that the record says of the adapter and the loaded one does not."""
    if record.adapter is None:
        return
    if record.adapter.trainable_count != adapter.trainable_count:
        yield f"adapter.trainable_count is {record.adapter.trainable_count} in the record, {adapter.trainable_count} of the loaded adapter"
    share = potential.coverage.share(adapter.blocks)
    if record.adapter.coverage_share is None or abs(record.adapter.coverage_share - share) > 1e-9:
        yield f"adapter.coverage_share is {record.adapter.coverage_share} in the record, {share:.6g} of the loaded adapter"
    report = potential.adapters.report()
    if record.adapter.report.keys() != report.keys() or not np.allclose(
        [record.adapter.report[name] for name in report], list(report.values()), rtol=1e-4, atol=1e-6
    ):
        yield f"adapter.report is {record.adapter.report} in the record, {report} of the loaded adapter"


def equivariance_residual(potential: Potential) -> dict[str, float]:
    """The residuals of every claimed symmetry and derivative (`zoo.evaluation.equivariance`), on probes of the base's own elements."""
    return check_equivariance(potential, probe_frames(potential.backbone.elements)).residuals()


def residual_differences(record: Record, potential: Potential) -> Iterator[str]:
    """One line for every stated residual that is smaller than what is found here by more than rounding explains."""
    stated = record.equivariance_residual
    if stated is None:
        return
    found = equivariance_residual(potential)
    if stated.keys() != found.keys():
        yield f"equivariance_residual has {', '.join(sorted(stated))}, recomputed are {', '.join(sorted(found))}"
        return
    for name, value in found.items():
        if not value <= RESIDUAL_FACTOR * stated[name] + RESIDUAL_FLOOR:
            yield f"equivariance_residual.{name} is {stated[name]:.1e} in the record, {value:.1e} of base + adapter"


def forgetting_found(record: Record, settings: ForgettingSettings | None, potential: Potential, batch_size: int) -> list[str]:
    """One line for everything stated of forgetting that base + adapter on the drawn frames do not confirm."""
    stated = record.forgetting
    if stated is None or settings is None:
        return []
    try:
        frames = forgetting_frames(settings)
    except ZooError as error:
        return [f"forgetting: its frames cannot be had ({error})"]
    return list(forgetting_differences(stated, measure_forgetting(potential, settings, frames, batch_size)))


def recompute(
    potential: Potential, choice: Choice, archive_sha256: str, predictions: Mapping[str, Predictions], tests: Mapping[str, Sequence[Frame]]
) -> Recomputed:
    """Compare the submitted predictions of drawn frames with those of ``potential``, base + adapter."""
    tolerated = TOLERATED[potential.dtype]
    reasons, largest, total = [], np.zeros(3), 0
    for name, frames in tests.items():
        chosen = choice.frames_of(name, len(frames), archive_sha256)
        total += len(chosen)
        try:
            own = predict_frames(potential, [frames[index] for index in chosen], batch_size=choice.batch_size)
        except ZooError as error:
            reasons.append(f"{name}: base + adapter cannot predict it: {error}")
            continue
        found = _differences(own, predictions[name], chosen)  # (K, 3), infinite where the model gives no number
        if np.isfinite(found).all():
            largest = np.maximum(largest, found.max(axis=0))
        limits = np.array([tolerated.energy_ev_per_atom, tolerated.forces_ev_per_angstrom, tolerated.stress_ev_per_angstrom3])
        wrong = ~(found <= limits).all(axis=1)
        if wrong.any():
            at = chosen[int(np.argmax(wrong))]
            values = ", ".join(
                f"{value:.2g} {unit}"
                for value, limit, unit in zip(found[int(np.argmax(wrong))], limits, ("eV/atom", "eV/Å", "eV/Å^3"), strict=True)
                if not value <= limit
            )
            reasons.append(
                f"{name}: {int(wrong.sum())} of {len(chosen)} recomputed frames differ from base + adapter; frame {at} by {values} "
                f"(tolerated: {limits[0]:g} eV/atom, {limits[1]:g} eV/Å, {limits[2]:g} eV/Å^3)"
            )
    energy, forces, stress = (float(value) for value in largest)
    difference = Difference(energy_ev_per_atom=energy, forces_ev_per_angstrom=forces, stress_ev_per_angstrom3=stress)
    return Recomputed(tuple(reasons), difference, tolerated, total)


def _differences(own: Predictions, submitted: Predictions, chosen: Sequence[int]) -> FloatArray:
    """(K, 3) of each chosen frame the largest difference: energy in eV/atom, forces in eV/Å, stress in eV/Å^3."""
    rows = []
    for position, index in enumerate(chosen):
        atoms = len(own.forces[position])
        mine, theirs = own.stresses[position], submitted.stresses[index]
        if (mine is None) != (theirs is None):
            stress = np.inf
        else:
            stress = 0.0 if mine is None or theirs is None else float(np.abs(mine - theirs).max())
        forces = float(np.abs(own.forces[position] - submitted.forces[index]).max())
        rows.append((abs(float(own.energies[position] - submitted.energies[index])) / atoms, forces, stress))
    return np.nan_to_num(np.array(rows, dtype=np.float64).reshape(-1, 3), nan=np.inf, posinf=np.inf)
