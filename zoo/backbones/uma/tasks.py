"""The tasks of a checkpoint: which of the network's outputs are what, for which data set, in which units.

A head of this family's models is a data set (``omol``, ``omat``, ...): the level of theory to predict.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.backbones.uma.values import plain
from zoo.errors import ZooError

_LARGEST = 1e12  # eV and eV/Å: beyond any energy, and far from what a float cannot hold
_NORMALISER = "fairchem.core.modules.normalization.normalizer.Normalizer"
_REFERENCES = "fairchem.core.modules.normalization.element_references.ElementReferences"
_TENSORS = ("torch.DoubleTensor", "torch.FloatTensor", "torch.tensor")


@dataclass(frozen=True)
class Task:
    """One output: ``value = output * rmsd + mean``, and for energies the sum of ``element_references`` (eV, by atomic number)."""

    name: str
    quantity: str
    datasets: tuple[str, ...]
    mean: float
    rmsd: float
    element_references: tuple[float, ...] | None


@dataclass(frozen=True)
class DatasetTasks:
    """What is predicted for one data set."""

    dataset: str
    energy: Task
    forces: Task | None
    stress: Task | None


@dataclass(frozen=True)
class Tasks:
    """All tasks of a checkpoint, in its order, and the same as plain data for the way back.

    Attributes:
        source: names the file in errors.
    """

    source: str
    each: tuple[Task, ...]
    raw: list[dict[str, Any]]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets with an energy, sorted."""
        return tuple(sorted({dataset for task in self.each if task.quantity == "energy" for dataset in task.datasets}))

    def of(self, dataset: str) -> DatasetTasks:
        """The tasks of a data set that has an energy.

        Raises:
            ZooError: where it has two of one quantity.
        """
        found: dict[str, Task] = {}
        for task in self.each:
            if dataset in task.datasets:
                if task.quantity in found:
                    both = f"{found[task.quantity].name!r} and {task.name!r}"
                    raise ZooError(f"{self.source}: both {both} are the {task.quantity} of {dataset!r}; leave one out")
                found[task.quantity] = task
        return DatasetTasks(dataset, found["energy"], found.get("forces"), found.get("stress"))

    def with_references(self, task: Task, values: Sequence[float]) -> list[dict[str, Any]]:
        """``raw`` with other element references (eV, by atomic number) of one task."""
        config = copy.deepcopy(self.raw)
        config[self.each.index(task)]["element_references"] = references_config(values)
        return config


def read_tasks(raw: Any, source: str) -> Tasks:
    """The tasks of ``tasks_config``.

    Raises:
        ZooError: for normalisers or references that are not numbers in the file, or without an energy.
    """
    config = plain(raw, source)
    if not isinstance(config, list) or not config or not all(isinstance(one, dict) for one in config):
        raise ZooError(f"{source}: its tasks_config is no list of tasks; pass an inference checkpoint that fairchem-core 2.x wrote")
    tasks = Tasks(source, tuple(_task(one, source) for one in config), config)
    if not tasks.datasets:
        raise ZooError(f"{source}: none of its tasks is an energy (found: {', '.join(task.name for task in tasks.each)})")
    return tasks


def _task(given: Mapping[str, Any], source: str) -> Task:
    name = str(given.get("name"))
    where = f"{source}: task {name!r}"
    quantity, datasets = given.get("property"), given.get("datasets")
    if not isinstance(quantity, str) or not isinstance(datasets, list) or not datasets:
        raise ZooError(f"{where} names no property and datasets; state both, or pass an inference checkpoint of fairchem-core 2.x")
    mean, rmsd = _normaliser(given.get("normalizer"), where)
    return Task(name, quantity, tuple(map(str, datasets)), mean, rmsd, _references(given.get("element_references"), where))


def _normaliser(given: Any, where: str) -> tuple[float, float]:
    if not isinstance(given, dict) or given.get("_target_", _NORMALISER) != _NORMALISER or not set(given) <= {"_target_", "mean", "rmsd"}:
        raise ZooError(f"{where} has a normaliser that is no mean and rmsd in the file (found {str(given)[:80]}); write the numbers out")
    mean, rmsd = given.get("mean", 0.0), given.get("rmsd", 1.0)
    if not all(isinstance(value, int | float) and abs(value) < _LARGEST for value in (mean, rmsd)) or not rmsd > 0:
        raise ZooError(f"{where} has the normaliser mean={str(mean)[:20]}, rmsd={str(rmsd)[:20]}; wanted two numbers, and rmsd above 0")
    return float(mean), float(rmsd)


def _references(given: Any, where: str) -> tuple[float, ...] | None:
    if given is None:
        return None
    values = given.get("element_references") if isinstance(given, dict) and given.get("_target_") == _REFERENCES else None
    if isinstance(values, dict) and values.get("_target_") in _TENSORS and isinstance(values.get("_args_"), list) and values["_args_"]:
        values = values["_args_"][0]
    if not isinstance(values, list) or not all(isinstance(value, int | float) and abs(value) < _LARGEST for value in values):
        raise ZooError(f"{where} has element references that are no numbers in the file (found {str(given)[:80]}); write the numbers out")
    return tuple(float(value) for value in values)


def references_config(values: Sequence[float]) -> dict[str, Any]:
    """Element references as upstream's configuration writes them."""
    return {"_target_": _REFERENCES, "element_references": {"_target_": "torch.DoubleTensor", "_args_": [list(values)]}}
