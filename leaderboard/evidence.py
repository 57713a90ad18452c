"""What a reader is told about where a number comes from and who has checked it.

Provenance (`leaderboard.board.MEANING`) says who obtained a result; verification, what the board computed again itself. The second is the
board's verdict, beside the record and no part of it, and a record without one is shown as not verified, whoever entered it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC

from zoo.submission.verdict import RECOMPUTED_METRICS, RECOMPUTED_PREDICTIONS, Verdict


@dataclass(frozen=True)
class Verification:
    """A badge: its name in full, as it fits into a table, the class of its style, and what it means."""

    name: str
    short: str
    style: str
    meaning: str


VERIFICATIONS = (
    Verification(
        RECOMPUTED_PREDICTIONS, "✓✓ predictions", "predictions", "test frames were predicted again from base and adapter, and agree"
    ),
    Verification(RECOMPUTED_METRICS, "✓ metrics", "metrics", "the numbers follow from the predictions sent in and the data's own labels"),
    Verification("not verified", "not verified", "none", "the board has recomputed nothing of it"),
)
"""The strongest first; the last is that of records without a verdict."""


def verification_of(verdict: Verdict | None) -> Verification:
    """The badge of a verdict, or of none."""
    return next((one for one in VERIFICATIONS if verdict is not None and one.name == verdict.badge), VERIFICATIONS[-1])


def verdict_facts(verdict: Verdict) -> list[tuple[str, str]]:
    """What was recomputed, how far it agreed, and what nobody can recompute, as names and values."""
    facts: list[tuple[str, str]] = []
    found = verdict.recomputed
    if found is not None:
        frames = "all" if found.frames == found.of else f"{found.frames} of"
        facts += [
            ("Frames computed again", f"{frames} {found.of}, on {found.device}" + (f"; drawn with {found.salt!r}" if found.salt else "")),
            ("Largest difference, energy", _beside(found.largest.energy_ev_per_atom, found.tolerated.energy_ev_per_atom, "eV/atom")),
            ("Largest difference, forces", _beside(found.largest.forces_ev_per_angstrom, found.tolerated.forces_ev_per_angstrom, "eV/Å")),
        ]
        stress = found.largest.stress_ev_per_angstrom3, found.tolerated.stress_ev_per_angstrom3
        facts += [("Largest difference, stress", _beside(*stress, "eV/Å³"))] if stress[0] else []
    facts += [("Agreed with what was recomputed", "; ".join(verdict.checked)), ("Only stated by the author", "; ".join(verdict.stated))]
    facts += [("Note", note) for note in verdict.notes]
    facts += [
        ("Verified", f"{verdict.verified.astimezone(UTC):%Y-%m-%d %H:%M} UTC"),
        ("Archive, SHA-256", verdict.archive_sha256),
    ]
    return [(name, value) for name, value in facts if value]


def _beside(found: float, tolerated: float, unit: str) -> str:
    return f"{found:.1e} {unit}, tolerated {tolerated:.1e}"
