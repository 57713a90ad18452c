"""A row of a base model on every published set that is on this disk, and their table: ``python -m benchmarks.zero_shot``.

Each is made and verified as ``python -m leaderboard.zero_shot backbone=CARD data=SET reference_energies=...`` does. Sets without a file
here are named and left out; a set whose row is there already is not evaluated again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.entering import STATEMENT, enter
from benchmarks.tables import ROOT, markdown_table, write_between_markers
from leaderboard.entries import REPRODUCED, read_records
from leaderboard.zero_shot import config_of
from zoo.data.card_files import on_this_disk
from zoo.data.catalogue import data_card, data_set_names
from zoo.evaluation.metrics import METRICS
from zoo.evaluation.provenance import hardware
from zoo.evaluation.record import Record
from zoo.submission.submit import DEFAULT_NAME
from zoo.submission.submit_zero_shot import submit_zero_shot
from zoo.submission.zero_shot import ZeroShotConfig

CARD = "sevennet-0"
# labels at the base's own level of theory: its energies are compared as they are
SAME_LEVEL = ("mptrj-1k", "mptrj-highest-stress-1k", "mpf-tp")
# reference energies of one or two compositions are determined by few frames, and predicting thousands of large cells takes an hour
FEW_FOR_REFERENCE = {"lam/sse-pbe-ligeps": 200, "lam/hfo2-init": 200}


def words_of(name: str) -> list[str]:
    """What follows ``zoo evaluate`` for one set."""
    card = data_card(name)
    words = [f"backbone={CARD}", f"data={name}"]
    if name in SAME_LEVEL:
        return [*words, "split=whole"]
    if not card.pools:
        return words
    tests = default_tests(name)
    absent = tests_not_here(name)
    if absent:
        words.append(f"data.test=[{','.join(test for test in tests if test not in absent)}]")
    if name in FEW_FOR_REFERENCE:
        words += [f"data.n_train={FEW_FOR_REFERENCE[name]}", "batch_size=4"]
    return [*words, "reference_energies=model"]


def default_tests(name: str) -> tuple[str, ...]:
    """The test sets of the default protocol."""
    card = data_card(name)
    protocol = card.protocol(None)[1]
    pool = card.pool(protocol.subset if protocol is not None else None)[1]
    fair = tuple(card.tests) if pool is None or pool.tests is None else pool.tests
    return fair if protocol is None or protocol.tests is None else protocol.tests


def tests_not_here(name: str) -> list[str]:
    """Test sets of the default protocol of which a file is not on this disk."""
    card = data_card(name)
    return [test for test in default_tests(name) if not all(on_this_disk(card, key) for key in card.tests[test])]


def is_here(name: str) -> bool:
    """Whether the default pool of a set, and one test where it has tests, are on this disk."""
    card = data_card(name)
    protocol = card.protocol(None)[1]
    pool = card.pool(protocol.subset if protocol is not None else None)[1]
    pool_is_here = pool is None or all(on_this_disk(card, key) for key in pool.files)
    return pool_is_here and (not default_tests(name) or len(tests_not_here(name)) < len(default_tests(name)))


def base_row(config: ZeroShotConfig, board: Sequence[Record]) -> Record | None:
    """The board's row of a base on the frames that ``config`` draws, be it under other names for the same, and on all its test sets."""
    tests = {config.split} if config.split else set(default_tests(config.data.name) if config.data.test is None else config.data.test)
    for record in board:
        if record.provenance == REPRODUCED and record.adapter is None and tests <= {metric.test_set for metric in record.metrics}:
            made = ZeroShotConfig.model_validate(record.evaluation["asked"])
            if _question(made) == _question(config):
                return record
    return None


def _question(config: ZeroShotConfig) -> tuple[object, ...]:
    """What decides on the numbers of a base, with the name that a protocol has in its set's card."""
    data, protocol = config.data, data_card(config.data.name).protocol(config.data.protocol)[0]
    return config.backbone.name, config.split, config.reference_energies, data.model_copy(update={"test": None, "protocol": protocol})


def record_of(name: str, board: Sequence[Record]) -> Record:
    """The board's record of one set, after evaluating it if there is none."""
    config = config_of(words_of(name))
    known = base_row(config, board)
    if known is not None:
        return known
    print(f"python -m leaderboard.zero_shot {' '.join(words_of(name))}", flush=True)
    with TemporaryDirectory() as folder:
        return enter(submit_zero_shot(config, STATEMENT, Path(folder) / DEFAULT_NAME))


def table(records: dict[str, Record]) -> str:
    """One row a test set: the two headline numbers that its protocol asks for."""
    rows = []
    for name, record in records.items():
        asked = (data_card(name).protocol(None)[1] or next(iter(data_card(name).protocols.values()))).metrics
        for test in dict.fromkeys(metric.test_set for metric in record.metrics):
            found = {metric.name: metric for metric in record.metrics if metric.test_set == test}
            cells = [f"{found[metric].value:.1f} {METRICS[metric].unit} ({METRICS[metric].label})" for metric in asked if metric in found]
            frames = record.data.splits[test].frames
            rows.append(
                [f"`{name}`", f"`{test}`", str(frames), record.reference_energies.after, ", ".join(cells) or "no label of the protocol"]
            )
    return markdown_table(["set", "test", "frames", "reference energies", "error"], rows)


def note(records: dict[str, Record]) -> str:
    """When, with what and at which commits the numbers were made, from the records themselves."""
    made = [record.created for record in records.values()]
    commits = sorted({f"`{record.git_commit.sha[:12]}`" for record in records.values() if record.git_commit is not None})
    versions = next(iter(records.values())).versions
    software = f"torch {versions['torch']}, sevenn {versions['sevenn']}"
    same_level = ", ".join(f"`{name}`" for name in SAME_LEVEL)
    return (
        f"Made by `python -m benchmarks.zero_shot` from {min(made):%Y-%m-%d} to {max(made):%Y-%m-%d}, {hardware()}; {software}, commits "
        f"{', '.join(commits)}. SevenNet-0 was trained on MPtrj, and so perhaps on frames of {same_level}, whose labels are at its own "
        "level of theory (of the last as far as known)."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the records that are missing and rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(data_set_names()))
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "data.md")
    chosen = parser.parse_args(arguments)
    here = [name for name in chosen.sets if is_here(name)]
    print(f"not on this disk: {', '.join(name for name in chosen.sets if name not in here) or 'none'}", flush=True)
    board = read_records()
    records = {name: record_of(name, board) for name in here}
    if chosen.sets == list(data_set_names()):
        write_between_markers(chosen.page, "zero-shot", f"{table(records)}\n\n{note(records)}")


if __name__ == "__main__":
    main()
