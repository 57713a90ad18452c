"""``zoo sweep``: its words, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.errors import ZooError, nearest_name_hint
from zoo.sweeps.kinds import KINDS

CUTS = "cuts"


def sweep_command(words: Sequence[str]) -> None:
    """``zoo sweep KIND [key=value ...]``; raises `ZooError` where a run failed, after the others are done and drawn."""
    names = [*KINDS, CUTS]
    if not words or "=" in words[0] or words[0].startswith("-"):
        raise ZooError(f"zoo sweep: the first word is the kind, found {words[0] if words else 'nothing'}; known: {', '.join(names)}")
    kind, rest = words[0], words[1:]
    if kind not in names:
        raise ZooError(f"zoo sweep {kind}: no such sweep; {nearest_name_hint(kind, names)}")
    if kind == CUTS:
        from zoo.sweeps.cuts import cuts_of_words, run_cuts

        run_cuts(cuts_of_words(rest))
        return
    from zoo.sweeps.request import request_of_words
    from zoo.sweeps.run import carry_out

    carry_out(request_of_words(kind, rest)).check()
