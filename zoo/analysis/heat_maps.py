"""Tables as coloured squares: 1 - R^2 by element and by path, norms by irrep.

Colours are on a logarithmic scale, darker for more. White is exactly zero, grey with a question mark undefined, light grey not there.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.analysis.channels import Channel
from zoo.analysis.correlation import PathRow, SpeciesRow
from zoo.analysis.sizes import IrrepRow
from zoo.plots import COLOURS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

_DECADES = 4  # below the largest value; what is smaller has the lightest colour
_UNDEFINED, _NOT_THERE = "#BBBBBB", "#EDEDED"
_MOST_WRITTEN = (30, 200)  # columns and cells with their number in them; more are too small to read
_LIGHTEST = 0.15  # of the colour map, so that a small change is told from none
_R2 = r"$1 - R^2$"


@dataclass(frozen=True)
class _Grid:
    """What is drawn: labels of rows and columns, and the value of each cell that is there, None where it is undefined."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Mapping[tuple[int, int], float | None]


def draw_r2_by_species(rows: Sequence[SpeciesRow], title: str, path: Path) -> Path:
    """Layers, roles and channels against elements, as Fig. 2 of the sparsity paper.

    Args:
        rows: at least one, of `zoo.analysis.correlation.correlations`.
        title: of the figure.
        path: the PNG to write.

    Raises:
        ZooError: where the file cannot be written.
    """
    species = list(dict.fromkeys(row.species for row in sorted(rows, key=_atomic_number)))
    places = [(row.layer, row.role, row.channel) for row in rows]
    grid = _grid(places, [row.species for row in rows], [row.one_minus_r2 for row in rows], columns=species)
    figure = new_figure(3.4 + 0.17 * max(len(species), 25), 1.5 + 0.27 * max(len(grid.rows), 2))
    axes = figure.add_subplot(1, 1, 1)
    _draw(figure, axes, grid, _R2)
    axes.tick_params(axis="x", labelsize=6 if len(species) > 20 else 8, rotation=90 if len(species) > 20 else 0)
    referenced = {row.species for row in rows if row.has_reference}
    for label in axes.get_xticklabels():
        if label.get_text() in referenced:
            label.set(fontweight="bold", color=COLOURS["vermilion"])
    bold = "; red: the adapter has a reference energy of it" if referenced else ""
    axes.set_title(f"{title}\nweights of single elements: layer, role and channel (s, p, d, ...) by element{bold}", fontsize=9, loc="left")
    return save_figure(figure, path)


def draw_r2_by_path(rows: Sequence[PathRow], title: str, path: Path) -> Path:
    """Layers against roles and channels, all elements together.

    Args:
        rows: at least one, of `zoo.analysis.correlation.correlations`.
        title: of the figure.
        path: the PNG to write.

    Raises:
        ZooError: where the file cannot be written.
    """
    order = sorted(rows, key=lambda row: (row.role, "spdfghiklmno-".find(row.channel[:1])))
    columns = list(dict.fromkeys(_column(row) for row in order))
    grid = _grid([(row.layer,) for row in rows], [_column(row) for row in rows], [row.one_minus_r2 for row in rows], columns=columns)
    figure = new_figure(2.2 + 0.5 * max(len(columns), 8), 2.2 + 0.33 * max(len(grid.rows), 4))
    axes = figure.add_subplot(1, 1, 1)
    _draw(figure, axes, grid, _R2)
    axes.tick_params(axis="x", rotation=90)
    axes.set_title(f"{title}\nall elements together: layer against role and channel ('-': no one degree)", fontsize=9, loc="left")
    return save_figure(figure, path)


