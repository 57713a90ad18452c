"""What a submission's author says himself."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ZooError
from zoo.submission.consistency import person_differences


@dataclass(frozen=True)
class Statement:
    """What the author says himself, and what he wants in the record.

    Attributes:
        author: who the board names.
        licence: of record and adapter.
        reproduced: whether the board entered the run itself.
        equivariance: whether the residuals of the trained model are computed and stated; a verifier then wants the base.
    """

    author: str
    licence: str
    reproduced: bool = False
    equivariance: bool = False


def check_statement(statement: Statement, base_licence: str | None = None) -> None:
    """Refuse a name or a licence before anything is computed; raises `ZooError` with the first complaint."""
    for problem in person_differences(statement.author, statement.licence, base_licence):
        raise ZooError(f"the board would refuse this: {problem}")
