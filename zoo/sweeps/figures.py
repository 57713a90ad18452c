"""The figure of a sweep from its table: one curve a method, means over seeds with a band of one standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo import plots
from zoo.data.frame import FloatArray
from zoo.errors import ZooError, nearest_name_hint
from zoo.sweeps.jobs import value_text
from zoo.sweeps.kinds import Kind, Value
from zoo.sweeps.request import SweepRequest
from zoo.sweeps.table import Row, number, test_sets_of, value_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
_AGAINST_SPARSITY = "forces_against_sparsity"
_OF_A_TEST = ("energy", "forces", _AGAINST_SPARSITY)


def draw_rows(rows: Sequence[Row], request: SweepRequest, path: Path) -> Path:
    """The figure of a sweep over values.

    Args:
        rows: of ``sweep.csv``.
        request: its kind, panels, test sets and metrics.
        path: the PNG to write.

    Raises:
        ZooError: where the rows lack what a panel shows.
    """
    tests = _tests(rows, request)
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    # what is of no test set is the same for each of them
    panels = [(panel, test) for test in tests for panel in request.panels if panel in _OF_A_TEST or test == tests[0]]
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    figure = plots.new_grid(columns, -(-len(panels) // columns))
    for place, (panel, test) in enumerate(panels):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, place + 1)
        for method, style in zip(methods, styles(len(methods)), strict=True):
            _draw_method(axes, [row for row in rows if row["method"] == method], panel, test, request, style)
        _label(axes, panel, test, request)
        if panel != _AGAINST_SPARSITY:
            _scale(axes, request.the_kind, sorted({value for row in rows if (value := value_of(row)) is not None}))
        finish(axes)
    add_legend(figure, rows)
    return plots.save_figure(figure, path)


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


def add_legend(figure: Figure, rows: Sequence[Row]) -> None:
    """One legend above all panels, which says what the bands are where there are several seeds."""
    seeds = len({row["seed"] for row in rows})
    handles, labels = figure.axes[0].get_legend_handles_labels()
    title = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else None
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 2 * len(figure.axes)), frameon=False, title=title)


def finish(axes: Any) -> None:
    """Grid, and a logarithmic vertical axis where means are far apart and none is below 0."""
    from matplotlib.ticker import LogFormatter

    means = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    if means.min() > 0 and means.max() / means.min() > _FAR_APART:
        low = axes.get_ylim()[0]
        axes.set_yscale("log")
        axes.set_ylim(bottom=means.min() / 1.5 if low <= 0 else None)  # a band may reach below 0, where this axis ends
        for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))  # 40 and not 4 x 10^1
    axes.grid(True, which="both", alpha=0.25)


def _tests(rows: Sequence[Row], request: SweepRequest) -> list[str]:
    known = test_sets_of(rows)
    for name in request.test_sets:
        if name not in known:
            raise ZooError(f"test_sets: the runs have no {name!r}; {nearest_name_hint(name, known)}")
    return list(request.test_sets) or known[:1]


def _draw_method(axes: Any, rows: Sequence[Row], panel: str, test: str, request: SweepRequest, style: tuple[str, str, str]) -> None:
    method, values, quantity = str(rows[0]["method"]), sorted({number(row, "value") for row in rows}), _quantity(panel, test, request)
    groups = [[row for row in rows if number(row, "value") == value] for value in values]
    points = np.array([mean_and_spread([quantity(row) for row in group]) for group in groups])  # (V, 2)
    known = np.isfinite(points).all(axis=1)
    if not known.any():
        raise ZooError(
            f"{method}: the runs have nothing of what the panel {panel!r} shows; leave it out: show=[...], or name another metric"
        )
    if panel != _AGAINST_SPARSITY:
        draw_curve(axes, method, np.column_stack([values, points])[known], style)
        return
    colour, marker, line = style
    sparsity = [mean_and_spread([_sparsity(row) for row in group])[0] for group in groups]
    axes.errorbar(
        sparsity, points[:, 0], points[:, 1], color=colour, marker=marker, linestyle=line, markersize=5, linewidth=1, label=method
    )
    for end in {0, len(values) - 1}:  # which end is which
        axes.annotate(
            f"{values[end]:g}", (sparsity[end], points[end, 0]), textcoords="offset points", xytext=(5, 5), fontsize=8, color=colour
        )


def _quantity(panel: str, test: str, request: SweepRequest) -> Callable[[Row], float]:
    """What a panel draws of a run."""
    quantities: dict[str, Callable[[Row], float]] = {
        "loss": lambda row: number(row, "valid_loss"),
        "energy": lambda row: number(row, f"{test}/{request.energy_metric}"),
        "forces": lambda row: number(row, f"{test}/{request.force_metric}"),
        _AGAINST_SPARSITY: lambda row: number(row, f"{test}/{request.force_metric}"),
        "sparsity": _sparsity,
        "parameters": lambda row: 100 * number(row, "trainable_count") / number(row, "base_parameter_count"),
    }
    return quantities[panel]


def _sparsity(row: Row) -> float:
    return 100 * number(row, "sparsity_layerwise")


def _label(axes: Any, panel: str, test: str, request: SweepRequest) -> None:
    metric = request.energy_metric if panel == "energy" else request.force_metric
    words = {"loss": "lowest validation loss", "sparsity": "layer-wise sparsity (%)", "parameters": "trained parameters (% of the base's)"}
    axes.set_ylabel(words.get(panel) or f"{test}: {plots.axis_label(metric)}")
    axes.set_xlabel(words["sparsity"] if panel == _AGAINST_SPARSITY else request.the_kind.axis)


def _scale(axes: Any, kind: Kind, values: Sequence[Value]) -> None:
    """A logarithmic axis of values that names each of them, with 0 at its left end where it is one."""
    positive = [value for value in values if value > 0]
    if len(positive) < 2 or values[0] < 0:
        return
    if len(positive) == len(values):
        axes.set_xscale("log", base=2 if kind.name == "rank" else 10)
    else:
        axes.set_xscale("symlog", linthresh=positive[0])
    if len(values) <= _MOST_TICKS:
        axes.set_xticks(list(values), [value_text(value) for value in values], rotation=45 if len(values) > 5 else 0)
        axes.minorticks_off()
