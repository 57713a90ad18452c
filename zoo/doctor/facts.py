"""What was examined, in a few lines."""

from __future__ import annotations

from ase.data import chemical_symbols

from zoo.doctor.labels import LABELS, label_counts
from zoo.doctor.subject import Subject


def facts(subject: Subject) -> dict[str, str]:
    """Name to text: the model, the data, its parts with their labels, elements and sizes."""
    rows: dict[str, str] = {}
    potential, splits = subject.potential, subject.splits
    if potential is not None:
        head = f", head {potential.backbone.head}" if potential.backbone.head else ""
        theory = potential.level_of_theory or "level of theory not known"
        precision = str(potential.dtype).removeprefix("torch.")
        rows["model"] = f"{potential.source}{head} ({theory}), {precision}, cutoff {potential.backbone.cutoff:g} Å"
        if potential.adapters.active:
            rows["adapter"] = f"{', '.join(potential.adapters.active)}: trains {potential.adapters.trainable_count:,} values"
    rows["data"] = f"{splits.protocol} ({splits.level_of_theory or 'level of theory not stated'})"
    for name, frames in subject.parts.items():
        counts = label_counts(frames)
        rows[f"  {name}"] = f"{len(frames):,} frames: " + ", ".join(f"{label} {counts[label]:,}" for label in LABELS)
    if subject.left_out:
        rows["looked at"] = f"{len(subject.frames):,} frames, evenly spread; of the other {subject.left_out:,} only labels and leakage"
    sizes = [len(frame) for frame in subject.frames]
    if sizes:
        periodic = sum(bool(frame.pbc.all()) for frame in subject.frames)
        rows["structures"] = f"{min(sizes):,} to {max(sizes):,} atoms, {periodic:,} of {len(sizes):,} periodic in three directions"
        symbols = [chemical_symbols[number] for number in splits.elements() if 0 < number < len(chemical_symbols)]
        rows["elements"] = ", ".join(symbols[:24]) + (f" and {len(symbols) - 24} more" if len(symbols) > 24 else "")
    for number, note in enumerate(splits.origin.notes):
        rows["as read" if number == 0 else f"as read {number + 1}"] = note
    return rows
