"""Markdown tables, and the one way a number gets into the documentation: between the markers of a page, by a script."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table; columns of numbers are aligned to the right."""
    rule = ["---:" if all(re.match(r"[*+-]*\d|$", row[index]) for row in rows) else "---" for index in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def stamp(command: str) -> str:
    """When, on what and by which command the numbers above were made."""
    from zoo.evaluation.provenance import git_commit, hardware, versions

    found = versions()
    commit = git_commit()
    code = "" if commit is None else f", commit `{commit.sha[:12]}`{' with changes' if _code_has_changes() else ''}"
    packages = ", ".join(f"{name} {found[name]}" for name in ("torch", "e3nn", "sevenn") if name in found)
    return f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}, {hardware()}; Python {found['python']}, {packages}{code}."


def _code_has_changes() -> bool:
    """Whether what decides a number differs from the commit; the pages that the scripts rewrite do not count."""
    code = ["zoo", "adapters", "configs", "benchmarks", "constraints.txt"]
    status = subprocess.run(["git", "status", "--porcelain", "--", *code], cwd=ROOT, capture_output=True, text=True, check=True)
    return bool(status.stdout.strip())


def between_markers(text: str, name: str) -> str:
    """What stands between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``; raises ``ValueError`` without exactly one such pair."""
    return _match(text, name).group(1).strip("\n")


def replace_between_markers(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the markers of ``name``."""
    match = _match(text, name)
    return f"{text[: match.start(1)]}\n{content.strip()}\n{text[match.end(1) :]}"


def write_between_markers(page: Path, name: str, content: str) -> None:
    """Rewrite one table of a page in place."""
    page.write_text(replace_between_markers(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")
    print(f"{page.relative_to(ROOT) if page.is_relative_to(ROOT) else page}: {name}\n{content}")


def _match(text: str, name: str) -> re.Match[str]:
    matches = list(re.finditer(rf"<!-- begin: {re.escape(name)} -->(.*?)<!-- end: {re.escape(name)} -->", text, flags=re.DOTALL))
    if len(matches) != 1:
        raise ValueError(f"found {len(matches)} pairs of markers <!-- begin: {name} --> ... <!-- end: {name} -->, wanted one")
    return matches[0]
