"""PNG plots of a run: learning curves, and parity of energies and forces before and after fine-tuning.

matplotlib is imported only when a plot is drawn. Colours are Okabe and Ito's, told apart by all common forms of colour blindness, and
zero-shot and fine-tuned also differ in marker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.frame import FloatArray, Frame
from zoo.errors import ZooError
from zoo.evaluation.metrics import METRICS, force_rmse_mev_per_angstrom
from zoo.evaluation.predictions import Predictions, check_same_frames
from zoo.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "vermilion": "#D55E00", "purple": "#CC79A7", "sky": "#56B4E9"}
GREY = "#666666"
_BLUE, _ORANGE, _GREEN, _GREY = COLOURS["blue"], COLOURS["orange"], COLOURS["green"], GREY
_SPLIT_STYLES = {"train": (_BLUE, "-"), "valid": (_ORANGE, "--"), "test": (_GREEN, ":")}
_SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
_LEARNING_RATE = "learning rate"
_FEW_POINTS = 500
_MOST_POINTS = 20_000  # more dots than this print as one blot and take seconds to draw


def plot_learning_curves(rows: Sequence[Mapping[str, Any]], path: Path, *, x: str = "step") -> Path:
    """One panel a logged quantity, one curve a split, on a logarithmic axis but for the learning rate.

    Args:
        rows: of the metrics CSV. Columns are ``<split>/<quantity>`` or ``<split>_<quantity>`` with split train, valid (val) or test; the
            quantity's name in `METRICS` gives the axis its words and unit. Of other columns only ``lr`` (``learning_rate``) is drawn.
        path: the PNG to write.
        x: the column of the horizontal axis.

    Raises:
        ZooError: when no column can be drawn, or the file cannot be written.
    """
    panels = _curves_by_quantity(rows, x)
    if not panels:
        found = ", ".join(sorted({column for row in rows for column in row})) or "no rows"
        raise ZooError(f"{path}: nothing to plot; wanted columns such as {x!r} and 'valid/force_mae_mev_per_angstrom' (found: {found})")
    columns = min(3, len(panels))
    figure = new_grid(columns, -(-len(panels) // columns))
    for index, (quantity, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, index + 1)
        for split, points in curves.items():
            colour, line = _SPLIT_STYLES.get(split, (_GREY, "-"))
            marker = "o" if len(points) < 30 else ""
            axes.plot(points[:, 0], points[:, 1], line, color=colour, label=split or None, marker=marker, markersize=3, linewidth=1.5)
        if quantity != _LEARNING_RATE and all((points[:, 1] > 0).all() for points in curves.values()):
            axes.set_yscale("log")
        axes.set_xlabel(x)
        axes.set_ylabel(axis_label(quantity))
        axes.grid(True, which="both", alpha=0.25)
        if any(curves):
            axes.legend(frameon=False)
    return save_figure(figure, path)


def plot_energy_parity(path: Path, labels: Sequence[Frame], fine_tuned: Predictions, zero_shot: Predictions | None = None) -> Path:
    """Predicted against reference energy per atom, both relative to the mean reference.

    The zero-shot model refers its energies to other isolated atoms, so its mean error per atom is subtracted and named in the legend;
    nothing is subtracted from the fine-tuned model.

    Args:
        path: the PNG to write.
        labels: frames without an energy are left out.
        fine_tuned: predictions for the same frames.
        zero_shot: those of the base, if they are to be shown.

    Raises:
        ZooError: when no frame has an energy, predictions do not match, or the file cannot be written.
    """
    known = np.array([frame.has_energy for frame in labels], dtype=bool)
    if not known.any():
        raise ZooError(f"{path}: no frame has an energy to compare with; leave the energy plot out")
    atom_counts = np.array([len(frame) for frame in labels])[known]
    reference = np.array([frame.energy for frame in labels])[known] / atom_counts  # (F',)
    series = []
    for name, predictions in _named(fine_tuned, zero_shot, labels):
        predicted = predictions.energies[known] / atom_counts
        label = name
        if name == "zero-shot":
            offset = float(np.mean(predicted - reference))
            predicted = predicted - offset
            label = f"zero-shot, {offset:+.4g} eV/atom removed"
        rmse = 1000 * float(np.sqrt(np.mean((predicted - reference) ** 2)))
        series.append((name, f"{label}: RMSE {rmse:.3g} meV/atom", reference - reference.mean(), predicted - reference.mean()))
    return _parity(path, series, "energy − mean reference (eV/atom)")


def plot_force_parity(path: Path, labels: Sequence[Frame], fine_tuned: Predictions, zero_shot: Predictions | None = None) -> Path:
    """Predicted against reference force components; of more than 20,000 an even selection is drawn, the RMSE is of all.

    Held atoms have no part in either.

    Args:
        path: the PNG to write.
        labels: frames without forces are left out.
        fine_tuned: predictions for the same frames.
        zero_shot: those of the base, if they are to be shown.

    Raises:
        ZooError: when no frame has forces, predictions do not match, or the file cannot be written.
    """
    if not any(frame.has_forces for frame in labels):
        raise ZooError(f"{path}: no frame has forces to compare with; leave the force plot out")
    reference = np.concatenate([frame.forces[frame.free].ravel() for frame in labels if frame.has_forces])  # (M,)
    shown = np.linspace(0, len(reference) - 1, min(len(reference), _MOST_POINTS)).astype(int)
    series = []
    for name, predictions in _named(fine_tuned, zero_shot, labels):
        pairs = zip(predictions.forces, labels, strict=True)
        predicted = np.concatenate([forces[frame.free].ravel() for forces, frame in pairs if frame.has_forces])
        label = f"{name}: RMSE {force_rmse_mev_per_angstrom(predicted - reference):.3g} meV/Å"
        series.append((name, label, reference[shown], predicted[shown]))
    return _parity(path, series, "force component (eV/Å)")


def _named(fine_tuned: Predictions, zero_shot: Predictions | None, labels: Sequence[Frame]) -> list[tuple[str, Predictions]]:
    """Zero-shot first, so that it is drawn beneath."""
    named = [("fine-tuned", fine_tuned)] if zero_shot is None else [("zero-shot", zero_shot), ("fine-tuned", fine_tuned)]
    for _, predictions in named:
        check_same_frames(predictions, labels)
    return named


def _parity(path: Path, series: list[tuple[str, str, FloatArray, FloatArray]], quantity: str) -> Path:
    figure = new_grid(1, 1)
    axes = figure.add_subplot(1, 1, 1)
    ends = np.array([[values.min(), values.max()] for _, _, x, y in series for values in (x, y)])
    low, high = ends[:, 0].min(), ends[:, 1].max()
    margin = 0.04 * max(high - low, 1e-6)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=_GREY, linewidth=0.8, zorder=0)
    for name, label, reference, predicted in series:
        colour, marker = (_ORANGE, "^") if name == "zero-shot" else (_BLUE, "o")
        size, alpha = (4, 0.3) if len(reference) > _FEW_POINTS else (16, 0.7)
        axes.scatter(reference, predicted, s=size, alpha=alpha, color=colour, marker=marker, label=label, linewidths=0)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.locator_params(nbins=6)
    axes.set_xlabel(f"reference {quantity}")
    axes.set_ylabel(f"predicted {quantity}")
    axes.grid(True, alpha=0.25)
    marker_scale = 3.0 if len(series[0][2]) > _FEW_POINTS else 1.5
    legend = axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), markerscale=marker_scale)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    return save_figure(figure, path)


def _curves_by_quantity(rows: Sequence[Mapping[str, Any]], x: str) -> dict[str, dict[str, FloatArray]]:
    """``{quantity: {split: (K, 2) points}}``, losses first, then in the order of the columns."""
    columns = dict.fromkeys(column for row in rows for column in row)
    panels: dict[str, dict[str, FloatArray]] = {}
    for column in columns:
        place = _split_and_quantity(column)
        pairs = [(_number(row.get(x)), _number(row.get(column))) for row in rows] if place else []
        points = np.array([pair for pair in pairs if np.isfinite(pair).all()], dtype=np.float64)
        if place and len(points):
            split, quantity = place
            panels.setdefault(quantity, {})[split] = points
    return dict(sorted(panels.items(), key=lambda item: item[0] != "loss"))


def _split_and_quantity(column: str) -> tuple[str, str] | None:
    if column in ("lr", "learning_rate") or column.startswith("lr-"):
        return "", _LEARNING_RATE
    for separator in ("/", "_"):
        split, found, quantity = column.partition(separator)
        if found and split in _SPLIT_NAMES:
            return _SPLIT_NAMES[split], quantity
    return None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def axis_label(quantity: str) -> str:
    """Words and unit of a metric's axis; of another quantity its name."""
    metric = METRICS.get(quantity)
    if metric is None:
        return quantity.replace("_", " ")
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


def new_grid(columns: int, rows: int) -> Figure:
    """An empty figure with room for ``columns`` by ``rows`` panels."""
    return new_figure(5.2 * columns, 4.6 * rows)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, to be filled and handed to `save_figure`."""
    # Figure and the Agg canvas directly: pyplot would keep global state and may look for a display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all; raises `ZooError` where it cannot be written."""
    write_atomically(path, lambda partial: figure.savefig(partial, format="png", dpi=150))
    return path
