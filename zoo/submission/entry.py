"""What is verified the same way whether a run or a base without adapter was submitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from zoo.data.config import DataConfig
from zoo.data.parts import DataSplits
from zoo.errors import ZooError
from zoo.evaluation.forgetting_settings import ForgettingSettings
from zoo.evaluation.record import Record
from zoo.potential import Potential


class BaseNotHere(ZooError):
    """The base cannot be had where the submission is verified, which says nothing against it."""


class Entry(Protocol):
    """A submission whose config has been read."""

    @property
    def record(self) -> Record:
        """The result."""
        ...

    @property
    def data(self) -> DataConfig:
        """What the protocol's frames are drawn by."""
        ...

    @property
    def part(self) -> str | None:
        """The test set that is evaluated alone; None for all of the protocol."""
        ...

    @property
    def forgetting(self) -> ForgettingSettings | None:
        """On which frames what was forgotten is measured; None where the config asks for none."""
        ...

    def differences(self) -> Iterator[str]:
        """Every disagreement among the files, one line each."""
        ...

    def model(self, splits: DataSplits) -> tuple[Potential, list[str]]:
        """(what predicts, on the CPU; every way in which the record says otherwise).

        Raises:
            BaseNotHere: where the base cannot be had.
            ZooError, AdapterError: where the submission's files do not make a model.
        """
        ...
