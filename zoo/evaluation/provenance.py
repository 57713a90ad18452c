"""Where a result comes from: versions, machine, commit, base and data, as records and run folders state them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from zoo.data.parts import DataSplits
from zoo.evaluation.record_parts import BaseModelRecord, DataRecord, GitCommit, ReferenceEnergyRecord, ReferenceTreatment, SplitRecord
from zoo.potential import Potential

_PACKAGES = (
    *("equizoo", "torch", "e3nn", "sevenn", "mace-torch", "nequip", "nequip-allegro", "torch-geometric", "lightning", "ase", "numpy"),
    *("vesin", "safetensors", "schedulefree"),
)
_CPU = torch.device("cpu")
_RESULTS = tuple(f":(exclude)leaderboard/{name}" for name in ("records", "verdicts", "artefacts"))


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, commit, and the machine as `hardware` names it for ``device``."""
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": hardware(device),
        "git_commit": commit.model_dump() if (commit := git_commit()) else None,
    }


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **found}


def hardware(device: torch.device = _CPU) -> str:
    """What ``device`` is: the GPU's name, or the CPU's with its cores."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    )
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def git_commit() -> GitCommit | None:
    """The source tree's commit and whether it has changes on top, the board's results aside; None outside one (an installed wheel)."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        sha = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(
            ["git", "status", "--porcelain", "--", ".", *_RESULTS], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return GitCommit(sha=sha, dirty=bool(status.stdout.strip()))


def made_here() -> dict[str, Any]:
    """What a record says of a result that this installation has just computed, apart from the result."""
    return {
        "versions": versions(),
        "git_commit": git_commit(),
        "provenance": "local",
        "author": None,
        "equivariance_residual": None,
        "forgetting": None,
    }


def reference_energy_record(potential: Potential, before: ReferenceTreatment, after: ReferenceTreatment) -> ReferenceEnergyRecord:
    """The shifts that ``potential`` has, with the choices that led to them before and after training."""
    values = {chemical_symbols[number]: value for number, value in potential.get_reference_shifts().items()}
    return ReferenceEnergyRecord(before=before, after=after, values=values)


def base_name(potential: Potential) -> str:
    """The card's name, or the file name of a local checkpoint: where it lies is nobody else's business."""
    return potential.card.name if potential.card else Path(potential.source).name


def base_record(potential: Potential, weights: str = "card") -> BaseModelRecord:
    """The base as a record names it."""
    backbone = potential.backbone
    return BaseModelRecord.model_validate(
        {
            "card": base_name(potential),
            "family": backbone.family,
            "values_sha256": potential.base_sha256,
            "licence": potential.card.licence if potential.card else None,
            "conservative": potential.conservative,
            "symmetry": backbone.symmetry,
            "parameter_count": potential.coverage.trainable_count,
            "initial_weights": weights,
        }
    )


def data_record(splits: DataSplits) -> DataRecord:
    """The data set and all its parts as a record names them."""
    counts = splits.frame_counts()
    return DataRecord(
        name=splits.name,
        protocol=splits.protocol,
        level_of_theory=splits.level_of_theory or None,
        licence=splits.licence or None,
        splits={name: SplitRecord(frames=counts[name], sha256=sha256) for name, sha256 in splits.hashes.items()},
        notes=splits.notes,
    )
