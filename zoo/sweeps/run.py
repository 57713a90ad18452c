"""A sweep from request to figure: check every run, run what is missing, write the table, draw it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.sweeps.jobs import Job, default_folder, jobs_of
from zoo.sweeps.request import SweepRequest, make_request
from zoo.sweeps.table import Row, read_rows, row_of, write_rows

Say = Callable[[str], None]
TABLE, CURVES, FIGURE = "sweep.csv", "curves.csv", "sweep.png"


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left.

    Attributes:
        folder: of everything.
        rows: of the finished runs, as in ``sweep.csv``.
        failed: why a run failed, by its name.
        figure: the PNG; None where no run finished.
    """

    folder: Path
    rows: list[Row]
    failed: dict[str, str]
    figure: Path | None

    def check(self) -> None:
        """Raise `ZooError` in one line where a run failed."""
        if self.failed:
            name, reason = next(iter(self.failed.items()))
            more = f"; also {', '.join(list(self.failed)[1:])}" if len(self.failed) > 1 else ""
            total = len(self.rows) + len(self.failed)
            raise ZooError(
                f"{self.folder}: {len(self.failed)} of {total} runs failed: {name}: {reason}{more}; the same command runs them again"
            )


def run_sweep(kind: str, words: Sequence[str] = (), say: Say = print, **options: Any) -> SweepResult:
    """Run a sweep, as ``zoo sweep`` does.

    Args:
        kind: of `zoo.sweeps.kinds.KINDS`.
        words: ``key=value`` for every run, as ``zoo train`` takes them.
        say: receives a line as each run begins and ends.
        options: fields of `SweepRequest`: values, methods, seeds, folder, jobs, show, ...

    Returns:
        rows of the runs that finished, and why others did not; `SweepResult.check` raises for those.

    Raises:
        ZooError, adapters.errors.AdapterError: before the first run, for a wrong request, configuration or folder.
    """
    return carry_out(make_request(kind, words, options), say)


def plan_sweep(request: SweepRequest) -> list[Job]:
    """Every run of a sweep, composed and validated; nothing is read or written but the configurations. Raises as `run_sweep`."""
    return jobs_of(request, _folder(request))


def carry_out(request: SweepRequest, say: Say = print) -> SweepResult:
    """`run_sweep` for a request."""
    if request.draw:
        return draw_sweep(request)
    folder = _folder(request)
    jobs = jobs_of(request, folder)
    for job in jobs:
        job.check_folder()
    missing = [job for job in jobs if not job.is_finished]
    if request.dry_run:
        for job in jobs:
            say(job.line(resume=job.is_begun) if job in missing else f"# finished: {job.folder}")
        return SweepResult(folder, [], {}, None)
    from zoo.sweeps.processes import run_jobs

    say(f"{folder}: {len(jobs)} runs, {len(jobs) - len(missing)} of them finished before")
    failed = run_jobs(missing, request.jobs, folder / "logs", say)
    finished = [job for job in jobs if job.name not in failed]
    if not finished:
        return SweepResult(folder, [], failed, None)
    rows = _write_tables(request, folder, finished)
    figure = _draw(request, folder, rows)
    say(f"table and figure: {folder / TABLE}, {figure}")
    return SweepResult(folder, rows, failed, figure)


def draw_sweep(request: SweepRequest) -> SweepResult:
    """Draw the figure again from the tables of a folder; the runs themselves are not looked at.

    Raises:
        ZooError: where the folder has no table, or that of another kind.
    """
    if request.folder is None and not request.words:
        raise ZooError(f"zoo sweep {request.kind}: draw=true without the sweep's own words needs sweep.folder=FOLDER")
    folder = _folder(request)
    rows = read_rows(folder / TABLE)
    if rows[0].get("kind") != request.kind:
        raise ZooError(
            f"{folder / TABLE}: not a table of zoo sweep {request.kind} (kind: {rows[0].get('kind')}); pass another sweep.folder=..."
        )
    return SweepResult(folder, rows, {}, _draw(request, folder, rows))


def _folder(request: SweepRequest) -> Path:
    return Path(request.folder).expanduser() if request.folder is not None else default_folder(request)


def _write_tables(request: SweepRequest, folder: Path, jobs: Sequence[Job]) -> list[Row]:
    rows = [row_of(request.kind, job) for job in jobs]
    write_rows(folder / TABLE, rows)
    if request.the_kind.key is None:
        from zoo.sweeps.convergence import curve_rows

        write_rows(folder / CURVES, [row for job in jobs for row in curve_rows(request.kind, job)])
    return rows


def _draw(request: SweepRequest, folder: Path, rows: Sequence[Row]) -> Path:
    if request.the_kind.key is None:
        from zoo.sweeps.convergence import draw_curves

        return draw_curves(read_rows(folder / CURVES), request, folder / FIGURE)
    from zoo.sweeps.figures import draw_rows

    return draw_rows(rows, request, folder / FIGURE)
