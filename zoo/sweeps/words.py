"""How the words of a sweep are read: its own keys apart from those of the runs, and lists."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from zoo.errors import ZooError, nearest_name_hint

_PREFIX = "sweep."
_RUN_GROUPS = ("adapter", "backbone", "data", "evaluation", "experiment", "run", "strategy", "training")


def own_and_run_words(words: Sequence[str], own: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """The sweep's own settings, and the words for every run.

    Own keys may carry the prefix ``sweep.``; ``--dry-run`` and other flags are ``dry_run=true``.

    Args:
        words: as typed.
        own: the sweep's keys.

    Raises:
        ZooError: a word that is not ``key=value``, a key given twice, or one that is neither the sweep's nor a run's.
    """
    settings: dict[str, str] = {}
    for_runs: list[str] = []
    for word in words:
        flag = word.removeprefix("--").replace("-", "_")
        plain = f"{flag}=true" if word.startswith("--") and flag in own else word
        key, equals, value = plain.partition("=")
        name = key.removeprefix(_PREFIX)
        if not equals:
            raise ZooError(f"zoo sweep: {word!r}: arguments are key=value; see zoo sweep --help")
        if name in own:
            if name in settings:
                raise ZooError(f"zoo sweep: {key} is given twice; give one list: {name}=[...]")
            settings[name] = value
        elif key.startswith(_PREFIX) or key.lstrip("+~").split(".")[0] not in _RUN_GROUPS:
            raise ZooError(f"zoo sweep: unknown key {key!r}; {nearest_name_hint(name, [*own, *_RUN_GROUPS])}")
        else:
            for_runs.append(word)
    return settings, for_runs


def items_of(text: str) -> tuple[str, ...]:
    """``[a,b=[1,2]]`` or ``a,b=[1,2]`` -> ``("a", "b=[1,2]")``: commas within brackets separate nothing."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    return tuple(item for item in (part.strip() for part in split_outside_brackets(inner, ",")) if item)


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """The parts of a text between separators that stand in no bracket; of ``:`` those before ``//`` belong to an address and stay."""
    parts, depth = [""], 0
    for place, character in enumerate(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(character, 0)
        if character == separator and depth == 0 and not (separator == ":" and text.startswith("//", place + 1)):
            parts.append("")
        else:
            parts[-1] += character
    return parts
