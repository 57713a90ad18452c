"""Rectangles whose areas are given numbers, as close to squares as they come.

M. Bruls, K. Huizing and J. J. van Wijk, "Squarified Treemaps", Data Visualization 2000: rows are laid along the shorter side of what is
left, and one more rectangle joins a row as long as that makes the row's worst aspect ratio better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rectangle:
    """Lower left corner and sides."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area(self) -> float:
        """Width times height."""
        return self.width * self.height

    @property
    def aspect_ratio(self) -> float:
        """The longer side over the shorter one."""
        return max(self.width / self.height, self.height / self.width)

    def inset(self, margin: float, top: float = 0.0) -> Rectangle:
        """What a margin on all sides, and ``top`` more above, leave; at most nine tenths of a side are taken."""
        width, height = max(self.width - 2 * margin, 0.1 * self.width), max(self.height - 2 * margin - top, 0.1 * self.height)
        return Rectangle(self.x + (self.width - width) / 2, self.y + min(margin, (self.height - height) / 2), width, height)


def squarified(sizes: Sequence[float], box: Rectangle) -> list[Rectangle]:
    """One rectangle for each size, in the order of the sizes; together they are the box.

    Args:
        sizes: above 0, in any unit.
        box: to be filled.
    """
    scale = box.area / sum(sizes) if sizes else 0.0
    order = sorted(range(len(sizes)), key=lambda place: -sizes[place])
    areas = [scale * sizes[place] for place in order]
    laid: list[Rectangle] = []
    while len(laid) < len(areas):
        row = _next_row(areas[len(laid) :], min(box.width, box.height))
        placed, box = _lay(row, box)
        laid.extend(placed)
    found = dict(zip(order, laid, strict=True))
    return [found[place] for place in range(len(sizes))]


def _next_row(areas: Sequence[float], side: float) -> Sequence[float]:
    """As many of the areas, which descend, as make the best row along a side."""
    count = 1
    while count < len(areas) and _worst(areas[: count + 1], side) <= _worst(areas[:count], side):
        count += 1
    return areas[:count]


def _worst(row: Sequence[float], side: float) -> float:
    """The largest aspect ratio in a row along a side."""
    total = sum(row)
    return max(side**2 * row[0] / total**2, total**2 / (side**2 * row[-1]))


def _lay(row: Sequence[float], box: Rectangle) -> tuple[list[Rectangle], Rectangle]:
    """The row's rectangles along the shorter side of the box, and the rest of the box."""
    placed, total = [], sum(row)
    if box.width >= box.height:  # a column at the left, from the top
        depth, y = total / box.height, box.y + box.height
        for area in row:
            y -= area / depth
            placed.append(Rectangle(box.x, y, depth, area / depth))
        return placed, Rectangle(box.x + depth, box.y, box.width - depth, box.height)
    depth, x = total / box.width, box.x
    for area in row:
        placed.append(Rectangle(x, box.y + box.height - depth, area / depth, depth))
        x += area / depth
    return placed, Rectangle(box.x, box.y, box.width, box.height - depth)
