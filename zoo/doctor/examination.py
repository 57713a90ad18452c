"""One examination: read the data, load the model, run every check, and report; nothing is trained and nothing written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from zoo.data.parts import DataSplits, Origin
from zoo.doctor.distributions import distributions
from zoo.doctor.facts import facts
from zoo.doctor.registry import Check, checks
from zoo.doctor.report import CheckRun, Finding, Report, sorted_by_level
from zoo.doctor.subject import Subject
from zoo.errors import USER_ERRORS, ZooError, nearest_name_hint

if TYPE_CHECKING:
    from zoo.potential import Potential
    from zoo.training.config import RunConfig

SAMPLE = 24
MOST_FRAMES = 20_000
"""Of a part that are held in memory and looked at closely: a minute, and 200 MB where they have 100 atoms."""


def examine(
    config: RunConfig | Sequence[str],
    *,
    splits: DataSplits | None = None,
    potential: Potential | None = None,
    sample: int = SAMPLE,
    most_frames: int | None = MOST_FRAMES,
    only: Sequence[str] = (),
) -> Report:
    """Look for everything that would go wrong in silence, without training.

    Args:
        config: of a run, or the words of ``zoo train``: ``["backbone=sevennet-0", "data=my.extxyz"]``.
        splits: its frames, where they have been read already.
        potential: its model, where it has been loaded already; its adapters are left as they are.
        sample: how many frames the base predicts; more find more, and take longer.
        most_frames: of each part that are looked at closely, evenly spaced, None for all. Missing labels, unknown elements, outliers,
            repeats and leakage are looked for in every frame.
        only: names of checks or of families of them (``"forces"``); all where empty.

    Raises:
        ZooError: words that do not make a configuration, or an unknown check. What is wrong with data or model is a finding.
    """
    chosen = _chosen(only)
    run = _composed(config) if isinstance(config, Sequence) else config
    findings: list[Finding] = []
    if splits is None:
        splits = _read(run, findings)
    if potential is None:
        potential = _load(run, splits, findings)
    subject = Subject(splits, potential, run, sample, most_frames, scans_all=True)
    done = []
    for check in chosen:
        done.append(_run(check, subject, findings))
    return Report(facts(subject), sorted_by_level(findings), tuple(done), distributions(subject))


def _composed(words: Sequence[str]) -> RunConfig:
    from zoo.compose import compose
    from zoo.training.config import parse_config

    config: RunConfig = parse_config(compose("train", [*words, "run.folder=none"]))
    return config


def _chosen(only: Sequence[str]) -> list[Check]:
    names = [name for check in checks() for name in (check.name, check.name.partition(".")[0])]
    for name in only:
        if name not in names:
            raise ZooError(f"unknown check {name!r}; {nearest_name_hint(name, dict.fromkeys(names))}")
    return [check for check in checks() if not only or check.name in only or check.name.partition(".")[0] in only]


def _run(check: Check, subject: Subject, findings: list[Finding]) -> CheckRun:
    skipped = check.why_not(subject)
    started = time.perf_counter()
    if not skipped:
        try:
            findings.extend(check.run(subject))
        except USER_ERRORS as error:
            findings.append(_refused(check.name, error))
    return CheckRun(check.name, check.question, 0.0 if skipped else time.perf_counter() - started, skipped)


def _read(config: RunConfig, findings: list[Finding]) -> DataSplits:
    """The frames; where labels are missing, the frames without, and where they are too few to train, as one part to test."""
    from zoo.data.source import load_evaluated, load_splits
    from zoo.training.sanity import labels_of_every_frame

    try:
        return load_splits(config.data, labels_of_every_frame(config.training.loss))
    except USER_ERRORS as error:
        findings.append(_refused("labels.read", error))
    for update in ({}, {"forces_key": None}, {"forces_key": None, "stress_key": None, "virial_key": None}):
        try:
            return load_splits(config.data.model_copy(update=update), ())
        except USER_ERRORS:
            continue
    with suppress(*USER_ERRORS):
        return load_evaluated(config.data.model_copy(update={"forces_key": None}), None)  # too few to be split: one part
    return DataSplits([], [], {}, config.data.name, Origin(config.data.name, config.data.level_of_theory, config.data.licence))


def _load(config: RunConfig, splits: DataSplits, findings: list[Finding]) -> Potential | None:
    from zoo.training.preparation import build_potential

    if not splits.parts and config.backbone.elements == "data":
        return None
    try:
        return build_potential(config, splits)
    except USER_ERRORS as error:
        findings.append(_refused("model.load", error))
        return None


def _refused(name: str, error: Exception) -> Finding:
    """What another part of the package refuses, as a finding: its messages say what was found, and what to do."""
    found, _, remedy = str(error).partition("; ")
    return Finding("error", name, found, remedy=remedy)
