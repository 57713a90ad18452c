"""The words for where reference energies come from, the same in configurations, commands, records and documentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator


def _one_word(value: object) -> object:
    """``average`` is what MACE's training command calls ``least_squares``."""
    return "least_squares" if value == "average" else value


ReferenceChoice = Annotated[Literal["base", "model", "isolated_atoms", "least_squares", "linear"], BeforeValidator(_one_word)]
"""Which per-element energies are added to a model's.

``base``: none that the model does not bring; ``model``: least squares of label minus the model's own prediction on the training split;
``isolated_atoms``: so that isolated atoms get the data set's energies; ``least_squares``: so that they get energies fitted to the labels of
the training split alone (``E0s="average"`` of MACE's training command, also accepted as ``average``); ``linear``: the data set's published
linear references, for models that predict what these leave (`zoo.data.linear_references`)."""


def needs_training_split(choice: ReferenceChoice) -> bool:
    """Whether the energies are fitted, which is done on training frames and no others."""
    return choice in ("model", "least_squares")
