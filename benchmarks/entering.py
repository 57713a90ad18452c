"""How a result of ours becomes a row of the board: its record and the verdict on it, beside one another."""

from __future__ import annotations

from benchmarks.row_plan import AUTHOR, LICENCE
from leaderboard.entries import record_file, write_verdict
from zoo.evaluation.record import Record, write_record
from zoo.submission.statement import Statement
from zoo.submission.written import Submitted

STATEMENT = Statement(AUTHOR, LICENCE, reproduced=True)


def enter(done: Submitted) -> Record:
    """Write ``records/reproduced/ID.json`` and ``verdicts/ID.json`` of an archive that was verified when it was written."""
    assert done.judgement.verdict is not None
    write_record(record_file(done.record), done.record)
    write_verdict(done.judgement.verdict)
    return done.record
