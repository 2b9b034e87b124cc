"""Place labels near the points of a figure so that they cover as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

_DISTANCES = (9, 22, 38, 56, 76)  # pixels from point to text
_DIRECTIONS = (
    (1, 0),
    (-1, 0),
    (1, 1),
    (-1, -1),
    (1, -1),
    (-1, 1),
    (0, 1),
    (0, -1),
)  # of equal costs, the first wins
_MARKER = 5  # radius of a point in pixels


@dataclass(frozen=True)
class Label:
    """A text and the point (x, y) that it belongs to, in the units of the axes."""

    text: str
    x: float
    y: float


def place_labels(axes: Axes, labels: Sequence[Label], obstacles: npt.ArrayLike, colour: str) -> None:
    """Write each label near its point: clear of the other labels, inside the axes, over few obstacles.

    Args:
        axes: The axes. Everything else must be drawn already, because limits and layout must not change afterwards.
        labels: The labels, the most important first.
        obstacles: Further points, [n, 2], that should stay visible.
        colour: Colour of the line from a point to a distant label.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # lays it out
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    inside = axes.get_window_extent()
    points = axes.transData.transform([(label.x, label.y) for label in labels])
    others = axes.transData.transform(np.reshape(np.asarray(obstacles, np.float64), (-1, 2)))
    taken: list[Bbox] = []
    for label, point in zip(labels, points, strict=True):
        note = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 1, "shrinkB": _MARKER},
        )
        extent = note.get_window_extent(renderer)
        places = list(product(_DISTANCES, _DIRECTIONS))
        boxes = [_box(point, direction, distance, extent) for distance, direction in places]
        costs = [
            distance / 3 + _cost(box, inside, taken, points, others)
            for (distance, _), box in zip(places, boxes, strict=True)
        ]
        best = boxes[int(np.argmin(costs))]
        note.set_position(tuple(best.get_points().mean(0) - point))
        taken.append(best)


def _box(point: npt.NDArray[np.float64], direction: tuple[int, int], distance: int, extent: Bbox) -> Bbox:
    sides = np.asarray(direction)
    size = np.array([extent.width, extent.height])
    reach = distance / np.linalg.norm(sides) + size / 2
    centre = point + sides * reach
    return Bbox([centre - size / 2, centre + size / 2])


def _cost(
    box: Bbox,
    inside: Bbox,
    taken: Sequence[Bbox],
    points: npt.NDArray[np.float64],
    others: npt.NDArray[np.float64],
) -> int:
    outside: bool = inside.x0 > box.x0 or inside.x1 < box.x1 or inside.y0 > box.y0 or inside.y1 < box.y1
    collisions = int(box.count_overlaps(taken))
    points_covered, others_covered = (int(box.padded(_MARKER).count_contains(marks)) for marks in (points, others))
    return 1000 * (int(outside) + collisions) + 50 * points_covered + others_covered
