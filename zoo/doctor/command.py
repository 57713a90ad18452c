"""``zoo doctor``: the words of ``zoo train`` and a few of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.doctor.examination import MOST_FRAMES, SAMPLE, examine
from zoo.errors import ZooError
from zoo.files import write_text_atomically

_OWN = ("json", "html", "sample", "frames", "only", "strict")


def doctor(arguments: Sequence[str]) -> int:
    """Examine and print (``--json``: the JSON instead of the table).

    Returns:
        The exit code: 1 where an error was found, or with ``strict=true`` a warning.

    Raises:
        ZooError: words that are wrong, or a file that cannot be written.
    """
    own, words = split_words(arguments)
    strict = _is_true("strict", own.get("strict", "false"))
    targets = {name: _writable(own[name]) for name in ("json", "html") if name in own}  # refused before minutes of work
    report = examine(
        words,
        sample=_count("sample", own.get("sample", str(SAMPLE))),
        most_frames=None if own.get("frames") == "all" else _count("frames", own.get("frames", str(MOST_FRAMES))),
        only=_names(own.get("only", "")),
    )
    print(report.to_json() if "--json" in arguments else report.text())
    for name, path in targets.items():
        write_text_atomically(path, report.html() if name == "html" else report.to_json() + "\n")
    return 1 if strict and report.of_level("warning") else report.exit_code


def split_words(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """``json=``, ``html=``, ``sample=``, ``frames=``, ``only=`` and ``strict=``, and the words that are those of ``zoo train``."""
    own: dict[str, str] = {}
    words: list[str] = []
    for word in arguments:
        key, equals, value = word.partition("=")
        if word == "--json":
            continue
        if word.startswith("-"):
            raise ZooError(f"zoo doctor has no option {word}; it takes --json, and the words of zoo train")
        if key in _OWN and equals:
            if not value:
                raise ZooError(f"{key}= has no value; see zoo doctor --help")
            own[key] = value
        else:
            words.append(word)
    return own, words


def _writable(value: str) -> Path:
    path = Path(value).expanduser()
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ZooError(f"{path}: is a folder, or in none that exists; name a file in an existing folder")
    return path


def _count(name: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ZooError(f"{name}={value}: wanted a number of frames, 1 or more{' (or all)' if name == 'frames' else ''}")
    return int(value)


def _is_true(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ZooError(f"{name}={value}: wanted true or false")
    return value.lower() == "true"


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.strip("[]").split(",") if name.strip()]
