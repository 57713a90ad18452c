"""A result again, from its record alone: ``zoo reproduce RECORD.json`` trains (or evaluates) as the record says and compares every number.

On the machine and with the versions of the record the numbers are the same to the bit; elsewhere rounding differs, and training makes more
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data.catalogue import data_set_names
from zoo.errors import ZooError
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.record import Record, read_record
from zoo.registry import list_models

DEFAULT_TOLERANCE = 0.05
REPRODUCE_KEYS = ("name", "device", "tolerance")
_KINDS_OF_ERROR = ("MAE", "RMSE")
_NAMING_FILES = frozenset(("run", "adapter", "record"))
"""Words of ``zoo evaluate`` that name files, and that `zoo.evaluation.asked.asked_of` leaves out."""


@dataclass(frozen=True)
class Comparison:
    """What came of it.

    Attributes:
        record: made here.
        rows: (test set, metric, value in the record, value here) of every error, in the record's order.
        same_bits: whether the adapter file is the same to the bit; None of a result without one.
    """

    record: Record
    rows: tuple[tuple[str, str, float, float], ...]
    same_bits: bool | None

    @property
    def largest(self) -> float:
        """Of the differences, relative to the record."""
        return max((abs(here - there) / abs(there) if there else abs(here) for _, _, there, here in self.rows), default=0.0)

    def text(self) -> str:
        """One line an error, then what it comes to."""
        lines = [f"{'test set':<16} {'metric':<26} {'record':>12} {'here':>12}  unit"]
        for test_set, name, there, here in self.rows:
            lines.append(f"{test_set:<16} {METRICS[name].label:<26} {there:12.4f} {here:12.4f}  {METRICS[name].unit}")
        bits = {True: "; the adapter file is the same to the bit", False: "; the adapter file differs", None: ""}[self.same_bits]
        return "\n".join([*lines, f"largest difference {100 * self.largest:.3g} %{bits}"])


def reproduce(record: Record, folder: Path, device: str = "auto", say: Callable[[str], None] = print) -> Comparison:
    """Make the result of ``record`` again in ``folder``, or go on with it where it was stopped, and compare.

    Raises:
        ZooError: a result that a paper reports, or of a base, data or adapter that are files on somebody's disk, other data than the
            record's, and whatever `zoo train` and `zoo evaluate` refuse.
    """
    _check(record)
    made = _trained(record, folder, device, say) if record.training is not None else _evaluated(record, folder, device, say)
    for name, split in record.data.splits.items():
        if made.data.splits.get(name) != split:
            raise ZooError(f"{record.id}: its part {name!r} is of other frames than those drawn here, so that numbers cannot be compared")
    here = {(metric.test_set, metric.name): metric.value for metric in made.metrics}
    wanted = [metric for metric in record.metrics if metric.kind in _KINDS_OF_ERROR]
    missing = [f"{metric.test_set}: {metric.name}" for metric in wanted if (metric.test_set, metric.name) not in here]
    if missing or not wanted:
        raise ZooError(f"{record.id}: {f'{missing[0]} is not measured' if missing else 'no error'} here, so that nothing is compared")
    rows = tuple((metric.test_set, metric.name, metric.value, here[metric.test_set, metric.name]) for metric in wanted)
    same = made.adapter.file_sha256 == record.adapter.file_sha256 if made.adapter and record.adapter else None
    return Comparison(made, rows, same)


def reproduce_command(words: Sequence[str]) -> None:
    """``zoo reproduce RECORD.json [name=FOLDER] [device=auto] [tolerance=0.05]``; raises `ZooError` where a number is further away."""
    from zoo.submission.commands import parse_words

    path, options = parse_words("reproduce", "a record", words, REPRODUCE_KEYS)
    try:
        tolerance = float(options.get("tolerance", DEFAULT_TOLERANCE))
    except ValueError:
        raise ZooError(f"tolerance={options['tolerance']}: wanted a number, such as 0.05 for 5 %") from None
    record = read_record(Path(path).expanduser())
    found = reproduce(record, Path("runs") / options.get("name", record.id), options.get("device", "auto"))
    print(found.text())
    if not found.largest <= tolerance:
        raise ZooError(f"{path}: not reproduced within {100 * tolerance:g} %; compare the versions in both records ({found.record.id})")


def _check(record: Record) -> None:
    """A record may come from anywhere: it names cards and published sets, and nothing on this disk is read or run because of it."""
    if record.provenance == "reported":
        raise ZooError(f"{record.id}: printed in a paper, which does not say enough to make it again")
    asked = record.evaluation.get("asked") if record.training is None else record.training
    if record.training is None and (record.adapter is not None or (isinstance(asked, Mapping) and not _NAMING_FILES.isdisjoint(asked))):
        raise ZooError(f"{record.id}: was made with a run or an adapter file of somebody's disk, which a record does not hold")
    backbone, data, adapter = (_section(asked, name) for name in ("backbone", "data", "adapter"))
    if backbone is None or not data or adapter is None:
        raise ZooError(f"{record.id}: does not say how it was made (it is of an older version); evaluate its base and data by hand")
    if backbone.get("name") not in list_models():
        raise ZooError(f"{record.id}: its base {backbone.get('name')!r} is no card of the zoo; zoo list shows those there are")
    if backbone.get("trust_pickle"):
        raise ZooError(f"{record.id}: wants a pickle to be trusted, which no record may ask for")
    if data.get("name") not in (*data_set_names(), "emt-cuau"):
        raise ZooError(f"{record.id}: its data {data.get('name')!r} are no published set, so they cannot be had from the record")
    if "path" in adapter:
        raise ZooError(f"{record.id}: went on from the adapter file {adapter['path']!r}, which a record does not hold")


def _section(asked: Any, name: str) -> Mapping[str, Any] | None:
    """A part of a configuration that nobody has validated; empty where it is left out, None where it is none."""
    found = (asked.get(name) or {}) if isinstance(asked, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _trained(record: Record, folder: Path, device: str, say: Callable[[str], None]) -> Record:
    from zoo.training.config import RunConfig, parse_config
    from zoo.training.run import fine_tune

    run = {"name": folder.name, "folder": str(folder), "resume": True}
    settings: Mapping[str, Any] = record.training or {}
    config: RunConfig = parse_config({**settings, "backbone": {**settings["backbone"], "device": device}, "run": run})
    loggers = config.training.loggers.model_copy(update={"wandb_project": None})  # nothing is sent anywhere because a record says so
    config = config.model_copy(update={"training": config.training.model_copy(update={"loggers": loggers})})
    fine_tune(config, say)
    return read_record(folder / "record.json")


def _evaluated(record: Record, folder: Path, device: str, say: Callable[[str], None]) -> Record:
    from zoo.choices import EvaluateConfig
    from zoo.commands import evaluate_as
    from zoo.training.config import parse_config

    asked: Mapping[str, Any] = record.evaluation["asked"]  # type: ignore[assignment]
    say(f"{record.base.card} predicts {', '.join(dict.fromkeys(metric.test_set for metric in record.metrics))} of {record.data.name}")
    path = folder / "record.json"
    folder.mkdir(parents=True, exist_ok=True)
    evaluate_as(parse_config({**asked, "backbone": {**asked["backbone"], "device": device}, "record": str(path)}, EvaluateConfig))
    return read_record(path)
