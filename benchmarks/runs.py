"""What the tables made from finished runs share: the words after ``--``, and how their notes name hardware, commits and command."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from zoo.evaluation.record import Record


def own_and_extra_words() -> tuple[list[str], list[str]]:
    """The command line up to ``--``, and what comes after it: settings for every run."""
    words = sys.argv[1:]
    if "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def command_of(module: str, seeds: Sequence[int], extra: Sequence[str]) -> str:
    """The command that makes a table again."""
    return " ".join([f"python -m benchmarks.{module}", "--seeds", *map(str, seeds), *(["--", *extra] if extra else [])])


def hardware_of(records: Iterable[Record]) -> str:
    """Each kind of hardware that the runs were on, once."""
    return "; ".join(sorted({f"{one.cost.hardware}, {one.cost.threads} thread(s)" for one in records if one.cost is not None}))


def commits_of(records: Iterable[Record]) -> str:
    """``, commit ...`` with each commit that the runs were of, once; empty where none is known."""
    commits = {f"`{one.git_commit.sha[:12]}`{' with changes' if one.git_commit.dirty else ''}" for one in records if one.git_commit}
    return f", commit {', '.join(sorted(commits))}" if commits else ""
