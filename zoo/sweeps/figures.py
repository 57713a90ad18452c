"""The figure of a sweep from its table: one curve a method, means over seeds with a band of one standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo import plots
from zoo.data.frame import FloatArray
from zoo.errors import ZooError, nearest_name_hint
from zoo.sweeps.jobs import value_text
from zoo.sweeps.kinds import Kind, Value
from zoo.sweeps.request import SweepRequest
from zoo.sweeps.table import Row, number, test_sets_of, value_of

# Okabe and Ito's, without yellow, which is faint on white; a marker and a line each, so that colour is never the only difference
_STYLES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "-"),
    ("#56B4E9", "P", "--"),
    ("#000000", "X", "-."),
    ("#666666", "*", ":"),
)
_FAR_APART = 10.0  # values this far apart are drawn on a logarithmic axis
_MOST_TICKS = 12
_OF_A_TEST = ("energy", "forces", "forces_against_sparsity")


def draw_rows(rows: Sequence[Row], request: SweepRequest, path: Path) -> Path:
    """The figure of a sweep over values.

    Args:
        rows: of ``sweep.csv``.
        request: its kind, panels, test sets and metrics.
        path: the PNG to write.

    Raises:
        ZooError: where the rows lack what a panel shows.
    """
    kind, tests = request.the_kind, _tests(rows, request)
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    figure = plots._figure(len(request.panels), len(tests))
    for line, test in enumerate(tests):
        for column, panel in enumerate(request.panels):
            if line and panel not in _OF_A_TEST:
                continue  # the same for every test set
            axes = figure.add_subplot(len(tests), len(request.panels), line * len(request.panels) + column + 1)
            x, y = _quantities(panel, test, request)
            for method, style in zip(methods, styles(len(methods)), strict=True):
                draw_curve(axes, method, _points([row for row in rows if row["method"] == method], x, y), style)
            _label(axes, panel, test, request)
            _scale(axes, kind, panel, sorted({value for row in rows if (value := value_of(row)) is not None}))
            finish(axes, seeds_note(rows) if not line and not column else "")
    return plots._save(figure, path)


def styles(count: int) -> list[tuple[str, str, str]]:
    """A colour, marker and line for each of so many curves."""
    return [_STYLES[index % len(_STYLES)] for index in range(count)]


def draw_curve(axes: Any, label: str, points: FloatArray, style: tuple[str, str, str], *, markers: bool = True) -> None:
    """A curve with its band.

    Args:
        axes: of matplotlib.
        label: for the legend.
        points: (P, 3): x, mean and standard deviation of y; the band is left out where that is 0.
        style: of `styles`.
        markers: whether the points are marked.
    """
    colour, marker, line = style
    x, mean, spread = points.T
    axes.plot(x, mean, line, color=colour, marker=marker if markers else "", markersize=5, linewidth=1.5, label=label)
    if (spread > 0).any():
        axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the standard deviation of a sample (0 of a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def seeds_note(rows: Sequence[Row]) -> str:
    """``3 seeds: mean ± standard deviation``; empty where there is one."""
    seeds = len({row["seed"] for row in rows})
    return f"{seeds} seeds: mean ± standard deviation" if seeds > 1 else ""


def finish(axes: Any, title: str) -> None:
    """Grid, legend, title, and a logarithmic vertical axis where means are far apart and none is below 0."""
    means = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    if means.min() > 0 and means.max() / means.min() > _FAR_APART:
        low = axes.get_ylim()[0]
        axes.set_yscale("log")
        axes.set_ylim(bottom=means.min() / 1.5 if low <= 0 else None)  # a band may reach below 0, where this axis ends
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(title, fontsize=9)


def _tests(rows: Sequence[Row], request: SweepRequest) -> list[str]:
    known = test_sets_of(rows)
    for name in request.test_sets:
        if name not in known:
            raise ZooError(f"test_sets: the runs have no {name!r}; {nearest_name_hint(name, known)}")
    return list(request.test_sets) or known[:1]


def _quantities(panel: str, test: str, request: SweepRequest) -> tuple[Callable[[Row], float], Callable[[Row], float]]:
    """What a panel draws along x and along y."""

    def cell(column: str, factor: float = 1.0) -> Callable[[Row], float]:
        return lambda row: factor * number(row, column)

    ordinates = {
        "loss": cell("valid_loss"),
        "energy": cell(f"{test}/{request.energy_metric}"),
        "forces": cell(f"{test}/{request.force_metric}"),
        "forces_against_sparsity": cell(f"{test}/{request.force_metric}"),
        "sparsity": cell("sparsity_layerwise", 100.0),
        "parameters": lambda row: 100 * number(row, "trainable_count") / number(row, "base_parameter_count"),
    }
    return (ordinates["sparsity"] if panel == "forces_against_sparsity" else cell("value")), ordinates[panel]


def _points(rows: Sequence[Row], x: Callable[[Row], float], y: Callable[[Row], float]) -> FloatArray:
    """(P, 3) mean of x, mean and standard deviation of y over the seeds of each value, in the order of the values."""
    points = []
    for value in sorted({number(row, "value") for row in rows}):
        pairs = np.array([(x(row), y(row)) for row in rows if number(row, "value") == value])
        if np.isfinite(pairs).all():
            points.append((pairs[:, 0].mean(), *mean_and_spread(pairs[:, 1].tolist())))
    if not points:
        raise ZooError(
            f"{rows[0]['method']}: the runs have nothing of what a panel shows; leave it out: show=[...], or name another metric"
        )
    return np.array(points, dtype=np.float64)


def _label(axes: Any, panel: str, test: str, request: SweepRequest) -> None:
    metric = request.energy_metric if panel == "energy" else request.force_metric
    words = {"loss": "lowest validation loss", "sparsity": "layer-wise sparsity (%)", "parameters": "trained parameters (% of the base's)"}
    axes.set_ylabel(words.get(panel) or f"{test}: {plots._axis_label(metric)}")
    axes.set_xlabel(words["sparsity"] if panel == "forces_against_sparsity" else request.the_kind.axis)


def _scale(axes: Any, kind: Kind, panel: str, values: Sequence[Value]) -> None:
    """A logarithmic axis of values that names each of them, with 0 at its left end where it is one."""
    positive = [value for value in values if value > 0]
    if panel == "forces_against_sparsity" or len(positive) < 2 or positive[0] != values[-len(positive)]:
        return
    if len(positive) == len(values):
        axes.set_xscale("log", base=2 if kind.name == "rank" else 10)
    else:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    if len(values) <= _MOST_TICKS:
        axes.set_xticks(list(values), [value_text(value) for value in values], rotation=45 if len(values) > 5 else 0)
        axes.minorticks_off()
