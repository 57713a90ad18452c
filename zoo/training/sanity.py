"""What every run prints and checks before the first step, so that nothing fails in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import torch

from adapters.stack import AdapterStack
from zoo.data.checks import check_charges, check_elements, without_label
from zoo.data.frame import Frame
from zoo.data.labels import Label
from zoo.data.parts import DataSplits
from zoo.data.stored_frames import atom_counts
from zoo.errors import ZooError
from zoo.graph import AtomGraph
from zoo.potential import Potential
from zoo.training.config import LossConfig, OptimizerConfig
from zoo.training.plan import Plan

Say = Callable[[str], None]
MOST_FRAMES_LOOKED_AT = 5000
"""Of each part, by the cheap checks of `zoo.doctor`: seconds, whatever the size of the set."""


def needed_labels(loss: LossConfig) -> list[Label]:
    """The labels that have a weight in the loss."""
    labels: tuple[Label, ...] = ("energy", "forces", "stress")
    return [name for name in labels if getattr(loss, name).weight > 0]


def labels_of_every_frame(loss: LossConfig) -> list[Label]:
    """Those of `needed_labels` that no frame may lack: a stress beside other labels counts where it is known."""
    needed = needed_labels(loss)
    return needed if needed == ["stress"] else [label for label in needed if label != "stress"]


def check_labels(splits: DataSplits, loss: LossConfig) -> None:
    """Refuse training or validation frames that lack a label the loss weighs."""
    for part, frames in (("train", splits.train), ("valid", splits.valid)):
        if not frames:
            raise ZooError(f"data: {splits.name}: the {part} split has no frames; change data.n_train, data.n_valid or data.valid_fraction")
        for label in needed_labels(loss):
            missing = without_label(frames, label)
            if missing and label in labels_of_every_frame(loss):
                raise ZooError(
                    f"{missing[0].name} has no {label}, which the loss weighs; remove the frame or set training.loss.{label}.weight=0"
                )
            if label == "stress" and len(missing) == len(frames):
                raise ZooError(
                    f"data: no {part} frame has a stress, which the loss weighs; pass data.stress_key=... or "
                    "data.virial_key=..., or set training.loss.stress.weight=0"
                )


def describe_data(splits: DataSplits, say: Say) -> None:
    """Labels found per file, the split, what the splits share, and what the cheap checks of ``zoo doctor`` have to say of the frames."""
    from zoo.doctor.registry import cheap_findings
    from zoo.doctor.subject import Subject

    say(f"data: {splits.protocol} ({splits.level_of_theory or 'level of theory not stated'})")
    say(splits.label_report().text())
    for note in splits.notes:
        say(f"note: {note}")
    for finding in cheap_findings(Subject(splits, most_frames=MOST_FRAMES_LOOKED_AT)):
        frames = f" ({finding.frames_text})" if finding.frames else ""
        say(f"warning: {finding.check}: {finding.line}{frames}; zoo doctor says more")


def check_model_knows(potential: Potential, splits: DataSplits) -> None:
    """Refuse elements the model does not know, and charges that it does not see, in any part."""
    for frames in splits.parts.values():
        check_elements(frames, potential.backbone.elements, potential.source)
        check_charges(frames, potential.backbone.reads_charge, potential.source)


def check_outputs(potential: Potential, loss: LossConfig, say: Say) -> None:
    """Refuse to learn what the model does not predict, and say where its forces come from."""
    if loss.stress.weight > 0 and not potential.has_stress:
        raise ZooError(
            f"{potential.source} predicts no stress, which the loss weighs; set training.loss.stress.weight=0 or backbone.forces=gradient"
        )
    if not potential.conservative:
        say("forces: the model's own output, not the gradient of its energy; backbone.forces=gradient trains that instead")
    elif not potential.backbone.conservative:
        say("forces: the gradient of the energy, as asked; the model's own force output is not trained")


def describe_adapter(stack: AdapterStack, learning_rate: float, say: Say) -> None:
    """Coverage by role; for each adapter the true number of trained values, how its method starts, and the rate."""
    say(stack.coverage.table())
    for adapter in stack.active_adapters:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in adapter.trainable_by_kind.items())
        say(
            f"adapter {adapter.method.name}: trains {adapter.trainable_count:,} values ({kinds}); {adapter.method.start_note}; learning "
            f"rate {learning_rate:g} (a rate belongs to a method and its initialisation)"
        )
        if not adapter.method.equivariant:
            say(f"warning: {adapter.method.name} breaks the model's symmetry: energies and forces will depend on how a structure is turned")
        if not adapter.method.mergeable:
            say(f"note: {adapter.method.name} changes activations: it cannot be merged, nor exported to the base's own package")


def check_decay(potential: Potential, optimizer: OptimizerConfig, plan: Plan, say: Say) -> None:
    """Warn where weight decay holds a network to the random weights that it started from."""
    held = any(
        adapter.method.name in ("full", "readout") and not adapter.method.decays_by_itself for adapter in potential.adapters.active_adapters
    )
    share = optimizer.weight_decay * optimizer.learning_rate * plan.steps
    if held and share > 0.01:
        say(f"warning: weight decay pulls every weight back to its random start, by {share:.1%} of the way; adapter=full_scratch does not")


def describe_dropout(potential: Potential, say: Say) -> None:
    """Say what the base leaves out at random in each training step, which nobody asked for in a fine-tuning."""
    rates = {name: rate for name, rate in potential.backbone.dropout_rates.given.items() if rate > 0}
    if rates:
        found = ", ".join(f"{name.replace('_', ' ')} {rate:g}" for name, rate in rates.items())
        keys = " ".join(f"training.{name}=0" for name in rates)
        say(f"while training, the network leaves out at random: {found}; {keys} turns this off")


def describe_idle(potential: Potential, say: Say) -> None:
    """Say how much of an adapter can never train: published files have weights that no output depends on."""
    idle = potential.backbone.idle_weights
    for adapter in potential.adapters.active_adapters:
        keys = [block.key for block in adapter.blocks if any(fnmatchcase(block.key, pattern) for pattern in idle)]
        if keys:
            count = sum(tensor.numel() for key, tensor in adapter.tensors.items() if key.rpartition("/")[0] in keys)
            say(f"note: {count:,} of these values are on weights that no output depends on ({keys[0]}, ...) and stay as they are")


def check_start(potential: Potential, batch: AtomGraph, say: Say) -> None:
    """The adapted model at step 0 against the base: the same to the bit, or the method says what it does.

    Raises:
        ZooError: where a method that claims to start at the base does not.
    """
    stack = potential.adapters
    names, shifts = stack.active, potential.get_reference_shifts()
    adapted = potential(batch)
    stack.activate([])
    potential.set_reference_shifts(shifts)  # the run's, which go with its adapter
    base = potential(batch)
    stack.activate(names)
    potential.set_reference_shifts(shifts)
    same = torch.equal(adapted["energy"], base["energy"]) and torch.equal(adapted["forces"], base["forces"])
    if same:
        say("step 0 equals the zero-shot model bit for bit")
        return
    change = float((adapted["forces"] - base["forces"]).abs().max())
    if stack.starts_at_base:
        raise ZooError(
            f"adapter {', '.join(names)}: step 0 differs from the base by up to {change:.2g} eV/Å, though the method starts at it"
        )
    say(f"step 0 differs from the zero-shot model by up to {change:.2g} eV/Å: the method starts off the base by design")


def check_reference(frames: Sequence[Frame], rms_after_ev: float, say: Say) -> None:
    """Say so where the labels' energies lie far from the model's after the reference fit: a unit, or another quantity."""
    atoms = float(atom_counts(frames).mean())
    per_atom = rms_after_ev / atoms
    if per_atom > 0.5:
        say(
            f"warning: after the reference fit energies still differ by {per_atom:.2g} eV/atom RMS; check data.energy_unit, and that "
            "energies are totals of the frame, not per atom"
        )
