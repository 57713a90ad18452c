"""A base without adapter as a row of the board: ``python -m leaderboard.zero_shot --author NAME --licence L --output FILE.zip WORD...``.

The words are those of ``zoo evaluate``. Writes an archive, as ``zoo submit`` does for a run, which ``python -m leaderboard.add`` enters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from leaderboard.verify import add_choice_arguments, choice_of
from zoo.choices import EvaluateConfig, parse_choice
from zoo.errors import USER_ERRORS, ZooError
from zoo.submission.statement import Statement
from zoo.submission.submit_zero_shot import submit_zero_shot
from zoo.submission.zero_shot import ZeroShotConfig

_NOT_OF_A_BASE = ("run", "adapter", "record")


def config_of(words: Sequence[str]) -> ZeroShotConfig:
    """How the words of ``zoo evaluate`` evaluate a base; raises `ZooError` for words that mean something else."""
    config: EvaluateConfig = parse_choice("evaluate", words, EvaluateConfig)
    given = [name for name in _NOT_OF_A_BASE if getattr(config, name) is not None]
    if given or config.task != "labels":
        raise ZooError(f"{given[0] if given else 'task'}=... is not for a base on the test sets of a protocol; leave it out")
    return ZeroShotConfig(**{name: getattr(config, name) for name in ZeroShotConfig.model_fields})


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one archive; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.zero_shot", description="Evaluate a base for a row of the board's own.")
    parser.add_argument("words", nargs="+", metavar="WORD", help="of zoo evaluate: backbone=..., data=..., reference_energies=model")
    parser.add_argument("--author", required=True)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.zip")
    add_choice_arguments(parser)
    options = parser.parse_args(arguments)
    statement = Statement(options.author, options.licence, reproduced=True)
    try:
        done = submit_zero_shot(config_of(options.words), statement, options.output, choice_of(options))
    except USER_ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    print(done.judgement.text())
    print(f"archive: {done.archive} ({done.archive.stat().st_size / 1e6:.2f} MB)")
    print(f"enter it with: python -m leaderboard.add {done.archive}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
