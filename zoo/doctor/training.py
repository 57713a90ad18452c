"""What a run would do: start at the zero-shot model, and take how much time and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from zoo.data.frame import Frame
from zoo.doctor.memory import available_mib, peak_memory_mib, start_peak
from zoo.doctor.neighbours import neighbour_counts
from zoo.doctor.registry import check
from zoo.doctor.report import Finding
from zoo.doctor.subject import Subject, by_name, spread
from zoo.errors import ZooError
from zoo.graph import AtomGraph, collate
from zoo.potential import Potential
from zoo.training.config import LossConfig, RunConfig, TrainingConfig
from zoo.training.losses import loss_terms, weighted_sum
from zoo.training.plan import Plan

STEPS = 3
MOST_SECONDS = 60.0
_COUNTED_FRAMES = 500
_LOOKED_AT = 2000  # training frames, of which batches are made


@check("training.step_0", "Is the model at step 0 the zero-shot model?", needs=("config", "model"))
def step_0(subject: Subject) -> Iterator[Finding]:
    """`zoo.training.sanity.check_start`: to the bit, or the method says by how much it starts off the base."""
    from zoo.training.sanity import check_start

    frames = _trainable(subject)
    if not frames or not subject.model.adapters.active or subject.run.adapter.get("path") is not None:
        return
    said: list[str] = []
    try:
        check_start(subject.model, _batch(subject.model, frames[:1]), said.append)
    except ZooError as error:
        yield Finding("error", "training.step_0", str(error), "the base's own forces", "report the adapter method", by_name(frames[:1]))
    yield from (Finding("note", "training.step_0", text) for text in said)


def _usual_size(training: TrainingConfig, frames: Sequence[Frame]) -> int:
    """Frames in a usual batch; a limit on edges is left to the run."""
    size = min(training.batch_size or len(frames), len(frames))
    if training.max_atoms_per_batch is not None:
        atoms = sum(map(len, frames)) / len(frames)
        size = min(size, int(training.max_atoms_per_batch // atoms))
    return max(size, 1)


@check("training.cost", "How long does the run take, and does it fit into memory?", needs=("config", "model"))
def cost(subject: Subject) -> Iterator[Finding]:
    """Forward and backward of a usual batch, timed; memory scaled by edges to the largest batch that shuffling can make."""
    config, potential = subject.run, subject.model
    frames = _trainable(subject)
    if not frames or not potential.adapters.trainable_count:
        return
    size = _usual_size(config.training, frames)
    equal = config.training.model_copy(update={"batch_size": size, "max_atoms_per_batch": None, "max_edges_per_batch": None})
    plan = Plan.of(equal, len(subject.splits.train))
    usual = spread(frames, size)
    measured = _timed_steps(potential, config, usual)
    share = _edges(potential, frames, size) / max(_edges_of(potential, usual), 1)
    worst_mib = measured.memory_mib * max(share, 1.0)
    length = f"{plan.steps:,} steps of {size} frames take about {_duration(measured.seconds * plan.steps)}"
    memory = f"about {_mebibytes(worst_mib)} besides the model in the largest batch"
    found = f"{length} ({measured.seconds:.3g} s a step, validations not counted), and {memory} ({potential.device})"
    room = available_mib(potential.device)
    if room is not None and worst_mib > room:
        remedy = "lower training.batch_size, or leave the largest frames out"
        yield Finding("warning", "training.cost", found, f"at most {_mebibytes(room)}, which are free", remedy)
    else:
        yield Finding("note", "training.cost", found)


@dataclass(frozen=True)
class _Measured:
    """Of one training step: seconds, and MiB at its peak above what was there before."""

    seconds: float
    memory_mib: float


def _timed_steps(potential: Potential, config: RunConfig, frames: Sequence[Frame]) -> _Measured:
    """The median of a few steps after the first; fewer where they are slow. Nothing is updated, and the random state is put back."""
    batch = _batch(potential, frames)
    tensors = list(potential.adapters.named_parameters())
    random_state = torch.random.get_rng_state()
    was_training = potential.training
    potential.train()
    seconds: list[float] = []
    start_peak(potential.device)
    before = peak_memory_mib(potential.device)
    try:
        while len(seconds) < STEPS + 1 and sum(seconds) < MOST_SECONDS:
            started = time.perf_counter()
            _step(potential, batch, config.training.loss)
            seconds.append(time.perf_counter() - started)
        peak = peak_memory_mib(potential.device) - before
    finally:
        for _, tensor in tensors:
            tensor.grad = None
        potential.train(was_training)
        torch.random.set_rng_state(random_state)
    return _Measured(statistics.median(seconds[1:] or seconds), max(peak, 0.0))


def _step(potential: Potential, batch: AtomGraph, loss: LossConfig) -> None:
    potential.adapters.before_forward()
    terms = loss_terms(potential(batch, stress=loss.stress.weight > 0), batch, loss)
    if terms:
        weighted_sum(terms, loss).backward()  # type: ignore[no-untyped-call]
    if potential.device.type == "cuda":
        torch.cuda.synchronize(potential.device)


def _trainable(subject: Subject) -> list[Frame]:
    """Training frames that the model can take, as far as a step needs."""
    known, cutoff = frozenset(subject.model.backbone.elements), subject.model.backbone.cutoff
    reads_charge = subject.model.backbone.reads_charge
    return [
        frame
        for frame in spread(subject.splits.train, _LOOKED_AT)
        if known.issuperset(frame.atomic_numbers.tolist()) and (reads_charge or not frame.charge) and neighbour_counts(frame, cutoff).any()
    ]


def _batch(potential: Potential, frames: Sequence[Frame]) -> AtomGraph:
    batch: AtomGraph = collate([potential.graph(frame) for frame in frames]).to(str(potential.device))
    return batch


def _edges(potential: Potential, frames: Sequence[Frame], size: int) -> int:
    """Edges of the ``size`` largest frames together, judged by their number of atoms."""
    largest = sorted(spread(frames, _COUNTED_FRAMES), key=len)[-size:]
    return _edges_of(potential, largest)


def _edges_of(potential: Potential, frames: Sequence[Frame]) -> int:
    return sum(int(potential.graph(frame).edge_index.shape[1]) for frame in frames)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _mebibytes(mib: float) -> str:
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
