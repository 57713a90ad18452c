"""One mark or line for each block: stable ranks, singular values, zeros of the deltas, by layer and role."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.analysis.sizes import SparsityRow
from zoo.analysis.spectra import SingularValueRow, StableRankRow
from zoo.plots import COLOURS, GREY, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vP*Xd"  # more than there are colours, so that a role is told by either
_SMALLEST = 1e-8  # of a normalised singular value that is drawn


def draw_stable_ranks(rows: Sequence[StableRankRow], title: str, path: Path) -> Path:
    """The stable rank of each block's delta by layer, and its rank as a grey dash, as Fig. 6 of the ELoRA paper.

    Args:
        rows: at least one, of `zoo.analysis.spectra.spectra`.
        title: of the figure.
        path: the PNG to write.

    Raises:
        ZooError: where the file cannot be written.
    """
    ordered = sorted(rows, key=lambda row: row.layer)
    layers = np.array([row.layer for row in ordered])
    figure = new_figure(10.5, 4.8)
    axes = figure.add_subplot(1, 1, 1)
    places = np.arange(len(ordered))
    axes.scatter(places, [max(row.rank, 0.5) for row in ordered], marker="_", s=40, color=GREY, linewidths=1, label="rank")
    for style, role in _styles(row.role for row in ordered):
        chosen = [place for place, row in enumerate(ordered) if row.role == role and row.stable_rank > 0]
        axes.scatter(chosen, [ordered[place].stable_rank for place in chosen], label=role, s=22, **style)
    _mark_layers(axes, layers)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel(r"stable rank $\|dW\|_F^2 / \|dW\|_2^2$")
    axes.set_title(f"{title}\nstable rank of each block's delta, in the order of the layers", fontsize=9, loc="left")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return save_figure(figure, path)


def draw_singular_values(rows: Sequence[SingularValueRow], title: str, path: Path) -> Path:
    """One panel a role, one line a matrix: singular values over the largest, coloured by layer.

    Args:
        rows: at least one, of `zoo.analysis.spectra.spectra`.
        title: of the figure.
        path: the PNG to write.

    Raises:
        ZooError: where the file cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm

    lines: dict[str, dict[tuple[str, str, int], list[SingularValueRow]]] = {}
    for row in rows:
        lines.setdefault(row.role, {}).setdefault((row.parameter, row.block, row.matrix), []).append(row)
    lowest = min(0.1, max(_SMALLEST, min(row.normalised for row in rows)))
    layers = sorted({row.layer for row in rows})
    colours = ScalarMappable(BoundaryNorm(np.arange(layers[0], layers[-1] + 2) - 0.5, 256), colormaps["cividis"])
    columns = min(4, len(lines))
    figure = new_figure(max(3.4 * columns + 1.2, 6.6), 2.9 * -(-len(lines) // columns) + 0.5)
    for place, (role, matrices) in enumerate(sorted(lines.items())):
        axes = figure.add_subplot(-(-len(lines) // columns), columns, place + 1)
        for members in matrices.values():
            shown = [row for row in members if row.normalised >= _SMALLEST]
            style = {"marker": "."} if len(shown) == 1 else {"linewidth": 1.0}
            colour = colours.to_rgba(members[0].layer)  # type: ignore[arg-type]
            axes.plot([row.index for row in shown], [row.normalised for row in shown], color=colour, alpha=0.8, **style)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_yscale("log")
        axes.set_ylim(0.7 * lowest, 1.5)
        axes.set_title(f"{role} ({len(matrices)})", fontsize=9)
        axes.set_xlabel("index")
        axes.set_ylabel(r"$\sigma_i / \sigma_1$" if place % columns == 0 else "")
        axes.grid(True, alpha=0.25)
    figure.colorbar(colours, ax=figure.axes, label="layer", ticks=layers, shrink=0.8)
    figure.suptitle(f"{title}\nsingular values of each delta over the largest, by role (number of matrices)", fontsize=9, x=0.01, ha="left")
    return save_figure(figure, path)


def draw_sparsity(rows: Sequence[SparsityRow], title: str, path: Path) -> Path:
    """The share of zeros in each parameter's delta by layer, and beside it the thresholds where the method has any.

    Args:
        rows: at least one, of `zoo.analysis.sizes.sparsities`.
        title: of the figure.
        path: the PNG to write.

    Raises:
        ZooError: where the file cannot be written.
    """
    ordered = sorted(rows, key=lambda row: row.layer)
    sparse = any(row.threshold is not None for row in ordered)
    figure = new_figure(10.5, 6.4 if sparse else 4.0)
    upper = figure.add_subplot(2 if sparse else 1, 1, 1)
    _scatter(upper, ordered, [row.sparsity for row in ordered])
    upper.set_ylim(-0.03, 1.03)
    upper.set_ylabel("zeros in the delta, share")
    share = sum(row.zeros for row in ordered) / sum(row.adapted for row in ordered)
    upper.axhline(share, color=GREY, linewidth=0.9, linestyle="--", label=f"all: {share:.1%}")
    upper.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    upper.set_title(f"{title}\nshare of adapted weights that stay as they were, one mark a parameter", fontsize=9, loc="left")
    if sparse:
        lower = figure.add_subplot(2, 1, 2)
        _scatter(lower, ordered, [row.threshold or float("nan") for row in ordered])
        found = [row.threshold for row in ordered if row.threshold is not None]
        lower.set_ylim(0.5 * min(found), 2 * max(found))
        lower.set_yscale("log")
        lower.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if max(found) < 5 * min(found) else "")
        lower.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        lower.set_ylabel(r"threshold sigmoid($\tau$)")
    return save_figure(figure, path)


def _scatter(axes: Axes, ordered: Sequence[SparsityRow], values: Sequence[float]) -> None:
    for style, role in _styles(row.role for row in ordered):
        chosen = [place for place, row in enumerate(ordered) if row.role == role]
        axes.scatter(chosen, [values[place] for place in chosen], label=role, s=22, **style)
    _mark_layers(axes, np.array([row.layer for row in ordered]))


def _styles(roles: Iterable[str]) -> list[tuple[dict[str, Any], str]]:
    colours = list(COLOURS.values())
    names = sorted(set(roles))
    return [({"color": colours[place % len(colours)], "marker": _MARKERS[place % len(_MARKERS)]}, role) for place, role in enumerate(names)]


def _mark_layers(axes: Axes, layers: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    """Every second layer shaded, each named once below."""
    names = sorted(set(layers.tolist()))
    middles = []
    for place, layer in enumerate(names):
        members = np.flatnonzero(layers == layer)
        middles.append(float(members.mean()))
        if place % 2:
            axes.axvspan(members[0] - 0.5, members[-1] + 0.5, color="#000000", alpha=0.05, linewidth=0)
    axes.set_xticks(middles, [str(layer) for layer in names])
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_xlabel("layer")
    axes.grid(True, axis="y", alpha=0.25)
