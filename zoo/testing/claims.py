"""What a claim is, and what the kit says of one that does not hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.errors import first_line


class ContractError(AssertionError):
    """A claim that does not hold: what was found, and what was wanted."""


@dataclass(frozen=True)
class Figure:
    """What a claim measured.

    Attributes:
        value: a residual, relative unless the claim says otherwise; 0 where every bit is the same, None where there is no number.
        note: what the number is of, or what stands in its place (``"refused"``).
    """

    value: float | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return self.note
        text = "0" if self.value == 0 else f"{self.value:.1e}"
        return f"{text} ({self.note})" if self.note else text


EXACT = Figure(0.0)
"""Every bit is the same."""


@dataclass(frozen=True)
class Finding:
    """One claim, asked once.

    Attributes:
        claim: its name.
        subject: of what, such as ``"elora on mace residual"``.
        figure: what was measured; None where the claim does not hold.
        fault: why it does not hold, else empty.
    """

    claim: str
    subject: str
    figure: Figure | None
    fault: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.fault


def hold(condition: bool, claim: str, found: object, wanted: object) -> None:
    """Raise `ContractError` unless ``condition``; unlike an ``assert`` statement, under ``python -O`` too.

    Args:
        condition: whether the claim holds.
        claim: what is claimed, in words.
        found: what was measured.
        wanted: what the claim asks for.
    """
    if not condition:
        raise ContractError(f"{claim}: found {found}, wanted {wanted}")


def refusal(call: Callable[[], object], wanted: str) -> str:
    """The one line with which ``call`` refuses; raises `ContractError` where it does not, or says something else.

    Args:
        call: what must be refused with a `ZooError` or an `AdapterError`.
        wanted: words that the line must hold.
    """
    from zoo.errors import USER_ERRORS

    try:
        call()
    except USER_ERRORS as error:
        message = str(error)
        hold(wanted in message and "\n" not in message, "a refusal says why, in one line", repr(message), repr(wanted))
        return message
    raise ContractError(f"what cannot be is refused: found no error, wanted one with {wanted!r}")


def ask(claim: str, subject: str, check: Callable[[], Figure]) -> Finding:
    """The finding of one check; whatever it raises is the fault, so that the claims after it are asked too."""
    try:
        return Finding(claim, subject, check())
    except ContractError as error:
        return Finding(claim, subject, None, str(error))
    except Exception as error:  # a method or a network of someone else's may raise anything
        return Finding(claim, subject, None, f"{type(error).__name__}: {first_line(error)}")


def raise_faults(findings: tuple[Finding, ...]) -> None:
    """Raise one `ContractError` with a line for each claim that does not hold; nothing where all do."""
    lines = [f"{finding.subject}: {finding.claim}: {finding.fault}" for finding in findings if not finding.holds]
    if lines:
        raise ContractError("\n".join([f"{len(lines)} of {len(findings)} claims do not hold", *lines]))