def draw_irreps(rows: Sequence[IrrepRow], title: str, path: Path) -> Path:
    """Irreps against layers, roles joined: the norm of the change, over that of the weights and by itself.

    Args:
        rows: at least one, of `zoo.analysis.sizes.irrep_norms`.
        title: of the figure.
        path: the PNG to write.

    Raises:
        ZooError: where the file cannot be written.
    """
    sums: dict[tuple[int, str], list[float]] = {}
    for row in sorted(rows, key=lambda row: Channel(row.degree, row.parity, row.order).sort_key):
        pair = sums.setdefault((row.layer, row.irrep), [0.0, 0.0])
        pair[0] += row.delta_norm**2
        pair[1] += row.base_norm**2
    irreps = list(dict.fromkeys(irrep for _, irrep in sums))
    layers = sorted({layer for layer, _ in sums})
    figure = new_figure(3.2 + 0.95 * max(len(layers), 4), 1.9 + 0.3 * max(len(irreps), 4))
    kinds = (("|dW| / |W|", [(d / b) ** 0.5 if b > 0 else None for d, b in sums.values()]), ("|dW|", [d**0.5 for d, _ in sums.values()]))
    for place, (name, values) in enumerate(kinds):
        axes = figure.add_subplot(1, 2, place + 1)
        cells = {(irreps.index(irrep), layers.index(layer)): value for (layer, irrep), value in zip(sums, values, strict=True)}
        _draw(figure, axes, _Grid(irreps, [str(layer) for layer in layers], cells), name)
        axes.set_xlabel("layer")
        axes.set_ylabel("" if place else "irrep of the outputs")
    figure.suptitle(f"{title}\nadapted weights by irrep ('none': no one degree)", fontsize=9, x=0.01, ha="left")
    return save_figure(figure, path)


def _column(row: PathRow) -> str:
    return f"{row.role} {row.channel}"


def _atomic_number(row: SpeciesRow) -> int:
    from ase.data import atomic_numbers

    return int(atomic_numbers[row.species])


def _grid(places: Sequence[tuple[Hashable, ...]], names: Sequence[str], values: Sequence[float | None], columns: Sequence[str]) -> _Grid:
    """Rows in the order in which they come, labelled by their parts, the first of which is a layer."""
    rows = list(dict.fromkeys(places))
    row_of, column_of = ({key: place for place, key in enumerate(keys)} for keys in (rows, columns))
    cells = {(row_of[place], column_of[name]): value for place, name, value in zip(places, names, values, strict=True)}
    return _Grid(["layer " + "  ".join(map(str, place)) for place in rows], columns, cells)


def _draw(figure: Figure, axes: Axes, grid: _Grid, name: str) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, LogNorm

    shape = (len(grid.rows), len(grid.columns))
    image = np.full(shape, np.nan)
    for place, value in grid.values.items():
        if value is None or value == 0:
            edges = {"facecolor": _UNDEFINED if value is None else "white", "edgecolor": "#DDDDDD", "linewidth": 0.4}
            axes.add_patch(_square(place, **edges))
        else:
            image[place] = value
    found = image[np.isfinite(image)]
    highest = float(found.max()) if found.size else 1.0
    lowest = max(float(found.min()) if found.size else 0.1, highest * 10.0**-_DECADES)
    lowest = min(lowest, 0.5 * highest)
    norm = LogNorm(lowest, highest, clip=True)
    colours = ListedColormap(colormaps["Blues"](np.linspace(_LIGHTEST, 1.0, 256)))
    axes.set_facecolor(_NOT_THERE)
    drawn = axes.imshow(image, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    axes.set_xlim(-0.5, shape[1] - 0.5)
    axes.set_ylim(shape[0] - 0.5, -0.5)
    axes.set_xticks(range(shape[1]), grid.columns, fontsize=8)
    axes.set_yticks(range(shape[0]), grid.rows, fontsize=8)
    bar = figure.colorbar(drawn, ax=axes, label=f"{name} (white: unchanged)", shrink=0.9, pad=0.015)
    narrow = highest < 10 * lowest  # less than a decade: its smaller ticks may be all there are
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    bar.ax.yaxis.set_minor_formatter(lambda value, _: f"{value:.2g}" if narrow else "")
    if shape[1] <= _MOST_WRITTEN[0] and len(grid.values) <= _MOST_WRITTEN[1]:
        for (row, column), value in grid.values.items():
            dark = value is not None and value > 0 and norm(value) > 0.6
            text = "?" if value is None else "0" if value == 0 else f"{value:.0e}" if value < 0.001 else f"{value:.2g}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")


def _square(place: tuple[int, int], **style: object) -> Patch:
    from matplotlib.patches import Rectangle

    return Rectangle((place[1] - 0.5, place[0] - 0.5), 1, 1, **style)  # type: ignore[arg-type]
