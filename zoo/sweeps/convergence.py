"""How fast methods converge: the validation of each run against its steps, and the figure of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo import plots
from zoo.data.frame import FloatArray
from zoo.errors import ZooError
from zoo.sweeps.figures import add_legend, draw_curve, finish, mean_and_spread, styles
from zoo.sweeps.jobs import Job
from zoo.sweeps.request import SweepRequest
from zoo.sweeps.table import Row, number, read_rows

_COLUMNS = {"loss": "valid_loss", "energy": "valid_energy_mae_mev_per_atom", "forces": "valid_force_mae_mev_per_angstrom"}


def curve_rows(kind: str, job: Job) -> list[Row]:
    """One row a validation of a run: who it is, the step, and what was validated."""
    history = read_rows(job.folder / "history.csv")
    who: Row = {"kind": kind, "run": job.name, "method": job.method, "seed": job.seed}
    return [
        who | {"step": int(number(row, "step"))} | {name.replace("/", "_"): row.get(name) for name in row if name.startswith("valid/")}
        for row in history
    ]


def draw_curves(rows: Sequence[Row], request: SweepRequest, path: Path) -> Path:
    """The figure: one panel a quantity, one curve a method, over the steps at which every seed was validated.

    Raises:
        ZooError: where the rows lack what a panel shows, or a method's seeds share no step.
    """
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    figure = plots.new_grid(len(request.panels), 1)
    for column, panel in enumerate(request.panels):
        axes = figure.add_subplot(1, len(request.panels), column + 1)
        for method, style in zip(methods, styles(len(methods)), strict=True):
            points = _points([row for row in rows if row["method"] == method], _COLUMNS[panel])
            draw_curve(axes, method, points, style, markers=len(points) < 30)
        metric = _COLUMNS[panel].removeprefix("valid_")
        axes.set_ylabel("validation loss" if panel == "loss" else f"validation: {plots.axis_label(metric)}")
        axes.set_xlabel(request.the_kind.axis)
        finish(axes)
    add_legend(figure, rows)
    return plots.save_figure(figure, path)


def _points(rows: Sequence[Row], column: str) -> FloatArray:
    """(S, 3) step, mean and standard deviation over the runs."""
    by_run: dict[str, dict[float, float]] = {}
    for row in rows:
        if np.isfinite(number(row, column)):
            by_run.setdefault(str(row["run"]), {})[number(row, "step")] = number(row, column)
    shared = sorted(set.intersection(*(set(curve) for curve in by_run.values()))) if by_run else []
    if not shared:
        raise ZooError(
            f"{rows[0]['method']}: the runs share no validated step with {column}; take the same training.validate_every, or leave it out"
        )
    return np.array([(step, *mean_and_spread([curve[step] for curve in by_run.values()])) for step in shared], dtype=np.float64)
