"""The report as one HTML page: tables and histograms as inline SVG; no script, no font, nothing from the network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from zoo.doctor.report import LEVELS, Distribution, Finding, Report

_WIDTH, _HEIGHT, _MARGIN, _FOOT = 420, 160, 8, 34
_MOST_FRAMES = 200
_STYLE = """
:root { color-scheme: light dark; --line: #8886; --error: #c62828; --warning: #b26a00; --note: #4a6fa5; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-top: 1px solid var(--line); }
.finding { border-left: 4px solid var(--note); padding: .1rem 0 .1rem .8rem; margin: 1rem 0; }
.finding.error { border-color: var(--error); } .finding.warning { border-color: var(--warning); }
.level { font-weight: 700; text-transform: uppercase; font-size: .8rem; } .error .level { color: var(--error); }
.warning .level { color: var(--warning); } .note .level { color: var(--note); }
.finding p { margin: .15rem 0; } .what { opacity: .7; } code { font-size: .92em; }
figure { display: inline-block; margin: 0 1.5rem 1.5rem 0; } figcaption { font-size: .9rem; }
svg { max-width: 100%; height: auto; } td, p { overflow-wrap: anywhere; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
details { margin: .15rem 0; } summary { cursor: pointer; }
"""


def page(report: Report) -> str:
    """The whole page."""
    findings = "\n".join(map(_finding, report.findings)) or "<p>Nothing to say.</p>"
    figures = "\n".join(map(histogram, report.distributions))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>zoo doctor: {escape(report.facts.get("data", "report"))}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>zoo doctor</h1>
<p>{escape(report.summary)}</p>
<p class="what">error: training would refuse it, or learn something wrong. warning: may be meant so; look at it first. note: a fact.</p>
{_table((name.strip(), value) for name, value in report.facts.items())}
<h2>Findings</h2>
{findings}
<h2>Distributions</h2>
{figures}
<h2>Checks</h2>
{_checks(report)}
</body>
</html>
"""


def histogram(distribution: Distribution) -> str:
    """One figure: bars with the square root of the counts, so that single outliers stay visible, and the extremes below."""
    digits = _digits(distribution.edges[0], distribution.edges[-1])
    tallest = max(distribution.counts) ** 0.5 or 1.0
    inner, bars = (_WIDTH - 2 * _MARGIN) / len(distribution.counts), []
    for index, count in enumerate(distribution.counts):
        height = count**0.5 / tallest * (_HEIGHT - _FOOT - _MARGIN)
        if count:
            low, high = distribution.edges[index], distribution.edges[index + 1]
            bars.append(
                f'<rect x="{_MARGIN + index * inner:.1f}" y="{_HEIGHT - _FOOT - height:.1f}" width="{inner * 0.92:.1f}" '
                f'height="{height:.1f}"><title>{low:.{digits}g} to {high:.{digits}g}: {count:,}</title></rect>'
            )
    low, high = distribution.edges[0], distribution.edges[-1]
    middle = (low * high) ** 0.5 if distribution.logarithmic else (low + high) / 2
    unit = f" {distribution.unit}" if distribution.unit else ""
    measure = f" ({distribution.unit}{', logarithmic' if distribution.logarithmic else ''})" if distribution.unit else ""
    y = _HEIGHT - _FOOT + 16
    return f"""<figure>
<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{escape(distribution.title, quote=True)}">
<g fill="#4a6fa5">{"".join(bars)}</g>
<line x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{_HEIGHT - _FOOT}" y2="{_HEIGHT - _FOOT}" stroke="currentColor"/>
<text x="{_MARGIN}" y="{y}">{low:.{digits}g}</text>
<text x="{_WIDTH / 2}" y="{y}" text-anchor="middle">{middle:.{digits}g}</text>
<text x="{_WIDTH - _MARGIN}" y="{y}" text-anchor="end">{high:.{digits}g}{escape(unit)}</text>
</svg>
<figcaption>{escape(distribution.title)}{escape(measure)}: {sum(distribution.counts):,} values, heights as square roots</figcaption>
</figure>"""


def _digits(low: float, high: float) -> int:
    """Significant ones that tell the ends of an axis apart: totals of -626.123 and -626.098 eV/atom differ in the fifth."""
    return 4 + max(0, math.floor(math.log10(max(abs(low), abs(high)) / (high - low))))


def _finding(finding: Finding) -> str:
    assert finding.level in LEVELS
    rows = [f'<p><span class="level">{finding.level}</span> <code>{escape(finding.check)}</code>: {escape(finding.found)}</p>']
    for name, text in (("expected", finding.expected), ("what to do", finding.remedy)):
        if text:
            rows.append(f'<p><span class="what">{name}:</span> {escape(text)}</p>')
    if finding.frames:
        shown, more = finding.frames[:_MOST_FRAMES], len(finding.frames) - _MOST_FRAMES
        tail = f" and {more:,} more" if more > 0 else ""
        rows.append(f"<details><summary>{len(finding.frames):,} frame(s)</summary><p>{escape(', '.join(shown))}{tail}</p></details>")
    return f'<div class="finding {finding.level}">\n' + "\n".join(rows) + "\n</div>"


def _checks(report: Report) -> str:
    rows = []
    for check in report.checks:
        found = [f"{len(report.of_check(check.name))}", f"{check.seconds:.2f} s"] if not check.skipped else ["left out", check.skipped]
        rows.append((check.name, check.question, *found))
    return _table(rows, ("check", "question", "findings", "time"))


def _table(rows: Iterable[tuple[str, ...]], heads: tuple[str, ...] = ()) -> str:
    head = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in heads)}</tr>\n" if heads else ""
    body = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n{head}{body}\n</table>"
