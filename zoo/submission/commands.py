"""``zoo submit`` and ``zoo verify``: their words, and what they print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.errors import ZooError, nearest_name_hint
from zoo.submission.recompute import Choice, device_named

SUBMIT_KEYS = ("author", "licence", "output", "frames", "device", "equivariance", "reproduced")
VERIFY_KEYS = ("frames", "salt", "device")


def submit_command(words: Sequence[str]) -> None:
    """``zoo submit RUN author=NAME licence=LICENCE [output=FILE.zip] [frames=16|all] [device=cpu]``."""
    from zoo.submission.consistency import LICENCES
    from zoo.submission.submit import Statement, submit

    run, options = parse_words("submit", "the folder of a finished run", words, SUBMIT_KEYS)
    if not options.get("author"):
        raise ZooError("zoo submit: author is missing; pass author='Your Name', which the board shows beside the result")
    if not options.get("licence"):
        raise ZooError(f"zoo submit: licence is missing; pass licence=... of record and adapter, one of {', '.join(LICENCES)}")
    statement = Statement(options["author"], options["licence"], _flag("reproduced", options), _flag("equivariance", options))
    output = Path(options["output"]).expanduser() if options.get("output") else None
    done = submit(run, statement, output, choice_of(options))
    print(done.judgement.text())
    print(f"archive: {done.archive} ({done.archive.stat().st_size / 1e6:.2f} MB)")
    print(f"record: {done.record_file}")
    print(f"enter it with: python -m leaderboard.add {done.archive}")


def verify_command(words: Sequence[str]) -> None:
    """``zoo verify FILE.zip [frames=16|all|0] [salt=WORD] [device=cpu]``; raises `ZooError` where the submission is refused."""
    from zoo.submission.archive import archive_at
    from zoo.submission.verify import verify

    path, options = parse_words("verify", "an archive that zoo submit wrote", words, VERIFY_KEYS)
    choice = choice_of(options)
    judgement = verify(archive_at(path), choice)
    print(judgement.text())
    if not judgement.accepted:
        count = len(judgement.reasons)
        raise ZooError(f"{path}: refused for {count} {'reason' if count == 1 else 'reasons'}")


def parse_words(command: str, what: str, words: Sequence[str], keys: Sequence[str]) -> tuple[str, dict[str, str]]:
    """(the one word without ``=``, the options by key); raises `ZooError` for anything else, with the nearest key."""
    options: dict[str, str] = {}
    files = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in keys:
            options[key] = value
        elif equals and key.isidentifier():
            raise ZooError(f"zoo {command}: unknown key {key!r}; {nearest_name_hint(key, keys)}")
        else:
            files.append(word)
    if len(files) != 1:
        raise ZooError(
            f"zoo {command} takes {what} and key=value, found: {' '.join(words) or 'nothing'}; zoo {command} --help explains them"
        )
    return files[0], options


def choice_of(options: Mapping[str, str]) -> Choice:
    """Which predictions to compute again, from ``frames``, ``salt`` and ``device``."""
    frames = options.get("frames", "16")
    if frames != "all" and not frames.isdecimal():
        raise ZooError(f"frames={frames}: wanted a number of frames a test set, all, or 0 to leave the base alone")
    most = None if frames == "all" else int(frames)
    return Choice(most, options.get("salt", ""), device_named(options.get("device", "cpu")))


def _flag(name: str, options: Mapping[str, str]) -> bool:
    value = options.get(name, "false")
    if value not in ("true", "false"):
        raise ZooError(f"{name}={value}: wanted true or false")
    return value == "true"
