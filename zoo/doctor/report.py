"""What an examination found: findings by level, the facts beside them, and their forms for people, scripts and browsers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
FORMAT_VERSION = 1
_SHOWN_FRAMES = 4


@dataclass(frozen=True)
class Finding:
    """One thing that a check has to say.

    Attributes:
        level: ``error`` (training would refuse it, or learn something wrong), ``warning`` (look at it before training), ``note``.
        check: the name of the check, e.g. ``"forces.energies"``.
        found: what there is.
        expected: what there should be; empty for a note that states a fact.
        remedy: what to do; empty where there is nothing to do.
        frames: the frames concerned, as `zoo.data.frame.Frame.name`.
    """

    level: Level
    check: str
    found: str
    expected: str = ""
    remedy: str = ""
    frames: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Found, expected and remedy in one line, as a log takes it."""
        parts = [self.found, f"expected {self.expected}" if self.expected else "", self.remedy]
        return "; ".join(filter(None, parts))

    @property
    def frames_text(self) -> str:
        """The first few frames, and how many more there are; empty where no frame is named."""
        more = len(self.frames) - _SHOWN_FRAMES
        return ", ".join(self.frames[:_SHOWN_FRAMES]) + (f" and {more:,} more" if more > 0 else "")


@dataclass(frozen=True)
class Distribution:
    """A histogram of one quantity over frames or atoms.

    Attributes:
        title: of the quantity.
        unit: of the edges; empty for counts.
        edges: B + 1 ascending bounds.
        counts: B numbers of values between them.
        logarithmic: whether the edges are equally spaced in the logarithm.
    """

    title: str
    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    logarithmic: bool = False

    @classmethod
    def of(cls, title: str, unit: str, values: Sequence[float], bins: int = 40, logarithmic: bool = False) -> Distribution | None:
        """Of the finite ``values`` (positive ones, where ``logarithmic``); None where there is none."""
        finite = np.asarray([value for value in values if np.isfinite(value) and (value > 0 or not logarithmic)], dtype=np.float64)
        if not finite.size:
            return None
        low, high = float(finite.min()), float(finite.max())
        if low == high:
            low, high = (low / 2, high * 2) if logarithmic else (low - 0.5, high + 0.5)
        edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
        edges[0], edges[-1] = low, high  # rounding of the spacing must not leave the extremes out
        counts = np.histogram(finite, edges)[0]
        return cls(title, unit, tuple(map(float, edges)), tuple(map(int, counts)), logarithmic)


@dataclass(frozen=True)
class CheckRun:
    """One check of an examination: how long it took, or why it was left out (empty where it ran)."""

    name: str
    question: str
    seconds: float
    skipped: str = ""


@dataclass(frozen=True)
class Report:
    """The outcome of an examination.

    Attributes:
        facts: what was examined, name to text, in the order to show them.
        findings: errors first, then warnings, then notes.
        checks: every check, in the order they ran.
        distributions: histograms for the page.
    """

    facts: Mapping[str, str]
    findings: tuple[Finding, ...]
    checks: tuple[CheckRun, ...]
    distributions: tuple[Distribution, ...] = field(default=())

    def of_level(self, level: Level) -> tuple[Finding, ...]:
        """The findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)

    def of_check(self, name: str) -> tuple[Finding, ...]:
        """The findings of one check, or of a family of checks (``"forces"``)."""
        return tuple(finding for finding in self.findings if finding.check == name or finding.check.startswith(f"{name}."))

    @property
    def passed(self) -> bool:
        """Whether no error was found."""
        return not self.of_level("error")

    @property
    def exit_code(self) -> int:
        """Of ``zoo doctor``: 0 without errors, else 1."""
        return 0 if self.passed else 1

    @property
    def summary(self) -> str:
        """``"1 error, 2 warnings, 3 notes; 18 checks in 12.3 s, 2 left out"``."""
        counts = ", ".join(_counted(len(self.of_level(level)), level) for level in LEVELS)
        done = [check for check in self.checks if not check.skipped]
        left_out = len(self.checks) - len(done)
        seconds = sum(check.seconds for check in done)
        return f"{counts}; {_counted(len(done), 'check')} in {seconds:.1f} s" + (f", {left_out} left out" if left_out else "")

    def text(self) -> str:
        """For a terminal: facts, findings with what to do, what was left out, and the summary as the last line."""
        width = max((len(name) for name in self.facts), default=0)
        lines = [f"{name:<{width}}  {value}" for name, value in self.facts.items()]
        for finding in self.findings:
            lines += ["", f"{finding.level.upper():<8}{finding.check}: {finding.found}"]
            for name, value in (("expected", finding.expected), ("do", finding.remedy), ("frames", finding.frames_text)):
                if value:
                    lines.append(f"{'':8}{name + ':':<10}{value}")
        left_out = [f"left out: {check.name} ({check.skipped})" for check in self.checks if check.skipped]
        return "\n".join([*lines, "", *left_out, self.summary])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the JSON has them."""
        from zoo import __version__

        return {
            "format_version": FORMAT_VERSION,
            "equizoo": __version__,
            "passed": self.passed,
            "counts": {level: len(self.of_level(level)) for level in LEVELS},
            "facts": dict(self.facts),
            "findings": [{**asdict(finding), "frames": list(finding.frames)} for finding in self.findings],
            "checks": [asdict(check) for check in self.checks],
            "distributions": [asdict(distribution) for distribution in self.distributions],
        }

    def to_json(self) -> str:
        """`to_dict` as strict JSON (no NaN)."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def html(self) -> str:
        """A page of its own with histograms; it loads nothing from anywhere."""
        from zoo.doctor.page import page

        return page(self)


def sorted_by_level(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors, warnings, notes; each in the order they were found."""
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
