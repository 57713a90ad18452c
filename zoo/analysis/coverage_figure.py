"""The treemap of a model's weights: what an adapter reaches, by role and path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.analysis.coverage import STATUSES, CoverageRow, Status
from zoo.analysis.treemap import Rectangle, squarified
from zoo.plots import COLOURS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 11.0, 7.0  # inches, and the units of the rectangles
_HEADING = 0.22
_FONT = 7.0  # points
_COLOURS: dict[Status, tuple[str, str, str]] = {  # face, hatch, text
    "adapted": (COLOURS["blue"], "", "white"),
    "output adapted": (COLOURS["sky"], "//", "black"),
    "not adapted": ("#E3E3E3", "", "black"),
    "not adaptable": ("#9A9A9A", "xx", "black"),
}
_NO_ROLE = "not adaptable"


def draw_coverage(rows: Sequence[CoverageRow], title: str, path: Path) -> Path:
    """One rectangle for each role, in it one for each path and status, of an area in proportion to the number of weights.

    Args:
        rows: of `zoo.analysis.coverage.coverage_rows`.
        title: of the figure.
        path: the PNG to write.

    Raises:
        ZooError: where the file cannot be written.
    """
    roles: dict[str, dict[tuple[str, Status], list[CoverageRow]]] = {}
    for row in rows:
        roles.setdefault(row.role or _NO_ROLE, {}).setdefault((row.path, row.status), []).append(row)
    figure = new_figure(_WIDTH, _HEIGHT + 0.9)
    axes = figure.add_subplot(1, 1, 1)
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(0, _HEIGHT)
    axes.axis("off")
    axes.set_title(title, fontsize=10, loc="left")
    total = sum(row.weights for row in rows)
    sizes = [sum(row.weights for leaf in leaves.values() for row in leaf) for leaves in roles.values()]
    for (role, leaves), size, box in zip(roles.items(), sizes, squarified(sizes, Rectangle(0, 0, _WIDTH, _HEIGHT)), strict=True):
        _draw_role(axes, role, size / total, leaves, box)
    _draw_legend(axes, rows, total)
    return save_figure(figure, path)


def _draw_role(axes: Axes, role: str, share: float, leaves: dict[tuple[str, Status], list[CoverageRow]], box: Rectangle) -> None:
    from matplotlib.patches import Rectangle as Patch

    heading = f"{role}  {_percent(share)}"
    fits = box.height > 3 * _HEADING and box.width > 0.085 * len(heading)
    inner = box.inset(0.03, _HEADING if fits else 0.0)
    if fits:
        axes.text(box.x + 0.05, box.y + box.height - 0.03, heading, fontsize=9, fontweight="bold", va="top")
    sizes = [sum(row.weights for row in leaf) for leaf in leaves.values()]
    for ((path, status), leaf), area in zip(leaves.items(), squarified(sizes, inner), strict=True):
        face, hatch, ink = _COLOURS[status]
        patch = Patch((area.x, area.y), area.width, area.height, facecolor=face, hatch=hatch, edgecolor="white", linewidth=0.8)
        axes.add_patch(patch)
        text = "\n".join(_label("" if fits else role, path, leaf, area))
        axes.text(area.x + area.width / 2, area.y + area.height / 2, text, fontsize=_FONT, color=ink, ha="center", va="center")


def _label(role: str, path: str, leaf: Sequence[CoverageRow], area: Rectangle) -> list[str]:
    """Role, path, number of blocks and of weights: those that fit into the rectangle, none behind one that does not."""
    count = sum(row.weights for row in leaf)
    lines = [role, *path.replace("->", "→").split(": "), f"{len(leaf)} block{'s' if len(leaf) > 1 else ''}", _short(count)]
    fits = [len(line) * 0.62 * _FONT / 72 < area.width for line in lines]
    shown = lines[: fits.index(False)] if False in fits else lines
    return [line for line in shown if line][: int(area.height / (1.35 * _FONT / 72))]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "< 0.1%"


def _short(count: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _draw_legend(axes: Axes, rows: Sequence[CoverageRow], total: int) -> None:
    from matplotlib.patches import Patch

    handles = []
    for status in STATUSES:
        count = sum(row.weights for row in rows if row.status == status)
        if count:
            face, hatch, _ = _COLOURS[status]
            label = f"{status}: {count:,} weights ({_percent(count / total)})"
            handles.append(Patch(facecolor=face, hatch=hatch, edgecolor="white", label=label))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4, frameon=False, fontsize=9)
